"""Subscribe, then read: watches that open, break and resume while events change lose nothing and repeat nothing.

A failed test shows its TIDINGS_TEST_SEED; with the same one in the environment it makes the same choices.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from conftest import Start
from picture import Picture, sketch, stored
from tidings.v1.event_service_pb2 import (
    EventChange,
    EventFilter,
    ListEventsRequest,
    ProjectScope,
    WatchEventResponse,
)
from tidings.v1.task_pb2 import TASK_STATE_PAUSED, TASK_STATE_PENDING, TASK_STATE_RUNNING, TASK_STATE_SUCCEEDED
from tidings_server.limits import Limits
from wire import Call, Failed, Wire, take, take_all, take_synced
from writer import MISSIONS, RUNS, TYPES, Writer, ensure_runs, seeded, writing

RACES = 1000
RACES_AT_ONCE = 20
STORM_WATCHES = 20
MODEL_ROUNDS = 3
MODEL_WRITES = 250

PROJECT: dict[str, Any] = {"project": ProjectScope()}
LIFE = [
    "1 PENDING",
    "2 RUNNING from PENDING",
    "3 SUCCEEDED from RUNNING",
]


async def yields(count: int) -> None:
    """Let others go first so many times."""
    for _ in range(count):
        await asyncio.sleep(0)


# One event: 1,000 races


async def live(wire: Wire, event_id: str, chance: random.Random, moments: Sequence[asyncio.Event]) -> None:
    """Take a task through its life; each moment is one before or after a change of its state."""
    for number, state in enumerate((TASK_STATE_RUNNING, TASK_STATE_SUCCEEDED)):
        await yields(chance.randrange(40))
        moments[2 * number].set()
        await wire.update(event_id, state)
        moments[2 * number + 1].set()


async def race(wire: Wire, chance: random.Random) -> int:
    """Open a watch of a task while it lives its life. Returns the revision that the watch began with."""
    task = await wire.create_task()
    moments = [asyncio.Event() for _ in range(4)]
    living = asyncio.create_task(live(wire, task.event_id, chance, moments))
    await chance.choice(moments).wait()
    await yields(chance.randrange(40))
    call = wire.watch(event_id=task.event_id)
    messages = await take_all(call)
    await living
    began_with = messages[0].change.event.revision
    first = LIFE[began_with - 1].partition(" from")[0]
    rest = [f"UPDATED {change}" for change in LIFE[began_with:]]
    assert sketch(messages) == [f"INITIAL {first}", "synced", *rest, "closing TERMINAL"]
    assert await call.code() == grpc.StatusCode.OK
    return began_with


async def test_subscribe_then_read_1000_races_lose_nothing_and_repeat_nothing(start: Start) -> None:
    chance = seeded()
    began_with: Counter[int] = Counter()
    async with start() as wire:
        for _ in range(RACES // RACES_AT_ONCE):
            began_with.update(await asyncio.gather(*(race(wire, chance) for _ in range(RACES_AT_ONCE))))
    assert began_with.total() == RACES
    assert min(began_with[revision] for revision in (1, 2, 3)) > RACES // 50, f"few were close: {began_with}"


# Many events: watches that open in a storm


async def test_watches_that_open_in_a_storm_of_writes_lose_nothing_and_repeat_nothing(start: Start) -> None:
    chance = seeded()
    async with start(limits=Limits(watch_page_size=5)) as wire:
        pictures = [Picture() for _ in range(STORM_WATCHES)]
        readers: list[asyncio.Task[None]] = []
        writers = [Writer([wire], chance) for _ in range(4)]

        async def read_on(call: Call, picture: Picture) -> None:
            marked = False
            while not marked:
                message = await take(call)
                picture.add(message)
                marked = message.change.event.type == "marker"

        async with writing(writers):
            for picture in pictures:
                await yields(chance.randrange(200))
                call = wire.watch(**PROJECT)
                picture.add_all(await take_synced(call))
                readers.append(asyncio.create_task(read_on(call, picture)))
        await wire.create("marker")
        await asyncio.gather(*readers)
        truth = await stored(wire, ListEventsRequest(page_size=1000))
        for picture in pictures:
            assert picture.events == truth


# Everything at once: writers, watchers that come and go, two servers


@contextmanager
def unless_the_store_is_too_busy() -> Iterator[None]:
    """A stream may end when the store does not answer in time; it is to be resumed like any other."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        if error.code() != grpc.StatusCode.UNAVAILABLE:
            raise


class Watcher:
    """Watches some selection, breaks off at any message and goes on at any server."""

    def __init__(self, wires: list[Wire], chance: random.Random) -> None:
        self._wires = wires
        self._chance = random.Random(chance.random())
        scopes = [PROJECT, {"run_id": chance.choice(RUNS)}, {"mission_id": chance.choice(MISSIONS)}]
        states = [TASK_STATE_PENDING, TASK_STATE_RUNNING, TASK_STATE_PAUSED, TASK_STATE_SUCCEEDED]
        self._scope: dict[str, Any] = chance.choice(scopes)
        self._wanted: dict[str, Any] = {}
        if chance.random() < 0.4:
            self._wanted["types"] = chance.sample(TYPES, 2)
        if chance.random() < 0.4:
            self._wanted["states"] = chance.sample(states, 2)
        self.picture = Picture(self._wanted.get("states", ()))
        self.connections = 0

    def connect(self) -> Call:
        self.connections += 1
        token = self.picture.token
        wire = self._chance.choice(self._wires)
        return wire.watch(
            **self._scope, filter=EventFilter(**self._wanted), resume_token=token, heartbeat_interval={"seconds": 1}
        )

    async def watch(self, over: asyncio.Event) -> None:
        while not over.is_set():
            call = self.connect()
            with unless_the_store_is_too_busy():
                for _ in range(self._chance.randrange(60)):
                    self.picture.add(await take(call))
                    await yields(self._chance.choice([0, 0, 0, 30]))
                    if over.is_set():
                        break
            call.cancel()

    async def check(self) -> None:
        """At `synced` the picture is the truth, for nobody writes any more."""
        is_synced = False
        while not is_synced:
            call = self.connect()
            with unless_the_store_is_too_busy():
                while not is_synced:
                    message = await take(call)
                    self.picture.add(message)
                    is_synced = message.HasField("synced")
            call.cancel()
        scope = {name: value for name, value in self._scope.items() if name != "project"}
        request = ListEventsRequest(**scope, **self._wanted, page_size=1000)
        assert self.picture.events == await stored(self._wires[0], request)


class Follower:
    """Follows one task after another, breaks off at any message and goes on at any server."""

    def __init__(self, wires: list[Wire], chance: random.Random, writers: list[Writer]) -> None:
        self._wires = wires
        self._chance = random.Random(chance.random())
        self._writers = writers
        self.followed = 0

    async def watch(self, over: asyncio.Event) -> None:
        while not over.is_set():
            alive = [event_id for writer in self._writers for event_id in writer.states]
            if alive:
                await self._follow(self._chance.choice(alive), over)
            await yields(1)

    async def _follow(self, event_id: str, over: asyncio.Event) -> None:
        token, is_open = "", True
        told: list[EventChange] = []
        while is_open:
            wire = self._chance.choice(self._wires)
            call = wire.watch(event_id=event_id, resume_token=token, heartbeat_interval={"seconds": 1})
            with unless_the_store_is_too_busy():
                for _ in range(self._chance.randrange(1, 8)):
                    message = await self._take_unless_deleted(call)
                    if message is None:
                        return
                    token = message.resume_token
                    if message.HasField("reset"):  # its id was used again between two streams
                        told.clear()
                    if message.HasField("change"):
                        told.append(message.change)
                    if message.HasField("closing") or (message.HasField("bookmark") and over.is_set()):
                        is_open = False
                        break
            call.cancel()
        revisions = [change.event.revision for change in told]
        assert revisions == sorted(set(revisions))
        transitions = [each.revision for each in told[-1].event.transitions if each.revision > revisions[0]]
        assert [change.event.revision for change in told[1:] if change.previous_state] == transitions
        self.followed += 1

    async def _take_unless_deleted(self, call: Call) -> WatchEventResponse | None:
        """The next message, or None if the event was deleted between two streams."""
        try:
            return await take(call)
        except grpc.aio.AioRpcError as error:
            if Failed(error).reason == "EVENT_NOT_FOUND":
                return None
            raise


def have_done_something(watchers: list[Watcher], followers: list[Follower]) -> bool:
    """Whether streams were broken and resumed: how soon depends on what a watcher selects, and on chance."""
    resumed = sum(watcher.connections - 1 for watcher in watchers)
    return resumed > len(watchers) and any(follower.followed for follower in followers)


@pytest.mark.parametrize("_round", range(MODEL_ROUNDS))
async def test_whatever_breaks_every_watcher_ends_with_the_truth(start: Start, _round: int) -> None:
    chance = seeded()
    limits = Limits(watch_page_size=4, watch_queue_max=6)
    over = asyncio.Event()
    async with start(limits=limits) as first, start(limits=limits) as second:
        narrow = [first.narrow(), second.narrow()]
        wires = [first, second]
        await ensure_runs(wires[0])
        writers = [Writer(wires, chance, bytes_each=chance.choice([0, 0, 8_000])) for _ in range(3)]
        watchers = [Watcher(chance.choice([wires, narrow]), chance) for _ in range(6)]
        followers = [Follower(wires, chance, writers) for _ in range(2)]
        async with asyncio.TaskGroup() as at_work:
            for watcher in [*watchers, *followers]:
                at_work.create_task(watcher.watch(over))
            writes = 0
            while writes < MODEL_WRITES or not have_done_something(watchers, followers):
                await asyncio.gather(*(writer.write() for writer in writers))
                writes += len(writers)
            over.set()
        for watcher in watchers:
            await watcher.check()
        for wire in narrow:
            await wire.channel.close()
