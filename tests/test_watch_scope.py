"""The watch of a run, a mission or a project, through the wire: snapshot, changes, and every way to miss some."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Value
from pydantic import SecretStr
from pymongo import AsyncMongoClient

from conftest import Start
from picture import Picture, sketch, stored
from tidings.v1.event_pb2 import Event
from tidings.v1.event_service_pb2 import (
    HISTORY_LOSS_POLICY_FAIL,
    DeleteEventRequest,
    EventFilter,
    ListEventsRequest,
    ProjectScope,
    WatchEventResponse,
)
from tidings.v1.task_pb2 import (
    TASK_STATE_CANCELLED,
    TASK_STATE_FAILED,
    TASK_STATE_PAUSED,
    TASK_STATE_PENDING,
    TASK_STATE_RUNNING,
    TASK_STATE_SUCCEEDED,
    TaskProgress,
)
from tidings_server.auth import SCOPES
from tidings_server.change import Change, HistoryLost
from tidings_server.clock import system_clock
from tidings_server.embedded import EmbeddedStore
from tidings_server.limits import Limits
from wire import Call, Failed, Keyed, Wire, ended, take, take_all, take_synced, take_until
from writer import Writer, seeded

Mongo = AsyncMongoClient[dict[str, Any]]

SECOND = Duration(seconds=1)
PROJECT = {"project": ProjectScope()}
LARGE = Value(string_value="x" * 200_000)
OPLOG_ENTRIES = 10


async def delete(wire: Wire, event_id: str) -> None:
    await wire.events.DeleteEvent(DeleteEventRequest(event_id=event_id))


async def take_marked(call: Call, wire: Wire, **fields: Any) -> list[WatchEventResponse]:
    """All messages up to an event that is created now."""
    marker = await wire.create("marker", **fields)
    return await take_until(call, lambda message: message.change.event.event_id == marker.event_id)


def is_marker(message: WatchEventResponse) -> bool:
    return message.change.event.type == "marker"


async def token_now(wire: Wire, **fields: Any) -> str:
    """The token of a watch that was broken off when it was synced."""
    call = wire.watch(**fields)
    messages = await take_synced(call)
    call.cancel()
    return messages[-1].resume_token


async def refusal(wire: Wire, **fields: Any) -> Failed:
    """Why a watch is refused before it has told anything."""
    messages, error = await ended(wire.watch(**fields))
    assert messages == []
    return Failed(error)


def told_ids(messages: list[WatchEventResponse]) -> list[str]:
    return [message.change.event.event_id for message in messages if message.HasField("change")]


# What is told


@pytest.mark.parametrize("kind", ["run_id", "mission_id", "project"])
async def test_a_scope_tells_its_events_and_no_others(start: Start, kind: str) -> None:
    scope: dict[str, Any] = PROJECT if kind == "project" else {kind: "mine"}
    mine, other = ({}, {}) if kind == "project" else ({kind: "mine"}, {kind: "other"})
    async with start() as wire:
        task, fact = await wire.create_task(**mine), await wire.create(**mine)
        others = [] if kind == "project" else [await wire.create_task(**other), await wire.create()]
        call = wire.watch(**scope)
        messages = await take_synced(call)
        assert [message.change.event for message in messages[:-1]] == [task, fact]
        assert sketch(messages) == ["INITIAL 1 PENDING", "INITIAL 1", "synced"]
        for each in others:
            await delete(wire, each.event_id)
        await wire.update(task.event_id, TASK_STATE_RUNNING)
        await wire.update(task.event_id, progress=TaskProgress(completed=1))
        await wire.update(task.event_id, TASK_STATE_SUCCEEDED)
        await delete(wire, fact.event_id)
        new = await wire.create(**mine)
        messages = [await take(call) for _ in range(5)]
        assert sketch(messages) == [
            "UPDATED 2 RUNNING from PENDING",
            "UPDATED 3 RUNNING",
            "UPDATED 4 SUCCEEDED from RUNNING",
            "DELETED 2",
            "CREATED 1",
        ]
        assert messages[-1].change.event == new


@pytest.mark.parametrize("scope", [PROJECT, {"run_id": "first"}], ids=["project", "run"])
async def test_isolated_a_scope_tells_nothing_of_another_project(start: Start, scope: dict[str, Any]) -> None:
    async with start() as wire:
        keys = [await wire.server.api_keys.create(project, SCOPES) for project in ("ours", "theirs")]
    async with start() as wire, Keyed(wire.server, keys[0]) as ours, Keyed(wire.server, keys[1]) as theirs:
        await theirs.create(run_id="first")
        await ours.ensure("first")
        call = ours.watch(**scope)
        messages = await take_synced(call)
        assert sketch(messages) == ["synced"]
        await theirs.create(run_id="first")
        mine = await ours.create(run_id="first")
        assert told_ids([await take(call)]) == [mine.event_id]
        error = await refusal(theirs, **scope, resume_token=messages[0].resume_token)
        assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "RESUME_TOKEN_INVALID")


async def test_a_filter_on_types(start: Start) -> None:
    async with start() as wire:
        red, green, _ = [await wire.create_task(type_) for type_ in ("red", "green", "blue")]
        call = wire.watch(**PROJECT, filter=EventFilter(types=["green", "red"]))
        assert told_ids(await take_synced(call)) == [red.event_id, green.event_id]
        for type_ in ("blue", "green", "blue", "red"):
            await wire.create_task(type_)
        await wire.update(red.event_id, TASK_STATE_RUNNING)
        messages = [await take(call) for _ in range(3)]
        assert [message.change.event.type for message in messages] == ["green", "red", "red"]


async def test_a_filter_on_states_tells_who_comes_and_who_leaves(start: Start) -> None:
    async with start() as wire:
        running, pending = await wire.create_task("runs"), await wire.create_task("waits")
        await wire.create("fact")
        await wire.update(running.event_id, TASK_STATE_RUNNING)
        call = wire.watch(**PROJECT, filter=EventFilter(states=[TASK_STATE_RUNNING, TASK_STATE_PAUSED]))
        assert told_ids(await take_synced(call)) == [running.event_id]
        never = await wire.create_task("never")
        await wire.update(never.event_id, progress=TaskProgress(completed=1))
        await wire.update(never.event_id, TASK_STATE_CANCELLED)
        await delete(wire, never.event_id)
        await wire.create("fact")
        await wire.update(running.event_id, progress=TaskProgress(completed=1))
        await wire.update(running.event_id, TASK_STATE_SUCCEEDED)
        await delete(wire, running.event_id)
        await wire.update(pending.event_id, TASK_STATE_RUNNING)
        await wire.update(pending.event_id, TASK_STATE_PAUSED)
        await delete(wire, pending.event_id)
        messages = [await take(call) for _ in range(5)]
        assert [
            f"{message.change.event.type} {text}" for message, text in zip(messages, sketch(messages), strict=True)
        ] == [
            "runs UPDATED 3 RUNNING",
            "runs UPDATED 4 SUCCEEDED from RUNNING",
            "waits UPDATED 2 RUNNING from PENDING",
            "waits UPDATED 3 PAUSED from RUNNING",
            "waits DELETED 4 PAUSED",
        ]


async def test_what_has_expired_is_not_in_the_snapshot(start: Start) -> None:
    later = [0]
    async with start(clock=lambda: system_clock() + later[0]) as wire:
        await wire.create(ttl=100)
        kept = await wire.create(ttl=1000)
        later[0] = 100_000
        assert told_ids(await take_synced(wire.watch(**PROJECT))) == [kept.event_id]


async def test_an_id_that_is_used_again_goes_on_in_its_revisions(start: Start, some_id: str) -> None:
    async with start() as wire:
        call = wire.watch(**PROJECT)
        await take_synced(call)
        for summary in ("first", "second"):
            await wire.create(event_id=some_id, summary=summary)
            await delete(wire, some_id)
        assert sketch([await take(call) for _ in range(4)]) == ["CREATED 1", "DELETED 2", "CREATED 3", "DELETED 4"]


# The snapshot

SELECTIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "project": (PROJECT, {}),
    "run of two types": ({"run_id": "first"}, {"types": ["blue", "red"]}),
    "mission in three states": (
        {"mission_id": "first"},
        {"states": [TASK_STATE_PENDING, TASK_STATE_PAUSED, TASK_STATE_FAILED]},
    ),
}


@pytest.mark.parametrize("selection", SELECTIONS)
async def test_exact_start_at_synced_the_picture_equals_the_store(start: Start, selection: str) -> None:
    scope, wanted = SELECTIONS[selection]
    listed = {**wanted, **{name: value for name, value in scope.items() if name != "project"}}
    async with start(limits=Limits(watch_page_size=3)) as wire, wire.narrow() as reader:
        chance = seeded()
        writers = [Writer([wire], chance, bytes_each=40_000) for _ in range(3)]
        told_first = await wire.create_task("red", run_id="first", mission_id="first")
        for number in range(60):
            await writers[number % 3].create()
        picture = Picture(wanted.get("states", ()))
        call = reader.watch(**scope, filter=EventFilter(**wanted))
        early = [await take(call)]
        await wire.update(told_first.event_id, progress=TaskProgress(completed=1))
        for _ in range(3):  # the transport holds few messages, so that the server is still at the first pages
            for _ in range(4):
                await asyncio.gather(*(writer.write() for writer in writers))
            early.append(await take(call))
        early += await take_synced(call)
        picture.add_all(early)
        assert any(not each.startswith("INITIAL") for each in sketch(early)[:-1]), "nothing changed meanwhile"
        assert picture.events == await stored(wire, ListEventsRequest(**listed))
        for _ in range(15):
            await asyncio.gather(*(writer.write() for writer in writers))
        await delete(wire, (await wire.create_task("red", run_id="first", mission_id="first")).event_id)
        picture.add_all(await take_until(call, lambda message: message.change.event.summary == ""))
        picture.add(await take(call))
        assert picture.events == await stored(wire, ListEventsRequest(**listed))


async def test_a_snapshot_that_is_cut_goes_on_where_it_was(start: Start) -> None:
    async with start(limits=Limits(watch_page_size=3)) as wire:
        tasks = [(await wire.create_task()).event_id for _ in range(8)]
        call = wire.watch(**PROJECT)
        told = [await take(call) for _ in range(4)]
        call.cancel()
        await wire.update(tasks[0], TASK_STATE_RUNNING)  # told already
        await wire.update(tasks[7], TASK_STATE_RUNNING)  # not told yet
        await delete(wire, tasks[5])
        rest = await take_synced(wire.watch(**PROJECT, resume_token=told[-1].resume_token))
        assert told_ids(told) == tasks[:4]
        assert sketch(rest) == [
            "UPDATED 2 RUNNING from PENDING",
            "INITIAL 1 PENDING",
            "INITIAL 1 PENDING",
            "INITIAL 2 RUNNING",
            "synced",
        ]
        assert told_ids(rest) == [tasks[0], tasks[4], tasks[6], tasks[7]]


# Live watches, bookmarks, and the end


async def test_a_live_watch_begins_with_what_changes_from_now_on(start: Start) -> None:
    async with start() as wire:
        task = await wire.create_task()
        call = wire.watch(**PROJECT, live_only=True)
        assert sketch([await take(call)]) == ["synced"]
        await wire.update(task.event_id, TASK_STATE_RUNNING)
        await wire.create()
        assert sketch([await take(call) for _ in range(2)]) == ["UPDATED 2 RUNNING from PENDING", "CREATED 1"]


async def test_bookmarks_carry_tokens_that_repeat_nothing(start: Start) -> None:
    async with start() as wire:
        call = wire.watch(**PROJECT, heartbeat_interval=SECOND)
        await take_synced(call)
        await wire.create_task()
        bookmark = (await take_until(call, lambda message: message.HasField("bookmark")))[-1]
        assert sketch([bookmark]) == ["bookmark LIVE"]
        new = await wire.create()
        resumed = wire.watch(**PROJECT, resume_token=bookmark.resume_token, heartbeat_interval=SECOND)
        for each in (resumed, call):  # a bookmark may come first, when the machine is busy
            messages = await take_until(each, lambda message: message.HasField("change"))
            messages += await take_until(each, lambda message: message.HasField("bookmark"))
            assert told_ids(messages) == [new.event_id]


async def test_a_watch_ends_with_ok_after_the_time_it_was_given(start: Start) -> None:
    async with start() as wire:
        call = wire.watch(**PROJECT, max_duration=SECOND)
        await take_synced(call)
        event = await wire.create()
        messages = await take_all(call)
        assert sketch(messages) == ["CREATED 1", "closing MAX_DURATION"]
        assert await call.code() == grpc.StatusCode.OK
        await delete(wire, event.event_id)
        resumed = wire.watch(**PROJECT, resume_token=messages[-1].resume_token)
        assert sketch(await take_synced(resumed)) == ["DELETED 2", "synced"]


async def test_a_watch_whose_time_is_over_before_it_has_caught_up_is_not_synced(start: Start) -> None:
    async with start() as wire, wire.narrow() as slow:
        task = await wire.create_task()
        token = await token_now(wire, **PROJECT)
        await wire.update(task.event_id, TASK_STATE_RUNNING, results=[LARGE])
        for number in range(8):
            await wire.update(task.event_id, progress=TaskProgress(completed=number))
        call = slow.watch(**PROJECT, resume_token=token, max_duration=SECOND)
        first = await take(call)
        timer = wire.watch(**PROJECT, max_duration=SECOND)
        await take_until(timer, lambda message: message.HasField("closing"))
        messages = [first, *await take_all(call)]
        assert "synced" not in sketch(messages)
        assert sketch(messages)[-1] == "closing MAX_DURATION"
        picture = Picture()
        picture.events[task.event_id] = task
        picture.add_all(messages)
        picture.add_all(await take_synced(wire.watch(**PROJECT, resume_token=picture.token)))
        assert picture.events == await stored(wire, ListEventsRequest())


@asynccontextmanager
async def draining_server(start: Start, **settings: Any) -> AsyncIterator[tuple[Wire, Wire]]:
    """A server that drains at the end, and a client that outlives it."""
    async with start(**settings) as wire:
        client = wire.narrow()
        yield wire, client


async def test_a_server_that_stops_says_so_and_another_goes_on(start: Start) -> None:
    async with draining_server(start) as (wire, client):
        picture = Picture()
        task = await wire.create_task()
        call = client.watch(**PROJECT)
        picture.add_all(await take_synced(call))
        await wire.update(task.event_id, TASK_STATE_RUNNING)
        picture.add(await take(call))
    messages, error = await ended(call)
    await client.channel.close()
    assert sketch(messages) == ["closing DRAINING"]
    assert messages[0].closing.reconnect_after.ToMilliseconds() > 0
    assert (error.code(), Failed(error).reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
    picture.add_all(messages)
    async with start() as wire:
        await wire.update(task.event_id, TASK_STATE_SUCCEEDED)
        call = wire.watch(**PROJECT, resume_token=picture.token)
        messages = await take_synced(call)
        assert sketch(messages) == ["UPDATED 3 SUCCEEDED from RUNNING", "synced"]
        picture.add_all(messages)
        assert picture.events == await stored(wire, ListEventsRequest())


async def test_a_server_that_stops_does_not_wait_for_who_is_catching_up(start: Start) -> None:
    async with draining_server(start) as (wire, client):
        onlooker = Wire(wire.server)
        task = await wire.create_task()
        token = await token_now(wire, **PROJECT)
        for number in range(20):
            await wire.update(task.event_id, results=[LARGE], progress=TaskProgress(completed=number))
        call, idle = client.watch(**PROJECT, resume_token=token), onlooker.watch(**PROJECT, live_only=True)
        messages = [await take(call)]
        await take_synced(idle)
        rest = asyncio.create_task(after_the_end_of(idle, call))
    messages += await rest
    await client.channel.close()
    await onlooker.channel.close()
    assert sketch(messages)[-1] == "closing DRAINING"
    revisions = [message.change.event.revision for message in messages[:-1]]
    assert revisions == list(range(2, 2 + len(revisions)))
    assert len(revisions) < 20, "it was told everything first"
    async with start() as wire:
        missed = await take_synced(wire.watch(**PROJECT, resume_token=messages[-1].resume_token))
        assert [message.change.event.revision for message in missed[:-1]] == list(range(2 + len(revisions), 22))


async def after_the_end_of(first: Call, second: Call) -> list[WatchEventResponse]:
    await ended(first)
    messages, _ = await ended(second)
    return messages


async def test_a_server_that_stops_during_a_snapshot_lets_it_go_on(start: Start) -> None:
    async with draining_server(start, limits=Limits(watch_page_size=2)) as (wire, client):
        for _ in range(30):
            await wire.create(metadata={"text": "x" * 50_000})
        call = client.watch(**PROJECT)
        first = await take(call)
        rest = asyncio.create_task(ended(call))
    messages, error = await rest
    await client.channel.close()
    assert Failed(error).reason == "DRAINING"
    assert sketch(messages)[-1] == "closing DRAINING"
    assert "synced" not in sketch(messages)
    async with start() as wire:
        for message, told in ((first, 1), (messages[-1], len(messages))):
            resumed = wire.watch(**PROJECT, resume_token=message.resume_token)
            assert sketch(await take_synced(resumed)) == ["INITIAL 1"] * (30 - told) + ["synced"]


# Resuming


async def test_a_watch_goes_on_after_any_of_its_messages(start: Start) -> None:
    async with start() as wire:
        writer = Writer([wire], seeded())
        await writer.create()
        call = wire.watch(**PROJECT)
        messages = (await take_synced(call))[-1:]
        for _ in range(20):
            await writer.write()
        messages += await take_marked(call, wire)
        for number, message in enumerate(messages):
            resumed = wire.watch(**PROJECT, resume_token=message.resume_token)
            assert sketch(await take_synced(resumed)) == [*sketch(messages[number + 1 :]), "synced"]
            resumed.cancel()


async def test_resumable_over_disconnections_and_a_restart(start: Start) -> None:
    picture = Picture()
    chance = seeded()
    writer = Writer([], chance)
    for _ in range(2):
        async with start() as wire:
            writer.wires = [wire]
            for _ in range(4):
                await writer.write()
                call = wire.watch(**PROJECT, resume_token=picture.token)
                picture.add_all(await take_synced(call))
                for _ in range(15):
                    await writer.write()
                for _ in range(chance.randrange(12)):
                    message = await take(call)
                    picture.add(message)
                call.cancel()
            await writer.write()
    async with start() as wire:
        picture.add_all(await take_synced(wire.watch(**PROJECT, resume_token=picture.token)))
        assert picture.events == await stored(wire, ListEventsRequest())


async def test_a_watch_resumes_on_another_server(start: Start) -> None:
    chance = seeded()
    async with start() as first, start() as second:
        picture, writer = Picture(), Writer([first, second], chance)
        for number in range(8):
            call = (first, second)[number % 2].watch(**PROJECT, resume_token=picture.token)
            picture.add_all(await take_synced(call))
            for _ in range(5):
                await writer.write()
            picture.add_all(await take_marked(call, first if chance.random() < 0.5 else second))
            call.cancel()
        assert picture.events == await stored(first, ListEventsRequest())


async def test_a_watch_that_missed_nothing_is_synced_at_once(start: Start) -> None:
    async with start() as wire:
        await wire.ensure("mine")
        token = await token_now(wire, run_id="mine")
        await wire.create(run_id="other")
        await take_synced(wire.watch(**PROJECT))  # the server has heard of it
        assert sketch(await take_synced(wire.watch(run_id="mine", resume_token=token))) == ["synced"]


async def test_a_token_is_good_for_its_scope_and_filter_only(start: Start) -> None:
    async with start() as wire:
        for run_id in ("mine", "other"):
            await wire.ensure(run_id, "mine")
        wanted = EventFilter(types=["red", "blue"], states=[TASK_STATE_RUNNING, TASK_STATE_FAILED])
        token = await token_now(wire, run_id="mine", filter=wanted)
        same = EventFilter(types=["blue", "red", "red"], states=[TASK_STATE_FAILED, TASK_STATE_RUNNING])
        assert sketch(await take_synced(wire.watch(run_id="mine", filter=same, resume_token=token))) == ["synced"]
        for scope, other in (
            ({"run_id": "other"}, wanted),
            ({"mission_id": "mine"}, wanted),
            (PROJECT, wanted),
            ({"run_id": "mine"}, None),
            ({"run_id": "mine"}, EventFilter(types=["red"], states=wanted.states)),
            ({"run_id": "mine"}, EventFilter(types=wanted.types)),
            ({"run_id": "mine"}, EventFilter(types=wanted.types, states=[TASK_STATE_RUNNING])),
        ):
            error = await refusal(wire, **scope, filter=other, resume_token=token)
            assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "RESUME_TOKEN_INVALID")


# Readers that are slow


@pytest.mark.parametrize("narrow", [True, False], ids=["small windows", "the transport's windows"])
async def test_a_reader_that_falls_behind_catches_up(start: Start, narrow: bool) -> None:
    async with start(limits=Limits(watch_queue_max=4)) as wire, wire.narrow() as other:
        slow = other if narrow else wire
        tasks = [await wire.create_task() for _ in range(3)]
        call, onlooker = slow.watch(**PROJECT), wire.watch(**PROJECT)
        picture, looking_on = Picture(), Picture()
        for each, known in ((call, picture), (onlooker, looking_on)):
            known.add_all(await take_synced(each))
        for round_ in range(2):
            reading = asyncio.create_task(take_until(onlooker, is_marker))
            for number in range(12):
                progress = TaskProgress(completed=round_ * 100 + number)
                for task in tasks:
                    await wire.update(task.event_id, results=[LARGE], progress=progress)
                await delete(wire, (await wire.create()).event_id)
            await wire.create("marker")
            # The slow reader has read nothing of all this yet: it held up neither the writer nor the other watcher.
            looking_on.add_all(await reading)
            picture.add_all(await take_until(call, is_marker))
            assert picture.events == looking_on.events == await stored(wire, ListEventsRequest())


async def test_a_reader_that_is_slow_to_catch_up_holds_up_nobody(start: Start) -> None:
    async with start(limits=Limits(watch_queue_max=2, catch_up_streams_max=1)) as wire, wire.narrow() as slow:
        task = await wire.create_task()
        token = await token_now(wire, **PROJECT)
        call = slow.watch(**PROJECT)
        messages = await take_synced(call)
        for number in range(12):
            await wire.update(task.event_id, results=[LARGE], progress=TaskProgress(completed=number))
        messages += [await take(call) for _ in range(5)]  # by now it is given what the store kept for it
        other = wire.watch(**PROJECT, resume_token=token)
        assert len(await take_synced(other)) == 13
        messages += [await take(call) for _ in range(7)]
        assert [each.change.event.revision for each in messages if each.HasField("change")] == list(range(1, 14))


async def a_while(wire: Wire, seconds: int) -> None:
    await take_all(wire.watch(**PROJECT, live_only=True, max_duration=Duration(seconds=seconds)))


async def test_a_reader_that_took_nothing_for_too_long_is_told_so_and_may_go_on(start: Start) -> None:
    async with start(limits=Limits(watch_stall_seconds=1)) as wire, wire.narrow() as slow:
        picture = Picture()
        task = await wire.create_task()
        call = slow.watch(**PROJECT)
        picture.add_all(await take_synced(call))
        for number in range(12):
            await wire.update(task.event_id, results=[LARGE], progress=TaskProgress(completed=number))
        await a_while(wire, 2)
        messages, error = await ended(call)
        stalled = Failed(error)
        assert (stalled.code, stalled.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "WATCHER_STALLED")
        assert stalled.retry_seconds == 1
        picture.add_all(messages)
        picture.add_all(await take_synced(wire.watch(**PROJECT, resume_token=picture.token)))
        assert picture.events == await stored(wire, ListEventsRequest())


async def test_a_reader_that_does_not_come_back_leaves_its_place_to_others(start: Start) -> None:
    async with start(limits=Limits(watch_stall_seconds=1, watches_per_project_max=2)) as wire, wire.narrow() as slow:
        task = await wire.create_task()
        call = slow.watch(**PROJECT)
        await take_synced(call)
        for number in range(12):
            await wire.update(task.event_id, results=[LARGE], progress=TaskProgress(completed=number))
        await a_while(wire, 3)
        others = [wire.watch(**PROJECT, live_only=True) for _ in range(2)]
        for other in others:
            await take_synced(other)


# History that is lost


@pytest.fixture(scope="module")
async def forgetful() -> AsyncIterator[EmbeddedStore]:
    """A store that keeps only the last few changes once it is told to forget."""
    arguments = ["--oplog-max-entries", str(OPLOG_ENTRIES), "--enable-test-commands"]
    async with EmbeddedStore(None, arguments=arguments) as store:
        yield store


@pytest.fixture
async def forgetful_mongo(forgetful: EmbeddedStore) -> AsyncIterator[Mongo]:
    client: Mongo = AsyncMongoClient(forgetful.uri)
    yield client
    await client.close()


async def forget(wire: Wire, mongo: Mongo) -> Event:
    """Make more changes than the store keeps, and have it forget the others. The first one is returned."""
    first = await wire.create()
    for _ in range(2 * OPLOG_ENTRIES):
        await wire.create()
    await take_synced(wire.watch(**PROJECT, filter=EventFilter(types=["none"])))  # the server has seen them
    assert (await mongo.admin.command("secantusAdmin.pruneOplog"))["pruned"] > OPLOG_ENTRIES
    return first


FORGETFUL = Limits(ring_changes_max=3)
"""A server that remembers almost nothing by itself."""


async def test_lost_history_is_told_and_the_snapshot_begins_again(
    start: Start, forgetful: EmbeddedStore, forgetful_mongo: Mongo
) -> None:
    async with start(mongodb_uri=SecretStr(forgetful.uri), limits=FORGETFUL) as wire:
        picture = Picture()
        gone = await wire.create()
        call = wire.watch(**PROJECT)
        picture.add_all(await take_synced(call))
        call.cancel()
        await delete(wire, gone.event_id)
        await forget(wire, forgetful_mongo)
        call = wire.watch(**PROJECT, resume_token=picture.token)
        messages = await take_synced(call)
        assert sketch(messages)[:2] == ["reset HISTORY_LOST", "INITIAL 1"]
        picture.add_all(messages)
        picture.add_all(await take_marked(call, wire))
        assert picture.events == await stored(wire, ListEventsRequest())


async def test_lost_history_ends_a_watch_that_wants_it_all(
    start: Start, forgetful: EmbeddedStore, forgetful_mongo: Mongo
) -> None:
    async with start(mongodb_uri=SecretStr(forgetful.uri), limits=FORGETFUL) as wire:
        token = await token_now(wire, **PROJECT)
        await forget(wire, forgetful_mongo)
        lost = await refusal(wire, **PROJECT, resume_token=token, on_history_loss=HISTORY_LOSS_POLICY_FAIL)
        assert (lost.code, lost.reason) == (grpc.StatusCode.OUT_OF_RANGE, "HISTORY_LOST")


async def test_history_that_is_lost_while_a_reader_is_slow_is_told(
    start: Start, forgetful: EmbeddedStore, forgetful_mongo: Mongo
) -> None:
    limits = Limits(watch_queue_max=2, ring_changes_max=3)
    async with start(mongodb_uri=SecretStr(forgetful.uri), limits=limits) as wire, wire.narrow() as slow:
        picture = Picture()
        task = await wire.create_task()
        call = slow.watch(**PROJECT)
        picture.add_all(await take_synced(call))
        for number in range(6):
            await wire.update(task.event_id, results=[LARGE], progress=TaskProgress(completed=number))
        await forget(wire, forgetful_mongo)
        messages = await take_synced(call)
        assert "reset HISTORY_LOST" in sketch(messages)
        picture.add_all(messages)
        assert picture.events == await stored(wire, ListEventsRequest())


async def test_what_the_server_remembers_needs_no_history_of_the_store(
    start: Start, forgetful: EmbeddedStore, forgetful_mongo: Mongo
) -> None:
    async with start(mongodb_uri=SecretStr(forgetful.uri)) as wire:
        token = await token_now(wire, **PROJECT)
        first = await forget(wire, forgetful_mongo)
        missed = await take_synced(wire.watch(**PROJECT, resume_token=token))
        assert sketch(missed) == ["CREATED 1"] * (1 + 2 * OPLOG_ENTRIES) + ["synced"]
        assert told_ids(missed)[0] == first.event_id


async def test_what_is_forgotten_while_it_is_read_is_not_passed_over(
    start: Start, forgetful: EmbeddedStore, forgetful_mongo: Mongo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The embedded store goes on reading after what it has forgotten, as if nothing had been there."""
    monkeypatch.setattr("tidings_server.store.changes.FORGOTTEN_AFTER_SECONDS", -1.0)  # so that everything is old
    async with start(mongodb_uri=SecretStr(forgetful.uri)) as wire:
        position, created, told = await wire.server.store.now(), [], list[str]()

        async def read(changes: AsyncGenerator[Change | None]) -> None:
            for _ in range(20):
                change = await anext(changes)
                if change is not None and change.event is not None:
                    told.append(change.event.event_id)
                    more = 1 if len(told) == 1 else 3 * OPLOG_ENTRIES
                    created.extend([(await wire.create()).event_id for _ in range(more)])
                    await forgetful_mongo.admin.command("secantusAdmin.pruneOplog")

        created.append((await wire.create()).event_id)
        async with aclosing(wire.server.store.changes(position)) as changes:
            with pytest.raises(HistoryLost):
                await read(changes)
        assert told == created[:2]


async def test_a_quiet_watch_is_closed_with_a_token_that_is_as_new_as_its_bookmarks(
    start: Start, forgetful: EmbeddedStore, forgetful_mongo: Mongo
) -> None:
    uri, quiet = SecretStr(forgetful.uri), EventFilter(types=["none"])
    async with start(mongodb_uri=uri, limits=FORGETFUL) as other:
        async with start(mongodb_uri=uri, limits=FORGETFUL) as wire:
            call = wire.watch(**PROJECT, filter=quiet)
            await take_synced(call)
            await forget(wire, forgetful_mongo)
            await wire.server.drain()
            messages, _ = await ended(call)
        assert sketch(messages) == ["closing DRAINING"]
        token = messages[-1].resume_token
        call = other.watch(**PROJECT, filter=quiet, resume_token=token, on_history_loss=HISTORY_LOSS_POLICY_FAIL)
        assert sketch(await take_synced(call)) == ["synced"]


async def test_a_server_that_starts_remembers_what_has_just_happened(
    start: Start, forgetful: EmbeddedStore, forgetful_mongo: Mongo
) -> None:
    async with start(mongodb_uri=SecretStr(forgetful.uri)) as wire:
        await wire.create()
        token = await token_now(wire, **PROJECT)
        created = [(await wire.create()).event_id for _ in range(2 * OPLOG_ENTRIES)]
    async with start(mongodb_uri=SecretStr(forgetful.uri)) as wire:
        assert (await forgetful_mongo.admin.command("secantusAdmin.pruneOplog"))["pruned"] > OPLOG_ENTRIES
        assert told_ids(await take_synced(wire.watch(**PROJECT, resume_token=token))) == created


async def test_the_watch_of_one_event_needs_no_history(
    start: Start, forgetful: EmbeddedStore, forgetful_mongo: Mongo
) -> None:
    async with start(mongodb_uri=SecretStr(forgetful.uri)) as wire:
        task = await wire.create_task()
        token = await token_now(wire, event_id=task.event_id)
        await wire.update(task.event_id, TASK_STATE_RUNNING)
        await wire.update(task.event_id, TASK_STATE_SUCCEEDED)
        await forget(wire, forgetful_mongo)
        call = wire.watch(event_id=task.event_id, resume_token=token, on_history_loss=HISTORY_LOSS_POLICY_FAIL)
        assert sketch(await take_all(call)) == [
            "UPDATED 2 RUNNING from PENDING partial",
            "UPDATED 3 SUCCEEDED from RUNNING",
            "synced",
            "closing TERMINAL",
        ]


async def test_a_database_that_is_dropped_is_a_loss_that_is_told(start: Start, mongo: Mongo, database: str) -> None:
    async with start() as wire:
        await wire.create()
        call = wire.watch(**PROJECT)
        picture = Picture()
        picture.add_all(await take_synced(call))
        strict = wire.watch(**PROJECT, on_history_loss=HISTORY_LOSS_POLICY_FAIL)
        await take_synced(strict)
        await mongo.drop_database(database)
        messages = await take_synced(call)
        assert "reset HISTORY_LOST" in sketch(messages)
        assert sketch(messages)[-1] == "synced"
        _, error = await ended(strict)
        assert (error.code(), Failed(error).reason) == (grpc.StatusCode.OUT_OF_RANGE, "HISTORY_LOST")
        picture.add_all(messages)
        assert picture.events == {}
        picture.add_all(await take_marked(call, wire))
        assert picture.events == await stored(wire, ListEventsRequest())


# A change stream that comes late


@asynccontextmanager
async def late_changes(mongo: Mongo, wire: Wire, milliseconds: int) -> AsyncIterator[None]:
    """Inside, the store takes so long to tell the server of changes; it answers everything else at once."""
    onlooker = wire.watch(**PROJECT)
    await take_synced(onlooker)
    data = {"failCommands": ["getMore"], "blockConnection": True, "blockTimeMS": milliseconds}
    await mongo.admin.command("configureFailPoint", "failCommand", mode="alwaysOn", data=data)
    try:
        await take_marked(onlooker, wire)  # the last that is told at once: the server was waiting for it already
        yield
    finally:
        await mongo.admin.command("configureFailPoint", "failCommand", mode="off")


async def test_a_live_watch_tells_nothing_that_was_acknowledged_before(
    start: Start, forgetful: EmbeddedStore, forgetful_mongo: Mongo
) -> None:
    async with start(mongodb_uri=SecretStr(forgetful.uri)) as wire, late_changes(forgetful_mongo, wire, 300):
        await wire.create()
        call = wire.watch(**PROJECT, live_only=True)
        assert sketch([await take(call)]) == ["synced"]
        assert len(await take_marked(call, wire)) == 1


async def test_at_synced_a_resumed_watch_has_all_that_was_acknowledged_before(
    start: Start, forgetful: EmbeddedStore, forgetful_mongo: Mongo
) -> None:
    async with start(mongodb_uri=SecretStr(forgetful.uri)) as wire:
        token = await token_now(wire, **PROJECT)
        async with late_changes(forgetful_mongo, wire, 300):
            new = await wire.create()
            assert told_ids(await take_synced(wire.watch(**PROJECT, resume_token=token)))[-1] == new.event_id


# Records that cannot be read


async def corrupt(mongo: Mongo, database: str, event_id: str) -> None:
    nonsense = {"$set": {"status.state": "NONSENSE"}}
    result = await mongo[database].events.update_one({"_id": f"default/{event_id}"}, nonsense)
    assert result.modified_count == 1


@pytest.mark.parametrize("scope", [PROJECT, {"run_id": "mine"}], ids=["project", "run"])
async def test_a_record_that_cannot_be_read_is_told_and_the_others_too(
    start: Start, mongo: Mongo, database: str, scope: dict[str, Any]
) -> None:
    async with start(limits=Limits(watch_page_size=2)) as wire:
        ids = [(await wire.create_task(run_id="mine")).event_id for _ in range(5)]
        await corrupt(mongo, database, ids[2])
        messages = await take_synced(wire.watch(**scope))
        assert told_ids(messages) == [*ids[:2], *ids[3:]]
        assert {each.unreadable.event_id for each in messages if each.HasField("unreadable")} == {ids[2]}


@pytest.mark.parametrize("scope", [PROJECT, {"run_id": "mine"}], ids=["project", "run"])
async def test_a_record_that_can_no_longer_be_read_is_told_and_what_follows_too(
    start: Start, mongo: Mongo, database: str, scope: dict[str, Any]
) -> None:
    async with start() as wire:
        task = await wire.create_task(run_id="mine")
        call = wire.watch(**scope, filter=EventFilter(types=["test.task", "marker"]))
        await take_synced(call)
        await corrupt(mongo, database, task.event_id)
        messages = await take_marked(call, wire, run_id="mine")
        assert messages[0].unreadable.event_id == task.event_id
        assert sketch(messages) == ["unreadable", "CREATED 1"]
