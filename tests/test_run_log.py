"""The log of a run: numbers that are dense, in the order of commits, and never used again."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from pymongo import AsyncMongoClient
from pymongo.errors import OperationFailure

from conftest import Start
from picture import sketch
from tidings.v1.event_pb2 import Event
from tidings.v1.event_service_pb2 import (
    LIST_ORDER_NEWEST_FIRST,
    LIST_ORDER_OLDEST_FIRST,
    BatchCreateEventsRequest,
    CreateEventRequest,
    DeleteEventRequest,
    EventResult,
    GetEventRequest,
    ListEventsRequest,
    WatchEventResponse,
)
from tidings.v1.run_pb2 import Run
from tidings.v1.run_service_pb2 import CancelRunRequest, CreateRunRequest, GetRunRequest
from tidings.v1.task_pb2 import TaskStatus
from wire import Failed, SetClock, Wire, failure, reason_of, take, take_synced, take_until

Mongo = AsyncMongoClient[dict[str, Any]]

WRITERS = 16
EVENTS_PER_WRITER = 12


def request_of(run_id: str, *, ttl: int = 0, **fields: Any) -> CreateEventRequest:
    event = Event(run_id=run_id, **{"type": "test.event", **fields})
    return CreateEventRequest(event=event, ttl=Duration(seconds=ttl) if ttl else None)


async def append(wire: Wire, run_id: str, *, ttl: int = 0, **fields: Any) -> Event:
    return (await wire.events.CreateEvent(request_of(run_id, ttl=ttl, **fields))).event


async def append_many(wire: Wire, *requests: CreateEventRequest) -> list[EventResult]:
    return list((await wire.events.BatchCreateEvents(BatchCreateEventsRequest(requests=requests))).results)


async def refused(wire: Wire, run_id: str, **fields: Any) -> Failed:
    return await failure(wire.events.CreateEvent(request_of(run_id, **fields)))


async def delete(wire: Wire, event: Event) -> None:
    await wire.events.DeleteEvent(DeleteEventRequest(event_id=event.event_id))


async def log_of(wire: Wire, run_id: str, order: Any = LIST_ORDER_OLDEST_FIRST, page_size: int = 1000) -> list[Event]:
    """The events of a run, over all pages of their list."""
    request, events = ListEventsRequest(run_id=run_id, order=order, page_size=page_size), list[Event]()
    while True:
        page = await wire.events.ListEvents(request)
        events += page.events
        if not page.next_page_token:
            return events
        request.page_token = page.next_page_token


async def last_sequence(wire: Wire, run_id: str) -> int:
    return (await wire.runs.GetRun(GetRunRequest(run_id=run_id))).run.last_sequence


def sequences(events: list[Event]) -> list[int]:
    return [event.sequence for event in events]


def told(messages: list[WatchEventResponse]) -> list[int]:
    """The sequences of the events that a watch told of."""
    return [message.change.event.sequence for message in messages if message.HasField("change")]


@pytest.fixture
async def run(server: Wire) -> Run:
    return await server.create_run()


# ---- numbers ----


async def test_events_of_a_run_are_numbered_from_1(server: Wire, run: Run) -> None:
    assert await last_sequence(server, run.run_id) == 0
    events = [await append(server, run.run_id) for _ in range(3)]
    assert sequences(events) == [1, 2, 3]
    assert await last_sequence(server, run.run_id) == 3
    assert (await server.runs.GetRun(GetRunRequest(run_id=run.run_id))).run.revision == 1
    stored = await server.events.GetEvent(GetEventRequest(event_id=events[2].event_id))
    assert stored.event == events[2]


async def test_an_event_outside_of_runs_has_no_number(server: Wire) -> None:
    assert (await server.create()).sequence == 0


async def test_a_batch_is_numbered_in_its_order(server: Wire, run: Run) -> None:
    await append(server, run.run_id)
    results = await append_many(server, *(request_of(run.run_id, summary=str(index)) for index in range(5)))
    assert [(result.event.sequence, result.event.summary) for result in results] == [
        (2, "0"),
        (3, "1"),
        (4, "2"),
        (5, "3"),
        (6, "4"),
    ]


async def test_each_run_of_a_mixed_batch_has_its_own_numbers(server: Wire) -> None:
    first, second = (await server.create_run()).run_id, (await server.create_run()).run_id
    await append(server, second)
    ids = [first, second, "", second, "no-such-run", first]
    results = await append_many(server, *map(request_of, ids))
    assert [result.event.sequence for result in results] == [1, 2, 0, 3, 0, 2]
    assert [result.event.run_id for result in results] == [first, second, "", second, "", first]
    assert reason_of(results[4].error) == "RUN_NOT_FOUND"


async def test_the_mission_is_filled_in_from_the_run(server: Wire, run: Run) -> None:
    assert (await append(server, run.run_id)).mission_id == run.mission_id
    assert (await append(server, run.run_id, mission_id=run.mission_id)).mission_id == run.mission_id


async def test_events_of_one_run_are_not_created_before_the_ones_in_front_of_them(start: Start) -> None:
    ahead, behind = SetClock(), SetClock()
    ahead.forward(seconds=30)
    async with start(clock=ahead) as first, start(clock=behind) as second:
        run_id = (await first.create_run()).run_id
        events = [await append(wire, run_id) for wire in (first, second, first, second)]
        assert sequences(events) == [1, 2, 3, 4]
        assert all(event.create_time == event.update_time == events[0].create_time for event in events)
        assert await log_of(second, run_id) == events


# ---- retries ----


async def test_the_same_key_in_a_run_is_the_same_event(server: Wire, run: Run) -> None:
    event = await append(server, run.run_id, idempotency_key="key")
    await append(server, run.run_id)
    assert await append(server, run.run_id, idempotency_key="key") == event
    assert (await append(server, run.run_id)).sequence == 3


async def test_the_same_key_with_other_content_is_a_conflict(server: Wire, run: Run) -> None:
    await append(server, run.run_id, idempotency_key="key")
    failed = await refused(server, run.run_id, idempotency_key="key", summary="other")
    assert (failed.code, failed.reason) == (grpc.StatusCode.ALREADY_EXISTS, "IDEMPOTENCY_CONFLICT")
    assert (await append(server, run.run_id)).sequence == 2


async def test_a_key_is_unique_in_its_run_only(server: Wire, run: Run) -> None:
    other = await server.create_run()
    ids = {(await append(server, run_id, idempotency_key="key")).event_id for run_id in (run.run_id, other.run_id)}
    assert len(ids) == 2


async def test_the_same_key_twice_in_a_batch_is_one_event(server: Wire, run: Run) -> None:
    same, other = request_of(run.run_id, idempotency_key="key"), request_of(run.run_id)
    conflicting = request_of(run.run_id, idempotency_key="key", summary="other")
    results = await append_many(server, same, other, same, conflicting, other)
    assert [result.event.sequence for result in results] == [1, 2, 1, 0, 3]
    assert results[0] == results[2]
    assert reason_of(results[3].error) == "IDEMPOTENCY_CONFLICT"
    assert sequences(await log_of(server, run.run_id)) == [1, 2, 3]


async def test_the_same_key_from_many_callers_at_once_is_one_event(start: Start) -> None:
    async with start() as first, start() as second:
        run_id = (await first.create_run()).run_id
        calls = (append(wire, run_id, idempotency_key="key") for _ in range(8) for wire in (first, second))
        events = await asyncio.gather(*calls)
        assert all(event == events[0] for event in events)
        assert sequences(await log_of(second, run_id)) == [1]


async def test_a_chosen_id_is_safe_to_retry_and_taken_for_other_content(server: Wire, run: Run, some_id: str) -> None:
    event = await append(server, run.run_id, event_id=some_id)
    assert await append(server, run.run_id, event_id=some_id) == event
    assert (await refused(server, run.run_id, event_id=some_id, summary="other")).reason == "EVENT_ALREADY_EXISTS"
    other = await server.create_run()
    assert (await refused(server, other.run_id, event_id=some_id)).reason == "EVENT_ALREADY_EXISTS"
    assert (await last_sequence(server, run.run_id), await last_sequence(server, other.run_id)) == (1, 0)


# ---- what a run does not take ----


async def test_an_unknown_run_or_mission_is_not_found(server: Wire, some_id: str) -> None:
    failed = await refused(server, some_id)
    assert (failed.code, failed.reason, failed.metadata["run_id"]) == (
        grpc.StatusCode.NOT_FOUND,
        "RUN_NOT_FOUND",
        some_id,
    )
    failed = await refused(server, "", mission_id=some_id)
    assert (failed.code, failed.reason, failed.metadata["mission_id"]) == (
        grpc.StatusCode.NOT_FOUND,
        "MISSION_NOT_FOUND",
        some_id,
    )
    failed = await failure(server.runs.CreateRun(CreateRunRequest(run=Run(mission_id=some_id))))
    assert failed.reason == "MISSION_NOT_FOUND"


async def test_a_run_of_another_mission_is_not_found(server: Wire, run: Run) -> None:
    other = await server.create_mission()
    right = request_of(run.run_id, mission_id=run.mission_id)
    results = await append_many(server, right, request_of(run.run_id, mission_id=other.mission_id), right)
    assert [result.event.sequence for result in results] == [1, 0, 2]
    assert reason_of(results[1].error) == "RUN_NOT_FOUND"


async def end(wire: Wire, run: Run) -> None:
    await wire.runs.CancelRun(CancelRunRequest(run_id=run.run_id))


async def test_a_run_that_has_ended_takes_no_more_events(server: Wire, run: Run) -> None:
    event = await append(server, run.run_id, idempotency_key="key")
    await end(server, run)
    failed = await refused(server, run.run_id)
    assert (failed.code, failed.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "RUN_CLOSED")
    assert await append(server, run.run_id, idempotency_key="key") == event
    assert await last_sequence(server, run.run_id) == 1


async def test_every_item_of_a_batch_is_told_that_the_run_has_ended(server: Wire, run: Run) -> None:
    await append(server, run.run_id, idempotency_key="old")
    await end(server, run)
    keys = ["new", "old", "new", "newer"]
    results = await append_many(server, *(request_of(run.run_id, idempotency_key=key) for key in keys))
    assert [result.event.sequence for result in results] == [0, 1, 0, 0]
    assert {reason_of(results[index].error) for index in (0, 2, 3)} == {"RUN_CLOSED"}


async def test_a_run_takes_events_until_its_grace_period_is_over(start: Start) -> None:
    clock = SetClock()
    async with start(clock=clock) as wire:
        run = await wire.create_run(grace_period=Duration(seconds=10))
        clock.forward(days=1)
        await end(wire, run)
        clock.forward(seconds=9, milliseconds=999)
        assert (await append(wire, run.run_id)).sequence == 1
        clock.forward(milliseconds=1)
        assert (await refused(wire, run.run_id)).reason == "RUN_CLOSED"


async def test_a_run_whose_mission_is_deleted_takes_no_more_events(start: Start, mongo: Mongo, database: str) -> None:
    async with start() as wire:
        run = await wire.create_run()
        # Deleted, and as long as nothing is swept away yet.
        mission = {"_id": f"default/{run.mission_id}"}
        later = datetime.now(UTC) + timedelta(days=1)
        await mongo[database].missions.update_one(mission, {"$set": {"deleted": True, "expire_time": later}})
        assert (await refused(wire, run.run_id)).reason == "RUN_NOT_FOUND"
        assert (await refused(wire, "", mission_id=run.mission_id)).reason == "MISSION_NOT_FOUND"


# ---- expiry ----


async def test_events_expire_with_a_run_that_has_a_ttl(start: Start) -> None:
    clock = SetClock()
    async with start(clock=clock) as wire:
        run = await wire.create_run(ttl=100)
        clock.forward(seconds=50)
        fact, task = await append(wire, run.run_id), await append(wire, run.run_id, status=TaskStatus())
        short = await append(wire, run.run_id, ttl=10)
        assert fact.expire_time == task.expire_time == run.expire_time
        assert short.expire_time.seconds == fact.create_time.seconds + 10
        clock.forward(seconds=49)
        assert sequences(await log_of(wire, run.run_id)) == [1, 2]
        clock.forward(seconds=1)
        assert await log_of(wire, run.run_id) == []
        assert (await refused(wire, run.run_id)).reason == "RUN_NOT_FOUND"


async def test_a_deleted_event_leaves_its_number_unused(server: Wire, run: Run, some_id: str) -> None:
    await append(server, run.run_id)
    deleted = await append(server, run.run_id, event_id=some_id)
    await append(server, run.run_id)
    await delete(server, deleted)
    assert sequences(await log_of(server, run.run_id)) == [1, 3]
    again = await append(server, run.run_id, event_id=some_id)
    assert (again.sequence, again.revision) == (4, 3)
    await delete(server, again)
    assert (await append(server, run.run_id)).sequence == 5
    assert sequences(await log_of(server, run.run_id)) == [1, 3, 5]


async def test_an_expired_event_that_is_created_again_has_a_new_number(start: Start) -> None:
    clock = SetClock()
    async with start(clock=clock) as wire:
        run = await wire.create_run()
        old = await append(wire, run.run_id, idempotency_key="key", ttl=1000)
        clock.forward(seconds=1000)
        results = await append_many(
            wire, request_of(run.run_id), request_of(run.run_id, idempotency_key="key", ttl=1000)
        )
        assert [result.event.sequence for result in results] == [2, 3]
        assert (results[1].event.event_id, results[1].event.revision) == (old.event_id, 2)
        assert sequences(await log_of(wire, run.run_id)) == [2, 3]


async def test_a_run_that_takes_the_id_of_an_expired_one_goes_on_from_its_numbers(start: Start) -> None:
    clock = SetClock()
    async with start(clock=clock) as wire:
        run = await wire.create_run(ttl=1000, run_id="run")
        await append(wire, "run")
        await end(wire, run)
        clock.forward(seconds=1000)
        again = await wire.create_run(run_id="run")
        assert (again.revision, again.last_sequence) == (3, 1)
        assert (await append(wire, "run")).sequence == 2
        assert sequences(await log_of(wire, "run")) == [2]


# ---- order ----


async def test_a_watch_of_a_run_tells_in_the_order_of_the_log(start: Start) -> None:
    async with start() as first, start() as second:
        run_id = (await first.create_run()).run_id
        await append_many(first, *(request_of(run_id) for _ in range(30)))
        call = second.watch(run_id=run_id)
        messages = await take_synced(call)
        assert sketch(messages) == ["INITIAL 1"] * 30 + ["synced"]
        assert told(messages) == list(range(1, 31))
        for wire in (second, first):
            await append(wire, run_id)
            await append_many(wire, *(request_of(run_id) for _ in range(10)))
        messages = [await take(call) for _ in range(22)]
        assert sketch(messages) == ["CREATED 1"] * 22
        assert told(messages) == list(range(31, 53))
        call.cancel()


@pytest.mark.parametrize("page_size", [7, 1000])
async def test_a_run_is_listed_in_the_order_of_its_log(start: Start, page_size: int) -> None:
    async with start(clock=SetClock()) as wire:  # all of them at the same time
        run_id = (await wire.create_run()).run_id
        for size in (1, 20, 1):
            await append_many(wire, *(request_of(run_id, event_id=uuid.uuid4().hex) for _ in range(size)))
        oldest_first = await log_of(wire, run_id, LIST_ORDER_OLDEST_FIRST, page_size)
        newest_first = await log_of(wire, run_id, LIST_ORDER_NEWEST_FIRST, page_size)
        assert sequences(oldest_first) == list(range(1, 23))
        assert newest_first == oldest_first[::-1]


async def test_16_writers_on_two_servers_make_one_dense_log_in_order(start: Start) -> None:
    async with start() as first, start() as second:
        run_id = (await first.create_run()).run_id
        calls = [wire.watch(run_id=run_id) for wire in (first, second)]
        for call in calls:
            await take_synced(call)

        async def write(number: int) -> list[Event]:
            wire, events = (first, second)[number % 2], list[Event]()
            for _ in range(EVENTS_PER_WRITER):
                while True:  # a store that is too busy says so
                    try:
                        request = request_of(run_id, idempotency_key=f"{number}-{len(events)}")
                        events.append((await wire.events.CreateEvent(request)).event)
                        break
                    except grpc.aio.AioRpcError as error:
                        if error.code() != grpc.StatusCode.UNAVAILABLE:
                            raise
            return events

        written = await asyncio.gather(*map(write, range(WRITERS)))
        count = WRITERS * EVENTS_PER_WRITER
        assert all(sequences(events) == sorted(sequences(events)) for events in written)
        assert sequences(await log_of(second, run_id)) == list(range(1, count + 1))
        for call in calls:
            messages = await take_until(call, lambda message: message.change.event.sequence == count)
            assert told(messages) == list(range(1, count + 1))
            call.cancel()


# ---- transactions that fail ----


@asynccontextmanager
async def failing(mongo: Mongo, command: str, mode: Any, **how: Any) -> AsyncIterator[None]:
    """Let a command of servers fail at the store while the context lasts."""
    data = {"failCommands": [command], "appName": "tidings", **how}
    try:
        await mongo.admin.command({"configureFailPoint": "failCommand", "mode": mode, "data": data})
    except OperationFailure as error:
        pytest.skip(f"the store takes no failpoint: {error}")
    try:
        yield
    finally:
        await mongo.admin.command({"configureFailPoint": "failCommand", "mode": "off"})


ABORTED = {"errorCode": 112, "errorLabels": ["TransientTransactionError"]}
DROPPED = {"closeConnection": True}


@pytest.mark.parametrize("command", ["insert", "commitTransaction"])
async def test_a_transaction_that_is_aborted_is_made_again(server: Wire, run: Run, mongo: Mongo, command: str) -> None:
    await append(server, run.run_id)
    async with failing(mongo, command, {"times": 3}, **ABORTED):
        results = await append_many(server, *(request_of(run.run_id) for _ in range(3)))
    assert [result.event.sequence for result in results] == [2, 3, 4]
    assert (await append(server, run.run_id)).sequence == 5
    assert sequences(await log_of(server, run.run_id)) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("command", ["insert", "commitTransaction"])
@pytest.mark.parametrize("how", [ABORTED, DROPPED], ids=["aborted", "dropped"])
async def test_a_transaction_that_cannot_be_made_leaves_no_hole(
    server: Wire, run: Run, mongo: Mongo, command: str, how: dict[str, Any]
) -> None:
    await append(server, run.run_id)
    async with failing(mongo, command, "alwaysOn", **how):
        failed = await refused(server, run.run_id, idempotency_key="key")
        assert (failed.code, failed.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
    assert (await append(server, run.run_id, idempotency_key="key")).sequence == 2
    assert (await append(server, run.run_id)).sequence == 3
    assert sequences(await log_of(server, run.run_id)) == [1, 2, 3]


async def test_an_append_whose_commit_is_not_acknowledged_is_made_once(server: Wire, run: Run, mongo: Mongo) -> None:
    for key in ("first", "second"):
        async with failing(mongo, "commitTransaction", {"times": 1}, **DROPPED):
            await asyncio.gather(
                server.events.CreateEvent(request_of(run.run_id, idempotency_key=key)), return_exceptions=True
            )
        await append(server, run.run_id, idempotency_key=key)
    log = await log_of(server, run.run_id)
    assert [(event.sequence, event.idempotency_key) for event in log] == [(1, "first"), (2, "second")]
