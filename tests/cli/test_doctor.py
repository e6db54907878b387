"""`tidings doctor` names what is at fault, and only that."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import grpc
import pytest
import trustme
from command import Tidings
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from pydantic import SecretStr

from conftest import Start
from tidings_server.embedded import EmbeddedStore
from tidings_server.watch import hub
from wire import Wire

CHECKS = ["address", "TLS", "server", "store", "key", "change stream"]

WELL = """\
ok    address        {target} takes connections
ok    TLS            plain text, as the context says
ok    server         serves
ok    store          answers
ok    key            none, and the server wants none
ok    change stream  live, last heard of LAG ago
"""


async def fault(tidings: Tidings) -> tuple[str, str]:
    """The one check that fails, and what is said of it; those before are well, and those after are not made."""
    result = await tidings.run("doctor", "-o", "json")
    findings = [json.loads(each) for each in result.lines]
    assert result.code == 1
    assert [each["check"] for each in findings] == CHECKS
    outcomes = [each["outcome"] for each in findings]
    failed = outcomes.index("fail")
    assert outcomes == ["ok"] * failed + ["fail"] + ["skip"] * (len(CHECKS) - failed - 1)
    assert findings[failed]["mend"]
    return findings[failed]["check"], findings[failed]["message"]


async def test_all_is_well(server: Wire, tmp_path: Path) -> None:
    result = await Tidings(tmp_path, server.target).run("doctor")
    assert (result.code, result.err) == (0, "")
    said, _, lag = result.out.rpartition("last heard of ")
    assert said + "last heard of LAG ago\n" == WELL.format(target=server.target)
    assert lag.endswith(" s ago\n")


async def test_a_fault_is_told_with_how_to_mend_it(tmp_path: Path) -> None:
    result = await Tidings(tmp_path, "127.0.0.1:1").run("doctor")
    assert result.code == 1
    assert result.lines[:3] == [
        "fail  address        127.0.0.1:1: nothing listens there",
        "                     start the server, or look whether the port is right",
        "skip  TLS            not checked, because of the address",
    ]


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("127.0.0.1:1", "nothing listens there"),
        ("tidings.invalid:50051", "there is no such host"),
        ("127.0.0.1", "has no port"),
    ],
)
async def test_the_address_is_at_fault(tmp_path: Path, target: str, words: str) -> None:
    check, message = await fault(Tidings(tmp_path, target))
    assert (check, words in message) == ("address", True)


@asynccontextmanager
async def with_tls(start: Start, home: Path) -> AsyncIterator[Wire]:
    """A server that has a certificate, and the CA of it in ca.pem."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    paths = {name: home / f"{name}.pem" for name in ("ca", "cert", "key")}
    authority.cert_pem.write_to_path(paths["ca"])
    certificate.cert_chain_pems[0].write_to_path(paths["cert"])
    certificate.private_key_pem.write_to_path(paths["key"])
    async with start(tls_cert=paths["cert"], tls_key=paths["key"]) as server:
        yield server


async def test_tls_is_at_fault(start: Start, server: Wire, tmp_path: Path) -> None:
    tidings = Tidings(tmp_path)
    async with with_tls(start, tmp_path) as secured:
        cases = [
            ((secured.target, "--plaintext"), "the server wants TLS"),
            ((secured.target, "--tls"), "the certificate is not to be trusted"),
            ((server.target, "--tls"), "the handshake fails"),
        ]
        for options, words in cases:
            await tidings.done("context", "add", "one", *options)
            check, message = await fault(tidings)
            assert (check, words in message) == ("TLS", True), message
        await tidings.done("context", "add", "one", secured.target, "--ca", str(tmp_path / "ca.pem"))
        assert (await tidings.run("doctor")).code == 0


async def test_the_key_is_at_fault(start: Start, tmp_path: Path) -> None:
    async with start() as first:
        keys = {
            scopes: await first.server.api_keys.create("blue", frozenset(scopes.split()))
            for scopes in ("read", "write")
        }
    async with start() as server:
        assert (await Tidings(tmp_path, server.target, TIDINGS_API_KEY=keys["read"]).run("doctor")).code == 0
        cases = [
            ({}, "the server wants a key"),
            ({"TIDINGS_API_KEY": "tdg_0_x"}, "the server does not know the key, or it was revoked"),
            ({"TIDINGS_API_KEY": keys["write"]}, "the key may not read"),
        ]
        for environment, words in cases:
            assert await fault(Tidings(tmp_path, server.target, **environment)) == ("key", words)


async def test_the_server_is_at_fault_when_it_is_another(tmp_path: Path) -> None:
    other = grpc.aio.server()
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, other)
    port = other.add_insecure_port("127.0.0.1:0")
    await other.start()
    await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    try:
        assert await fault(Tidings(tmp_path, f"127.0.0.1:{port}")) == ("server", "what serves there is not Tidings")
    finally:
        await other.stop(None)


async def test_the_server_is_at_fault_while_it_drains(start: Start, tmp_path: Path) -> None:
    async with start() as server:
        server.server.gate.drain()
        check, message = await fault(Tidings(tmp_path, server.target))
        assert (check, "the server shuts down" in message) == ("server", True)


@contextmanager
def suspended(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        os.waitid(os.P_PID, pid, os.WSTOPPED)  # it takes effect a little later
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_the_store_is_at_fault(start: Start, tmp_path: Path) -> None:
    async with EmbeddedStore(None) as store, start(mongodb_uri=SecretStr(store.uri)) as server:
        with suspended(store.pid):
            check, message = await fault(Tidings(tmp_path, server.target))
    assert (check, "the server's store does not answer" in message) == ("store", True)


async def test_the_change_stream_is_at_fault(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with start() as server:
        monkeypatch.setattr(hub, "STALLED_AFTER_SECONDS", 0.0)
        check, message = await fault(Tidings(tmp_path, server.target))
    assert (check, "heard nothing from its store" in message) == ("change stream", True)


async def test_what_does_not_speak_http_2_is_told(tmp_path: Path) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as other:
        port = other.sockets[0].getsockname()[1]
        check, message = await fault(Tidings(tmp_path, f"127.0.0.1:{port}"))
    assert (check, message) == ("TLS", "the server does not answer HTTP/2")
