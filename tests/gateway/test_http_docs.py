"""What docs/http.md shows is what the HTTP face does."""

from __future__ import annotations

import asyncio
import re
import shutil
from pathlib import Path

import pytest

from conftest import Start
from tidings.v1.task_pb2 import TASK_STATE_SUCCEEDED, TaskState
from tidings_server.gateway import words
from tidings_server.gateway.rest.routes import ROUTES
from wire import WITHIN_SECONDS, Wire

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "http.md").read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:8080"


async def run(wire: Wire, program: str) -> str:
    """What a shell prints that runs what the page shows, against a server."""
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-euc",
        program.replace(ADDRESS, f"http://127.0.0.1:{wire.server.http_port}").replace("curl ", "curl -sS --fail "),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(WITHIN_SECONDS):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl on the PATH")
async def test_the_commands_work(start: Start) -> None:
    calls, watch = (each for each in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) if each.startswith("curl"))
    async with start(http_port=0) as wire:
        printed = await run(wire, calls)
        assert printed.count('"report.render"') == 3
        assert '"completed":3' in printed
        await wire.update("report-1", TASK_STATE_SUCCEEDED)
        told = await run(wire, watch)
        assert re.findall("^event: (.*)$", told, re.MULTILINE) == ["change", "synced", "closing"]
        assert told.startswith("retry: 1000\n\nid: ")


def test_every_route_is_in_the_table() -> None:
    rows = [f"| {route.summary} | `{route.method} {route.path}` |" for route in ROUTES]
    assert "\n".join(rows) in PAGE, "put this into docs/http.md:\n" + "\n".join(rows)


def test_the_states_are_in_the_vendors_words() -> None:
    vendors = (words.MEM0, words.GOMEMORY, words.TELNYX_RUN, words.TELNYX_STEP, words.MEMOS)
    for state in TaskState.values()[1:]:
        told = [f"`{vendor[state]}`" if state in vendor else "" for vendor in vendors]
        row = "|".join(f" {word} " if word else " " for word in told)
        assert f"| `{TaskState.Name(state).removeprefix('TASK_STATE_')}` |{row}|" in PAGE


@pytest.mark.parametrize("sdk", ["mem0ai", "mem0-cli", "gomemory", "exa-py", "telnyx", "MemoryOS"])
def test_the_releases_are_those_that_are_tested(sdk: str) -> None:
    inputs = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "requirements").glob("sdk-*.in"))
    (release,) = re.findall(rf"^{sdk}==(\S+)$", inputs, re.MULTILINE)
    assert f"{sdk} {release}" in PAGE
