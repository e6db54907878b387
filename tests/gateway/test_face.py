"""What holds for the HTTP face whatever the dialect: where it listens, whom it lets in, and how it fails."""

from __future__ import annotations

import asyncio
import base64
import signal
import socket
import ssl
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from conftest import Start
from faces import http_of, keyed
from process import gateway_process
from tidings_server.server import StartRefused
from wire import WITHIN_SECONDS, Wire

PING = "/v1/ping/"
HEAD = b"POST /v3/memories/add/ HTTP/1.1\r\nhost: tidings\r\ncontent-type: application/json\r\n"


async def test_an_unknown_path_is_not_found_in_json(http: httpx.AsyncClient) -> None:
    answer = await http.get("/nowhere")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == 404


async def test_a_path_may_have_slashes_to_spare(http: httpx.AsyncClient) -> None:
    for path in ("/v1/ping", "/v1/ping/", "//v1///ping//"):
        assert (await http.get(f"{http.base_url}{path}")).status_code == 200


async def test_what_nobody_foresaw_is_told_by_a_reference_only(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("hush")

    monkeypatch.setattr("tidings_server.gateway.mem0.find_task", fail)
    # The transport of the server raises what it has answered, for its own log.
    answer = await http.get("/v1/event/any/")
    assert answer.status_code == 500
    assert "hush" not in answer.text
    reference = answer.json()["error"]["message"].split()[-1]
    logged = capsys.readouterr()
    assert reference in logged.out + logged.err


async def test_a_body_that_never_ends_is_not_waited_for(server: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidings_server.gateway.dialect.BODY_SECONDS", 0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.server.http_port)
    writer.write(HEAD + b"content-length: 9\r\n\r\n{")
    async with asyncio.timeout(WITHIN_SECONDS):
        assert b" 408 " in await reader.readline()
    writer.close()


async def test_of_a_body_that_is_too_large_not_all_is_taken(server: Wire) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.server.http_port)
    chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    writer.write(HEAD + b"transfer-encoding: chunked\r\n\r\n")
    answer = asyncio.create_task(reader.readline())
    async with asyncio.timeout(WITHIN_SECONDS):
        while not answer.done():
            writer.write(chunk)
            await asyncio.wait([answer, asyncio.ensure_future(writer.drain())], return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(0)
    assert b" 413 " in answer.result()
    writer.close()


def credentials(key: str) -> Mapping[str, str]:
    basic = base64.b64encode(f"somebody:{key}".encode()).decode()
    return {"x-api-key": key, "Bearer": f"Bearer {key}", "Token": f"token {key}", "Basic": f"Basic {basic}"}


@pytest.mark.parametrize("scheme", ["x-api-key", "Bearer", "Token", "Basic"])
async def test_a_key_is_taken_in_every_way_that_an_sdk_sends_it(start: Start, scheme: str) -> None:
    async def status(http: httpx.AsyncClient, value: str) -> int:
        name = scheme if scheme == "x-api-key" else "authorization"
        return (await http.get(PING, headers={name.encode(): value.encode()})).status_code

    async with keyed(start) as (client, key), http_of(client) as http:
        assert await status(http, credentials(key)[scheme]) == 200
        for wrong in (f"{key}x", "none", "schlüssel"):
            assert await status(http, credentials(wrong)[scheme]) == 401
        assert (await http.get(PING)).status_code == 401


async def test_broken_credentials_are_none_at_all(start: Start) -> None:
    async with keyed(start) as (client, _), http_of(client) as http:
        for value in ("Basic", "Basic %%%", "Basic /w==", "Bearer", "Digest x", "Bearer a b"):
            answer = await http.get(PING, headers={"authorization": value})
            assert answer.status_code == 401


async def test_the_face_can_be_off(start: Start) -> None:
    async with start(http_port="off") as wire:
        assert wire.server.http_port is None


async def test_a_port_that_is_taken_is_named(start: Start) -> None:
    async with start(http_port=0) as wire:
        with pytest.raises(StartRefused, match=f":{wire.server.http_port} for HTTP.*--http-port"):
            async with start(http_port=wire.server.http_port):
                pass


@pytest.mark.parametrize("mutual", [False, True])
async def test_tls_is_that_of_the_grpc_port(start: Start, tmp_path: Path, mutual: bool) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "server.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "server.key")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    settings: dict[str, Any] = {"tls_cert": tmp_path / "server.pem", "tls_key": tmp_path / "server.key"}
    if mutual:
        settings["tls_client_ca"] = tmp_path / "ca.pem"
    known = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    authority.issue_cert("client.example").configure_cert(known)
    stranger = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    async with start(http_port=0, **settings) as wire:
        url = f"https://127.0.0.1:{wire.server.http_port}{PING}"
        async with httpx.AsyncClient(verify=known, timeout=WITHIN_SECONDS) as http:
            assert (await http.get(url)).status_code == 200
        async with httpx.AsyncClient(verify=stranger, timeout=WITHIN_SECONDS) as http:
            if mutual:
                with pytest.raises(httpx.TransportError):
                    await http.get(url)
            else:
                assert (await http.get(url)).status_code == 200


async def test_the_face_runs_alone_too(start: Start, some_id: str) -> None:
    async with start() as wire, gateway_process(wire.target) as alone:
        await wire.create_task(event_id=some_id)
        port = (await alone.logged("serving"))["http_port"]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=WITHIN_SECONDS) as http:
            assert (await http.get(f"/v1/event/{some_id}/")).json()["status"] == "PENDING"
        alone.send(signal.SIGTERM)
        assert await alone.exit_code() == 0


async def test_what_asks_for_no_key_is_not_opened_to_a_network(server: Wire) -> None:
    command = ("-m", "tidings_server", "gateway", "--target", server.target, "--http-host", "0.0.0.0")
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stderr=asyncio.subprocess.PIPE)
    async with asyncio.timeout(WITHIN_SECONDS):
        _, said = await process.communicate()
    assert process.returncode == 1
    assert f"{server.target} has no API key" in said.decode()


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this system cannot cut off readers by itself")
async def test_the_connection_of_a_reader_that_takes_nothing_is_cut(
    start: Start, monkeypatch: pytest.MonkeyPatch, some_id: str
) -> None:
    monkeypatch.setattr("tidings_server.gateway.http_server.STALL_MILLISECONDS", 1_000)
    async with start(http_port=0) as wire:
        stalled = socket.socket()
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stalled.connect(("127.0.0.1", wire.server.http_port or 0))
        stalled.sendall(b"GET /tidings/v1/events:watch HTTP/1.1\r\nhost: tidings\r\n\r\n")
        while wire.server.hub.watchers == 0:  # noqa: ASYNC110 (nothing tells)
            await asyncio.sleep(0)
        async with asyncio.timeout(WITHIN_SECONDS):
            while wire.server.hub.watchers:
                await wire.create(metadata={"text": "x" * 60_000})
        stalled.close()
