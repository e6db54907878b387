"""Somebody who changes events at random, as several programs at once would."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc

from tidings.v1.event_pb2 import Event
from tidings.v1.event_service_pb2 import DeleteEventRequest
from tidings.v1.task_pb2 import TASK_STATE_PENDING, TaskProgress, TaskState
from tidings_server.lifecycle import NEXT_STATES, TERMINAL
from wire import Wire

TYPES = ("red", "green", "blue")
RUNS = MISSIONS = ("first", "second")
"""Each run is of the mission with the same id."""

BEARABLE = {
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.UNAVAILABLE,
}
"""What a writer is told when another one was faster, or when the store is too busy to answer."""


def seeded() -> random.Random:
    """The source of what is random in a test. A failed test shows the seed; TIDINGS_TEST_SEED gives it again."""
    seed = os.environ.get("TIDINGS_TEST_SEED") or str(random.randrange(2**32))
    print(f"TIDINGS_TEST_SEED={seed}")  # noqa: T201 (pytest shows it when the test fails)
    return random.Random(seed)


async def ensure_runs(wire: Wire) -> None:
    """Create the runs that writers write to, for those who watch them before anything is written."""
    for run_id in RUNS:
        await wire.ensure(run_id, run_id)


class Writer:
    """Creates, moves and deletes tasks, mostly of its own; some ids are used again."""

    def __init__(self, wires: Sequence[Wire], chance: random.Random, *, bytes_each: int = 0) -> None:
        self.wires = wires
        self._chance = chance
        self._text = "x" * bytes_each
        self.states: dict[str, TaskState.ValueType] = {}
        """The state that each living task was in when it was last touched."""
        self.deleted: list[str] = []

    async def create(self) -> Event:
        chance = self._chance
        fields: dict[str, Any] = {"summary": str(chance.random()), "metadata": {"text": self._text}}
        if self.deleted and chance.random() < 0.3:
            fields["event_id"] = self.deleted.pop(chance.randrange(len(self.deleted)))
        run_id = chance.choice(("", *RUNS))
        mission_id = run_id or chance.choice(MISSIONS)
        event = await self._wire.create_task(chance.choice(TYPES), run_id=run_id, mission_id=mission_id, **fields)
        self.states[event.event_id] = TASK_STATE_PENDING
        return event

    async def write(self) -> None:
        """Make one change, or find that it cannot be made."""
        try:
            await self._any_change()
        except grpc.aio.AioRpcError as error:
            if error.code() not in BEARABLE:
                raise

    @property
    def _wire(self) -> Wire:
        return self._chance.choice(self.wires)

    async def _any_change(self) -> None:
        dice = self._chance.random()
        if dice < 0.3 or not self.states:
            await self.create()
            return
        event_id = self._chance.choice(list(self.states))
        if dice < 0.4 or self.states[event_id] in TERMINAL:
            del self.states[event_id]
            await self._wire.events.DeleteEvent(DeleteEventRequest(event_id=event_id))
            self.deleted.append(event_id)
        elif dice < 0.6:
            await self._wire.update(event_id, progress=TaskProgress(completed=self._chance.randrange(2**40)))
        else:
            state = self._chance.choice(sorted(NEXT_STATES[self.states[event_id]] - {TaskState.TASK_STATE_SKIPPED}))
            self.states[event_id] = (await self._wire.update(event_id, state)).state


@asynccontextmanager
async def writing(writers: Sequence[Writer]) -> AsyncIterator[None]:
    """All of them write until the end of the context; then every write has been acknowledged."""
    enough = asyncio.Event()

    async def write(writer: Writer) -> None:
        while not enough.is_set():
            await writer.write()

    async with asyncio.TaskGroup() as at_work:
        for writer in writers:
            at_work.create_task(write(writer))
        try:
            yield
        finally:
            enough.set()
