"""`tidings context` and `tidings keys`: servers by name, and where keys come from."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme
from command import TIDINGS, Tidings, end

from conftest import Start
from wire import Wire


@pytest.fixture
async def keyed(start: Start) -> AsyncIterator[tuple[Wire, str]]:
    """A server that needs keys, and a key."""
    async with start() as first:
        key = await first.server.api_keys.create("blue", frozenset({"read", "write"}))
    async with start() as server:
        yield server, key


def stored(home: Path) -> Path:
    return home / "tidings" / "contexts.json"


async def test_servers_are_known_by_name(server: Wire, start: Start, tmp_path: Path, some_id: str) -> None:
    tidings = Tidings(tmp_path)
    async with start() as other:
        await server.create(event_id=some_id, summary="here")
        await other.create(event_id=some_id, summary="there")
        await tidings.done("context", "add", "one", server.target)
        await tidings.done("context", "add", "two", other.target)
        assert "summary      here\n" in (await tidings.done("get", some_id)).out
        assert "summary      there\n" in (await tidings.done("--context", "two", "get", some_id)).out
        named = Tidings(tmp_path, TIDINGS_CONTEXT="two")
        assert "summary      there\n" in (await named.done("get", some_id)).out
        assert "summary      here\n" in (await named.done("--target", server.target, "get", some_id)).out
        await tidings.done("context", "use", "two")
        assert "summary      there\n" in (await tidings.done("get", some_id)).out
    assert (await tidings.done("context", "list")).rows == [
        ["", "one", server.target, "no", "no"],
        ["*", "two", other.target, "no", "no"],
    ]
    await tidings.done("context", "remove", "two")
    assert [json.loads(each) for each in (await tidings.done("context", "list", "-o", "json")).lines] == [
        {"name": "one", "current": False, "target": server.target, "tls": False, "caFile": "", "hasKey": False}
    ]


@pytest.mark.parametrize(
    "arguments", [("context", "use", "none"), ("context", "remove", "none"), ("-c", "none", "list")]
)
async def test_an_unknown_name_is_refused(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    result = await Tidings(tmp_path).run(*arguments)
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith('tidings: there is no context "none"')


async def test_a_name_and_an_address_are_too_much(tmp_path: Path) -> None:
    result = await Tidings(tmp_path).run("-c", "none", "--target", "x", "list")
    assert (result.code, result.err) == (1, "tidings: give either --context or --target\n")


async def test_a_file_that_is_broken_is_told(tmp_path: Path) -> None:
    stored(tmp_path).parent.mkdir()
    stored(tmp_path).write_text("{")
    result = await Tidings(tmp_path).run("list")
    assert (result.code, "contexts.json cannot be read; mend or remove it" in result.err) == (1, True)


async def test_a_key_comes_from_the_environment(keyed: tuple[Wire, str], tmp_path: Path) -> None:
    server, key = keyed
    assert (await Tidings(tmp_path, server.target).run("list")).code == 64 + 16
    assert (await Tidings(tmp_path, server.target, TIDINGS_API_KEY=key).run("list")).code == 0


async def test_a_key_comes_from_stdin_and_is_kept_for_its_owner_only(keyed: tuple[Wire, str], tmp_path: Path) -> None:
    server, key = keyed
    tidings = Tidings(tmp_path)
    added = await tidings.done("context", "add", "one", server.target, "--key-stdin", stdin=f"{key}\n")
    assert (await tidings.run("list")).code == 0
    assert stat.S_IMODE(stored(tmp_path).stat().st_mode) == 0o600
    assert stat.S_IMODE(stored(tmp_path).parent.stat().st_mode) == 0o700
    listed = await tidings.done("context", "list")
    assert listed.rows == [["*", "one", server.target, "no", "yes"]]
    assert key not in added.out + added.err + listed.out + (await tidings.done("context", "list", "-o", "json")).out


async def test_a_person_is_asked_for_a_key_and_it_is_not_shown(keyed: tuple[Wire, str], tmp_path: Path) -> None:
    server, key = keyed
    tidings = Tidings(tmp_path)
    async with tidings.on_terminal("context", "add", "one", server.target) as terminal:
        await terminal.shows("API key (empty for none): ")
        terminal.type(f"{key}\n")
        assert await terminal.exit_code() == 0
    assert key not in terminal.raw
    assert (await tidings.run("list")).code == 0


async def test_no_option_takes_a_key(tmp_path: Path) -> None:
    for arguments in ((), ("context", "add")):
        assert "--key " not in (await Tidings(tmp_path).done(*arguments, "--help")).out


async def test_a_server_with_tls_is_known_by_its_ca(start: Start, tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    paths = {name: tmp_path / name for name in ("ca.pem", "server.pem", "server.key")}
    authority.cert_pem.write_to_path(paths["ca.pem"])
    certificate.cert_chain_pems[0].write_to_path(paths["server.pem"])
    certificate.private_key_pem.write_to_path(paths["server.key"])
    async with start(tls_cert=paths["server.pem"], tls_key=paths["server.key"]) as server:
        tidings = Tidings(tmp_path)
        await tidings.done("context", "add", "right", server.target, "--ca", str(paths["ca.pem"]))
        await tidings.done("context", "add", "wrong", server.target, "--tls")
        assert (await tidings.run("list")).code == 0
        assert (await tidings.run("-c", "wrong", "list")).code == 64 + 14
    assert [row[3] for row in (await tidings.done("context", "list")).rows] == ["yes", "yes"]


async def test_a_server_elsewhere_is_reached_with_tls_unless_one_says_otherwise(tmp_path: Path) -> None:
    tidings = Tidings(tmp_path)
    await tidings.done("context", "add", "one", "tidings.invalid:443")
    await tidings.done("context", "add", "two", "tidings.invalid:443", "--plaintext")
    assert [row[3] for row in (await tidings.done("context", "list")).rows] == ["yes", "no"]


async def test_keys_are_left_to_the_command_of_the_server(mongodb_uri: str, database: str, tmp_path: Path) -> None:
    store = ("--mongodb-uri", mongodb_uri, "--mongodb-database", database)
    tidings = Tidings(tmp_path)
    created = await tidings.done("keys", "create", "--project", "blue", *store)
    assert created.out.startswith("tdg_")
    assert "blue" in (await tidings.done("keys", "list", *store)).out
    assert "usage: tidings-server keys" in (await tidings.done("keys", "--help")).out


async def test_without_the_command_of_the_server_it_is_told_where_keys_are_made(tmp_path: Path) -> None:
    (tmp_path / "python").symlink_to(sys.executable)
    alone = {**os.environ, "PATH": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    process = await asyncio.create_subprocess_exec(
        *(tmp_path / "python", TIDINGS, "keys", "list"),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        env=alone,
    )
    result = await end(process)
    assert (result.code, result.out) == (1, "")
    assert "run `tidings-server keys` on a machine that has the server" in result.err


async def test_a_shell_completes_commands_and_names(tmp_path: Path) -> None:
    tidings = Tidings(tmp_path)
    await tidings.done("context", "add", "production", "127.0.0.1:1")
    words = {"tidings ca": "cancel", "tidings context use pro": "production", "tidings list -s ru": "running"}
    for typed, completed in words.items():
        asked = {"_TIDINGS_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
        assert (await Tidings(tmp_path, **asked).run()).lines == [completed]
