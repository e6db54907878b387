"""The command line: settings, keys, and what an operator reads when something is wrong."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import grpc
import pytest
from pymongo import AsyncMongoClient

from process import server_process
from tidings.v1.event_service_pb2 import GetEventRequest
from tidings_server.config import Config
from wire import WITHIN_SECONDS, Wire, failure

KEY = re.compile(r"tdg_([0-9a-f]{16})_[a-z2-7]{52}")


class Result(NamedTuple):
    code: int
    out: str
    err: str


async def run(*arguments: str, environment: Mapping[str, str] | None = None) -> Result:
    """Run the command to its end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tidings_server",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(environment or {})},
    )
    async with asyncio.timeout(WITHIN_SECONDS):
        out, err = await process.communicate()
    assert process.returncode is not None
    return Result(process.returncode, out.decode(), err.decode())


async def outcome(target: str, key: str) -> grpc.StatusCode:
    """The status that a caller with a key gets for an event that is not there."""
    async with Wire(target) as wire:
        call = wire.events.GetEvent(GetEventRequest(event_id="none"), metadata=(("authorization", f"Bearer {key}"),))
        return (await failure(call)).code


async def test_keys_are_created_listed_and_revoked(mongodb_uri: str, database: str) -> None:
    store = ("--mongodb-uri", mongodb_uri, "--mongodb-database", database)
    created = await run("keys", "create", "--project", "blue", "--scopes", "read", *store)
    match = KEY.fullmatch(created.out.strip())
    assert created.code == 0
    assert match
    assert re.search(rf"{match[1]} +blue +read +\S+ +-\n", (await run("keys", "list", *store)).out)
    assert (await run("keys", "revoke", match[0], *store)).code == 0
    listed = (await run("keys", "list", *store)).out
    assert re.search(rf"{match[1]} +blue +read +\S+ +20\S+Z\n", listed)
    assert match[0] not in listed


async def test_a_key_made_beside_a_running_server_closes_it(tmp_path: Path) -> None:
    data = ("--data-dir", str(tmp_path / "data"))
    async with server_process(*data) as process:
        target = f"127.0.0.1:{(await process.logged('serving'))['port']}"
        assert await outcome(target, "") == grpc.StatusCode.NOT_FOUND
        key = (await run("keys", "create", *data)).out.strip()
        async with asyncio.timeout(WITHIN_SECONDS):
            while await outcome(target, "") != grpc.StatusCode.UNAUTHENTICATED:  # noqa: ASYNC110 (as a caller sees it)
                await asyncio.sleep(0.1)
        assert await outcome(target, key) == grpc.StatusCode.NOT_FOUND


async def test_a_key_made_before_the_server_starts_is_there(tmp_path: Path) -> None:
    data = ("--data-dir", str(tmp_path / "data"))
    key = (await run("keys", "create", *data)).out.strip()
    async with server_process(*data, "--listen", "0.0.0.0:0") as process:
        target = f"127.0.0.1:{(await process.logged('serving'))['port']}"
        assert await outcome(target, key) == grpc.StatusCode.NOT_FOUND
        assert await outcome(target, key[:-1]) == grpc.StatusCode.UNAUTHENTICATED


async def test_a_secret_of_ones_own_stays_out_of_the_database(mongodb_uri: str, database: str) -> None:
    store = ("--mongodb-uri", mongodb_uri, "--mongodb-database", database)
    secret = {"TIDINGS_SECRET": "s" * 32}
    key = (await run("keys", "create", *store, environment=secret)).out.strip()
    client = AsyncMongoClient(mongodb_uri)
    names = await client[database].list_collection_names()
    documents = [document for name in names async for document in client[database][name].find()]
    await client.close()
    assert key.rpartition("_")[2] not in str(documents)
    assert "s" * 32 not in str(documents)
    async with server_process(*store, "--secret", secret["TIDINGS_SECRET"]) as process:
        target = f"127.0.0.1:{(await process.logged('serving'))['port']}"
        assert await outcome(target, key) == grpc.StatusCode.NOT_FOUND
    async with server_process(*store) as process:
        target = f"127.0.0.1:{(await process.logged('serving'))['port']}"
        assert await outcome(target, key) == grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--tls-cert", __file__), "--tls-cert and --tls-key must be given together"),
        (("--tls-client-ca", __file__), "--tls-client-ca needs --tls-cert and --tls-key"),
        (("--tls-cert", "none.pem"), "--tls-cert: Path does not point to a file"),
        (("--http-port", "99999"), "--http-port: a port is 0 to 65535, or `off`"),
        (("--http-port", "-1"), "--http-port: a port is 0 to 65535, or `off`"),
        (("--http-port", "soon"), "--http-port: a port is 0 to 65535, or `off`"),
        (("gateway", "--target-ca", "none.pem"), "--target-ca: Path does not point to a file"),
        (("gateway", "--target-ca", __file__, "--target-insecure"), "--target-ca is for a gRPC port with TLS"),
        (("--data-dir", "a", "--mongodb-uri", "mongodb://x"), "--data-dir is for the embedded store"),
        (("--secret", "short"), "--secret: "),
        (("--other-secret", "o" * 32), "--other-secret needs --secret"),
        (("--drain-seconds", "soon"), "--drain-seconds: "),
        (("keys", "create", "--project", "Not/One"), "a project is 1 to 63"),
        (("keys", "create", "--scopes", "admin"), "scopes are `read` and `write`"),
    ],
)
async def test_a_wrong_command_line_is_refused_with_a_sentence(arguments: tuple[str, ...], sentence: str) -> None:
    result = await run(*arguments)
    assert result.code == 2
    assert sentence in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("keys", "list"), "name the store of the server, with --mongodb-uri or --data-dir"),
        (("--listen", "0.0.0.0:0"), "there is no API key, and without one Tidings does not listen on 0.0.0.0:0"),
        (("--mongodb-uri", "mongodb://"), "the MongoDB URI cannot be used"),
    ],
)
async def test_what_cannot_be_done_is_refused_with_a_sentence(arguments: tuple[str, ...], sentence: str) -> None:
    result = await run(*arguments)
    assert result.code == 1
    assert f"tidings-server: {sentence}" in result.err
    assert "Traceback" not in result.err


def test_secrets_do_not_show_when_the_settings_are_printed() -> None:
    config = Config(mongodb_uri="mongodb://user:hush@db.example", secret="h" * 32)
    assert "hush" not in repr(config)
    assert "h" * 32 not in repr(config)
