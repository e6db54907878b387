"""Tasks: moved, claimed, cancelled and waited for, through the wire; and the pure rules of their life."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import grpc
import hypothesis.strategies as st
import pytest
from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import status_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from conftest import Start
from tidings.v1.event_pb2 import Event
from tidings.v1.event_service_pb2 import CreateEventRequest, DeleteEventRequest, GetEventRequest
from tidings.v1.event_service_pb2_grpc import EventServiceStub
from tidings.v1.task_pb2 import (
    TASK_STATE_CANCELLED,
    TASK_STATE_FAILED,
    TASK_STATE_PAUSED,
    TASK_STATE_PENDING,
    TASK_STATE_RUNNING,
    TASK_STATE_SKIPPED,
    TASK_STATE_SUCCEEDED,
    TASK_STATE_UNSPECIFIED,
    TaskError,
    TaskProgress,
    TaskState,
    TaskStatus,
)
from tidings.v1.task_service_pb2 import (
    CancelTaskRequest,
    GetTaskStatusRequest,
    UpdateTaskStatusRequest,
    WaitTaskStatusRequest,
    WaitTaskStatusResponse,
)
from tidings.v1.task_service_pb2_grpc import TaskServiceStub
from tidings_server.clock import to_millis, to_timestamp
from tidings_server.errors import Failure
from tidings_server.lifecycle import move
from wire import WITHIN_SECONDS, SetClock, Wire, failure, reason_of

State = TaskState.ValueType

ENDED = frozenset({TASK_STATE_SUCCEEDED, TASK_STATE_FAILED, TASK_STATE_CANCELLED, TASK_STATE_SKIPPED})
CAN_FOLLOW: dict[State, frozenset[State]] = {
    TASK_STATE_PENDING: ENDED | {TASK_STATE_RUNNING},
    TASK_STATE_RUNNING: ENDED | {TASK_STATE_PAUSED},
    TASK_STATE_PAUSED: ENDED | {TASK_STATE_RUNNING},
    **dict.fromkeys(ENDED, frozenset()),
}
"""The table as it is promised."""
WRITABLE = sorted(set(CAN_FOLLOW) - {TASK_STATE_SKIPPED})

then = Timestamp(seconds=1_600_000_000)
five_later = Timestamp(seconds=1_600_000_005)
nine_later = Timestamp(seconds=1_600_000_009)


def values_of(*values: Any) -> list[Value]:
    return [json_format.ParseDict(value, Value()) for value in values]


async def status_of(server: Wire, task_id: str) -> TaskStatus:
    return (await server.tasks.GetTaskStatus(GetTaskStatusRequest(task_id=task_id))).status


async def event_of(server: Wire, event_id: str) -> Event:
    return (await server.events.GetEvent(GetEventRequest(event_id=event_id))).event


async def cancel(server: Wire, task_id: str, **fields: Any) -> TaskStatus:
    return (await server.tasks.CancelTask(CancelTaskRequest(task_id=task_id, **fields))).status


async def wait(
    server: Wire, task_id: str, *, within: float | None = WITHIN_SECONDS, **fields: Any
) -> WaitTaskStatusResponse:
    return await server.tasks.WaitTaskStatus(WaitTaskStatusRequest(task_id=task_id, **fields), timeout=within)


# ---- the table ----


def stamped(before: TaskStatus, to: State, now: Timestamp) -> TaskStatus:
    """The status after a move: what is stamped, and nothing else."""
    status = TaskStatus()
    status.CopyFrom(before)
    status.state = to
    if to == TASK_STATE_RUNNING and not status.HasField("start_time"):
        status.start_time.CopyFrom(now)
    if to in ENDED:
        status.end_time.CopyFrom(now)
        if status.HasField("start_time"):
            status.latency.seconds = now.seconds - status.start_time.seconds
    return status


def check_move(status: TaskStatus, to: State, now: Timestamp) -> None:
    """Ask for a move and hold what comes of it against the table."""
    before = TaskStatus()
    before.CopyFrom(status)
    if to == before.state:
        assert not move(status, to, to_millis(now))
        assert status == before
    elif to in CAN_FOLLOW[before.state]:
        assert move(status, to, to_millis(now))
        assert status == stamped(before, to, now)
    else:
        with pytest.raises(Failure) as refused:
            move(status, to, to_millis(now))
        reason = "TASK_TERMINAL" if before.state in ENDED else "ILLEGAL_TRANSITION"
        assert reason_of(refused.value.to_status()) == reason
        assert status == before


@pytest.mark.parametrize("state", CAN_FOLLOW)
def test_what_may_follow_a_state_is_as_promised(state: State) -> None:
    for to in CAN_FOLLOW:
        check_move(TaskStatus(task_id="t", state=state, message="m"), to, then)


@given(st.sampled_from(sorted(CAN_FOLLOW)), st.lists(st.sampled_from(sorted(CAN_FOLLOW)), max_size=12))
def test_whatever_is_asked_of_a_task_it_is_stamped_once_and_ends_once(first: State, wanted: list[State]) -> None:
    status = TaskStatus(task_id="t", state=first, message="m")
    for second, to in enumerate(wanted):
        check_move(status, to, Timestamp(seconds=second))


def test_a_clock_set_back_gives_no_negative_latency() -> None:
    status = TaskStatus(state=TASK_STATE_RUNNING, start_time=five_later)
    move(status, TASK_STATE_SUCCEEDED, to_millis(then))
    assert status.latency == Duration()


# ---- a life ----


async def test_a_life_from_pending_to_succeeded(start: Start, some_id: str) -> None:
    clock = SetClock()
    async with start(clock=clock) as server:
        created = clock.now
        event = await server.create_task(event_id=some_id)
        assert event.status == TaskStatus(
            task_id=some_id,
            state=TASK_STATE_PENDING,
            create_time=to_timestamp(created),
            update_time=to_timestamp(created),
            revision=1,
        )
        for state in (TASK_STATE_RUNNING, TASK_STATE_PAUSED, TASK_STATE_RUNNING, TASK_STATE_SUCCEEDED):
            clock.forward(seconds=5, milliseconds=250)
            status = await server.update(some_id, state, message=f"now {state}")
            assert (status.state, status.update_time) == (state, to_timestamp(clock.now))
        assert status == TaskStatus(
            task_id=some_id,
            state=TASK_STATE_SUCCEEDED,
            message=f"now {TASK_STATE_SUCCEEDED}",
            create_time=to_timestamp(created),
            start_time=to_timestamp(created + 5250),
            end_time=to_timestamp(created + 4 * 5250),
            update_time=to_timestamp(created + 4 * 5250),
            latency=Duration(seconds=15, nanos=750_000_000),
            revision=5,
        )
        assert await status_of(server, some_id) == status
        event = await event_of(server, some_id)
        assert (event.status, event.revision, event.update_time) == (status, 5, status.update_time)
        assert event.create_time == event.event_time == status.create_time


async def test_transitions_tell_the_changes_of_state_and_no_others(start: Start, some_id: str) -> None:
    clock = SetClock()
    async with start(clock=clock) as server:
        await server.create_task(event_id=some_id, status=TaskStatus(message="begin"))
        await server.update(some_id, message="waiting")
        clock.forward(seconds=1)
        await server.update(some_id, TASK_STATE_RUNNING)
        await server.update(some_id, TASK_STATE_RUNNING, progress=TaskProgress(completed=1))
        clock.forward(seconds=1)
        await server.update(some_id, TASK_STATE_FAILED, message="ä" * 300)
        transitions = (await event_of(server, some_id)).transitions
    assert [(each.revision, getattr(each, "from"), each.to, each.message) for each in transitions] == [
        (1, TASK_STATE_UNSPECIFIED, TASK_STATE_PENDING, "begin"),
        (3, TASK_STATE_PENDING, TASK_STATE_RUNNING, "waiting"),
        (5, TASK_STATE_RUNNING, TASK_STATE_FAILED, "ä" * 256),
    ]
    assert [to_millis(each.time) - clock.now for each in transitions] == [-2000, -1000, 0]


async def test_the_newest_64_transitions_are_kept(server: Wire, some_id: str) -> None:
    await server.create_task(event_id=some_id)
    for number in range(70):
        await server.update(some_id, TASK_STATE_PAUSED if number % 2 else TASK_STATE_RUNNING)
    event = await event_of(server, some_id)
    assert event.revision == 71
    assert [each.revision for each in event.transitions] == list(range(8, 72))


@pytest.mark.parametrize("ended", [TASK_STATE_SUCCEEDED, TASK_STATE_FAILED, TASK_STATE_CANCELLED])
async def test_nothing_changes_an_ended_task(server: Wire, some_id: str, ended: State) -> None:
    await server.create_task(event_id=some_id, status=TaskStatus(state=ended, message="m"), results=values_of(1))
    before = await event_of(server, some_id)
    changes: list[dict[str, Any]] = [
        *({"state": state} for state in WRITABLE if state != ended),
        {"message": "n"},
        {"message": ""},
        {"progress": TaskProgress()},
        {"results": values_of(2)},
        {"state": ended, "message": "n"},
    ]
    for change in changes:
        failed = await failure(server.update(some_id, **change))
        assert (failed.code, failed.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "TASK_TERMINAL")
        name = TaskState.Name(ended).removeprefix("TASK_STATE_")
        assert failed.metadata == {"event_id": some_id, "state": name}
    assert await event_of(server, some_id) == before
    for repeat in ({}, {"state": ended}, {"message": "m"}, {"results": values_of(1)}):
        assert await server.update(some_id, **repeat) == before.status
    assert await event_of(server, some_id) == before


async def test_a_state_that_cannot_follow_is_refused(server: Wire, some_id: str) -> None:
    await server.create_task(event_id=some_id)
    for state, refused, names in (
        (TASK_STATE_PENDING, TASK_STATE_PAUSED, ("PENDING", "PAUSED")),
        (TASK_STATE_RUNNING, TASK_STATE_PENDING, ("RUNNING", "PENDING")),
        (TASK_STATE_PAUSED, TASK_STATE_PENDING, ("PAUSED", "PENDING")),
    ):
        before = await server.update(some_id, state)
        failed = await failure(server.update(some_id, refused, message="not kept"))
        assert (failed.code, failed.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ILLEGAL_TRANSITION")
        assert failed.metadata == {"event_id": some_id, "from": names[0], "to": names[1]}
        assert await status_of(server, some_id) == before


async def test_what_is_given_is_replaced_as_a_whole_and_the_rest_stays(server: Wire, some_id: str) -> None:
    await server.create_task(event_id=some_id, summary="kept", payload=Struct())
    progress = TaskProgress(completed=1, total=10, unit="pages", message="reading")
    first = await server.update(some_id, message="m", progress=progress, results=values_of(1, {"a": 2}))
    assert (first.message, first.progress) == ("m", progress)
    second = await server.update(some_id, TASK_STATE_RUNNING, progress=TaskProgress(completed=2))
    assert (second.message, second.progress) == ("m", TaskProgress(completed=2))
    event = await event_of(server, some_id)
    assert list(event.results) == values_of(1, {"a": 2})
    third = await server.update(some_id, message="", results=values_of(None))
    assert (third.message, third.progress) == ("", TaskProgress(completed=2))
    event = await event_of(server, some_id)
    assert list(event.results) == values_of(None)
    assert (event.summary, event.HasField("payload")) == ("kept", True)


async def test_the_error_comes_with_the_failure(server: Wire, some_id: str) -> None:
    await server.create_task(event_id=some_id)
    details = json_format.ParseDict({"a.b": [1]}, Struct())
    error = TaskError(code="timeout", message="too slow", retryable=True, details=details)
    assert (await failure(server.update(some_id, TASK_STATE_RUNNING, error=error))).fields == {"error": "INVALID_FIELD"}
    assert (await failure(server.update(some_id, error=error))).fields == {"error": "INVALID_FIELD"}
    status = await server.update(some_id, TASK_STATE_FAILED, error=error)
    assert (status.error, status.revision) == (error, 2)
    assert await server.update(some_id, TASK_STATE_FAILED, error=error) == status
    failed = await failure(server.update(some_id, TASK_STATE_FAILED, error=TaskError(code="other")))
    assert failed.reason == "TASK_TERMINAL"


async def test_asking_for_what_is_so_changes_nothing(server: Wire, some_id: str) -> None:
    progress = TaskProgress(completed=1)
    await server.create_task(event_id=some_id, status=TaskStatus(message="m", progress=progress), results=values_of(1))
    before = await event_of(server, some_id)
    same: dict[str, Any] = {"message": "m", "progress": progress, "results": values_of(1)}
    for change in ({}, {"state": TASK_STATE_PENDING}, {"state": TASK_STATE_PENDING, **same}):
        assert await server.update(some_id, **change) == before.status
    assert await event_of(server, some_id) == before


@pytest.mark.parametrize("method", ["GetTaskStatus", "UpdateTaskStatus", "CancelTask", "WaitTaskStatus"])
async def test_a_fact_has_no_status(server: Wire, some_id: str, method: str) -> None:
    await server.create(event_id=some_id)
    request = {
        "GetTaskStatus": GetTaskStatusRequest,
        "UpdateTaskStatus": UpdateTaskStatusRequest,
        "CancelTask": CancelTaskRequest,
        "WaitTaskStatus": WaitTaskStatusRequest,
    }[method](task_id=some_id)
    failed = await failure(getattr(server.tasks, method)(request))
    assert (failed.code, failed.reason) == (grpc.StatusCode.NOT_FOUND, "TASK_NOT_FOUND")
    assert failed.metadata == {"event_id": some_id}
    assert (await event_of(server, some_id)).revision == 1


# ---- created with a past ----


async def test_an_imported_task_keeps_its_own_times(server: Wire, some_id: str) -> None:
    status = TaskStatus(state=TASK_STATE_SUCCEEDED, create_time=then, start_time=five_later, end_time=nine_later)
    event = await server.create_task(event_id=some_id, status=status)
    stored = event.status
    assert (stored.create_time, stored.start_time, stored.end_time) == (then, five_later, nine_later)
    assert (stored.update_time, stored.latency) == (nine_later, Duration(seconds=4))
    assert event.create_time.seconds > nine_later.seconds
    (transition,) = event.transitions
    assert (getattr(transition, "from"), transition.to) == (TASK_STATE_UNSPECIFIED, TASK_STATE_SUCCEEDED)
    assert await event_of(server, some_id) == event


async def test_an_imported_task_goes_on_from_its_own_start(start: Start, some_id: str) -> None:
    clock = SetClock()
    begun = to_timestamp(clock.now - 60_000)
    async with start(clock=clock) as server:
        await server.create_task(event_id=some_id, status=TaskStatus(state=TASK_STATE_PAUSED, start_time=begun))
        await server.update(some_id, TASK_STATE_RUNNING)
        status = await server.update(some_id, TASK_STATE_SUCCEEDED)
    assert (status.start_time, status.latency) == (begun, Duration(seconds=60))


PENDING, RUNNING, DONE = TASK_STATE_PENDING, TASK_STATE_RUNNING, TASK_STATE_SUCCEEDED
FUTURE = Timestamp(seconds=4_000_000_000)


@pytest.mark.parametrize(
    ("status", "fields"),
    [
        (TaskStatus(start_time=then), {"start_time"}),
        (TaskStatus(state=PENDING, start_time=then, end_time=then), {"start_time", "end_time"}),
        (TaskStatus(state=RUNNING, end_time=then), {"end_time"}),
        (TaskStatus(state=RUNNING, create_time=five_later, start_time=then), {"start_time"}),
        (TaskStatus(state=DONE, start_time=five_later, end_time=then), {"end_time"}),
        (TaskStatus(state=DONE, create_time=five_later, end_time=then), {"end_time"}),
        (TaskStatus(create_time=FUTURE), {"create_time"}),
        (TaskStatus(state=RUNNING, start_time=FUTURE), {"start_time"}),
        (TaskStatus(state=DONE, end_time=FUTURE), {"end_time"}),
        (TaskStatus(state=DONE, create_time=Timestamp(seconds=-1)), {"create_time"}),
        (TaskStatus(state=TASK_STATE_SKIPPED), {"state"}),
        (TaskStatus(state=RUNNING, error=TaskError(code="x")), {"error"}),
    ],
)
async def test_a_past_that_cannot_be_is_refused(server: Wire, status: TaskStatus, fields: set[str]) -> None:
    failed = await failure(server.create_task(status=status))
    assert set(failed.fields) == {f"event.status.{field}" for field in fields}


# ---- claimed, retried ----


async def test_of_ten_workers_one_claims_a_task(server: Wire, some_id: str) -> None:
    read = (await server.create_task(event_id=some_id)).revision
    claims = (
        failure_or_status(server, some_id, TASK_STATE_RUNNING, message=f"worker {number}", expected_revision=read)
        for number in range(10)
    )
    results = await asyncio.gather(*claims)
    (won,) = [result for result in results if isinstance(result, TaskStatus)]
    lost = [result for result in results if isinstance(result, grpc.aio.AioRpcError)]
    assert [error.code() for error in lost] == [grpc.StatusCode.ABORTED] * 9
    assert await status_of(server, some_id) == won
    assert (won.state, won.revision) == (TASK_STATE_RUNNING, 2)


async def failure_or_status(
    server: Wire, task_id: str, state: State, **fields: Any
) -> TaskStatus | grpc.aio.AioRpcError:
    try:
        return await server.update(task_id, state, **fields)
    except grpc.aio.AioRpcError as error:
        return error


async def test_a_stale_revision_is_told_the_current_one(server: Wire, some_id: str) -> None:
    await server.create_task(event_id=some_id)
    await server.update(some_id, message="one")
    for call in (
        server.update(some_id, message="two", expected_revision=1),
        cancel(server, some_id, expected_revision=3),
    ):
        failed = await failure(call)
        assert (failed.code, failed.reason) == (grpc.StatusCode.ABORTED, "REVISION_MISMATCH")
        assert failed.metadata == {"event_id": some_id, "current_revision": "2"}
    assert (await status_of(server, some_id)).message == "one"


async def test_changes_at_once_are_all_made(server: Wire, some_id: str) -> None:
    await server.create_task(event_id=some_id)
    updates = (server.update(some_id, message=str(number)) for number in range(5))
    statuses = await asyncio.gather(*updates)
    assert sorted(status.revision for status in statuses) == [2, 3, 4, 5, 6]
    assert all(status.message == str(number) for number, status in enumerate(statuses))


async def test_a_retried_request_changes_nothing_again(server: Wire, some_id: str) -> None:
    await server.create_task(event_id=some_id)
    first: dict[str, Any] = {"message": "first", "expected_revision": 1, "request_id": "r"}
    await server.update(some_id, **first)
    now = await server.update(some_id, TASK_STATE_RUNNING, message="second")
    assert await server.update(some_id, **first) == now, "though its revision is stale"
    failed = await failure(server.update(some_id, message="other", request_id="r"))
    assert (failed.code, failed.reason) == (grpc.StatusCode.ALREADY_EXISTS, "IDEMPOTENCY_CONFLICT")
    assert failed.metadata == {"event_id": some_id}
    assert (await failure(cancel(server, some_id, request_id="r"))).reason == "IDEMPOTENCY_CONFLICT"
    assert await status_of(server, some_id) == now


async def test_a_retried_claim_is_still_won(server: Wire, some_id: str) -> None:
    """Also when the answer to the first was lost, and the task has ended since."""
    await server.create_task(event_id=some_id)
    claim: dict[str, Any] = {"state": TASK_STATE_RUNNING, "expected_revision": 1, "request_id": "worker-7"}
    await asyncio.gather(*(server.update(some_id, **claim) for _ in range(5)))
    done = await server.update(some_id, TASK_STATE_SUCCEEDED)
    assert (done.revision, await server.update(some_id, **claim)) == (3, done)


async def test_the_newest_sixteen_requests_are_remembered(server: Wire, some_id: str) -> None:
    await server.create_task(event_id=some_id)
    for number in range(17):
        await server.update(some_id, message=f"m{number}", request_id=f"r{number}")
    await server.update(some_id, message="m17")  # has no id, and takes the place of none that has one
    now = await server.update(some_id, message="m17", request_id="changes nothing, and is not remembered")
    assert (now.revision, now.message) == (19, "m17")
    for number in range(1, 17):
        assert await server.update(some_id, message=f"m{number}", request_id=f"r{number}") == now
    forgotten = await server.update(some_id, message="m0", request_id="r0")
    assert (forgotten.revision, forgotten.message) == (20, "m0")


# ---- cancelled ----


async def test_a_pending_task_is_cancelled_at_once(server: Wire, some_id: str) -> None:
    await server.create_task(event_id=some_id)
    status = await cancel(server, some_id, message="no need", expected_revision=1, request_id="r")
    assert (status.state, status.message, status.revision) == (TASK_STATE_CANCELLED, "no need", 2)
    assert not status.cancel_requested
    assert status.HasField("end_time")
    for again in ({}, {"message": "again"}, {"message": "no need", "expected_revision": 1, "request_id": "r"}):
        assert await cancel(server, some_id, **again) == status


@pytest.mark.parametrize("state", [TASK_STATE_RUNNING, TASK_STATE_PAUSED])
async def test_a_begun_task_is_asked_to_stop(server: Wire, some_id: str, state: State) -> None:
    await server.create_task(event_id=some_id, status=TaskStatus(state=state, message="working"))
    status = await cancel(server, some_id)
    assert (status.state, status.cancel_requested, status.message) == (state, True, "working")
    assert status.revision == 2
    assert await cancel(server, some_id, message="again") == status
    stopped = await server.update(some_id, TASK_STATE_CANCELLED)
    assert (stopped.state, stopped.cancel_requested, stopped.revision) == (TASK_STATE_CANCELLED, True, 3)
    assert await cancel(server, some_id) == stopped


async def test_a_task_asked_to_stop_may_still_succeed(server: Wire, some_id: str) -> None:
    await server.create_task(event_id=some_id, status=TaskStatus(state=TASK_STATE_RUNNING))
    await cancel(server, some_id)
    assert (await server.update(some_id, TASK_STATE_SUCCEEDED)).state == TASK_STATE_SUCCEEDED
    assert (await failure(cancel(server, some_id))).reason == "TASK_TERMINAL"


@pytest.mark.parametrize("state", [TASK_STATE_SUCCEEDED, TASK_STATE_FAILED])
async def test_an_ended_task_is_not_cancelled(server: Wire, some_id: str, state: State) -> None:
    await server.create_task(event_id=some_id, status=TaskStatus(state=state))
    failed = await failure(cancel(server, some_id))
    assert (failed.code, failed.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "TASK_TERMINAL")
    assert failed.metadata == {"event_id": some_id, "state": TaskState.Name(state).removeprefix("TASK_STATE_")}
    assert (await status_of(server, some_id)).revision == 1


# ---- waited for ----


async def test_a_wait_ends_with_the_task(server: Wire, some_id: str) -> None:
    await server.create_task(event_id=some_id, status=TaskStatus(state=TASK_STATE_RUNNING))
    waiting = asyncio.gather(*(wait(server, some_id) for _ in range(5)))
    await server.update(some_id, message="not yet")
    done = await server.update(some_id, TASK_STATE_SUCCEEDED)
    assert await waiting == [WaitTaskStatusResponse(status=done, satisfied=True)] * 5


async def test_a_wait_for_a_revision_ends_with_any_later_one(server: Wire, some_id: str) -> None:
    await server.create_task(event_id=some_id)
    waiting = asyncio.gather(wait(server, some_id, after_revision=1))
    changed = await server.update(some_id, progress=TaskProgress(completed=1))
    assert await waiting == [WaitTaskStatusResponse(status=changed, satisfied=True)]


@pytest.mark.parametrize(
    ("state", "after_revision"), [(TASK_STATE_SUCCEEDED, 0), (TASK_STATE_FAILED, 9), (TASK_STATE_PENDING, 1)]
)
async def test_a_wait_for_what_is_so_ends_at_once(
    server: Wire, some_id: str, state: State, after_revision: int
) -> None:
    await server.create_task(event_id=some_id)
    status = await server.update(some_id, state, message="m")
    response = await wait(server, some_id, after_revision=after_revision, timeout=Duration(seconds=0))
    assert response == WaitTaskStatusResponse(status=status, satisfied=True)


@pytest.mark.parametrize("timeout", [Duration(), Duration(nanos=200_000_000)])
@pytest.mark.parametrize("after_revision", [0, 1, 9])
async def test_a_wait_ends_unsatisfied_at_its_timeout(
    server: Wire, some_id: str, timeout: Duration, after_revision: int
) -> None:
    status = (await server.create_task(event_id=some_id)).status
    response = await wait(server, some_id, after_revision=after_revision, timeout=timeout)
    assert response == WaitTaskStatusResponse(status=status, satisfied=False)


async def test_a_wait_is_answered_before_its_deadline(server: Wire, some_id: str) -> None:
    status = (await server.create_task(event_id=some_id)).status
    response = await wait(server, some_id, within=1.0)
    assert response == WaitTaskStatusResponse(status=status, satisfied=False)


async def test_a_wait_ends_when_its_task_is_deleted(server: Wire, some_id: str) -> None:
    await server.create_task(event_id=some_id)
    waiting = asyncio.gather(failure(wait(server, some_id)))
    await server.update(some_id, message="still there")
    await server.events.DeleteEvent(DeleteEventRequest(event_id=some_id))
    (failed,) = await waiting
    assert (failed.code, failed.reason) == (grpc.StatusCode.NOT_FOUND, "EVENT_NOT_FOUND")
    assert failed.metadata == {"event_id": some_id}


async def test_a_wait_ends_when_its_task_expires(server: Wire, some_id: str) -> None:
    await server.create_task(event_id=some_id, ttl=1)
    failed = await failure(wait(server, some_id, within=None, timeout=Duration(seconds=60)))
    assert (failed.code, failed.reason) == (grpc.StatusCode.NOT_FOUND, "EVENT_EXPIRED")


async def test_a_wait_for_an_unknown_task_fails(server: Wire, some_id: str) -> None:
    assert (await failure(wait(server, some_id))).reason == "EVENT_NOT_FOUND"


# ---- all of it, at random, against a model ----

MOSTLY_OPEN = st.sampled_from(
    [*[TASK_STATE_UNSPECIFIED] * 3, *[TASK_STATE_RUNNING, TASK_STATE_PAUSED] * 3, *WRITABLE]
)  # or most of a machine's steps would be made with an ended task
MESSAGES = st.sampled_from(["", "one", "two"])
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "state": MOSTLY_OPEN,
    "message": MESSAGES,
    "progress": st.builds(TaskProgress, completed=st.sampled_from([0, 0, 1]), unit=st.sampled_from(["", "", "pages"])),
    "error": st.builds(TaskError, code=st.sampled_from(["", "timeout"])),
    "results": st.lists(st.sampled_from(values_of(1, "two", None, {"a": []})), max_size=2),
}
ANY_FIELDS = st.fixed_dictionaries({}, optional=FIELDS)
ONE_FIELD = st.one_of([st.fixed_dictionaries({name: values}) for name, values in FIELDS.items()])
REQUEST_IDS = st.sampled_from(["", "", "r1", "r2"])
REVISION_OFFSETS = st.sampled_from([None, None, 0, 0, -1, 1])


class TaskMachine(RuleBasedStateMachine):
    """One task on a running server, and a model of what was promised about it."""

    channel: grpc.Channel

    def __init__(self) -> None:
        super().__init__()
        self.events = EventServiceStub(self.channel)
        self.tasks = TaskServiceStub(self.channel)
        self.event = Event()
        self.remembered: deque[tuple[str, bytes]] = deque(maxlen=16)

    @initialize(status=st.builds(TaskStatus, state=MOSTLY_OPEN, message=MESSAGES))
    def create(self, status: TaskStatus) -> None:
        request = CreateEventRequest(event=Event(type="test.model", status=status))
        self.event = self.events.CreateEvent(request, timeout=WITHIN_SECONDS).event
        assert self.event.status.state == (status.state or TASK_STATE_PENDING)
        assert (self.event.revision, len(self.event.transitions)) == (1, 1)

    @rule(change=ANY_FIELDS | ONE_FIELD, offset=REVISION_OFFSETS, request_id=REQUEST_IDS)
    def update(self, change: dict[str, Any], offset: int | None, request_id: str) -> None:
        request = UpdateTaskStatusRequest(
            task_id=self.event.event_id, expected_revision=self.expected(offset), request_id=request_id, **change
        )
        if request.HasField("error"):
            request.state = TASK_STATE_FAILED
        self.ask(self.tasks.UpdateTaskStatus, request, self.after_update)

    @rule(message=st.none() | MESSAGES, offset=REVISION_OFFSETS, request_id=REQUEST_IDS)
    def cancel(self, offset: int | None, **fields: Any) -> None:
        request = CancelTaskRequest(task_id=self.event.event_id, expected_revision=self.expected(offset), **fields)
        self.ask(self.tasks.CancelTask, request, self.after_cancel)

    @invariant()
    def the_server_has_what_the_model_has(self) -> None:
        if self.event.event_id:
            read = self.events.GetEvent(GetEventRequest(event_id=self.event.event_id), timeout=WITHIN_SECONDS).event
            assert self.without_times(read) == self.without_times(self.event)
            self.check_times(read)

    def ask(self, call: Any, request: Any, after: Any) -> None:
        """Make a call, and hold its outcome against the model's."""
        try:
            wanted = self.outcome(request, after)
        except Refused as refused:
            with pytest.raises(grpc.RpcError) as raised:
                call(request, timeout=WITHIN_SECONDS)
            assert reason_of(status_in(raised.value)) == str(refused)  # noqa: PT017 (this one is the model's)
        else:
            status = call(request, timeout=WITHIN_SECONDS).status
            assert self.without_times(Event(status=status)).status == self.without_times(wanted).status
            self.event = wanted

    def outcome(self, request: Any, after: Any) -> Event:
        """The event after a request. Raises Refused."""
        named = (request.request_id, type(request).__name__.encode() + request.SerializeToString(deterministic=True))
        for request_id, content in self.remembered:
            if request_id and request_id == request.request_id:
                if content != named[1]:
                    raise Refused("IDEMPOTENCY_CONFLICT")
                return self.event
        if request.expected_revision not in {0, self.event.revision}:
            raise Refused("REVISION_MISMATCH")
        changed = Event()
        changed.CopyFrom(self.event)
        after(changed, request)
        if changed == self.event:
            return changed
        changed.revision = changed.status.revision = self.event.revision + 1
        if changed.status.state != self.event.status.state:
            changed.transitions.add(
                revision=changed.revision,
                to=changed.status.state,
                message=changed.status.message,
                **{"from": self.event.status.state},
            )
        if request.request_id:
            self.remembered.append(named)
        return changed

    @staticmethod
    def after_update(event: Event, request: UpdateTaskStatusRequest) -> None:
        status = event.status
        before, ended = status.state, status.state in ENDED
        if request.state not in {TASK_STATE_UNSPECIFIED, before}:
            if ended:
                raise Refused("TASK_TERMINAL")
            if request.state not in CAN_FOLLOW[before]:
                raise Refused("ILLEGAL_TRANSITION")
            status.state = request.state
        unchanged = TaskStatus()
        unchanged.CopyFrom(status)
        results = list(event.results)
        for name in ("message", "progress", "error"):
            if request.HasField(name):
                status.ClearField(name)
                status.MergeFrom(TaskStatus(**{name: getattr(request, name)}))
        if request.results:
            del event.results[:]
            event.results.extend(request.results)
        if ended and (status != unchanged or list(event.results) != results):
            raise Refused("TASK_TERMINAL")

    @staticmethod
    def after_cancel(event: Event, request: CancelTaskRequest) -> None:
        status = event.status
        if status.state in ENDED - {TASK_STATE_CANCELLED}:
            raise Refused("TASK_TERMINAL")
        if status.state == TASK_STATE_CANCELLED or status.cancel_requested:
            return
        if status.state == TASK_STATE_PENDING:
            status.state = TASK_STATE_CANCELLED
        else:
            status.cancel_requested = True
        if request.HasField("message"):
            status.message = request.message

    def expected(self, offset: int | None) -> int:
        return 0 if offset is None else max(0, self.event.revision + offset)

    @staticmethod
    def check_times(event: Event) -> None:
        status = event.status
        assert status.HasField("end_time") <= (status.state in ENDED)
        assert status.HasField("latency") == (status.HasField("start_time") and status.HasField("end_time"))
        if event.revision > 1:
            assert status.update_time == event.update_time

    @staticmethod
    def without_times(event: Event) -> Event:
        bare = Event()
        bare.CopyFrom(event)
        for name in ("event_time", "create_time", "update_time", "expire_time"):
            bare.ClearField(name)
        for name in ("create_time", "start_time", "end_time", "update_time", "latency"):
            bare.status.ClearField(name)
        for transition in bare.transitions:
            transition.ClearField("time")
        return bare


class Refused(Exception):
    """The model expects this reason."""


def status_in(error: grpc.RpcError) -> status_pb2.Status:
    trailers = dict(error.trailing_metadata())
    return status_pb2.Status.FromString(trailers["grpc-status-details-bin"])


async def test_a_task_does_what_was_promised_whatever_is_asked_of_it(server: Wire) -> None:
    def run() -> None:
        with grpc.insecure_channel(server.target) as channel:
            machine = type("Machine", (TaskMachine,), {"channel": channel})
            run_state_machine_as_test(
                machine,
                settings=settings(
                    max_examples=25,
                    stateful_step_count=25,
                    deadline=None,
                    database=None,
                    suppress_health_check=list(HealthCheck),
                ),
            )

    await asyncio.to_thread(run)
