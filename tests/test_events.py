"""Events: created, read, listed, deleted and expired, through the wire."""

from __future__ import annotations

import asyncio
import base64
import json
import uuid
from typing import Any

import grpc
import pytest
from bson.binary import Binary
from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp
from pymongo import AsyncMongoClient

from conftest import Start
from tidings.v1.event_pb2 import Event
from tidings.v1.event_service_pb2 import (
    LIST_ORDER_NEWEST_FIRST,
    LIST_ORDER_OLDEST_FIRST,
    LIST_ORDER_UNSPECIFIED,
    BatchCreateEventsRequest,
    BatchGetEventsRequest,
    CreateEventRequest,
    DeleteEventRequest,
    EventResult,
    GetEventRequest,
    ListEventsRequest,
    ListEventsResponse,
    ListOrder,
)
from tidings.v1.task_pb2 import (
    TASK_STATE_CANCELLED,
    TASK_STATE_FAILED,
    TASK_STATE_PENDING,
    TASK_STATE_RUNNING,
    TASK_STATE_SUCCEEDED,
    TaskError,
    TaskProgress,
    TaskStatus,
)
from tidings.v1.task_service_pb2 import CancelTaskRequest, UpdateTaskStatusRequest
from tidings_server.clock import to_millis, to_timestamp
from tidings_server.limits import KIB, Limits
from wire import SetClock, Wire, failure, reason_of, take_synced

Mongo = AsyncMongoClient[dict[str, Any]]

DAY = 24 * 60 * 60 * 1000
ENDED_FORMS = [
    {"state": TASK_STATE_SUCCEEDED},
    {"state": TASK_STATE_FAILED, "error": TaskError(code="timeout")},
    {"state": TASK_STATE_CANCELLED},
]


def struct_of(**fields: Any) -> Struct:
    return json_format.ParseDict(fields, Struct())


async def get(server: Wire, event_id: str) -> Event:
    return (await server.events.GetEvent(GetEventRequest(event_id=event_id))).event


async def batch_get(server: Wire, *event_ids: str) -> list[EventResult]:
    return list((await server.events.BatchGetEvents(BatchGetEventsRequest(event_ids=event_ids))).results)


async def batch_create(server: Wire, *events: Event) -> list[EventResult]:
    for run_id, mission_id in {(event.run_id, event.mission_id) for event in events}:
        await server.ensure(run_id, mission_id)
    request = BatchCreateEventsRequest(requests=[CreateEventRequest(event=event) for event in events])
    return list((await server.events.BatchCreateEvents(request)).results)


async def delete(server: Wire, event_id: str, **fields: Any) -> None:
    await server.events.DeleteEvent(DeleteEventRequest(event_id=event_id, **fields))


async def page_of(server: Wire, **fields: Any) -> ListEventsResponse:
    return await server.events.ListEvents(ListEventsRequest(**fields))


async def listed(server: Wire, **fields: Any) -> list[str]:
    """The ids of all pages."""
    page = await page_of(server, **fields)
    ids = [event.event_id for event in page.events]
    while page.next_page_token:
        page = await page_of(server, **{**fields, "page_token": page.next_page_token})
        ids += [event.event_id for event in page.events]
    return ids


def outcomes(results: list[EventResult]) -> list[str]:
    """Of each item of a batch its event's id, or the reason why there is none."""
    return [
        result.event.event_id if result.WhichOneof("result") == "event" else reason_of(result.error)
        for result in results
    ]


# ---- created and read ----


def full_event(event_id: str) -> Event:
    """An event with every field that a caller may set."""
    return Event(
        event_id=event_id,
        type="webset.item.enriched",
        summary="One line",
        payload=struct_of(a={"b": [1, "two", None, True]}),
        metadata=struct_of(source="test"),
        results=[json_format.ParseDict(value, Value()) for value in ([1, 2], {"c": "d"}, "text", 4, False, None)],
        status=TaskStatus(
            state=TASK_STATE_FAILED,
            message="it failed",
            progress=TaskProgress(completed=2**40, total=2**41, unit="bytes", message="copying"),
            error=TaskError(code="timeout", message="too slow", retryable=True, details=struct_of(host="a.b")),
            create_time=Timestamp(seconds=1_600_000_000),
            start_time=Timestamp(seconds=1_600_000_001),
            end_time=Timestamp(seconds=1_600_000_003, nanos=500_000_000),
        ),
        mission_id="mission-1",
        run_id="run-1",
        step_id="step-1",
        agent_id="agent-1",
        event_time=Timestamp(seconds=1_500_000_000, nanos=123_000_000),
    )


SET_BY_SERVICE = ("create_time", "update_time", "expire_time", "revision", "transitions", "sequence")
SET_BY_SERVICE_IN_STATUS = ("task_id", "update_time", "latency", "revision")


def without_stamps(event: Event) -> Event:
    """The event with nothing but what its caller may have set."""
    bare = Event()
    bare.CopyFrom(event)
    for name in SET_BY_SERVICE:
        bare.ClearField(name)
    for name in SET_BY_SERVICE_IN_STATUS:
        bare.status.ClearField(name)
    return bare


async def test_everything_that_a_caller_sets_comes_back(server: Wire, some_id: str) -> None:
    event = full_event(some_id)
    await server.ensure(event.run_id, event.mission_id)
    stored = (await server.events.CreateEvent(CreateEventRequest(event=event))).event
    assert without_stamps(stored) == event
    assert await get(server, some_id) == stored


def test_the_full_event_has_every_field_that_a_caller_may_set() -> None:
    names = {field.name for field, _ in full_event("an-id").ListFields()}
    assert names | {"idempotency_key"} == set(Event.DESCRIPTOR.fields_by_name) - set(SET_BY_SERVICE)
    names = {field.name for field, _ in full_event("an-id").status.ListFields()}
    assert names | {"cancel_requested"} == set(TaskStatus.DESCRIPTOR.fields_by_name) - set(SET_BY_SERVICE_IN_STATUS)


async def test_the_smallest_event_is_stamped_and_nothing_else(start: Start, some_id: str) -> None:
    clock = SetClock()
    async with start(clock=clock) as server:
        stored = await server.create("x", event_id=some_id)
    now = to_timestamp(clock.now)
    expiry = to_timestamp(clock.now + 30 * DAY)
    assert stored == Event(
        event_id=some_id, type="x", event_time=now, create_time=now, update_time=now, expire_time=expiry, revision=1
    )


async def test_what_only_the_service_sets_is_ignored(server: Wire, some_id: str) -> None:
    then = Timestamp(seconds=1)
    status = TaskStatus(task_id="x", update_time=then, latency=Duration(seconds=1), cancel_requested=True, revision=9)
    event = Event(event_id=some_id, type="x", status=status, create_time=then, update_time=then, revision=9)
    event.transitions.add(revision=4)
    stored = (await server.events.CreateEvent(CreateEventRequest(event=event))).event
    assert (stored.revision, stored.status.revision, len(stored.transitions)) == (1, 1, 1)
    assert stored.status.task_id == some_id
    assert not stored.status.cancel_requested
    assert not stored.status.HasField("latency")
    assert then not in (stored.create_time, stored.update_time, stored.status.update_time)
    assert await server.create_task("x", event_id=some_id) == stored, "and it is no part of the content"


UNICODE_IDS = ("ünïcode", "日本語", "🧪" * 128, "e\u0301", "a:b@c+d", "..", "$where", "%2F\\", '"{}"', "<string>")


@pytest.mark.parametrize("prefix", UNICODE_IDS)
async def test_any_visible_text_without_a_slash_is_an_id(start: Start, prefix: str) -> None:
    async with start() as server:
        await server.create_task(event_id=prefix, run_id=prefix, mission_id=prefix, step_id=prefix, agent_id=prefix)
        await server.update(prefix, TASK_STATE_RUNNING)
        event = await get(server, prefix)
        assert (event.event_id, event.status.task_id, event.revision) == (prefix, prefix, 2)
        assert outcomes(await batch_get(server, prefix)) == [prefix]
        assert await listed(server, run_id=prefix, mission_id=prefix, step_id=prefix, agent_id=prefix) == [prefix]
        await take_synced(server.watch(event_id=prefix))


@pytest.mark.parametrize("event_id", ["a/b", "a b", "a\n", "\u200b", "a\u2028b", "x" * 129])
async def test_other_text_is_not_an_id(server: Wire, event_id: str) -> None:
    assert list((await failure(server.create(event_id=event_id))).fields) == ["event.event_id"]


async def test_an_id_is_a_uuid7_unless_chosen(server: Wire) -> None:
    first, second = (await server.create()).event_id, (await server.create()).event_id
    assert first != second
    assert uuid.UUID(first).version == uuid.UUID(second).version == 7


async def test_the_same_key_in_the_same_run_is_the_same_event(server: Wire, some_id: str) -> None:
    first = await server.create(run_id=some_id, idempotency_key="key")
    assert await server.create(run_id=some_id, idempotency_key="key") == first
    assert uuid.UUID(first.event_id).version == 5
    others = [
        await server.create(run_id=f"{some_id}-2", idempotency_key="key"),
        await server.create(run_id=some_id, idempotency_key="key-2"),
    ]
    assert len({first.event_id, *(other.event_id for other in others)}) == 3


async def test_the_id_of_a_key_never_changes(start: Start) -> None:
    """Or the retry of a creation that a server of another version made would make a second event."""
    async with start() as server:
        created = await server.create(run_id="run-1", idempotency_key="key-1")
        assert created.event_id == "6f4f96e1-bc58-5422-bd21-1ae130ade047"
        assert (await server.create(idempotency_key="key-1")).event_id == "8eab8f26-b1dd-55f7-8b31-73ec8320cd3b"


async def test_weird_keys_and_all_numbers_come_back(server: Wire, some_id: str) -> None:
    payload = {
        "$where": "1", "a.b": {"": {"$ref": "c", "$id": "i", "$db": "d"}}, "": [], "_id": {}, "__proto__": None,
        "ключ 🔑": "\u0001\ud7ff\ufffe\U0010ffff",
        "whole": [0, 1, -1, 2**31, 2**53 - 1, 2**53, -(2**53)],
        "floats": [0.1, -2.5, 1e-300, 5e-324, 1.7976931348623157e308],
    }  # fmt: skip
    created = await server.create(event_id=some_id, payload=struct_of(**payload), metadata=struct_of(**payload))
    read = await get(server, some_id)
    assert read == created
    for name in ("payload", "metadata"):
        assert json.loads(json_format.MessageToJson(getattr(read, name))) == payload


async def test_times_are_cut_to_milliseconds(start: Start, some_id: str) -> None:
    clock = SetClock()
    nanos = Timestamp(seconds=1_600_000_000, nanos=123_999_999)
    millis = Timestamp(seconds=1_600_000_000, nanos=123_000_000)
    expiry = Timestamp(seconds=clock.now // 1000 + 100, nanos=999_999_999)
    status = TaskStatus(state=TASK_STATE_SUCCEEDED, create_time=nanos, start_time=nanos, end_time=nanos)
    async with start(clock=clock) as server:
        event = await server.create(event_id=some_id, status=status, event_time=nanos, expire_time=expiry)
        assert await get(server, some_id) == event
    times = (event.event_time, event.status.create_time, event.status.start_time, event.status.end_time)
    assert times == (millis,) * 4
    assert event.expire_time.nanos == 999_000_000


# ---- created again ----


async def test_a_retried_creation_returns_the_event_as_it_is_now(server: Wire, some_id: str) -> None:
    event = full_event(some_id)
    event.status.CopyFrom(TaskStatus(message="begin"))
    first = (await server.events.CreateEvent(CreateEventRequest(event=event))).event
    assert (await server.events.CreateEvent(CreateEventRequest(event=event))).event == first
    await server.update(some_id, TASK_STATE_RUNNING, message="changed")
    again = (await server.events.CreateEvent(CreateEventRequest(event=event))).event
    assert (again.revision, again.status.message) == (2, "changed")
    assert again == await get(server, some_id)


async def test_many_creations_of_one_id_make_one_event(server: Wire, some_id: str) -> None:
    events = await asyncio.gather(*(server.create(event_id=some_id, run_id=some_id) for _ in range(20)))
    assert all(event == events[0] for event in events)
    assert events[0].revision == 1
    assert await listed(server, run_id=some_id) == [some_id]


async def test_of_many_creations_of_one_id_with_other_content_one_succeeds(server: Wire, some_id: str) -> None:
    creations = (server.create(event_id=some_id, summary=str(number)) for number in range(20))
    results = await asyncio.gather(*creations, return_exceptions=True)
    (winner,) = [result for result in results if isinstance(result, Event)]
    codes = [error.code() for error in results if isinstance(error, grpc.aio.AioRpcError)]
    assert codes == [grpc.StatusCode.ALREADY_EXISTS] * 19
    assert await get(server, some_id) == winner


async def test_a_chosen_id_with_other_content_is_taken(server: Wire, some_id: str) -> None:
    await server.create(event_id=some_id, summary="first")
    failed = await failure(server.create(event_id=some_id, summary="second"))
    assert (failed.code, failed.reason) == (grpc.StatusCode.ALREADY_EXISTS, "EVENT_ALREADY_EXISTS")
    assert failed.metadata == {"event_id": some_id}
    assert (await get(server, some_id)).summary == "first"


async def test_a_key_with_other_content_is_a_conflict(server: Wire, some_id: str) -> None:
    first = await server.create(run_id=some_id, idempotency_key="key", summary="first")
    failed = await failure(server.create(run_id=some_id, idempotency_key="key", summary="second"))
    assert (failed.code, failed.reason) == (grpc.StatusCode.ALREADY_EXISTS, "IDEMPOTENCY_CONFLICT")
    assert failed.metadata == {"event_id": first.event_id}


@pytest.mark.parametrize("other", ["ttl", "expire_time", "payload", "status"])
async def test_every_part_of_a_request_is_content(start: Start, some_id: str, other: str) -> None:
    clock = SetClock()
    fields: dict[str, Any] = {
        "ttl": 60,
        "expire_time": to_timestamp(clock.now + 1000),
        "payload": Struct(),
        "status": TaskStatus(),
    }
    async with start(clock=clock) as server:
        await server.create(event_id=some_id)
        failed = await failure(server.create(event_id=some_id, **{other: fields[other]}))
    assert failed.reason == "EVENT_ALREADY_EXISTS"


async def test_an_id_used_again_after_a_deletion_goes_on_from_its_revision(server: Wire, some_id: str) -> None:
    await server.create_task(event_id=some_id)
    await server.update(some_id, TASK_STATE_RUNNING)
    await delete(server, some_id)
    again = await server.create_task(event_id=some_id)
    assert (again.revision, again.status.revision, again.status.state) == (4, 4, TASK_STATE_PENDING)
    assert [transition.revision for transition in again.transitions] == [4]
    assert await get(server, some_id) == again
    assert await server.create_task(event_id=some_id) == again, "a retry"


async def test_an_id_used_again_after_expiry_goes_on_from_its_revision(start: Start, some_id: str) -> None:
    clock = SetClock()
    async with start(clock=clock) as server:
        await server.create_task(event_id=some_id, ttl=60)
        clock.forward(seconds=60)
        fact = await server.create("other.type", event_id=some_id)
        assert (fact.revision, fact.create_time) == (2, to_timestamp(clock.now))
        assert not fact.HasField("status")
        assert await get(server, some_id) == fact
        results = await batch_create(server, Event(event_id=some_id, type="third.type"))
        assert outcomes(results) == ["EVENT_ALREADY_EXISTS"]


async def test_a_batch_may_use_ids_of_expired_events_again(start: Start, some_id: str) -> None:
    clock = SetClock()
    async with start(clock=clock) as server:
        await server.create(event_id=some_id, ttl=60)
        clock.forward(seconds=60)
        (result,) = await batch_create(server, Event(event_id=some_id, type="other.type"))
        assert result.event.revision == 2
        assert await get(server, some_id) == result.event


# ---- batches ----


async def test_each_item_of_a_batch_has_its_own_result(server: Wire, some_id: str) -> None:
    taken = await server.create(event_id=f"{some_id}-taken", summary="first")
    same = await server.create("test.event", event_id=f"{some_id}-same")
    keyed = await server.create(run_id=some_id, idempotency_key="key")
    results = await batch_create(
        server,
        Event(event_id=f"{some_id}-new", type="test.event"),
        Event(event_id=taken.event_id, type="test.event", summary="second"),
        Event(event_id=same.event_id, type="test.event"),
        Event(run_id=some_id, idempotency_key="key", type="other.event"),
        Event(type="test.event", status=TaskStatus(), run_id=some_id),
    )
    assert outcomes(results)[:4] == [
        f"{some_id}-new", "EVENT_ALREADY_EXISTS", same.event_id, "IDEMPOTENCY_CONFLICT",
    ]  # fmt: skip
    assert results[2].event == same
    assert uuid.UUID(results[4].event.event_id).version == 7
    assert await get(server, f"{some_id}-new") == results[0].event
    assert await get(server, taken.event_id) == taken
    assert set(await listed(server, run_id=some_id)) == {keyed.event_id, results[4].event.event_id}


async def test_a_batch_may_hold_an_event_twice(server: Wire, some_id: str) -> None:
    event, other = Event(event_id=some_id, type="a"), Event(event_id=some_id, type="b")
    results = await batch_create(server, event, other, event)
    assert outcomes(results) == [some_id, "EVENT_ALREADY_EXISTS", some_id]
    assert results[0] == results[2]


async def test_five_hundred_events_are_a_batch(server: Wire, some_id: str) -> None:
    ids = [f"{some_id}-{number}" for number in range(500)]
    events = [Event(event_id=event_id, type="x", run_id=some_id) for event_id in ids]
    assert outcomes(await batch_create(server, *events)) == ids
    assert outcomes(await batch_get(server, *ids)) == ids
    assert sorted(await listed(server, run_id=some_id, page_size=1000)) == sorted(ids)


async def test_a_batch_with_an_unsound_item_stores_nothing(server: Wire, some_id: str) -> None:
    good = Event(event_id=some_id, type="x", run_id=some_id)
    failed = await failure(batch_create(server, good, Event(type="", step_id="a b"), good, Event(type="..")))
    assert failed.code == grpc.StatusCode.INVALID_ARGUMENT
    assert set(failed.fields) == {"requests[1].event.type", "requests[1].event.step_id", "requests[3].event.type"}
    assert await listed(server, run_id=some_id) == []


async def test_a_batch_with_too_large_an_item_stores_nothing(start: Start, some_id: str) -> None:
    large = Event(event_id=f"{some_id}-2", type="x", summary="y" * 1000)
    async with start(limits=Limits(event_bytes_max=1000)) as server:
        failed = await failure(batch_create(server, Event(event_id=some_id, type="x"), large))
        assert failed.fields == {"requests[1].event": "PAYLOAD_TOO_LARGE"}
        assert await listed(server) == []


async def test_a_batch_of_ids_answers_each_in_order(server: Wire, some_id: str) -> None:
    first, second = await server.create(), await server.create()
    results = await batch_get(server, second.event_id, some_id, first.event_id, second.event_id, some_id)
    assert outcomes(results) == [
        second.event_id, "EVENT_NOT_FOUND", first.event_id, second.event_id, "EVENT_NOT_FOUND",
    ]  # fmt: skip
    assert [result.event for result in results if result.HasField("event")] == [second, first, second]


async def test_an_item_of_a_batch_fails_as_the_single_call_does(server: Wire, some_id: str) -> None:
    (result,) = await batch_get(server, some_id)
    failed = await failure(get(server, some_id))
    assert result.error == failed.status


async def test_events_that_fit_no_more_are_asked_for_again(start: Start) -> None:
    async with start(limits=Limits(response_bytes_max=2500)) as server:
        ids = [(await server.create(summary="x" * 1000)).event_id for _ in range(4)]
        results = await batch_get(server, *ids)
        assert outcomes(results) == [ids[0], ids[1], "RESPONSE_TOO_LARGE", "RESPONSE_TOO_LARGE"]
        assert outcomes(await batch_get(server, *ids[2:])) == ids[2:]
        assert results[2].error.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]


# ---- deleted ----


async def test_a_deleted_event_is_gone_for_every_reader(server: Wire, some_id: str) -> None:
    await server.create_task(event_id=some_id, run_id=some_id)
    await delete(server, some_id)
    assert (await failure(get(server, some_id))).reason == "EVENT_NOT_FOUND"
    assert outcomes(await batch_get(server, some_id)) == ["EVENT_NOT_FOUND"]
    assert await listed(server, run_id=some_id) == []
    assert (await failure(server.update(some_id, TASK_STATE_RUNNING))).reason == "EVENT_NOT_FOUND"
    assert (await failure(delete(server, some_id))).reason == "EVENT_NOT_FOUND"
    assert (await failure(take_synced(server.watch(event_id=some_id)))).reason == "EVENT_NOT_FOUND"


async def test_a_deletion_may_expect_a_revision(server: Wire, some_id: str) -> None:
    await server.create_task(event_id=some_id)
    await server.update(some_id, TASK_STATE_RUNNING)
    failed = await failure(delete(server, some_id, expected_revision=1))
    assert (failed.code, failed.reason) == (grpc.StatusCode.ABORTED, "REVISION_MISMATCH")
    assert failed.metadata == {"event_id": some_id, "current_revision": "2"}
    await delete(server, some_id, expected_revision=2)
    assert (await failure(get(server, some_id))).reason == "EVENT_NOT_FOUND"


async def test_a_retried_deletion_succeeds(server: Wire, some_id: str) -> None:
    await server.create(event_id=some_id)
    await delete(server, some_id, expected_revision=1, request_id="r")
    await delete(server, some_id, expected_revision=1, request_id="r")
    assert (await failure(delete(server, some_id, request_id="r"))).reason == "IDEMPOTENCY_CONFLICT"
    assert (await failure(delete(server, some_id, request_id="s"))).reason == "EVENT_NOT_FOUND"


async def test_a_retried_change_does_not_find_a_deleted_task(server: Wire, some_id: str) -> None:
    await server.create_task(event_id=some_id)
    update = UpdateTaskStatusRequest(task_id=some_id, message="m", request_id="update")
    cancel = CancelTaskRequest(task_id=some_id, request_id="cancel")
    await server.tasks.UpdateTaskStatus(update)
    await server.tasks.CancelTask(cancel)
    await delete(server, some_id)
    assert (await failure(server.tasks.UpdateTaskStatus(update))).reason == "EVENT_NOT_FOUND"
    assert (await failure(server.tasks.CancelTask(cancel))).reason == "EVENT_NOT_FOUND"


async def test_of_several_deletions_one_succeeds(server: Wire, some_id: str) -> None:
    await server.create(event_id=some_id)
    deletions = (delete(server, some_id) for _ in range(5))
    results = await asyncio.gather(*deletions, return_exceptions=True)
    assert results.count(None) == 1


# ---- kept and expired ----


async def test_a_fact_is_kept_for_thirty_days(start: Start) -> None:
    clock = SetClock()
    async with start(clock=clock) as server:
        event = await server.create(event_time=Timestamp(seconds=1))
    assert to_millis(event.expire_time) == clock.now + 30 * DAY


async def test_an_open_task_is_kept_for_seven_days_after_its_last_change(start: Start, some_id: str) -> None:
    clock = SetClock()
    async with start(clock=clock) as server:
        event = await server.create_task(event_id=some_id)
        assert to_millis(event.expire_time) == clock.now + 7 * DAY
        clock.forward(days=6)
        await server.update(some_id, message="still there")
        assert to_millis((await get(server, some_id)).expire_time) == clock.now + 7 * DAY
        clock.forward(days=6)
        await server.update(some_id, message="still there")  # changes nothing
        assert to_millis((await get(server, some_id)).expire_time) == clock.now + 1 * DAY


@pytest.mark.parametrize("ended", ENDED_FORMS)
async def test_an_ended_task_is_kept_for_a_day(start: Start, some_id: str, ended: dict[str, Any]) -> None:
    clock = SetClock()
    async with start(clock=clock) as server:
        await server.create_task(event_id=some_id)
        clock.forward(days=1)
        await server.update(some_id, **ended)
        assert to_millis((await get(server, some_id)).expire_time) == clock.now + DAY
        imported = await server.create_task(status=TaskStatus(**ended))
        assert to_millis(imported.expire_time) == clock.now + DAY


async def test_a_given_lifetime_is_fixed(start: Start, some_id: str) -> None:
    clock = SetClock()
    async with start(clock=clock) as server:
        expiry = to_timestamp(clock.now + 3 * DAY)
        by_ttl = await server.create_task(event_id=f"{some_id}-1", ttl=3 * 24 * 60 * 60)
        by_time = await server.create_task(event_id=f"{some_id}-2", expire_time=expiry)
        assert by_ttl.expire_time == by_time.expire_time == expiry
        clock.forward(days=1)
        for event_id in (by_ttl.event_id, by_time.event_id):
            await server.update(event_id, TASK_STATE_RUNNING)
            await server.update(event_id, TASK_STATE_SUCCEEDED)
            assert (await get(server, event_id)).expire_time == expiry


async def test_from_its_expire_time_on_nobody_sees_an_event(start: Start, some_id: str) -> None:
    clock = SetClock()
    async with start(clock=clock) as server:
        await server.create_task(event_id=some_id, ttl=60)
        clock.forward(seconds=60, milliseconds=-1)
        assert (await get(server, some_id)).event_id == some_id
        assert outcomes(await batch_get(server, some_id)) == await listed(server) == [some_id]
        clock.forward(milliseconds=1)
        failed = await failure(get(server, some_id))
        assert (failed.code, failed.reason) == (grpc.StatusCode.NOT_FOUND, "EVENT_EXPIRED")
        assert failed.metadata == {"event_id": some_id}
        assert outcomes(await batch_get(server, some_id)) == ["EVENT_EXPIRED"]
        assert await listed(server) == await listed(server, states=[TASK_STATE_PENDING]) == []
        assert (await failure(server.update(some_id, TASK_STATE_RUNNING))).reason == "EVENT_EXPIRED"
        assert (await failure(delete(server, some_id))).reason == "EVENT_EXPIRED"
        assert (await failure(take_synced(server.watch(event_id=some_id)))).reason == "EVENT_EXPIRED"
        (synced,) = await take_synced(server.watch(project={}))
        assert synced.HasField("synced")


# ---- listed ----

CREATED: dict[str, dict[str, Any]] = {
    "fact": {"type_": "a.fact", "run_id": "run-1", "mission_id": "mission-1"},
    "pending": {"type_": "a.task", "status": TaskStatus(), "run_id": "run-1", "step_id": "step-1"},
    "running": {"type_": "b.task", "status": TaskStatus(state=TASK_STATE_RUNNING), "run_id": "run-2"},
    "failed": {"type_": "a.task", "status": TaskStatus(state=TASK_STATE_FAILED), "agent_id": "agent-1"},
    "other": {"type_": "c", "mission_id": "mission-1", "step_id": "step-1", "agent_id": "agent-1"},
}
"""Events by their ids, each created a second after the one before."""


@pytest.fixture
async def five(start: Start) -> Any:
    clock = SetClock()
    async with start(clock=clock) as server:
        for event_id, fields in CREATED.items():
            await server.create(event_id=event_id, **fields)
            clock.forward(seconds=1)
        yield server


async def test_each_filter_lists_what_matches_it(five: Wire) -> None:
    times = {event.event_id: event.create_time for event in (await page_of(five)).events}
    expected: list[tuple[dict[str, Any], set[str]]] = [
        ({}, set(CREATED)),
        ({"types": ["a.task"]}, {"pending", "failed"}),
        ({"types": ["a.task", "c", "$ne"]}, {"pending", "failed", "other"}),
        ({"types": ["a"]}, set()),
        ({"states": [TASK_STATE_PENDING]}, {"pending"}),
        ({"states": [TASK_STATE_RUNNING, TASK_STATE_FAILED]}, {"running", "failed"}),
        ({"states": [TASK_STATE_SUCCEEDED]}, set()),
        ({"run_id": "run-1"}, {"fact", "pending"}),
        ({"run_id": "run"}, set()),
        ({"mission_id": "mission-1"}, {"fact", "pending", "other"}),
        ({"step_id": "step-1"}, {"pending", "other"}),
        ({"agent_id": "agent-1"}, {"failed", "other"}),
        ({"created_from": times["running"]}, {"running", "failed", "other"}),
        ({"created_before": times["running"]}, {"fact", "pending"}),
        ({"created_from": times["pending"], "created_before": times["failed"]}, {"pending", "running"}),
        ({"run_id": "run-1", "step_id": "step-1"}, {"pending"}),
        ({"types": ["a.task"], "states": [TASK_STATE_FAILED], "agent_id": "agent-1"}, {"failed"}),
        ({"types": ["a.fact"], "states": [TASK_STATE_PENDING]}, set()),
    ]
    assert [set(await listed(five, **query)) for query, _ in expected] == [ids for _, ids in expected]


def test_each_filter_has_its_case() -> None:
    paging = {"page_size", "page_token", "order", "skip", "count_total"}
    filters = {"types", "states", "run_id", "mission_id", "step_id", "agent_id", "created_from", "created_before"}
    assert set(ListEventsRequest.DESCRIPTOR.fields_by_name) == paging | filters


async def test_a_task_is_listed_by_the_state_that_it_is_in_now(five: Wire) -> None:
    await five.update("pending", TASK_STATE_RUNNING)
    assert await listed(five, states=[TASK_STATE_PENDING]) == []
    assert set(await listed(five, states=[TASK_STATE_RUNNING])) == {"pending", "running"}


async def test_a_list_is_newest_first_unless_asked_for_otherwise(five: Wire) -> None:
    oldest_first = list(CREATED)
    assert await listed(five, order=LIST_ORDER_OLDEST_FIRST, page_size=2) == oldest_first
    for order in (LIST_ORDER_UNSPECIFIED, LIST_ORDER_NEWEST_FIRST):
        assert await listed(five, order=order, page_size=2) == oldest_first[::-1]


async def test_events_of_one_millisecond_are_in_the_order_of_their_ids(start: Start) -> None:
    ids = ["a", "A", "b", "0", "-", "ä", "日", "🧪", "aa", "$"]
    async with start(clock=SetClock()) as server:
        await batch_create(server, *(Event(event_id=event_id, type="x") for event_id in ids))
        assert await listed(server, order=LIST_ORDER_OLDEST_FIRST, page_size=3) == sorted(ids)
        assert await listed(server, page_size=3) == sorted(ids, reverse=True)


async def test_the_longest_ids_fit_into_page_tokens(start: Start) -> None:
    ids = ["🧪" * 127 + last for last in "abc"]
    async with start() as server:
        for event_id in ids:
            await server.create(event_id=event_id)
        assert await listed(server, order=LIST_ORDER_OLDEST_FIRST, page_size=1) == ids


async def test_a_page_holds_fifty_events_unless_asked_for_more(server: Wire, some_id: str) -> None:
    await batch_create(server, *(Event(type="x", run_id=some_id) for _ in range(51)))
    page = await page_of(server, run_id=some_id)
    assert len(page.events) == 50
    assert page.next_page_token
    page = await page_of(server, run_id=some_id, page_size=51)
    assert len(page.events) == 51
    assert not page.next_page_token


@pytest.mark.parametrize("order", [LIST_ORDER_NEWEST_FIRST, LIST_ORDER_OLDEST_FIRST])
async def test_pages_hold_each_event_exactly_once_while_others_write(
    server: Wire, some_id: str, order: ListOrder.ValueType
) -> None:
    doomed = [f"{some_id}-doomed-{number}" for number in range(10)]
    stable = [f"{some_id}-stable-{number}" for number in range(20)]
    for one, two, three in zip(doomed, stable[::2], stable[1::2], strict=True):
        await batch_create(server, *(Event(event_id=each, type="x", run_id=some_id) for each in (one, two)))
        await server.create_task("x", event_id=three, run_id=some_id)
    ids: list[str] = []
    token, number = "", 0
    while token or not ids:
        page = await page_of(server, run_id=some_id, page_size=4, order=order, page_token=token)
        ids += [event.event_id for event in page.events]
        token, number = page.next_page_token, number + 1
        await server.create("x", run_id=some_id, event_id=f"{some_id}-new-{number}")
        await server.update(stable[2 * number - 1], TASK_STATE_RUNNING)
        await delete(server, doomed[-number])
    assert [each for each in ids if each in stable] == stable[:: 1 if order == LIST_ORDER_OLDEST_FIRST else -1]
    assert len(ids) == len(set(ids))


async def test_a_page_token_is_for_its_own_list_only(five: Wire) -> None:
    query: dict[str, Any] = {"types": ["a.task", "b.task"], "page_size": 1}
    token = (await page_of(five, **query)).next_page_token
    others: list[dict[str, Any]] = [
        {**query, "types": ["a.task"]},
        {**query, "run_id": "run-1"},
        {**query, "states": [TASK_STATE_RUNNING]},
        {**query, "order": LIST_ORDER_OLDEST_FIRST},
        {**query, "created_from": Timestamp(seconds=1)},
    ]
    for other in others:
        failed = await failure(page_of(five, **other, page_token=token))
        assert (failed.code, failed.fields) == (grpc.StatusCode.INVALID_ARGUMENT, {"page_token": "INVALID_FIELD"})
    page = await page_of(five, **{**query, "page_size": 2}, page_token=token)
    assert [event.event_id for event in page.events] == ["running", "pending"]


async def test_text_that_is_no_page_token_is_refused(five: Wire) -> None:
    token = (await page_of(five, page_size=1)).next_page_token
    resume_token = (await take_synced(five.watch(project={})))[-1].resume_token
    changed = ("A" if token[0] != "A" else "B") + token[1:]
    for text in ("x", "é", "====", "A" * 1024, token[:-4], token + "AAAA", changed, resume_token):
        failed = await failure(page_of(five, page_size=1, page_token=text))
        assert failed.fields == {"page_token": "INVALID_FIELD"}


async def test_a_page_token_says_nothing_of_its_place(five: Wire) -> None:
    token = (await page_of(five, page_size=1)).next_page_token
    assert b"other" not in base64.urlsafe_b64decode(token + "==")
    assert [event.event_id for event in (await page_of(five, page_size=1, page_token=token)).events] == ["failed"]


async def test_a_page_is_bounded_in_size(start: Start) -> None:
    async with start(limits=Limits(response_bytes_max=2500)) as server:
        ids = [(await server.create(event_id=str(number), summary="x" * 1000)).event_id for number in range(5)]
        ids += [(await server.create(event_id="large", summary="x" * 4000)).event_id]
        page = await page_of(server, page_size=6, order=LIST_ORDER_OLDEST_FIRST)
        assert [event.event_id for event in page.events] == ids[:2]
        assert await listed(server, page_size=6, order=LIST_ORDER_OLDEST_FIRST) == ids


async def test_large_events_fit_into_pages_that_any_client_takes(server: Wire, some_id: str) -> None:
    payload = struct_of(text="x" * 250 * KIB)
    for number in range(14):
        await server.create(event_id=f"{some_id}-{number:02}", run_id=some_id, payload=payload)
    page = await page_of(server, run_id=some_id)
    assert 2 * 1024 * KIB < page.ByteSize() < 4 * 1024 * KIB - 64 * KIB
    assert len(await listed(server, run_id=some_id)) == 14


# ---- records that cannot be read ----

BROKEN: dict[str, dict[str, Any]] = {
    "payload": {"$set": {"payload": Binary(b"\xff")}},
    "state": {"$set": {"status.state": "ASLEEP"}},
    "no status state": {"$unset": {"status.state": 1}},
    "revision": {"$set": {"revision": "two"}},
    "summary": {"$set": {"summary": 17}},
    "create_time": {"$set": {"create_time": "yesterday"}},
    "no create_time": {"$unset": {"create_time": 1}},
    "no content_digest": {"$unset": {"content_digest": 1}},
    "transitions": {"$set": {"transitions": [7]}},
}


@pytest.mark.parametrize("change", BROKEN.values(), ids=BROKEN.keys())
async def test_an_unreadable_record_is_told_and_does_not_hide_others(
    start: Start, mongo: Mongo, database: str, change: dict[str, Any]
) -> None:
    async with start() as server:
        for event_id in ("a", "broken", "c"):
            await server.create_task(event_id=event_id)
        await mongo[database].events.update_one({"_id": "default/broken"}, change)
        page = await page_of(server)
        assert [event.event_id for event in page.events] == ["c", "a"]
        assert page.unreadable_event_ids == ["broken"]
        failed = await failure(get(server, "broken"))
        assert (failed.code, failed.reason) == (grpc.StatusCode.DATA_LOSS, "CORRUPT_RECORD")
        assert failed.metadata == {"event_id": "broken"}
        assert outcomes(await batch_get(server, "a", "broken", "c")) == ["a", "CORRUPT_RECORD", "c"]
        assert (await failure(server.update("broken", TASK_STATE_RUNNING))).reason == "CORRUPT_RECORD"
        assert (await failure(server.create_task(event_id="broken"))).reason == "CORRUPT_RECORD"


async def test_unreadable_records_count_as_part_of_their_page(start: Start, mongo: Mongo, database: str) -> None:
    async with start() as server:
        for number in range(6):
            await server.create(event_id=str(number))
        await mongo[database].events.update_many({"_id": {"$in": ["default/1", "default/2"]}}, BROKEN["payload"])
        first = await page_of(server, page_size=2, order=LIST_ORDER_OLDEST_FIRST)
        second = await page_of(server, page_size=2, order=LIST_ORDER_OLDEST_FIRST, page_token=first.next_page_token)
        assert ([event.event_id for event in first.events], first.unreadable_event_ids) == (["0"], ["1"])
        assert ([event.event_id for event in second.events], second.unreadable_event_ids) == (["3"], ["2"])
        assert await listed(server, page_size=2, order=LIST_ORDER_OLDEST_FIRST) == ["0", "3", "4", "5"]
