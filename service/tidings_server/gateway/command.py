"""`tidings-server gateway`: the HTTP face alone, for a gRPC port that is somewhere else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import grpc
import structlog

from tidings import AsyncClient, TidingsError
from tidings.v1.event_service_pb2 import GetEventRequest
from tidings_server.config import GatewayConfig
from tidings_server.gateway.app import create_app
from tidings_server.gateway.http_server import serve_http

log = structlog.get_logger()


class Refused(Exception):
    """The gateway cannot start with this configuration. The text says how to mend it."""


async def run(config: GatewayConfig, stop_asked: Callable[[], Awaitable[object]]) -> None:
    """Serve HTTP until a stop is asked for. Raises Refused, CannotListen."""
    if config.http_port == "off":
        raise Refused("a gateway without HTTP has nothing to do: give --http-port a port")
    async with AsyncClient(config.target, credentials=_credentials(config), insecure=config.target_insecure) as client:
        if not config.is_loopback:
            await _check_keys(client, config)
        async with serve_http(create_app(client, config), config.http_host, config) as port:
            log.info("serving", target=config.target, http_host=config.http_host, http_port=port)
            await stop_asked()


async def _check_keys(client: AsyncClient, config: GatewayConfig) -> None:
    """Refuse to open a deployment without keys, which serves its own machine only, to a network."""
    try:
        await client.events.GetEvent(GetEventRequest(event_id="-"))
    except TidingsError as error:
        if error.code() == grpc.StatusCode.UNAUTHENTICATED:
            return
        if error.code() != grpc.StatusCode.NOT_FOUND:
            raise Refused(f"cannot tell whether {config.target} has API keys: {error}") from error
    raise Refused(
        f"{config.target} has no API key, and without one the gateway does not listen on {config.http_host}: "
        "create one with `tidings-server keys create --project NAME`, or listen on 127.0.0.1"
    )


def _credentials(config: GatewayConfig) -> grpc.ChannelCredentials | None:
    return grpc.ssl_channel_credentials(config.target_ca.read_bytes()) if config.target_ca else None
