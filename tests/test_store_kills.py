"""The store is killed again and again under writers and watchers: nothing acknowledged is lost, nothing told twice.

TIDINGS_TEST_KILLS says how often; `make test-kills KILLS=20` is the long run.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import uuid
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from process import ServerProcess, server_process
from tidings.v1.event_pb2 import Event
from tidings.v1.event_service_pb2 import (
    CHANGE_KIND_INITIAL,
    CreateEventRequest,
    GetEventRequest,
    ProjectScope,
    WatchEventRequest,
)
from tidings.v1.task_pb2 import (
    TASK_STATE_PENDING,
    TASK_STATE_RUNNING,
    TASK_STATE_SUCCEEDED,
    TaskProgress,
    TaskState,
    TaskStatus,
)
from tidings.v1.task_service_pb2 import UpdateTaskStatusRequest
from wire import WITHIN_SECONDS, Failed, Wire

KILLS = int(os.environ.get("TIDINGS_TEST_KILLS", "4"))
SECONDS_BETWEEN_KILLS = 1.5
WRITERS = 4
LIFE = [TASK_STATE_PENDING, TASK_STATE_RUNNING, TASK_STATE_SUCCEEDED]
RESUMABLE = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}


class Storm:
    """Writers and watchers that go on until told to stop, and what they saw."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.stopping = asyncio.Event()
        self.acknowledged: dict[str, int] = {}
        """The newest revision of each event that a writer was told of."""
        self.told: list[Event] = []
        """Every event that the project's watcher was told of, in order."""
        self.endings: Counter[str] = Counter()
        self.followed: dict[str, list[TaskState.ValueType]] = defaultdict(list)
        """The states that the watcher of each event was told of, in order."""

    async def write(self) -> None:
        """Take one task after another through its life, each call repeated until it is acknowledged."""
        while not self.stopping.is_set():
            key = uuid.uuid4().hex
            event = Event(type="storm.task", idempotency_key=key, status=TaskStatus())
            request = CreateEventRequest(event=event)
            created = await acknowledged(partial(self._wire.events.CreateEvent, request))
            task_id = created.event.event_id
            self.acknowledged[task_id] = created.event.revision
            follower = asyncio.create_task(self._follow(task_id))
            await self._update(task_id, state=TASK_STATE_RUNNING)
            for page in range(1, 4):
                await self._update(task_id, progress=TaskProgress(completed=page))
            await self._update(task_id, state=TASK_STATE_SUCCEEDED)
            await follower

    async def _update(self, task_id: str, **change: Any) -> None:
        request = UpdateTaskStatusRequest(task_id=task_id, request_id=uuid.uuid4().hex, **change)
        reply = await acknowledged(partial(self._wire.tasks.UpdateTaskStatus, request))
        self.acknowledged[task_id] = reply.status.revision

    async def _follow(self, task_id: str) -> None:
        """Watch one event to its end, resuming whenever the watch breaks."""
        token = ""
        while True:
            request = WatchEventRequest(event_id=task_id, resume_token=token)
            try:
                async for message in self._wire.events.WatchEvent(request):
                    token = message.resume_token
                    if message.HasField("change"):
                        state = message.change.event.status.state
                        if message.change.kind == CHANGE_KIND_INITIAL or message.change.previous_state:
                            self.followed[task_id].append(state)
            except grpc.aio.AioRpcError as error:
                await self._broken(error)
            else:
                return

    async def watch(self) -> None:
        """Watch the project, resuming whenever the watch breaks."""
        token = ""
        while True:
            request = WatchEventRequest(project=ProjectScope(), resume_token=token)
            try:
                async for message in self._wire.events.WatchEvent(request):
                    token = message.resume_token
                    assert not message.HasField("reset")
                    if message.HasField("change"):
                        self.told.append(message.change.event)
            except grpc.aio.AioRpcError as error:
                await self._broken(error)

    def newest_told(self) -> dict[str, int]:
        newest: dict[str, int] = {}
        for event in self.told:
            newest[event.event_id] = event.revision
        return newest

    async def _broken(self, error: grpc.aio.AioRpcError) -> None:
        reason = Failed(error).reason
        self.endings[f"{error.code().name} {reason}"] += 1
        assert error.code() in RESUMABLE
        assert reason in {"STORE_UNAVAILABLE", ""}
        await asyncio.sleep(0.05)


async def acknowledged(call: Callable[[], Awaitable[Any]]) -> Any:
    """Make a call until it succeeds. Only the store's absence may make it fail, and soon."""
    while True:
        try:
            return await call()
        except grpc.aio.AioRpcError as error:
            if Failed(error).reason != "STORE_UNAVAILABLE":
                raise
            await asyncio.sleep(0.05)


async def kill_store(process: ServerProcess, storm: Storm) -> None:
    """Kill the store, and return when a writer has been acknowledged by the next one."""
    (store,) = process.children()
    os.kill(store, signal.SIGKILL)
    async with asyncio.timeout(WITHIN_SECONDS):
        while process.children() in ([], [store]):  # noqa: ASYNC110 (a process is awaited by its parent only)
            await asyncio.sleep(0.001)
        before = sum(storm.acknowledged.values())
        while sum(storm.acknowledged.values()) == before:  # noqa: ASYNC110 (as a person would, it looks for progress)
            await asyncio.sleep(0.01)


@pytest.mark.timeout(60 + 15 * KILLS)
async def test_no_acknowledged_write_is_lost_and_every_watch_goes_on(tmp_path: Path) -> None:
    async with server_process("--data-dir", str(tmp_path / "data")) as process:
        port = (await process.logged("serving"))["port"]
        async with Wire(f"127.0.0.1:{port}") as wire:
            storm = Storm(wire)
            watcher = asyncio.create_task(storm.watch())
            writers = [asyncio.create_task(storm.write()) for _ in range(WRITERS)]
            for _ in range(KILLS):
                await asyncio.sleep(random.uniform(0.1, SECONDS_BETWEEN_KILLS))
                await kill_store(process, storm)
            storm.stopping.set()
            await asyncio.gather(*writers)
            await told_of_all(storm, watcher)
            print(f"{KILLS} kills, {len(storm.acknowledged)} tasks, {len(storm.told)} changes, {dict(storm.endings)}")  # noqa: T201
            await check(storm, wire)
        process.send(signal.SIGTERM)
        assert await process.exit_code() == 0


async def told_of_all(storm: Storm, watcher: asyncio.Task[None]) -> None:
    """Return when the project's watcher has been told of everything that was acknowledged."""
    async with asyncio.timeout(WITHIN_SECONDS):
        while not watcher.done() and storm.acknowledged != storm.newest_told():  # noqa: ASYNC110 (as above)
            await asyncio.sleep(0.01)
    watcher.cancel()
    await asyncio.wait([watcher])
    assert watcher.cancelled(), watcher.exception()


async def check(storm: Storm, wire: Wire) -> None:
    for event_id, revision in storm.acknowledged.items():
        stored = (await wire.events.GetEvent(GetEventRequest(event_id=event_id))).event
        assert stored.revision == revision == 6
        told = [event.revision for event in storm.told if event.event_id == event_id]
        assert told == list(range(told[0], 7)), "each revision once, in order, none left out"
        states = storm.followed[event_id]
        assert states == LIFE[-len(states) :], "every change of state from where the watch began"
