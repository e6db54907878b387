"""The server is killed five times under a watch of each client: it tells every transition once, and never an error."""

from __future__ import annotations

import asyncio
import signal
import uuid
from collections.abc import Callable
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import Any, Final

import pytest

from drivers import CLIENTS, command, driver, free_port, is_available, lines, require
from process import server_process
from tidings import AsyncClient
from tidings.v1.event_pb2 import Event
from tidings.v1.event_service_pb2 import CreateEventRequest
from tidings.v1.task_pb2 import TASK_STATE_PAUSED, TASK_STATE_RUNNING, TASK_STATE_SUCCEEDED, TaskState, TaskStatus
from tidings.v1.task_service_pb2 import UpdateTaskStatusRequest

KILLS: Final = 5
TRANSITIONS_PER_LIFE: Final = 2
"""Of a server's life: so a watcher comes back to some that it has missed."""
WITHIN_SECONDS: Final = 60
"""Within which each client has told everything, once the last server is there."""

pytestmark = pytest.mark.timeout(600)  # the first test builds the drivers

Told = dict[str, list[dict[str, Any]]]


class Follower:
    """A driver that watches one event, and what it says."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.is_synced = asyncio.Event()
        self.is_done = asyncio.Event()

    async def follow(self, *arguments: str) -> None:
        async with driver(*arguments) as output:
            async for line in lines(output):
                self.told.append(line)
                if line.get("deliver") == "synced":
                    self.is_synced.set()
        self.is_done.set()


@pytest.fixture(scope="session")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], asyncio.Task[Told]]:
    """What each client told of one task, once however often it is asked."""
    return cache(lambda: asyncio.create_task(_kill(tmp_path_factory.mktemp("kills"))))


@pytest.mark.parametrize("client", CLIENTS)
async def test_every_transition_is_told_once_though_the_server_is_killed(
    killed: Callable[[], asyncio.Task[Told]], client: str
) -> None:
    require(client)
    told = (await killed())[client]
    assert told[-1]["end"] == "complete"
    changes = [(each["deliver"].split()[:2], each["state"]) for each in told if "state" in each]
    moves = ["RUNNING", "PAUSED"] * (KILLS * TRANSITIONS_PER_LIFE // 2)
    expected = [(["INITIAL", "1"], "PENDING")]
    expected += [(["UPDATED", str(revision)], state) for revision, state in enumerate([*moves, "SUCCEEDED"], 2)]
    assert changes == expected


async def _kill(folder: Path) -> Told:
    """Move a task from life to life of the server, with a follower in each language."""
    target, event_id = f"127.0.0.1:{free_port()}", uuid.uuid4().hex
    programs = {client: await command(client, folder) for client in CLIENTS if is_available(client)}
    followers = {client: Follower() for client in programs}
    states = cycle([TASK_STATE_RUNNING, TASK_STATE_PAUSED])
    async with asyncio.TaskGroup() as tasks:
        for life in range(KILLS + 1):
            arguments = ("--listen", target, "--data-dir", str(folder / "data"))
            async with server_process(*arguments) as server, AsyncClient(target) as client:
                await server.logged("serving")
                if life == 0:
                    event = Event(event_id=event_id, type="test.task", status=TaskStatus())
                    await client.events.CreateEvent(CreateEventRequest(event=event))
                    for name, follower in followers.items():
                        tasks.create_task(follower.follow(*programs[name], "--event-id", event_id, target))
                    async with asyncio.timeout(WITHIN_SECONDS):
                        await asyncio.gather(*(each.is_synced.wait() for each in followers.values()))
                if life < KILLS:
                    for _ in range(TRANSITIONS_PER_LIFE):
                        await _move(client, event_id, next(states))
                    server.send(signal.SIGKILL)
                    await server.exit_code()
                else:
                    await _move(client, event_id, TASK_STATE_SUCCEEDED)
                    async with asyncio.timeout(WITHIN_SECONDS):
                        await asyncio.gather(*(each.is_done.wait() for each in followers.values()))
    return {name: follower.told for name, follower in followers.items()}


async def _move(client: AsyncClient, task_id: str, state: TaskState.ValueType) -> None:
    await client.tasks.UpdateTaskStatus(UpdateTaskStatusRequest(task_id=task_id, state=state))
