"""Failures: every reason that is documented, provoked through the wire, and what each tells and does not tell."""

from __future__ import annotations

import asyncio
import math
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from signal import SIGCONT, SIGSTOP
from socket import socket
from time import monotonic
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from google.rpc import error_details_pb2, status_pb2
from motor.motor_asyncio import AsyncIOMotorChangeStream
from pydantic import SecretStr
from pymongo import AsyncMongoClient
from pymongo.errors import OperationFailure
from structlog.testing import capture_logs

from conftest import Start
from tidings.v1.error_reason_pb2 import ErrorReason
from tidings.v1.event_pb2 import Event
from tidings.v1.event_service_pb2 import (
    HISTORY_LOSS_POLICY_FAIL,
    BatchGetEventsRequest,
    CreateEventRequest,
    DeleteEventRequest,
    EventParent,
    GetEventRequest,
    ListEventsRequest,
    WatchEventRequest,
)
from tidings.v1.mission_service_pb2 import GetMissionRequest
from tidings.v1.run_pb2 import PlanStep
from tidings.v1.run_service_pb2 import (
    AddPlanStepsRequest,
    CancelRunRequest,
    CreatePlanRequest,
    GetRunRequest,
    UpdatePlanStepRequest,
)
from tidings.v1.task_pb2 import (
    TASK_STATE_FAILED,
    TASK_STATE_PAUSED,
    TASK_STATE_RUNNING,
    TASK_STATE_SKIPPED,
    TASK_STATE_SUCCEEDED,
    TaskError,
    TaskProgress,
    TaskStatus,
)
from tidings.v1.task_service_pb2 import GetTaskStatusRequest, WaitTaskStatusRequest
from tidings_server import errors
from tidings_server.embedded import EmbeddedStore
from tidings_server.limits import KIB, Limits
from wire import WITHIN_SECONDS, Failed, Keyed, SetClock, Wire, failure, take, take_synced

Mongo = AsyncMongoClient[dict[str, Any]]

PROTO = Path(__file__).parents[1] / "protos" / "tidings" / "v1" / "error_reason.proto"
CREATE = "/tidings.v1.EventService/CreateEvent"


async def get(server: Wire, event_id: str) -> Event:
    return (await server.events.GetEvent(GetEventRequest(event_id=event_id))).event


def raw_create(server: Wire, data: bytes) -> Awaitable[bytes]:
    """CreateEvent with bytes as they are."""
    call: Awaitable[bytes] = server.channel.unary_unary(CREATE)(data)
    return call


def nested(levels: int) -> Struct:
    innermost: dict[str, Any] = {}
    for _ in range(levels - 1):
        innermost = {"a": innermost}
    return json_format.ParseDict(innermost, Struct())


def nested_list(levels: int) -> Value:
    value = Value(list_value=ListValue())
    for _ in range(levels - 1):
        value = Value(list_value=ListValue(values=[value]))
    return value


@asynccontextmanager
async def failing(mongo: Mongo, *commands: str, **how: Any) -> AsyncIterator[None]:
    """Let commands of servers fail at the store while the context lasts; what other clients ask of it does not."""
    data = {"failCommands": commands, "appName": "tidings", **how}
    try:
        await mongo.admin.command({"configureFailPoint": "failCommand", "mode": "alwaysOn", "data": data})
    except OperationFailure as error:
        pytest.skip(f"the store takes no failpoint: {error}")
    try:
        yield
    finally:
        await mongo.admin.command({"configureFailPoint": "failCommand", "mode": "off"})


# ---- what is documented ----


@dataclass(frozen=True)
class Documented:
    """What the comment of a reason in the proto promises."""

    code: grpc.StatusCode
    retry: bool
    metadata: frozenset[str]


def documented() -> Iterator[tuple[str, Documented]]:
    for comment, name in re.findall(r"((?: *//.*\n)+) *ERROR_REASON_(\w+) = [1-9]", PROTO.read_text(encoding="utf-8")):
        text = " ".join(comment.replace("//", " ").split())
        code = grpc.StatusCode[text.partition(".")[0]]
        metadata = re.findall(r"`(\w+)`", text.partition("Metadata:")[2])
        yield name, Documented(code, "RetryInfo" in text, frozenset(metadata))


DOCUMENTED = dict(documented())


def test_every_reason_has_the_status_that_its_comment_says() -> None:
    codes = {ErrorReason.Name(reason).removeprefix("ERROR_REASON_"): code for reason, code in errors._CODES.items()}
    assert codes == {name: each.code for name, each in DOCUMENTED.items()}
    assert {f"ERROR_REASON_{name}" for name in ["UNSPECIFIED", *DOCUMENTED]} == set(ErrorReason.keys())


# ---- every reason, provoked ----


@dataclass(frozen=True)
class Case:
    """What it takes to provoke a failure."""

    start: Start
    server: Wire
    mongo: Mongo
    database: str
    id: str


@pytest.fixture
def case(start: Start, server: Wire, mongo: Mongo, database: str, some_id: str) -> Case:
    return Case(start, server, mongo, database, some_id)


Provoke = Callable[[Case], Awaitable[Failed]]

PROVOKE: dict[str, Provoke] = {}


def provokes(reason: str) -> Callable[[Provoke], Provoke]:
    def add(provoke: Provoke) -> Provoke:
        PROVOKE[reason] = provoke
        return provoke

    return add


def test_every_reason_is_provoked() -> None:
    in_a_batch = {"RESPONSE_TOO_LARGE"}
    assert PROVOKE.keys() | in_a_batch == DOCUMENTED.keys()


@pytest.mark.parametrize("reason", PROVOKE)
async def test_a_failure_is_what_its_documentation_says(case: Case, reason: str) -> None:
    failed = await PROVOKE[reason](case)
    assert (failed.reason, failed.code, failed.domain) == (reason, DOCUMENTED[reason].code, "tidings")
    assert (failed.status.code, failed.status.message) == (failed.code.value[0], failed.message)
    assert DOCUMENTED[reason].metadata <= failed.metadata.keys()
    assert all(failed.metadata.values())
    assert has(failed.status, error_details_pb2.RetryInfo) == (DOCUMENTED[reason].retry or reason == "WATCHER_STALLED")
    assert has(failed.status, error_details_pb2.BadRequest) == (failed.code == grpc.StatusCode.INVALID_ARGUMENT)
    assert has(failed.status, error_details_pb2.RequestInfo) == (reason == "INTERNAL")


def has(status: status_pb2.Status, detail: Any) -> bool:
    return any(packed.Is(detail.DESCRIPTOR) for packed in status.details)


@provokes("MALFORMED_REQUEST")
async def _(case: Case) -> Failed:
    return await failure(raw_create(case.server, b"\xff\xff"))


@provokes("INVALID_FIELD")
async def _(case: Case) -> Failed:
    return await failure(case.server.create(type_=""))


@provokes("PAYLOAD_TOO_LARGE")
async def _(case: Case) -> Failed:
    return await failure(raw_create(case.server, bytes(2 * 1024 * KIB)))


@provokes("PAYLOAD_TOO_DEEP")
async def _(case: Case) -> Failed:
    return await failure(case.server.create(payload=nested(17)))


@provokes("RESUME_TOKEN_INVALID")
async def _(case: Case) -> Failed:
    return await failure(take_synced(case.server.watch(project={}, resume_token="x")))


@provokes("EVENT_NOT_FOUND")
async def _(case: Case) -> Failed:
    return await failure(get(case.server, case.id))


@provokes("EVENT_EXPIRED")
async def _(case: Case) -> Failed:
    clock = SetClock()
    async with case.start(clock=clock) as server:
        await server.create(event_id=case.id, ttl=60)
        clock.forward(seconds=60)
        return await failure(get(server, case.id))


@provokes("TASK_NOT_FOUND")
async def _(case: Case) -> Failed:
    await case.server.create(event_id=case.id)
    return await failure(case.server.update(case.id, TASK_STATE_RUNNING))


@provokes("MISSION_NOT_FOUND")
async def _(case: Case) -> Failed:
    return await failure(case.server.missions.GetMission(GetMissionRequest(mission_id=case.id)))


@provokes("RUN_NOT_FOUND")
async def _(case: Case) -> Failed:
    return await failure(case.server.runs.GetRun(GetRunRequest(run_id=case.id)))


@provokes("STEP_NOT_FOUND")
async def _(case: Case) -> Failed:
    run = await case.server.create_run()
    return await failure(case.server.runs.UpdatePlanStep(UpdatePlanStepRequest(run_id=run.run_id, step_id=case.id)))


@provokes("MISSION_ALREADY_EXISTS")
async def _(case: Case) -> Failed:
    await case.server.create_mission(mission_id=case.id)
    return await failure(case.server.create_mission("another name", mission_id=case.id))


@provokes("RUN_ALREADY_EXISTS")
async def _(case: Case) -> Failed:
    run = await case.server.create_run(run_id=case.id)
    return await failure(case.server.create_run(run.mission_id, run_id=case.id, result_summary="other"))


@provokes("PLAN_ALREADY_EXISTS")
async def _(case: Case) -> Failed:
    run = await case.server.create_run()
    await case.server.runs.CreatePlan(CreatePlanRequest(run_id=run.run_id, steps=[PlanStep(step_id="a")]))
    other = CreatePlanRequest(run_id=run.run_id, steps=[PlanStep(step_id="b")])
    return await failure(case.server.runs.CreatePlan(other))


@provokes("STEP_ALREADY_EXISTS")
async def _(case: Case) -> Failed:
    run = await case.server.create_run()
    await case.server.runs.CreatePlan(CreatePlanRequest(run_id=run.run_id, steps=[PlanStep(step_id="a")]))
    other = AddPlanStepsRequest(run_id=run.run_id, steps=[PlanStep(step_id="a", description="other")])
    return await failure(case.server.runs.AddPlanSteps(other))


@provokes("RUN_CLOSED")
async def _(case: Case) -> Failed:
    run = await case.server.create_run()
    await case.server.runs.CancelRun(CancelRunRequest(run_id=run.run_id))
    return await failure(case.server.create(event_id=case.id, run_id=run.run_id, mission_id=run.mission_id))


@provokes("EVENT_ALREADY_EXISTS")
async def _(case: Case) -> Failed:
    await case.server.create(event_id=case.id)
    return await failure(case.server.create(event_id=case.id, summary="other"))


@provokes("IDEMPOTENCY_CONFLICT")
async def _(case: Case) -> Failed:
    await case.server.create_task(event_id=case.id)
    await case.server.update(case.id, message="one", request_id="r")
    return await failure(case.server.update(case.id, message="two", request_id="r"))


@provokes("REVISION_MISMATCH")
async def _(case: Case) -> Failed:
    await case.server.create_task(event_id=case.id)
    return await failure(case.server.update(case.id, message="m", expected_revision=7))


@provokes("ILLEGAL_TRANSITION")
async def _(case: Case) -> Failed:
    await case.server.create_task(event_id=case.id)
    return await failure(case.server.update(case.id, TASK_STATE_PAUSED))


@provokes("TASK_TERMINAL")
async def _(case: Case) -> Failed:
    await case.server.create_task(event_id=case.id, status=TaskStatus(state=TASK_STATE_SUCCEEDED))
    return await failure(case.server.update(case.id, TASK_STATE_RUNNING))


@provokes("UNAUTHENTICATED")
async def _(case: Case) -> Failed:
    async with case.start() as first:
        await first.server.api_keys.create("project", frozenset({"read"}))
        async with case.start() as server:
            return await failure(get(server, case.id))


@provokes("PERMISSION_DENIED")
async def _(case: Case) -> Failed:
    async with reader(case.start) as client:
        return await failure(client.create())


@provokes("HISTORY_LOST")
async def _(case: Case) -> Failed:
    await case.server.create_task(event_id=case.id)
    token = (await take(case.server.watch(event_id=case.id))).resume_token
    for number in range(70):
        await case.server.update(case.id, TASK_STATE_PAUSED if number % 2 else TASK_STATE_RUNNING)
    call = case.server.watch(event_id=case.id, resume_token=token, on_history_loss=HISTORY_LOSS_POLICY_FAIL)
    return await failure(take_synced(call))


@provokes("RATE_LIMITED")
async def _(case: Case) -> Failed:
    async with case.start(limits=Limits(calls_per_project_max=1)) as server:
        calls = [asyncio.ensure_future(server.create(event_id=str(number))) for number in range(20)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        made = [result.event_id for result in results if isinstance(result, Event)]
        assert made, "one is let in"
        listed = await server.events.ListEvents(ListEventsRequest())
        assert {event.event_id for event in listed.events} == set(made)
        return next(Failed(result) for result in results if isinstance(result, grpc.aio.AioRpcError))


@provokes("WATCH_LIMIT")
async def _(case: Case) -> Failed:
    async with case.start(limits=Limits(watches_per_project_max=1)) as server:
        await take_synced(server.watch(project={}))
        return await failure(take_synced(server.watch(project={})))


@provokes("WATCHER_STALLED")
async def _(case: Case) -> Failed:
    async with case.start(limits=Limits(watch_stall_seconds=0.05)) as server, server.narrow() as slow:
        call = slow.watch(project={}, live_only=True)
        await take_synced(call)
        await create_large(server, LARGE_EVENTS)
        return await failure(take_to_the_end(call))


@provokes("STORE_UNAVAILABLE")
async def _(case: Case) -> Failed:
    async with failing(case.mongo, "find", closeConnection=True):
        return await failure(get(case.server, case.id))


@provokes("DRAINING")
async def _(case: Case) -> Failed:
    async with case.start() as server:
        server.server.gate.drain()
        return await failure(get(server, case.id))


@provokes("NOT_READY")
async def _(case: Case) -> Failed:
    # A server is ready when it hears the store's change stream.
    async with failing(case.mongo, "aggregate", errorCode=91), starting(case.start) as server:
        return await failure(server.events.ListEvents(ListEventsRequest(), wait_for_ready=True))


@provokes("WATCH_MAX_AGE")
async def _(case: Case) -> Failed:
    async with case.start(limits=Limits(watch_age_seconds=1)) as server:
        return await failure(take_to_the_end(server.watch(project={})))


@provokes("CORRUPT_RECORD")
async def _(case: Case) -> Failed:
    async with case.start() as server:
        await server.create(event_id=case.id)
        events = case.mongo[case.database].events
        await events.update_one({"_id": f"default/{case.id}"}, {"$set": {"revision": "one"}})
        return await failure(get(server, case.id))


@provokes("INTERNAL")
async def _(case: Case) -> Failed:
    async with case.start() as server:
        del server.server.store.events._clock  # a fault of the service
        return await failure(server.events.ListEvents(ListEventsRequest()))


@asynccontextmanager
async def reader(start: Start) -> AsyncIterator[Keyed]:
    """A client that may only read."""
    async with start() as first:
        key = await first.server.api_keys.create("project", frozenset({"read"}))
        async with start() as server, Keyed(server.server, key) as client:
            yield client


@asynccontextmanager
async def starting(start: Start) -> AsyncIterator[Wire]:
    """A server that cannot become ready, already listening."""
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"

    async def serve() -> None:
        async with start(listen=address):
            pass

    serving = asyncio.create_task(serve())
    try:
        async with Wire(address) as client:
            yield client
    finally:
        serving.cancel()
        await asyncio.wait([serving])


LARGE_EVENTS = 40
"""The way to a client that does not read holds a few of these, and to create the others takes too long for it."""


async def create_large(server: Wire, count: int) -> None:
    payload = json_format.ParseDict({"text": "x" * 250 * KIB}, Struct())
    for _ in range(count):
        await server.create(payload=payload)


async def take_to_the_end(call: Any) -> None:
    while True:
        await take(call)


# ---- bad requests ----


async def test_a_refusal_names_every_bad_field(server: Wire) -> None:
    nan = Struct(fields={"x": Value(number_value=math.nan)})
    request = CreateEventRequest(
        event=Event(
            event_id="a/b",
            type="",
            summary="s" * 4097,
            payload=nan,
            metadata=nested(17),
            results=[Value()],
            status=TaskStatus(
                state=TASK_STATE_SKIPPED,
                message="m\0",
                progress=TaskProgress(completed=-1, unit="u" * 65),
                error=TaskError(code="c", details=Struct(fields={"d": Value(string_value="\0")})),
            ),
            run_id="r" * 129,
            step_id="a b",
            agent_id="\0",
            idempotency_key="key",
        )
    )
    request.event.event_time.seconds = -1
    request.event.expire_time.seconds = 1
    request.ttl.nanos = 1
    failed = await failure(server.events.CreateEvent(request))
    assert failed.fields == {
        "event.event_id": "INVALID_FIELD",
        "event.type": "INVALID_FIELD",
        "event.summary": "INVALID_FIELD",
        "event.payload.x": "INVALID_FIELD",
        "event.metadata" + ".a" * 16: "PAYLOAD_TOO_DEEP",
        "event.results[0]": "INVALID_FIELD",
        "event.status.state": "INVALID_FIELD",
        "event.status.message": "INVALID_FIELD",
        "event.status.progress.completed": "INVALID_FIELD",
        "event.status.progress.unit": "INVALID_FIELD",
        "event.status.error": "INVALID_FIELD",
        "event.status.error.details.d": "INVALID_FIELD",
        "event.run_id": "INVALID_FIELD",
        "event.step_id": "INVALID_FIELD",
        "event.agent_id": "INVALID_FIELD",
        "event.idempotency_key": "INVALID_FIELD",
        "event.event_time": "INVALID_FIELD",
        "event.expire_time": "INVALID_FIELD",
        "ttl": "INVALID_FIELD",
    }


async def test_a_refusal_is_no_larger_than_what_callers_take(server: Wire) -> None:
    """Clients of gRPC take 8 KiB of trailers, and end a call with an error of their own that has more."""
    long = Struct(fields={f"{number}-{'k' * 1000}": Value(number_value=math.nan) for number in range(200)})
    failed = await failure(server.events.CreateEvent(CreateEventRequest(event=Event(type="t", payload=long))))
    assert failed.code == grpc.StatusCode.INVALID_ARGUMENT
    assert failed.fields
    assert all(field.startswith("event.payload.") and field.endswith("…") for field in failed.fields)


@pytest.mark.parametrize(
    ("request_", "fields"),
    [
        (ListEventsRequest(types=["", "\0"], states=[2, 0, 9]), {"types[0]", "types", "states[1]", "states[2]"}),
        (ListEventsRequest(page_size=1001, run_id="r\0", order=9), {"page_size", "run_id", "order"}),
        (ListEventsRequest(types=["x"] * 33, page_token="t" * 1025), {"types", "page_token"}),
        (ListEventsRequest(created_from={"seconds": 5}, created_before={"seconds": 5}), {"created_before"}),
        (BatchGetEventsRequest(), {"event_ids"}),
        (BatchGetEventsRequest(event_ids=["x"] * 501), {"event_ids"}),
        (BatchGetEventsRequest(event_ids=["", "x" * 129]), {"event_ids[0]", "event_ids[1]"}),
        (BatchGetEventsRequest(event_ids=["a\0"]), {"event_ids"}),
        (DeleteEventRequest(expected_revision=-1, request_id="\0"), {"event_id", "expected_revision", "request_id"}),
        (GetTaskStatusRequest(), {"task_id"}),
        (WaitTaskStatusRequest(after_revision=-1, timeout={"seconds": 61}), {"task_id", "after_revision", "timeout"}),
        (WatchEventRequest(heartbeat_interval={"nanos": 1}), {"scope", "heartbeat_interval"}),
        (WatchEventRequest(event_id="e", filter={}, max_duration={"seconds": 86401}), {"filter", "max_duration"}),
        (WatchEventRequest(run_id="r", stay_open=True, on_history_loss=9), {"stay_open", "on_history_loss"}),
        (WatchEventRequest(run_id="r", parent=EventParent(run_id="r", mission_id="m")), {"parent.run_id"}),
        (WatchEventRequest(mission_id="m", parent=EventParent(mission_id="m")), {"parent.mission_id"}),
        (WatchEventRequest(project={}, filter={"types": ["a\0"], "states": [0]}), {"filter.types", "filter.states[0]"}),
    ],
)  # fmt: skip
async def test_every_method_names_its_bad_fields(server: Wire, request_: Any, fields: set[str]) -> None:
    method = type(request_).__name__.removesuffix("Request")
    call = getattr(server.events, method, None) or getattr(server.tasks, method)
    failed = await failure(take_synced(call(request_)) if method == "WatchEvent" else call(request_))
    assert (failed.code, failed.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert set(failed.fields) == fields


async def test_an_empty_request_is_a_message_with_nothing_in_it(server: Wire) -> None:
    failed = await failure(raw_create(server, b""))
    assert (failed.reason, failed.fields) == ("INVALID_FIELD", {"event": "INVALID_FIELD"})


def delimited(field: int, data: bytes) -> bytes:
    return bytes([field << 3 | 2, len(data)]) + data


@pytest.mark.parametrize(
    "data",
    [b"\xff", b"\x0a\x7f", b"\x0a", delimited(1, b"\xed\xa0\x80"), delimited(1, b"\xff")],
    ids=["bad tag", "cut off", "no length", "a lone surrogate", "no UTF-8"],
)
@pytest.mark.parametrize("method", ["EventService/GetEvent", "EventService/WatchEvent", "TaskService/CancelTask"])
async def test_bytes_that_are_no_request_are_refused(server: Wire, method: str, data: bytes) -> None:
    path = f"/tidings.v1.{method}"
    is_stream = method.endswith("WatchEvent")
    call = take(server.channel.unary_stream(path)(data)) if is_stream else server.channel.unary_unary(path)(data)
    failed = await failure(call)
    assert (failed.code, failed.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST")
    assert failed.fields == {"": "MALFORMED_REQUEST"}


async def test_a_surrogate_in_a_payload_is_refused(server: Wire) -> None:
    good = CreateEventRequest(event=Event(type="x", payload=Struct(fields={"k": Value(string_value="\ud7ff")})))
    bad = good.SerializeToString().replace("\ud7ff".encode(), b"\xed\xa0\x80")
    assert (await failure(raw_create(server, bad))).reason == "MALFORMED_REQUEST"


async def test_a_request_may_have_as_many_bytes_as_the_limit(start: Start) -> None:
    request = CreateEventRequest(event=Event(type="x", summary="y" * 200))
    size = request.ByteSize()
    async with start(limits=Limits(request_bytes_max=size)) as server:
        await server.events.CreateEvent(request)
        request.event.summary += "y"
        failed = await failure(server.events.CreateEvent(request))
        assert (failed.reason, failed.fields) == ("PAYLOAD_TOO_LARGE", {"": "PAYLOAD_TOO_LARGE"})


def part_of_an_event(path: str, bytes_: int) -> dict[str, Any]:
    """A field of an event that has as many bytes."""
    if path == "results":
        return {"results": [Value(string_value="x" * (bytes_ // 2 - 4))] * 2}
    struct = Struct(fields={"k": Value(string_value="x" * (bytes_ - 15))})
    assert struct.ByteSize() == bytes_
    if path == "status.error.details":
        return {"status": TaskStatus(state=TASK_STATE_FAILED, error=TaskError(details=struct))}
    return {path: struct}


@pytest.mark.parametrize(
    ("path", "limit"), [("payload", 256), ("metadata", 256), ("results", 256), ("status.error.details", 64)]
)
async def test_each_payload_has_its_limit(server: Wire, path: str, limit: int) -> None:
    await server.create(**part_of_an_event(path, limit * KIB))
    failed = await failure(server.create(**part_of_an_event(path, limit * KIB + 2)))
    assert failed.fields == {f"event.{path}": "PAYLOAD_TOO_LARGE"}


async def test_an_event_has_a_limit_as_a_whole(server: Wire, some_id: str) -> None:
    large = Struct(fields={"k": Value(string_value="x" * 255 * KIB)})
    failed = await failure(server.create(payload=large, metadata=large, summary="y" * 4000))
    assert failed.fields == {"event": "PAYLOAD_TOO_LARGE"}
    await server.create_task(event_id=some_id, payload=large, metadata=large)
    failed = await failure(server.update(some_id, results=[Value(string_value="z" * 4000)]))
    assert (failed.code, failed.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "PAYLOAD_TOO_LARGE")
    assert (await get(server, some_id)).revision == 1


async def test_sixteen_levels_are_deep_enough(server: Wire, some_id: str) -> None:
    deepest: dict[str, Any] = {"payload": nested(16), "metadata": nested(16), "results": [nested_list(16)]}
    assert await server.create(event_id=some_id, **deepest) == await get(server, some_id)
    for levels in (17, 31):
        error = TaskError(details=nested(levels))
        failed = await failure(
            server.create(
                payload=nested(levels),
                metadata=nested(levels),
                results=[nested_list(levels)],
                status=TaskStatus(state=TASK_STATE_FAILED, error=error),
            )
        )
        assert failed.reason == "PAYLOAD_TOO_DEEP"
        assert failed.fields == dict.fromkeys(
            [f"event.{name}{'.a' * 16}" for name in ("payload", "metadata", "status.error.details")]
            + [f"event.results[0]{'[0]' * 16}"],
            "PAYLOAD_TOO_DEEP",
        )


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (Value(number_value=math.nan), "v"),
        (Value(number_value=math.inf), "v"),
        (Value(number_value=-math.inf), "v"),
        (Value(string_value="a\0b"), "v"),
        (Value(), "v"),
        (Value(list_value=ListValue(values=[Value(null_value=0), Value()])), "v[1]"),
        (Value(struct_value=Struct(fields={"k": Value(number_value=math.nan)})), "v.k"),
        (Value(struct_value=Struct(fields={"\0": Value(bool_value=True)})), "v"),
    ],
    ids=["NaN", "inf", "-inf", "NUL", "no kind", "no kind in a list", "NaN in a struct", "NUL in a key"],
)
async def test_a_value_that_could_not_come_back_is_refused(server: Wire, value: Value, path: str) -> None:
    failed = await failure(server.create(payload=Struct(fields={"v": value})))
    assert failed.fields == {f"event.payload.{path}": "INVALID_FIELD"}
    failed = await failure(server.create(results=[value]))
    assert failed.fields == {f"event.results[0]{path.removeprefix('v')}": "INVALID_FIELD"}


# ---- limits of what is under way ----


async def test_waits_count_as_watches_and_calls_do_not(start: Start, some_id: str) -> None:
    async with start(limits=Limits(watches_per_project_max=1)) as server:
        await server.create_task(event_id=some_id)
        watch = server.watch(event_id=some_id)
        await take_synced(watch)
        wait = WaitTaskStatusRequest(task_id=some_id)
        failed = await failure(server.tasks.WaitTaskStatus(wait))
        assert (failed.reason, failed.retry_seconds) == ("WATCH_LIMIT", 10)
        await get(server, some_id)


async def test_the_watches_of_all_projects_have_a_limit(start: Start) -> None:
    async with start(limits=Limits(watches_max=2)) as server:
        calls = [server.watch(project={}) for _ in range(2)]
        for call in calls:
            await take_synced(call)
        assert (await failure(take_synced(server.watch(project={})))).reason == "WATCH_LIMIT"


async def test_a_watch_that_ended_makes_room(start: Start, some_id: str) -> None:
    async with start(limits=Limits(watches_per_project_max=1)) as server:
        await server.create(event_id=some_id)
        for _ in range(5):
            call = server.watch(event_id=some_id)
            await take_synced(call)
            await take(call)
            assert await call.code() == grpc.StatusCode.OK


async def test_a_stalled_watcher_resumes_with_its_last_token(start: Start) -> None:
    async with start(limits=Limits(watch_stall_seconds=0.05)) as server, server.narrow() as slow:
        call = slow.watch(project={}, live_only=True)
        token = (await take_synced(call))[-1].resume_token
        await create_large(server, LARGE_EVENTS)
        seen = []
        while len(seen) < LARGE_EVENTS:
            try:
                message = await take(call)
            except grpc.aio.AioRpcError as error:
                assert Failed(error).reason == "WATCHER_STALLED"  # noqa: PT017 (a fast reader is not ended again)
                call = slow.watch(project={}, resume_token=token)
                continue
            token = message.resume_token
            if message.HasField("change"):
                seen.append(message.change.event.event_id)
        assert len(set(seen)) == LARGE_EVENTS


# ---- the store is away ----


@pytest.mark.parametrize("code", [91, 262, 10107, 13436])
async def test_what_a_store_says_when_it_is_away_is_unavailable(
    server: Wire, mongo: Mongo, some_id: str, code: int
) -> None:
    async with failing(mongo, "insert", errorCode=code):
        failed = await failure(server.create(event_id=some_id))
    assert (failed.code, failed.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
    assert failed.retry_seconds == 1
    assert (await server.create(event_id=some_id)).revision == 1


async def test_a_change_of_which_the_answer_was_lost_is_made_once(server: Wire, mongo: Mongo, some_id: str) -> None:
    lost = {"writeConcernError": {"code": 64, "errmsg": "waiting for replication timed out"}}
    async with failing(mongo, "insert", **lost):
        assert (await failure(server.create_task(event_id=some_id))).reason == "STORE_UNAVAILABLE"
    created = await server.create_task(event_id=some_id)
    assert created.revision == 1
    async with failing(mongo, "update", **lost):
        update = server.update(some_id, TASK_STATE_RUNNING, expected_revision=1, request_id="r")
        assert (await failure(update)).reason == "STORE_UNAVAILABLE"
    status = await server.update(some_id, TASK_STATE_RUNNING, expected_revision=1, request_id="r")
    assert (status.state, status.revision) == (TASK_STATE_RUNNING, 2)


async def test_a_slow_store_is_not_waited_for(server: Wire, mongo: Mongo, some_id: str) -> None:
    async with failing(mongo, "find", "insert", blockConnection=True, blockTimeMS=4000):
        begin = monotonic()
        failures = await asyncio.gather(
            failure(get(server, some_id)),
            failure(server.create(event_id=some_id)),
            failure(server.events.ListEvents(ListEventsRequest())),
            failure(take_synced(server.watch(event_id=some_id))),
        )
        assert monotonic() - begin < 2
    assert [failed.reason for failed in failures] == ["STORE_UNAVAILABLE"] * 4


@asynccontextmanager
async def with_own_store(start: Start) -> AsyncIterator[tuple[Wire, EmbeddedStore]]:
    async with EmbeddedStore(None) as store, start(mongodb_uri=SecretStr(store.uri)) as server:
        yield server, store


async def test_a_store_that_hangs_is_told_within_two_seconds_and_heals(start: Start) -> None:
    async with with_own_store(start) as (server, store):
        await server.create(event_id="before")
        with suspended(store.pid):
            begin = monotonic()
            failures = await asyncio.gather(*(failure(get(server, "before")) for _ in range(60)))
            assert monotonic() - begin < 2
            assert {(each.code, each.reason) for each in failures} == {
                (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
            }
        assert (await answered(server, "before")).event_id == "before"


async def test_a_dead_store_is_told_within_two_seconds_and_does_not_hold_up_the_end(start: Start, some_id: str) -> None:
    async with with_own_store(start) as (server, store):
        await store.__aexit__()
        begin = monotonic()
        calls = [get(server, some_id) for _ in range(30)] + [server.create() for _ in range(30)]
        failures = await asyncio.gather(*(failure(call) for call in calls))
        assert monotonic() - begin < 2
        assert {each.reason for each in failures} == {"STORE_UNAVAILABLE"}
    assert monotonic() - begin < WITHIN_SECONDS


async def test_a_server_stops_also_while_it_gives_up_a_broken_change_stream(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    closing = asyncio.Event()

    async def close(_: AsyncIOMotorChangeStream[Any]) -> None:
        if not closing.is_set():  # once, or who swallows the end would do so for ever
            closing.set()
            await asyncio.Event().wait()

    async with asyncio.timeout(WITHIN_SECONDS), with_own_store(start) as (_, store):
        monkeypatch.setattr(AsyncIOMotorChangeStream, "close", close)
        await store.__aexit__()
        await closing.wait()


@contextmanager
def suspended(pid: int) -> Iterator[None]:
    os.kill(pid, SIGSTOP)
    try:
        os.waitid(os.P_PID, pid, os.WSTOPPED)  # it takes effect a little later
        yield
    finally:
        os.kill(pid, SIGCONT)


async def answered(server: Wire, event_id: str) -> Event:
    """The event, as soon as the store answers again."""
    while True:
        try:
            return await get(server, event_id)
        except grpc.aio.AioRpcError as error:
            if error.code() != grpc.StatusCode.UNAVAILABLE:
                raise


# ---- who is told what ----


async def test_watches_begin_again_after_the_store_has_failed_in_a_way_that_nobody_foresaw(
    start: Start, mongo: Mongo
) -> None:
    async with start() as server:
        event = await server.create()
        async with failing(mongo, "update", errorCode=59):
            assert (await failure(take_synced(server.watch(project={})))).reason == "STORE_UNAVAILABLE"
        told = await take_synced(server.watch(project={}))
        assert [message.change.event.event_id for message in told] == [event.event_id, ""]


@pytest.mark.parametrize("call", ["unary", "stream"])
async def test_a_fault_of_the_service_is_told_by_its_number_only(
    start: Start, monkeypatch: pytest.MonkeyPatch, some_id: str, call: str
) -> None:
    async def fail(*_: object) -> Event:
        raise RuntimeError("secret mongodb://user:pw@host")

    async with start() as server:
        monkeypatch.setattr(server.server.store.events, "get" if call == "unary" else "get_many", fail)
        with capture_logs() as logs:
            failed = await failure(
                get(server, some_id) if call == "unary" else take_synced(server.watch(event_id=some_id))
            )
    assert (failed.code, failed.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    told = f"{failed.message} {failed.status}"
    assert not [word for word in ("secret", "mongodb", "pw", "RuntimeError", "Traceback") if word in told]
    assert failed.request_id
    (line,) = [line for line in logs if line.get("reference") == failed.request_id]
    assert (line["log_level"], str(line["exc_info"])) == ("error", "secret mongodb://user:pw@host")


@pytest.mark.parametrize("data", [b"\xff", b"", bytes(2 * 1024 * KIB)], ids=["malformed", "invalid", "too large"])
async def test_who_may_not_write_learns_nothing_else(start: Start, data: bytes) -> None:
    async with reader(start) as client:
        raw = client.channel.unary_unary(CREATE)
        failed = await failure(raw(data, metadata=client.metadata))
        assert (failed.reason, failed.metadata) == ("PERMISSION_DENIED", {"scope": "write"})
        assert (await failure(raw(data))).reason == "UNAUTHENTICATED"


async def test_who_may_not_write_does_not_learn_what_exists(start: Start, some_id: str) -> None:
    async with reader(start) as client:
        failed = await failure(client.events.DeleteEvent(DeleteEventRequest(event_id=some_id)))
        assert failed.reason == "PERMISSION_DENIED"
        assert some_id not in str(failed.status)


async def test_a_method_that_does_not_exist_is_unimplemented(server: Wire) -> None:
    for method in ("/tidings.v1.EventService/PurgeEverything", "/tidings.v2.EventService/GetEvent"):
        failed = await failure(server.channel.unary_unary(method)(b""))
        assert failed.code == grpc.StatusCode.UNIMPLEMENTED
