"""The recipes of docs/grpcurl.md do what the page says: each is run, and its answer held against the one shown."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trustme

from conftest import Start
from wire import WITHIN_SECONDS

PAGE = Path(__file__).parent.parent / "docs" / "grpcurl.md"
BLOCK = re.compile(r"^```sh\n(.*?)^```\n(?:\n```json\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)
GRPCURL = "github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4"
BIN = Path(sys.prefix) / "bin"


class Recipe(NamedTuple):
    script: str
    answer: str

    @property
    def is_long(self) -> bool:
        """Whether it goes on until somebody ends what it watches."""
        return "until watch" in self.script

    @property
    def file(self) -> str:
        """Where it writes to, if it is long."""
        return self.script.split()[1]

    @property
    def needs_key(self) -> bool:
        return "TIDINGS_API_KEY" in self.script


def recipes() -> Iterator[Recipe]:
    for match in BLOCK.finditer(PAGE.read_text(encoding="utf-8")):
        yield Recipe(match[1], match[2] or "")


@pytest.fixture(scope="session")
async def tools() -> str:
    """A PATH with grpcurl and buf."""
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    if shutil.which("grpcurl", path=path) is None:
        if shutil.which("go") is None:
            pytest.skip("grpcurl is not installed, and there is no Go to install it with")
        building = await asyncio.create_subprocess_exec("go", "install", GRPCURL, env={**os.environ, "GOBIN": str(BIN)})
        assert await building.wait() == 0
    return path


class Shell:
    """Runs recipes in a folder of their own."""

    def __init__(self, folder: Path, path: str, **variables: str) -> None:
        self._folder = folder
        self._environment = {**os.environ, "PATH": path, **variables}

    async def begin(self, recipe: Recipe) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            "sh", "-euc", recipe.script, cwd=self._folder, env=self._environment, stdout=asyncio.subprocess.PIPE
        )

    async def run(self, recipe: Recipe) -> str:
        """What the recipe prints."""
        return await self.finish(await self.begin(recipe))

    async def finish(self, process: asyncio.subprocess.Process) -> str:
        async with asyncio.timeout(WITHIN_SECONDS):
            out, _ = await process.communicate()
        assert process.returncode == 0, out.decode()
        return out.decode()

    def read(self, file: str) -> str:
        return (self._folder / file).read_text(encoding="utf-8")

    async def synced(self, file: str) -> None:
        """Wait until a long recipe has written that it is up to date."""
        (self._folder / file).touch()
        async with asyncio.timeout(WITHIN_SECONDS):
            while '"synced"' not in self.read(file):  # noqa: ASYNC110 (as a reader of the file sees it)
                await asyncio.sleep(0.05)


def documents(text: str) -> list[Any]:
    """The JSON documents of a text, one after the other."""
    decoder, found = json.JSONDecoder(), []
    while text := text.strip():
        document, end = decoder.raw_decode(text)
        found.append(document)
        text = text[end:]
    return found


def shows(shown: Any, real: Any) -> bool:
    """Whether an answer on the page is a part of the real one. `…` stands for anything."""
    if isinstance(shown, Mapping):
        return isinstance(real, Mapping) and all(name in real and shows(shown[name], real[name]) for name in shown)
    if isinstance(shown, list):
        return isinstance(real, list) and len(shown) == len(real) and all(map(shows, shown, real))
    return bool(shown in {"…", real})


def check(recipe: Recipe, printed: str) -> None:
    if recipe.answer:
        assert shows(documents(recipe.answer), documents(printed)), printed


def parts() -> Iterator[tuple[list[Recipe], Recipe | None]]:
    """The recipes for a server without keys, in parts that end with one that watches for long."""
    part: list[Recipe] = []
    for recipe in recipes():
        if recipe.is_long:
            yield part, recipe
            part = []
        elif not recipe.needs_key:
            part.append(recipe)
    yield part, None


@pytest.mark.timeout(600)  # grpcurl may have to be built first
async def test_the_recipes_for_a_server_without_keys(start: Start, tools: str, tmp_path: Path) -> None:
    """The server is restarted under each long watch; what follows on the page ends what it watches."""
    listen, watch, watching = "127.0.0.1:0", None, None
    for part, next_watch in parts():
        async with start(listen=listen) as server:
            listen = server.target
            shell = Shell(tmp_path, tools, TIDINGS=listen)
            for recipe in part:
                check(recipe, await shell.run(recipe))
            if watch and watching:
                await shell.finish(watching)
                check_told_once(documents(shell.read(watch.file)))
            if watch := next_watch:
                watching = await shell.begin(watch)
                await shell.synced(watch.file)


def check_told_once(messages: list[Any]) -> None:
    """A watch through a restart has told each change once, and both ends."""
    assert [message["change"]["kind"] for message in messages if "change" in message] == [
        "CHANGE_KIND_INITIAL",
        "CHANGE_KIND_UPDATED",
    ]
    assert [message["closing"]["reason"] for message in messages if "closing" in message] == [
        "CLOSING_REASON_DRAINING",
        "CLOSING_REASON_TERMINAL",
    ]


@pytest.mark.timeout(600)
async def test_the_recipes_for_keys_and_tls(start: Start, tools: str, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate = authority.issue_cert("127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "server.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "server.key")
    async with start() as first:
        key = await first.server.api_keys.create("blue", frozenset({"read"}))
    async with start(tls_cert=tmp_path / "server.pem", tls_key=tmp_path / "server.key") as server:
        shell = Shell(tmp_path, tools, TIDINGS=server.target, TIDINGS_API_KEY=key)
        keyed = [recipe for recipe in recipes() if recipe.needs_key]
        assert len(keyed) == 2
        for recipe in keyed:
            check(recipe, await shell.run(recipe))
