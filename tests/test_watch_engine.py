"""What keeps many watches in order at once: memory of the recent past, shared reading, turns, age and reconnections."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncGenerator, Callable
from math import inf
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from pydantic import SecretStr
from pymongo import AsyncMongoClient

from conftest import Start
from picture import Picture, sketch, stored
from tidings.v1.event_pb2 import Event
from tidings.v1.event_service_pb2 import EventFilter, GetEventRequest, ListEventsRequest, ProjectScope
from tidings.v1.task_pb2 import TASK_STATE_RUNNING, TASK_STATE_SUCCEEDED
from tidings_server.change import Change, HistoryLost, Position
from tidings_server.embedded import EmbeddedStore
from tidings_server.limits import Limits
from tidings_server.store import EventStore, Page, Query, Store
from tidings_server.watch.turns import Turns
from wire import Failed, Wire, ended, take, take_synced

PROJECT: dict[str, Any] = {"project": ProjectScope()}
STORM = 2_000


async def synced_token(wire: Wire, **fields: Any) -> str:
    call = wire.watch(**fields)
    token = (await take_synced(call))[-1].resume_token
    call.cancel()
    return token


@pytest.fixture
def open_streams(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many change streams there were each time that one was opened."""
    counts, now = [], 0

    def counted(read: Callable[[Store, Position], AsyncGenerator[Change | None]]) -> Any:
        async def changes(store: Store, after: Position) -> AsyncGenerator[Change | None]:
            nonlocal now
            now += 1
            counts.append(now)
            try:
                async for change in read(store, after):
                    yield change
            finally:
                now -= 1

        return changes

    monkeypatch.setattr(Store, "changes", counted(Store.changes))
    return counts


async def test_all_who_are_far_behind_are_served_by_two_streams(start: Start, open_streams: list[int]) -> None:
    async with start(limits=Limits(ring_changes_max=1)) as wire:
        tokens, created = [], []
        for _ in range(20):
            tokens.append(await synced_token(wire, **PROJECT))
            created.append((await wire.create()).event_id)
        calls = [wire.watch(**PROJECT, resume_token=token) for token in tokens]
        for number, messages in enumerate(await asyncio.gather(*(take_synced(call) for call in calls))):
            assert [message.change.event.event_id for message in messages[:-1]] == created[number:]
        assert 1 < max(open_streams) <= 1 + Limits().catch_up_streams_max


async def test_whoever_was_away_for_a_moment_is_served_from_memory(start: Start, open_streams: list[int]) -> None:
    async with start() as wire:
        token = await synced_token(wire, **PROJECT)
        await wire.create()
        assert len(await take_synced(wire.watch(**PROJECT, resume_token=token))) == 2
        assert max(open_streams) == 1


async def test_what_is_read_from_the_store_is_not_told_again_from_memory(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, lose = Store.changes, asyncio.Event()

    async def changes(store: Store, after: Any = None) -> AsyncGenerator[Change | None]:
        async for change in read(store, after):
            if lose.is_set():
                lose.clear()
                raise HistoryLost
            yield change

    monkeypatch.setattr(Store, "changes", changes)
    async with start() as wire:
        token, created = await synced_token(wire, **PROJECT), []
        for _ in range(3):
            position = wire.server.hub.newest
            lose.set()
            while wire.server.hub.newest == position:  # noqa: ASYNC110 (what it remembers begins anew, and nothing says so)
                await asyncio.sleep(0)
            created.append((await wire.create()).event_id)
            await wire.server.hub.barrier()
            told = await take_synced(wire.watch(**PROJECT, resume_token=token))
            assert [message.change.event.event_id for message in told[:-1]] == created


class Loss:
    """Servers that do not hear of changes any more, and lose them in the end."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._read, self._cut_off, self._lost = Store.changes, set[Store](), asyncio.Event()
        monkeypatch.setattr(Store, "changes", lambda store, after=None: self._changes(store, after))

    def cut_off(self, wire: Wire) -> None:
        self._cut_off.add(wire.server.store)

    def lose(self) -> None:
        self._lost.set()

    async def _changes(self, store: Store, after: Any) -> AsyncGenerator[Change | None]:
        async for change in self._read(store, after):
            if store in self._cut_off:
                await self._lost.wait()
                self._cut_off.discard(store)
                raise HistoryLost
            yield change


@pytest.fixture
def loss(monkeypatch: pytest.MonkeyPatch) -> Loss:
    return Loss(monkeypatch)


async def watched_by(wire: Wire, watchers: int) -> None:
    while wire.server.hub.watchers < watchers:  # noqa: ASYNC110 (nothing tells)
        await asyncio.sleep(0)


async def test_history_that_one_server_lost_is_not_lost_for_a_token_of_another(start: Start, loss: Loss) -> None:
    async with start() as first, start() as second:
        old = second.watch(**PROJECT)
        await take_synced(old)
        loss.cut_off(second)
        await first.create()
        call = second.watch(**PROJECT, resume_token=await synced_token(first, **PROJECT))
        await watched_by(second, 2)
        created = await first.create()
        loss.lose()
        told = await take_synced(call)
        assert [message.change.event.event_id for message in told[:-1]] == [created.event_id]
        assert sketch(await take_synced(old))[0] == "reset HISTORY_LOST"


async def test_what_a_server_loses_while_it_drains_is_told_by_the_next(start: Start, loss: Loss) -> None:
    async with start() as first, start() as second:
        loss.cut_off(second)
        await first.create()
        call = second.watch(**PROJECT, resume_token=await synced_token(first, **PROJECT))
        await watched_by(second, 1)
        created = await first.create()
        second.server.hub.drain()
        loss.lose()
        messages, _ = await ended(call)
        assert sketch(messages)[-1] == "closing DRAINING"
        told = await take_synced(first.watch(**PROJECT, resume_token=messages[-1].resume_token))
        assert [message.change.event.event_id for message in told[:-1]] == [created.event_id]


async def test_a_snapshot_that_goes_on_is_kept_alive_while_the_past_is_read(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, may_read = Store.changes, asyncio.Event()

    async def changes(store: Store, after: Any = None) -> AsyncGenerator[Change | None]:
        await may_read.wait()
        async for change in read(store, after):
            yield change

    async with start(limits=Limits(ring_changes_max=1, watch_page_size=2)) as wire:
        created = [(await wire.create()).event_id for _ in range(5)]
        call = wire.watch(**PROJECT)
        told = [await take(call) for _ in range(3)]
        call.cancel()
        created += [(await wire.create()).event_id for _ in range(3)]
        await wire.server.hub.barrier()
        monkeypatch.setattr(Store, "changes", changes)
        call = wire.watch(**PROJECT, resume_token=told[-1].resume_token, heartbeat_interval=Duration(seconds=1))
        bookmark = await take(call)
        assert bookmark.HasField("bookmark")
        may_read.set()
        for go_on in (call, wire.watch(**PROJECT, resume_token=bookmark.resume_token)):
            messages = [*told, *await take_synced(go_on)]
            assert sorted(each.change.event.event_id for each in messages if each.HasField("change")) == sorted(created)


async def test_who_asks_first_for_a_snapshot_is_served_first_however_often_it_is_told_that_it_is_alive(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, may_read, served = EventStore.page, asyncio.Event(), list[str]()

    async def page(events: EventStore, query: Query, **place: Any) -> Page[Event]:
        served.extend(query.types)
        await may_read.wait()
        return await read(events, query, **place)

    monkeypatch.setattr(EventStore, "page", page)
    async with start() as wire:
        reading = wire.watch(**PROJECT, filter=EventFilter(types=["reading"]))
        await watched_by(wire, 1)
        impatient = wire.watch(
            **PROJECT, filter=EventFilter(types=["impatient"]), heartbeat_interval=Duration(seconds=1)
        )
        assert (await take(impatient)).HasField("bookmark")
        patient = wire.watch(**PROJECT, filter=EventFilter(types=["patient"]))
        await watched_by(wire, 3)
        assert (await take(impatient)).HasField("bookmark")
        may_read.set()
        for call in (reading, impatient, patient):
            await take_synced(call)
        assert served == ["reading", "impatient", "patient"]


async def test_who_is_busy_when_its_turn_could_come_holds_up_nobody_and_keeps_its_place() -> None:
    turns = Turns(1)
    with turns.line_up() as busy, turns.line_up() as last:
        with turns.line_up() as ready:
            assert await ready.comes(inf)
            coming = [asyncio.ensure_future(turn.comes(inf)) for turn in (last, busy)]
            await asyncio.sleep(0)
        assert await coming[1]
        assert not last.has_come
        coming[0].cancel()


async def test_a_slow_reader_among_laggards_is_left_behind_and_comes_to_the_same_end(start: Start) -> None:
    limits = Limits(ring_changes_max=1, watch_queue_max=2, catch_up_streams_max=1)
    async with start(limits=limits) as wire, wire.narrow() as narrow:
        token = await synced_token(wire, **PROJECT)
        created = [(await wire.create(metadata={"text": "x" * 60_000})).event_id for _ in range(12)]
        slow, fast = (each.watch(**PROJECT, resume_token=token) for each in (narrow, wire))
        told = await take_synced(fast)
        assert [message.change.event.event_id for message in told[:-1]] == created
        told = await take_synced(slow)
        assert [message.change.event.event_id for message in told[:-1]] == created


async def test_events_whose_changes_were_missed_are_read_together(
    start: Start, mongo: AsyncMongoClient[dict[str, Any]], database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with start() as wire:
        tasks = [await wire.create_task() for _ in range(30)]
        calls = [wire.watch(event_id=task.event_id) for task in tasks]
        for call in calls:
            await take_synced(call)
        store, reads = wire.server.store.events, []
        read = store.get_many

        async def counted(project: str, event_ids: list[str]) -> Any:
            reads.append(len(event_ids))
            return await read(project, event_ids)

        monkeypatch.setattr(store, "get_many", counted)
        await mongo[database].runs.drop()  # the history of a collection that is dropped is lost
        while sum(reads) < len(tasks):
            await wire.events.GetEvent(GetEventRequest(event_id=tasks[0].event_id))
        assert len(reads) < 5
        for task in tasks:
            await wire.update(task.event_id, TASK_STATE_SUCCEEDED)
        for call in calls:
            assert sketch([await take(call)]) == ["UPDATED 2 SUCCEEDED from PENDING"]


@pytest.mark.parametrize("kind", ["project", "event"])
async def test_a_watch_that_has_been_open_for_long_is_asked_to_move_on(start: Start, kind: str) -> None:
    async with start(limits=Limits(watch_age_seconds=1)) as wire:
        task = await wire.create_task()
        scope = PROJECT if kind == "project" else {"event_id": task.event_id}
        messages, error = await ended(wire.watch(**scope))
        assert sketch(messages) == ["INITIAL 1 PENDING", "synced", "closing MAX_AGE"]
        assert messages[-1].closing.HasField("reconnect_after")
        failed = Failed(error)
        assert (failed.code, failed.reason) == (grpc.StatusCode.UNAVAILABLE, "WATCH_MAX_AGE")
        await wire.update(task.event_id, TASK_STATE_RUNNING)
        resumed = wire.watch(**scope, resume_token=messages[-1].resume_token)
        assert sketch([await take(resumed)]) == ["UPDATED 2 RUNNING from PENDING"]


async def test_those_who_leave_together_are_told_to_come_at_different_times(start: Start) -> None:
    async with start() as wire:
        calls = [wire.watch(**PROJECT) for _ in range(20)]
        for call in calls:
            await take_synced(call)
        wire.server.hub.drain()
        waits = {(await take(call)).closing.reconnect_after.ToMilliseconds() for call in calls}
        assert len(waits) > 5
        assert min(waits) >= 100


async def test_a_storm_of_reconnections_is_served(start: Start) -> None:
    async with start() as wire:
        token = await synced_token(wire, **PROJECT)
        event = await wire.create()
        calls = [wire.watch(**PROJECT, resume_token=token) for _ in range(STORM)]
        for messages in await asyncio.gather(*(take_synced(call) for call in calls)):
            assert [message.change.event.event_id for message in messages] == [event.event_id, ""]


@pytest.mark.parametrize("remembered", [1, 10_000])
async def test_a_store_that_was_restored_from_a_copy_is_a_loss_that_is_told(
    start: Start, tmp_path: Path, remembered: int
) -> None:
    picture, limits = Picture(), Limits(ring_changes_max=remembered)
    async with EmbeddedStore(tmp_path / "now") as store, start(mongodb_uri=SecretStr(store.uri)) as wire:
        await wire.create_task()
    shutil.copytree(tmp_path / "now", tmp_path / "copy")
    async with EmbeddedStore(tmp_path / "now") as store, start(mongodb_uri=SecretStr(store.uri)) as wire:
        call = wire.watch(**PROJECT)
        picture.add_all(await take_synced(call))
        await wire.create_task()
        picture.add(await take(call))
    await asyncio.sleep(1)  # within the same second the copy would go on with the very cluster times of its original
    async with (
        EmbeddedStore(tmp_path / "copy") as store,
        start(mongodb_uri=SecretStr(store.uri), limits=limits) as wire,
    ):
        await wire.create_task()
        messages = await take_synced(wire.watch(**PROJECT, resume_token=picture.token))
        assert sketch(messages)[0] == "reset HISTORY_LOST"
        picture.add_all(messages)
        assert picture.events == await stored(wire, ListEventsRequest())
