"""All clients do the same at each step of the script, and what the script expects; docs/clients.md has the table."""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest

from drivers import CLIENTS, command, driver, lines, require
from scripted_server import ScriptedServer
from steps import IMPATIENT_SECONDS, PATIENT_SECONDS, STEPS, Step

PLAY_SECONDS: Final = 120
"""Longer than any driver takes for all steps."""

DOCS: Final = Path(__file__).parents[2] / "docs" / "clients.md"
BEGIN, END = "<!-- made by tests/clients/test_conformance.py -->\n", "<!-- end -->\n"

Play = Callable[[str], asyncio.Task["Played"]]

pytestmark = pytest.mark.timeout(600)  # the first test of a client builds it


class Played:
    """What a client made of all steps."""

    def __init__(self) -> None:
        self.delivered: dict[str, list[str]] = defaultdict(list)
        self.ended: dict[str, str] = {}
        self.complaints: list[str] = []

    def note(self, line: dict[str, Any]) -> None:
        if "deliver" in line:
            self.delivered[line["step"]].append(line["deliver"])
        else:
            reason = line.get("reason", "").replace("UNSPECIFIED", "")
            self.ended[line["step"]] = " ".join(filter(None, (line["end"], line.get("code"), reason)))

    def faults(self, step: Step) -> list[str]:
        """Where the client did something else than the step says."""
        found = [each for each in self.complaints if each.startswith(f"{step.name}: ")]
        if self.delivered[step.name] != (wanted := expected(step)):
            found.append(f"delivered {self.delivered[step.name]} instead of {wanted}")
        if (ended := self.ended.get(step.name, "never")) != step.ends:
            found.append(f'ended "{ended}" instead of "{step.ends}"')
        return found


def expected(step: Step) -> list[str]:
    """What is to be delivered; a change that names no event is of the one with the step's name."""
    return [f"{each} {step.name}" if each[-1].isdigit() else each for each in step.delivers]


@pytest.fixture(scope="session")
def play(tmp_path_factory: pytest.TempPathFactory) -> Play:
    """Plays all steps to a client, once however often it is asked."""
    return cache(lambda client: asyncio.create_task(_play(client, tmp_path_factory.mktemp(client))))


async def _play(client: str, build_folder: Path) -> Played:
    program = await command(client, build_folder)
    played = Played()
    async with asyncio.TaskGroup() as plays:
        for seconds in (PATIENT_SECONDS, IMPATIENT_SECONDS):
            steps = [step.name for step in STEPS.values() if step.heartbeat_seconds == seconds]
            plays.create_task(_play_some(program, steps, seconds, played))
    return played


async def _play_some(program: list[str], steps: list[str], heartbeat_seconds: int, played: Played) -> None:
    server = ScriptedServer()
    async with server.running() as port:
        arguments = [*program, f"127.0.0.1:{port}", *steps]
        async with driver(*arguments, heartbeat_seconds=heartbeat_seconds) as output:
            with suppress(TimeoutError):  # the steps that are missing then say so
                async with asyncio.timeout(PLAY_SECONDS):
                    async for line in lines(output):
                        played.note(line)
    played.complaints += server.complaints()


@pytest.mark.parametrize("step", STEPS.values(), ids=lambda step: step.name)
@pytest.mark.parametrize("client", CLIENTS)
async def test_a_client_does_what_the_step_says(play: Play, client: str, step: Step) -> None:
    require(client)
    assert not (await play(client)).faults(step)


async def test_the_table_in_the_docs_is_what_the_clients_did(play: Play) -> None:
    for client in CLIENTS:
        require(client)
    played = [await play(client) for client in CLIENTS]
    rows = [["", "what happens", "what the caller gets", *CLIENTS.values()], ["---"] * (3 + len(CLIENTS))]
    for step in STEPS.values():
        gets = " · ".join([*step.delivers, step.ends])
        marks = ["differs" if each.faults(step) else "✓" for each in played]
        rows.append([str(step.number), step.what, gets, *marks])
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    page = DOCS.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    current, after = rest.split(END)
    if os.environ.get("TIDINGS_UPDATE_DOCS") == "1":
        DOCS.write_text(before + BEGIN + table + END + after, encoding="utf-8")
    else:
        assert current == table, "run with TIDINGS_UPDATE_DOCS=1"
