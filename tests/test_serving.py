"""What is served beside the services: health, reflection, TLS; and when the server says that it serves."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from pydantic import SecretStr

from conftest import Start
from tidings.v1.event_service_pb2 import GetEventRequest
from tidings_server.embedded import EmbeddedStore
from tidings_server.server import SERVICES, StartRefused
from wire import WITHIN_SECONDS, Wire, failure

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.mark.parametrize("service", ["", *SERVICES])
async def test_health_is_serving_when_ready(server: Wire, service: str) -> None:
    reply = await health_pb2_grpc.HealthStub(server.channel).Check(health_pb2.HealthCheckRequest(service=service))
    assert reply.status == SERVING


async def test_health_follows_the_store(start: Start) -> None:
    async with EmbeddedStore(None) as store, start(mongodb_uri=SecretStr(store.uri)) as wire:
        watch = health_pb2_grpc.HealthStub(wire.channel).Watch(health_pb2.HealthCheckRequest())
        assert await next_status(watch) == SERVING
        os.kill(store.pid, signal.SIGSTOP)
        assert await next_status(watch) == NOT_SERVING
        os.kill(store.pid, signal.SIGCONT)
        assert await next_status(watch) == SERVING


async def next_status(watch: Any) -> health_pb2.HealthCheckResponse.ServingStatus.ValueType:
    async with asyncio.timeout(WITHIN_SECONDS):
        status: health_pb2.HealthCheckResponse.ServingStatus.ValueType = (await watch.read()).status
        return status


async def listed_services(wire: Wire) -> set[str]:
    call = reflection_pb2_grpc.ServerReflectionStub(wire.channel).ServerReflectionInfo(
        iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    )
    async with asyncio.timeout(WITHIN_SECONDS):
        reply = await call.read()
    return {service.name for service in reply.list_services_response.service}


async def test_reflection_names_every_service(server: Wire) -> None:
    assert {*SERVICES, "grpc.health.v1.Health"} <= await listed_services(server)


async def test_reflection_can_be_turned_off(start: Start) -> None:
    async with start(reflection=False) as wire:
        assert (await failure(listed_services(wire))).code == grpc.StatusCode.UNIMPLEMENTED


async def test_two_servers_cannot_have_one_port(start: Start) -> None:
    async with start() as wire:
        with pytest.raises(StartRefused, match="is the port taken"):
            async with start(listen=wire.target):
                pass


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
async def tls(start: Start, authority: trustme.CA, tmp_path: Path, request: Any) -> AsyncIterator[Wire]:
    """A server with a certificate; with `mutual`, one that asks clients for theirs."""
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "server.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "server.key")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    settings = {"tls_cert": tmp_path / "server.pem", "tls_key": tmp_path / "server.key"}
    if request.param == "mutual":
        settings["tls_client_ca"] = tmp_path / "ca.pem"
    async with start(**settings) as wire:
        yield wire


async def outcome(wire: Wire, credentials: grpc.ChannelCredentials | None) -> grpc.StatusCode:
    """The status of a GetEvent for an id that does not exist."""
    channel = (
        grpc.aio.secure_channel(wire.target, credentials) if credentials else grpc.aio.insecure_channel(wire.target)
    )
    async with Wire(wire.server, channel) as client:
        return (await failure(client.events.GetEvent(GetEventRequest(event_id="none"), timeout=WITHIN_SECONDS))).code


def client_credentials(authority: trustme.CA, issuer: trustme.CA | None) -> grpc.ChannelCredentials:
    roots = authority.cert_pem.bytes()
    if issuer is None:
        return grpc.ssl_channel_credentials(roots)
    own = issuer.issue_cert("client.example")
    return grpc.ssl_channel_credentials(roots, own.private_key_pem.bytes(), own.cert_chain_pems[0].bytes())


@pytest.mark.parametrize("tls", ["one-sided"], indirect=True)
async def test_tls_serves_who_trusts_the_authority_and_nobody_in_the_clear(tls: Wire, authority: trustme.CA) -> None:
    assert await outcome(tls, client_credentials(authority, None)) == grpc.StatusCode.NOT_FOUND
    assert await outcome(tls, client_credentials(trustme.CA(), None)) == grpc.StatusCode.UNAVAILABLE
    assert await outcome(tls, None) == grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("tls", ["mutual"], indirect=True)
async def test_mutual_tls_serves_only_certificates_of_the_authority(tls: Wire, authority: trustme.CA) -> None:
    assert await outcome(tls, client_credentials(authority, authority)) == grpc.StatusCode.NOT_FOUND
    assert await outcome(tls, client_credentials(authority, None)) == grpc.StatusCode.UNAVAILABLE
    assert await outcome(tls, client_credentials(authority, trustme.CA())) == grpc.StatusCode.UNAVAILABLE
