"""Serving the application: uvicorn, started and stopped by whoever runs it."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from tidings_server.config import HttpConfig

CONNECTIONS_MAX: Final = 10_000
KEEP_ALIVE_SECONDS: Final = 75
STALL_MILLISECONDS: Final = 60_000
"""How long a reader may take nothing before the connection is cut: what is sent to it waits in our memory."""
STOP_SECONDS: Final = 1
HEAD_BYTES_MAX: Final = 32 * 1024


class CannotListen(Exception):
    """The HTTP port cannot be had. The text says which."""


@asynccontextmanager
async def serve_http(app: ASGIApp, host: str, config: HttpConfig) -> AsyncIterator[int]:
    """Serve at a host, on the port that is set, until the context ends; gives the port. Raises CannotListen."""
    assert config.http_port != "off"
    listening = _bound(host, config.http_port)
    server = _Server(
        uvicorn.Config(
            app,
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            lifespan="off",
            limit_concurrency=CONNECTIONS_MAX,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=STOP_SECONDS,
            h11_max_incomplete_event_size=HEAD_BYTES_MAX,
            ssl_certfile=config.tls_cert,
            ssl_keyfile=config.tls_key,
            ssl_ca_certs=str(config.tls_client_ca) if config.tls_client_ca else None,
            ssl_cert_reqs=ssl.CERT_REQUIRED if config.tls_client_ca else ssl.CERT_NONE,
        )
    )
    serving = asyncio.create_task(server.serve([listening]))
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        await serving


class _Server(uvicorn.Server):
    """Uvicorn without its own ideas about signals."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _bound(host: str, port: int) -> socket.socket:
    try:
        listening = socket.create_server((host, port), family=_family(host), backlog=2048)
    except OSError as error:
        raise CannotListen(
            f"cannot listen on {host}:{port} for HTTP: is the port taken? `--http-port` names another"
        ) from error
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; those who connect get it from the socket that listens
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STALL_MILLISECONDS)
    return listening


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
