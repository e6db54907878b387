"""Runs and their plans: created, moved, read and watched, through the wire; and the pure counting of a plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import grpc
import hypothesis.strategies as st
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct
from hypothesis import given

from conftest import Start
from picture import sketch
from tidings.v1.event_pb2 import Event
from tidings.v1.event_service_pb2 import (
    CHANGE_KIND_EXPIRED,
    CHANGE_KIND_INITIAL,
    CHANGE_KIND_UPDATED,
    CLOSING_REASON_MAX_DURATION,
    CLOSING_REASON_SCOPE_GONE,
    CLOSING_REASON_TERMINAL,
    HISTORY_LOSS_POLICY_FAIL,
    RESET_REASON_HISTORY_LOST,
    SOURCE_STATE_LIVE,
    CreateEventRequest,
    EventParent,
    GetEventRequest,
)
from tidings.v1.mission_service_pb2 import DeleteMissionRequest
from tidings.v1.run_pb2 import PlanProgress, PlanStep, Run
from tidings.v1.run_service_pb2 import (
    AddPlanStepsRequest,
    CancelRunRequest,
    CreatePlanRequest,
    CreateRunRequest,
    GetPlanRequest,
    GetRunRequest,
    ListRunsRequest,
    PauseRunRequest,
    ResumeRunRequest,
    UpdatePlanStepRequest,
    UpdateRunRequest,
    WatchRunRequest,
)
from tidings.v1.task_pb2 import (
    TASK_STATE_CANCELLED,
    TASK_STATE_FAILED,
    TASK_STATE_PAUSED,
    TASK_STATE_PENDING,
    TASK_STATE_RUNNING,
    TASK_STATE_SKIPPED,
    TASK_STATE_SUCCEEDED,
    TaskError,
    TaskState,
)
from tidings_server.clock import to_millis
from tidings_server.errors import Failure
from tidings_server.limits import Limits
from tidings_server.run_record import add_steps, progress_of
from wire import SetClock, Wire, ended, failure, take, take_all, take_synced, take_until

State = TaskState.ValueType

SECOND = Duration(seconds=1)
ENDED = frozenset({TASK_STATE_SUCCEEDED, TASK_STATE_FAILED, TASK_STATE_CANCELLED, TASK_STATE_SKIPPED})
CAN_FOLLOW: dict[State, frozenset[State]] = {
    TASK_STATE_PENDING: ENDED | {TASK_STATE_RUNNING},
    TASK_STATE_RUNNING: ENDED | {TASK_STATE_PAUSED},
    TASK_STATE_PAUSED: ENDED | {TASK_STATE_RUNNING},
    **dict.fromkeys(ENDED, frozenset()),
}
"""The table as it is promised."""
WAYS: dict[State, list[State]] = {
    TASK_STATE_PENDING: [],
    TASK_STATE_RUNNING: [TASK_STATE_RUNNING],
    TASK_STATE_PAUSED: [TASK_STATE_RUNNING, TASK_STATE_PAUSED],
    **{state: [state] for state in ENDED},
}
"""How a state is reached."""

every_state = pytest.mark.parametrize("before", CAN_FOLLOW, ids=TaskState.Name)


def struct(**fields: Any) -> Struct:
    return ParseDict(fields, Struct())


def step(step_id: str, sequence: int = 0, parent: str = "", **fields: Any) -> PlanStep:
    return PlanStep(step_id=step_id, sequence=sequence, parent_step_id=parent, **fields)


async def get(wire: Wire, run_id: str) -> Run:
    return (await wire.runs.GetRun(GetRunRequest(run_id=run_id))).run


async def update(wire: Wire, run_id: str, **fields: Any) -> Run:
    return (await wire.runs.UpdateRun(UpdateRunRequest(run_id=run_id, **fields))).run


async def pause(wire: Wire, run_id: str, **fields: Any) -> Run:
    return (await wire.runs.PauseRun(PauseRunRequest(run_id=run_id, **fields))).run


async def resume(wire: Wire, run_id: str, **fields: Any) -> Run:
    return (await wire.runs.ResumeRun(ResumeRunRequest(run_id=run_id, **fields))).run


async def cancel(wire: Wire, run_id: str, **fields: Any) -> Run:
    return (await wire.runs.CancelRun(CancelRunRequest(run_id=run_id, **fields))).run


async def plan(wire: Wire, run_id: str, *steps: PlanStep, **fields: Any) -> Run:
    return (await wire.runs.CreatePlan(CreatePlanRequest(run_id=run_id, steps=steps, **fields))).run


async def add(wire: Wire, run_id: str, *steps: PlanStep, **fields: Any) -> Run:
    return (await wire.runs.AddPlanSteps(AddPlanStepsRequest(run_id=run_id, steps=steps, **fields))).run


async def update_step(wire: Wire, run_id: str, step_id: str, **fields: Any) -> PlanStep:
    request = UpdatePlanStepRequest(run_id=run_id, step_id=step_id, **fields)
    return (await wire.runs.UpdatePlanStep(request)).step


async def append(wire: Wire, run_id: str, **fields: Any) -> Event:
    """Add an event to the log of a run that must be there."""
    event = Event(type="test.event", run_id=run_id, **fields)
    return (await wire.events.CreateEvent(CreateEventRequest(event=event))).event


async def at(wire: Wire, state: State) -> Run:
    """A run in a state."""
    run = await wire.create_run()
    for each in WAYS[state]:
        run = await update(wire, run.run_id, state=each)
    return run


def ids(run: Run) -> list[str]:
    return [each.step_id for each in run.plan]


# Created and read


async def test_a_run_is_read_as_it_was_created(server: Wire, some_id: str) -> None:
    given_: dict[str, Any] = {"input": struct(city="Bonn"), "metadata": struct(team="a"), "grace_period": SECOND}
    created = await server.create_run(run_id=some_id, **given_)
    assert {name: getattr(created, name) for name in given_} == given_
    assert (created.run_id, created.state, created.revision) == (some_id, TASK_STATE_PENDING, 1)
    assert created.create_time == created.update_time
    for name in ("start_time", "end_time", "expire_time"):
        assert not created.HasField(name)
    assert (created.progress, created.last_sequence) == (PlanProgress(), 0)
    assert [transition.to for transition in created.transitions] == [TASK_STATE_PENDING]
    assert await get(server, some_id) == created


async def test_a_run_created_as_running_has_started(server: Wire) -> None:
    run = await server.create_run(state=TASK_STATE_RUNNING)
    assert run.start_time == run.create_time


async def test_what_the_service_sets_is_ignored_at_creation(server: Wire) -> None:
    run = await server.create_run(revision=9, last_sequence=9, plan=[step("a")], progress=PlanProgress(total=9))
    assert (run.revision, run.last_sequence, len(run.plan), run.progress.total) == (1, 0, 0, 0)


async def test_a_creation_is_safe_to_retry_with_a_chosen_id(server: Wire, some_id: str) -> None:
    mission_id = (await server.create_mission()).mission_id
    await server.create_run(mission_id, run_id=some_id, input=struct(a=1))
    changed = await update(server, some_id, state=TASK_STATE_RUNNING)
    assert await server.create_run(mission_id, run_id=some_id, input=struct(a=1)) == changed
    for other in ({"input": struct(a=2)}, {"input": struct(a=1), "ttl": 60}):
        failed = await failure(server.create_run(mission_id, run_id=some_id, **other))
        assert (failed.code, failed.reason) == (grpc.StatusCode.ALREADY_EXISTS, "RUN_ALREADY_EXISTS")
        assert failed.metadata == {"run_id": some_id}


async def test_all_bad_fields_of_a_run_are_named_at_once(server: Wire) -> None:
    run = Run(
        run_id="a/b",
        state=TASK_STATE_SUCCEEDED,
        result_summary="s" * 4097,
        input=struct(a="\0"),
        metadata=struct(a="m" * (256 * 1024)),
        grace_period=Duration(seconds=86_401),
    )
    request = CreateRunRequest(run=run, ttl=Duration(nanos=1))
    failed = await failure(server.runs.CreateRun(request))
    assert failed.code == grpc.StatusCode.INVALID_ARGUMENT
    assert failed.fields == {
        **dict.fromkeys(("run.run_id", "run.mission_id", "run.state", "run.result_summary"), "INVALID_FIELD"),
        **dict.fromkeys(("run.input.a", "run.grace_period", "ttl"), "INVALID_FIELD"),
        "run.metadata": "PAYLOAD_TOO_LARGE",
    }


async def test_a_run_says_how_long_its_log_is(server: Wire) -> None:
    run_id = (await server.create_run()).run_id
    assert [(await append(server, run_id)).sequence for _ in range(3)] == [1, 2, 3]
    run = await get(server, run_id)
    assert (run.last_sequence, run.revision) == (3, 1)


# Listed


async def test_runs_are_listed_by_project_mission_and_state_newest_first_without_their_plans(start: Start) -> None:
    clock = SetClock()
    async with start(clock=clock) as wire:
        missions = [(await wire.create_mission()).mission_id for _ in range(2)]
        runs = []
        for index in range(6):
            clock.forward(milliseconds=1)
            runs.append((await wire.create_run(missions[index % 2])).run_id)
        await plan(wire, runs[5], step("a"))
        await append(wire, runs[5])
        for run_id, state in ((runs[0], TASK_STATE_RUNNING), (runs[1], TASK_STATE_FAILED)):
            await update(wire, run_id, state=state)

        async def listed(**filters: Any) -> list[str]:
            response = await wire.runs.ListRuns(ListRunsRequest(**filters))
            assert not any(run.plan for run in response.runs)
            return [run.run_id for run in response.runs]

        assert await listed() == runs[::-1]
        assert await listed(mission_id=missions[0]) == [runs[4], runs[2], runs[0]]
        assert await listed(states=[TASK_STATE_RUNNING, TASK_STATE_FAILED]) == [runs[1], runs[0]]
        assert await listed(mission_id=missions[1], states=[TASK_STATE_PENDING]) == [runs[5], runs[3]]
        assert await listed(mission_id="none") == []
        newest = (await wire.runs.ListRuns(ListRunsRequest(page_size=1))).runs[0]
        assert (newest.progress.total, newest.last_sequence) == (1, 1)


async def test_pages_of_runs_are_not_disturbed_by_later_runs(start: Start) -> None:
    async with start() as wire:
        mission_id = (await wire.create_mission()).mission_id
        created = {(await wire.create_run(mission_id)).run_id for _ in range(5)}
        request, listed = ListRunsRequest(page_size=2, mission_id=mission_id), []
        while True:
            page = await wire.runs.ListRuns(request)
            listed += [run.run_id for run in page.runs]
            request.page_token = page.next_page_token
            if not request.page_token:
                break
            await wire.create_run(mission_id)
            other = ListRunsRequest(page_size=2, page_token=request.page_token)
            assert (await failure(wire.runs.ListRuns(other))).fields == {"page_token": "INVALID_FIELD"}
        assert len(listed) == 5
        assert set(listed) == created


# Changed


CHANGES: dict[str, Any] = {
    "result_summary": "called all",
    "result_payload": struct(booked=3),
    "error": TaskError(code="busy", message="nobody answered", retryable=True, details=struct(calls=2)),
    "metadata": struct(team="b"),
}


@pytest.mark.parametrize("state", [TASK_STATE_RUNNING, TASK_STATE_FAILED], ids=TaskState.Name)
@pytest.mark.parametrize("name", CHANGES)
async def test_an_update_changes_what_is_given_also_of_a_run_that_has_ended(
    server: Wire, name: str, state: State
) -> None:
    before = await at(server, state)
    after = await update(server, before.run_id, **{name: CHANGES[name]})
    assert getattr(after, name) == CHANGES[name]
    assert (after.state, after.revision) == (state, before.revision + 1)
    for other in CHANGES.keys() - {name}:
        assert getattr(after, other) == getattr(before, other)
    assert await update(server, before.run_id, **{name: CHANGES[name]}) == after  # a repeat changes nothing
    assert await get(server, before.run_id) == after


async def test_results_and_metadata_are_replaced_as_a_whole_and_a_summary_can_be_cleared(server: Wire) -> None:
    run_id = (await server.create_run(metadata=struct(a=1))).run_id
    await update(server, run_id, **CHANGES)
    after = await update(server, run_id, result_summary="", result_payload=struct(), metadata=struct(b=2))
    assert (after.result_summary, after.result_payload, after.metadata) == ("", struct(), struct(b=2))


async def test_state_and_results_change_together_or_not_at_all(server: Wire) -> None:
    run = await at(server, TASK_STATE_SUCCEEDED)
    failed = await failure(update(server, run.run_id, state=TASK_STATE_FAILED, result_summary="new"))
    assert failed.reason == "TASK_TERMINAL"
    assert await get(server, run.run_id) == run


@every_state
async def test_a_run_moves_by_the_transition_table_only(server: Wire, before: State) -> None:
    if before == TASK_STATE_SKIPPED:
        run_id = (await server.create_run()).run_id
        assert (await failure(update(server, run_id, state=before))).fields == {"state": "INVALID_FIELD"}
        return
    for after in CAN_FOLLOW.keys() - {TASK_STATE_SKIPPED}:
        run = await at(server, before)
        if after == before:
            assert await update(server, run.run_id, state=after) == run
        elif after in CAN_FOLLOW[before]:
            moved = await update(server, run.run_id, state=after)
            assert (moved.state, moved.revision) == (after, run.revision + 1)
            assert (getattr(moved.transitions[-1], "from"), moved.transitions[-1].to) == (before, after)
        else:
            failed = await failure(update(server, run.run_id, state=after))
            reason = "TASK_TERMINAL" if before in ENDED else "ILLEGAL_TRANSITION"
            assert (failed.code, failed.reason) == (grpc.StatusCode.FAILED_PRECONDITION, reason)
            assert failed.metadata["run_id"] == run.run_id
            assert await get(server, run.run_id) == run


Move = Callable[..., Awaitable[Run]]
MOVES: dict[str, tuple[Move, State, frozenset[State]]] = {
    "pause": (pause, TASK_STATE_PAUSED, frozenset({TASK_STATE_RUNNING})),
    "resume": (resume, TASK_STATE_RUNNING, frozenset({TASK_STATE_PAUSED})),
    "cancel": (cancel, TASK_STATE_CANCELLED, CAN_FOLLOW.keys() - ENDED),
}


@pytest.mark.parametrize(("move", "to", "allowed"), MOVES.values(), ids=MOVES.keys())
@pytest.mark.parametrize("before", CAN_FOLLOW.keys() - {TASK_STATE_SKIPPED}, ids=TaskState.Name)
async def test_pause_resume_and_cancel_move_from_their_states_repeat_and_refuse(
    server: Wire, move: Move, to: State, allowed: frozenset[State], before: State
) -> None:
    run = await at(server, before)
    if before == to:
        assert await move(server, run.run_id) == run
    elif before in allowed:
        moved = await move(server, run.run_id)
        assert (moved.state, moved.revision) == (to, run.revision + 1)
        assert await move(server, run.run_id) == moved
    else:
        failed = await failure(move(server, run.run_id))
        assert failed.code == grpc.StatusCode.FAILED_PRECONDITION
        assert failed.reason == ("TASK_TERMINAL" if before in ENDED else "ILLEGAL_TRANSITION")
        assert await get(server, run.run_id) == run


async def test_start_and_end_are_stamped_once_by_the_transitions(start: Start) -> None:
    clock = SetClock()
    async with start(clock=clock) as wire:
        run_id, began = (await wire.create_run()).run_id, clock.now
        for offset, move in enumerate((update, pause, resume, update, update), 1):
            clock.forward(seconds=1)
            state = {1: TASK_STATE_RUNNING, 4: TASK_STATE_SUCCEEDED, 5: TASK_STATE_SUCCEEDED}.get(offset)
            run = await move(wire, run_id, **({"state": state, "result_summary": str(offset)} if state else {}))
            assert to_millis(run.start_time) == began + 1000
            assert run.HasField("end_time") == (offset >= 4)
            assert to_millis(run.update_time) == clock.now
        assert to_millis(run.end_time) == began + 4000


async def test_changes_are_made_at_the_expected_revision_only_and_once_for_a_request_id(server: Wire) -> None:
    run_id = (await server.create_run()).run_id
    running = await update(server, run_id, state=TASK_STATE_RUNNING, expected_revision=1, request_id="a")
    assert await update(server, run_id, state=TASK_STATE_RUNNING, expected_revision=1, request_id="a") == running
    paused = await pause(server, run_id, request_id="b")
    resumed = await resume(server, run_id, request_id="c", expected_revision=paused.revision)
    assert await pause(server, run_id, request_id="b") == resumed
    conflict = await failure(cancel(server, run_id, request_id="b"))
    assert (conflict.code, conflict.reason) == (grpc.StatusCode.ALREADY_EXISTS, "IDEMPOTENCY_CONFLICT")
    calls = [pause, cancel, update, lambda *args, **more: plan(*args, step("a"), **more)]
    for call in calls:
        failed = await failure(call(server, run_id, expected_revision=1))
        assert (failed.code, failed.reason) == (grpc.StatusCode.ABORTED, "REVISION_MISMATCH")
        assert failed.metadata == {"run_id": run_id, "current_revision": "4"}


# Of a mission


OF_A_RUN: dict[str, Callable[[Wire, str, str], Any]] = {
    "GetRun": lambda wire, run, mission: wire.runs.GetRun(GetRunRequest(run_id=run, mission_id=mission)),
    "GetPlan": lambda wire, run, mission: wire.runs.GetPlan(GetPlanRequest(run_id=run, mission_id=mission)),
    "UpdateRun": lambda wire, run, mission: update(wire, run, mission_id=mission, result_summary="new"),
    "PauseRun": lambda wire, run, mission: pause(wire, run, mission_id=mission),
    "ResumeRun": lambda wire, run, mission: resume(wire, run, mission_id=mission),
    "AddPlanSteps": lambda wire, run, mission: add(wire, run, step("b"), mission_id=mission),
    "CreatePlan": lambda wire, run, mission: plan(wire, run, step("a"), step("b"), mission_id=mission),
    "UpdatePlanStep": lambda wire, run, mission: update_step(
        wire, run, "a", mission_id=mission, state=TASK_STATE_RUNNING
    ),
    "CancelRun": lambda wire, run, mission: cancel(wire, run, mission_id=mission),
    "WatchRun": lambda wire, run, mission: take_all(wire.watch_run(run, mission_id=mission)),
}
"""Every call that names a run, in an order in which each can be made."""


async def test_a_run_is_not_found_in_another_mission_than_its_own_by_any_call(server: Wire) -> None:
    other = (await server.create_mission()).mission_id
    run = await server.create_run(state=TASK_STATE_RUNNING)
    before = await plan(server, run.run_id, step("a"))
    for mission_id in (other, "none"):
        for call in OF_A_RUN.values():
            failed = await failure(call(server, run.run_id, mission_id))
            assert (failed.code, failed.reason) == (grpc.StatusCode.NOT_FOUND, "RUN_NOT_FOUND")
            assert failed.metadata == {"run_id": run.run_id}
    assert (await failure(append(server, run.run_id, mission_id=other))).reason == "RUN_NOT_FOUND"
    assert await get(server, run.run_id) == before
    for call in OF_A_RUN.values():
        await call(server, run.run_id, run.mission_id)
    assert OF_A_RUN.keys() == {
        *(name for name in vars(server.runs) if not name.startswith("_") and name not in {"CreateRun", "ListRuns"})
    }


async def test_an_event_is_found_by_its_id_alone_and_not_under_another_path_than_its_own(server: Wire) -> None:
    mission_id = (await server.create_mission()).mission_id
    run_id, other = [(await server.create_run(mission_id)).run_id for _ in range(2)]
    event = await server.create(run_id=run_id)
    for parent in (EventParent(), EventParent(run_id=run_id), EventParent(run_id=run_id, mission_id=mission_id)):
        got = await server.events.GetEvent(GetEventRequest(event_id=event.event_id, parent=parent))
        assert got.event == event
        watched = await take_all(server.watch(event_id=event.event_id, parent=parent))
        assert sketch(watched)[0] == "INITIAL 1"
    await take_synced(server.watch(run_id=run_id, parent=EventParent(mission_id=mission_id)))
    for parent in (
        EventParent(run_id=other),
        EventParent(mission_id="none"),
        EventParent(run_id=run_id, mission_id=other),
    ):
        for call in (
            server.events.GetEvent(GetEventRequest(event_id=event.event_id, parent=parent)),
            take_all(server.watch(event_id=event.event_id, parent=parent)),
        ):
            assert (await failure(call)).reason == "EVENT_NOT_FOUND"
    watch = server.watch(run_id=run_id, parent=EventParent(mission_id="none"))
    assert (await failure(take_all(watch))).reason == "RUN_NOT_FOUND"


async def test_an_unknown_run_is_not_found_by_any_call(server: Wire, some_id: str) -> None:
    for call in OF_A_RUN.values():
        failed = await failure(call(server, some_id, ""))
        assert (failed.code, failed.reason) == (grpc.StatusCode.NOT_FOUND, "RUN_NOT_FOUND")
    assert (await failure(append(server, some_id))).reason == "RUN_NOT_FOUND"
    assert (await failure(take_all(server.watch(run_id=some_id)))).reason == "RUN_NOT_FOUND"


# Retention and the end


async def test_a_run_takes_no_events_once_it_has_ended(server: Wire) -> None:
    run = await at(server, TASK_STATE_SUCCEEDED)
    failed = await failure(append(server, run.run_id))
    assert (failed.code, failed.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "RUN_CLOSED")
    assert failed.metadata == {"run_id": run.run_id}


async def test_a_grace_period_lets_events_in_after_the_end_and_then_no_more(start: Start) -> None:
    clock = SetClock()
    async with start(clock=clock) as wire:
        run_id = (await wire.create_run(grace_period=Duration(seconds=60))).run_id
        clock.forward(seconds=100)
        event = await append(wire, run_id, event_id="before")
        await cancel(wire, run_id)
        clock.forward(seconds=59)
        assert (await append(wire, run_id)).sequence == 2
        clock.forward(seconds=1)
        assert (await failure(append(wire, run_id))).reason == "RUN_CLOSED"
        assert await append(wire, run_id, event_id="before") == event  # a retry is no new event


async def test_a_ttl_covers_the_run_its_plan_and_its_events(start: Start) -> None:
    clock = SetClock()
    async with start(clock=clock) as wire:
        run = await wire.create_run(ttl=3600)
        assert to_millis(run.expire_time) == clock.now + 3_600_000
        await plan(wire, run.run_id, step("a"))
        event = await append(wire, run.run_id)
        assert event.expire_time == run.expire_time
        clock.forward(seconds=3599)
        assert (await get(wire, run.run_id)).run_id
        clock.forward(seconds=1)
        for call in OF_A_RUN.values():
            assert (await failure(call(wire, run.run_id, ""))).reason == "RUN_NOT_FOUND"
        assert (await failure(append(wire, run.run_id))).reason == "RUN_NOT_FOUND"
        gone = await failure(wire.events.GetEvent(GetEventRequest(event_id=event.event_id)))
        assert gone.reason == "EVENT_EXPIRED"
        assert not (await wire.runs.ListRuns(ListRunsRequest())).runs


async def test_without_a_ttl_a_run_is_kept_and_its_events_expire_as_events_do(start: Start) -> None:
    clock = SetClock()
    async with start(clock=clock) as wire:
        run_id = (await wire.create_run()).run_id
        event = await append(wire, run_id)
        assert to_millis(event.expire_time) == clock.now + 30 * 24 * 3_600_000
        clock.forward(days=4000)
        assert not (await get(wire, run_id)).HasField("expire_time")


# Plans


async def test_a_plan_is_ordered_by_sequence_and_then_by_id(server: Wire) -> None:
    run = await server.create_run()
    given_ = [step("c", 1), step("b", 2, "c", description="call", metadata=struct(a=1)), step("a", 2), step("d", 0)]
    planned = await plan(server, run.run_id, *given_)
    assert ids(planned) == ["d", "c", "a", "b"]
    assert planned.revision == run.revision + 1
    assert planned.plan[3] == step("b", 2, "c", description="call", metadata=struct(a=1), state=TASK_STATE_PENDING)
    assert planned.progress == PlanProgress(total=4, pending=4)
    assert await get(server, run.run_id) == planned
    got = await server.runs.GetPlan(GetPlanRequest(run_id=run.run_id))
    assert (list(got.steps), got.progress, got.revision) == (
        list(planned.plan), planned.progress, planned.revision,
    )  # fmt: skip


async def test_a_plan_created_again_is_as_it_is_now_and_another_is_refused(server: Wire) -> None:
    run_id = (await server.create_run()).run_id
    steps = [step("a"), step("b", 1, "a")]
    await plan(server, run_id, *steps)
    await update_step(server, run_id, "a", state=TASK_STATE_RUNNING)
    now = await get(server, run_id)
    assert await plan(server, run_id, *steps[::-1]) == now
    for others in (steps[:1], [*steps, step("c")], [step("a"), step("b", 1)]):
        failed = await failure(plan(server, run_id, *others))
        assert (failed.code, failed.reason) == (grpc.StatusCode.ALREADY_EXISTS, "PLAN_ALREADY_EXISTS")
        assert failed.metadata == {"run_id": run_id}
    assert await get(server, run_id) == now


async def test_steps_are_added_in_their_places_all_or_none(server: Wire) -> None:
    run_id = (await server.create_run()).run_id
    await plan(server, run_id, step("a", 1), step("z", 9))
    added = await add(server, run_id, step("m", 5, "a"), step("a", 1))
    assert ids(added) == ["a", "m", "z"]
    assert await add(server, run_id, step("m", 5, "a")) == added
    failed = await failure(add(server, run_id, step("n"), step("z", 8)))
    assert (failed.code, failed.reason) == (grpc.StatusCode.ALREADY_EXISTS, "STEP_ALREADY_EXISTS")
    assert failed.metadata == {"run_id": run_id, "step_id": "z"}
    assert await get(server, run_id) == added


async def test_steps_can_be_added_to_a_run_that_has_no_plan(server: Wire) -> None:
    run_id = (await server.create_run()).run_id
    assert ids(await add(server, run_id, step("a"))) == ["a"]


REFUSED: dict[str, tuple[list[PlanStep], set[str]]] = {
    "twice": ([step("a"), step("b"), step("a")], {"steps[2].step_id"}),
    "unknown parent": ([step("a"), step("b", parent="x")], {"steps[1].parent_step_id"}),
    "own parent": ([step("a", parent="a")], {"steps[0].parent_step_id"}),
    "cycle": (
        [step("a", parent="c"), step("b", parent="a"), step("c", parent="b"), step("d", parent="a")],
        {"steps[0].parent_step_id", "steps[1].parent_step_id", "steps[2].parent_step_id"},
    ),
    "fields": (
        [step("a/b", -1, description="d" * 2049), step("", metadata=struct(a="m" * (16 * 1024)))],
        {"steps[0].step_id", "steps[0].sequence", "steps[0].description", "steps[1].step_id", "steps[1].metadata"},
    ),
    "none": ([], {"steps"}),
    "too many": ([step(f"s{index}") for index in range(501)], {"steps"}),
}


@pytest.mark.parametrize(("steps", "fields"), REFUSED.values(), ids=REFUSED.keys())
async def test_a_plan_that_makes_no_sense_is_refused_with_every_fault_named(
    server: Wire, steps: list[PlanStep], fields: set[str]
) -> None:
    run = await server.create_run()
    for give in (plan, add):
        failed = await failure(give(server, run.run_id, *steps))
        assert failed.code == grpc.StatusCode.INVALID_ARGUMENT
        assert failed.fields.keys() == fields
    assert await get(server, run.run_id) == run


async def test_a_plan_has_at_most_500_steps_also_with_those_added(server: Wire) -> None:
    run_id = (await server.create_run()).run_id
    planned = await plan(server, run_id, *(step(f"s{index:03}", index) for index in range(499)))
    assert (len(planned.plan), planned.progress.total) == (499, 499)
    assert (await failure(add(server, run_id, step("a"), step("b")))).fields == {"steps": "INVALID_FIELD"}
    full = await add(server, run_id, step("a"))
    assert await add(server, run_id, step("a")) == full
    assert (await failure(add(server, run_id, step("b")))).fields == {"steps": "INVALID_FIELD"}


async def test_added_steps_name_parents_in_the_plan_or_beside_them_and_make_no_cycle(server: Wire) -> None:
    run_id = (await server.create_run()).run_id
    await plan(server, run_id, step("a"))
    await add(server, run_id, step("b", 1, "a"), step("d", 3, "c"), step("c", 2, "b"))
    for steps in ([step("e", parent="f"), step("f", parent="e")], [step("e", parent="x")]):
        assert (await failure(add(server, run_id, *steps))).reason == "INVALID_FIELD"
    assert ids(await get(server, run_id)) == ["a", "b", "c", "d"]


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=8, unique_by=lambda pair: pair[0]))
def test_a_plan_is_taken_when_every_chain_of_parents_ends_at_the_first_level(pairs: list[tuple[int, int]]) -> None:
    """A step whose own number is its parent's stands for one of the first level."""
    parents = {str(child): "" if child == parent else str(parent) for child, parent in pairs}
    steps = [step(child, parent=parent) for child, parent in parents.items()]

    def ends(step_id: str, left: int) -> bool:
        return not step_id or (left > 0 and step_id in parents and ends(parents[step_id], left - 1))

    run, sound = Run(), all(ends(child, len(parents) + 1) for child in parents)
    try:
        add_steps(run, steps, 0, Limits())
    except Failure:
        assert not sound
        assert not run.plan
    else:
        assert sound


# Steps


@every_state
async def test_a_step_moves_by_the_transition_table_only(server: Wire, before: State) -> None:
    run_id = (await server.create_run()).run_id
    steps = {after: step(f"to-{after}") for after in CAN_FOLLOW}
    await plan(server, run_id, *steps.values())
    for after, each in steps.items():
        for state in WAYS[before]:
            await update_step(server, run_id, each.step_id, state=state)
        revision = (await get(server, run_id)).revision
        if after == before or after in CAN_FOLLOW[before]:
            moved = await update_step(server, run_id, each.step_id, state=after)
            assert moved.state == after
            assert moved.HasField("start_time") == (TASK_STATE_RUNNING in {*WAYS[before], after})
            assert moved.HasField("end_time") == (after in ENDED)
            assert (await get(server, run_id)).revision == revision + (after != before)
        else:
            failed = await failure(update_step(server, run_id, each.step_id, state=after))
            reason = "TASK_TERMINAL" if before in ENDED else "ILLEGAL_TRANSITION"
            assert (failed.code, failed.reason) == (grpc.StatusCode.FAILED_PRECONDITION, reason)
            assert failed.metadata["step_id"] == each.step_id


async def test_the_times_of_a_step_are_stamped_once(start: Start) -> None:
    clock = SetClock()
    async with start(clock=clock) as wire:
        run_id, began = (await wire.create_run()).run_id, clock.now
        await plan(wire, run_id, step("a"), step("b", state=TASK_STATE_SKIPPED))
        assert to_millis((await get(wire, run_id)).plan[1].end_time) == began
        for state in (TASK_STATE_RUNNING, TASK_STATE_PAUSED, TASK_STATE_RUNNING, TASK_STATE_SUCCEEDED):
            clock.forward(seconds=1)
            done = await update_step(wire, run_id, "a", state=state)
        assert (to_millis(done.start_time), to_millis(done.end_time)) == (began + 1000, began + 4000)


async def test_the_metadata_of_a_step_are_replaced_as_a_whole_and_a_repeat_changes_nothing(server: Wire) -> None:
    run_id = (await server.create_run()).run_id
    await plan(server, run_id, step("a", metadata=struct(a=1)))
    assert (await update_step(server, run_id, "a", metadata=struct(b=2))).metadata == struct(b=2)
    before = await get(server, run_id)
    await update_step(server, run_id, "a", metadata=struct(b=2), state=TASK_STATE_PENDING)
    assert await get(server, run_id) == before


async def test_a_step_that_the_plan_has_not_is_not_found(server: Wire) -> None:
    run_id = (await server.create_run()).run_id
    for _ in range(2):  # without a plan, and with one
        failed = await failure(update_step(server, run_id, "x", state=TASK_STATE_RUNNING))
        assert (failed.code, failed.reason) == (grpc.StatusCode.NOT_FOUND, "STEP_NOT_FOUND")
        assert failed.metadata == {"run_id": run_id, "step_id": "x"}
        await plan(server, run_id, step("a"))


async def test_the_progress_of_a_run_follows_its_steps(server: Wire) -> None:
    run_id = (await server.create_run()).run_id
    await plan(server, run_id, *(step(f"to-{state}") for state in CAN_FOLLOW))
    for each in CAN_FOLLOW:
        for state in WAYS[each]:
            await update_step(server, run_id, f"to-{each}", state=state)
    expected = PlanProgress(total=7, pending=1, running=2, succeeded=1, failed=1, skipped=2)
    assert (await get(server, run_id)).progress == expected
    await update_step(server, run_id, f"to-{TASK_STATE_PENDING}", state=TASK_STATE_FAILED)
    expected = PlanProgress(total=7, running=2, succeeded=1, failed=2, skipped=2)
    assert (await get(server, run_id)).progress == expected


@given(st.lists(st.sampled_from(sorted(CAN_FOLLOW))))
def test_progress_counts_every_step_once_in_the_group_of_its_state(states: list[State]) -> None:
    count = Counter(states)
    progress = progress_of(step(str(index), state=state) for index, state in enumerate(states))
    assert progress == PlanProgress(
        total=len(states),
        pending=count[TASK_STATE_PENDING],
        running=count[TASK_STATE_RUNNING] + count[TASK_STATE_PAUSED],
        succeeded=count[TASK_STATE_SUCCEEDED],
        failed=count[TASK_STATE_FAILED],
        skipped=count[TASK_STATE_SKIPPED] + count[TASK_STATE_CANCELLED],
    )


# Watched


async def test_a_watch_tells_the_run_with_its_plan_then_every_change_and_ends_with_the_run(server: Wire) -> None:
    run_id = (await server.create_run()).run_id
    planned = await plan(server, run_id, step("a"))
    call = server.watch_run(run_id)
    first, synced = await take_synced(call)
    assert (first.change.kind, first.change.run) == (CHANGE_KIND_INITIAL, planned)
    assert synced.resume_token
    running = await update(server, run_id, state=TASK_STATE_RUNNING)
    await update_step(server, run_id, "a", state=TASK_STATE_RUNNING)
    stepped = await get(server, run_id)
    added = await add(server, run_id, step("b", 1))
    ended_ = await update(server, run_id, state=TASK_STATE_SUCCEEDED, result_summary="done")
    *changes, closing = await take_all(call)
    told = [(each.change.kind, each.change.run, each.change.previous_state) for each in changes]
    assert told == [
        (CHANGE_KIND_UPDATED, running, TASK_STATE_PENDING),
        (CHANGE_KIND_UPDATED, stepped, 0),
        (CHANGE_KIND_UPDATED, added, 0),
        (CHANGE_KIND_UPDATED, ended_, TASK_STATE_RUNNING),
    ]
    assert closing.closing.reason == CLOSING_REASON_TERMINAL
    assert await call.code() == grpc.StatusCode.OK


async def test_a_watch_of_a_run_that_has_ended_ends_after_telling_it_unless_asked_to_stay(server: Wire) -> None:
    run = await at(server, TASK_STATE_CANCELLED)
    first, synced, closing = await take_all(server.watch_run(run.run_id))
    assert (first.change.run, synced.HasField("synced")) == (run, True)
    assert closing.closing.reason == CLOSING_REASON_TERMINAL
    call = server.watch_run(run.run_id, stay_open=True)
    await take_synced(call)
    after = await update(server, run.run_id, result_summary="none")
    assert (await take(call)).change.run == after
    await server.missions.DeleteMission(DeleteMissionRequest(mission_id=run.mission_id))
    assert (await take_all(call))[-1].closing.reason == CLOSING_REASON_TERMINAL


async def test_a_resumed_watch_tells_the_changes_of_state_that_it_missed(server: Wire) -> None:
    run_id = (await server.create_run()).run_id
    call = server.watch_run(run_id)
    token = (await take_synced(call))[-1].resume_token
    call.cancel()
    for state in (TASK_STATE_RUNNING, TASK_STATE_PAUSED, TASK_STATE_RUNNING):
        now = await update(server, run_id, state=state)
    await plan(server, run_id, step("a"))
    now = await update(server, run_id, state=TASK_STATE_SUCCEEDED)
    changes = [
        each.change for each in await take_all(server.watch_run(run_id, resume_token=token)) if each.HasField("change")
    ]
    states = [TASK_STATE_PENDING, TASK_STATE_RUNNING, TASK_STATE_PAUSED, TASK_STATE_RUNNING, TASK_STATE_SUCCEEDED]
    assert [(change.previous_state, change.run.state) for change in changes] == list(pairwise(states))
    assert [change.partial for change in changes] == [True, True, True, False]
    assert changes[-1].run == now
    partial = Run(run_id=run_id, mission_id=now.mission_id, state=TASK_STATE_RUNNING, revision=2)
    partial.update_time.CopyFrom(now.transitions[1].time)
    assert changes[0].run == partial


async def test_nothing_is_told_again_after_a_resume_from_the_last_token(server: Wire) -> None:
    run = await server.create_run()
    call = server.watch_run(run.run_id)
    token = (await take_synced(call))[-1].resume_token
    call.cancel()
    again = server.watch_run(run.run_id, resume_token=token)
    assert (await take(again)).HasField("synced")
    after = await cancel(server, run.run_id)
    assert (await take(again)).change.run == after
    again.cancel()


async def test_a_watch_that_missed_more_than_is_remembered_says_so(server: Wire) -> None:
    run = await server.create_run(state=TASK_STATE_RUNNING)
    call = server.watch_run(run.run_id)
    token = (await take_synced(call))[-1].resume_token
    call.cancel()
    for _ in range(33):
        await pause(server, run.run_id)
        now = await resume(server, run.run_id)
    assert len(now.transitions) == 64
    again = server.watch_run(run.run_id, resume_token=token)
    reset, initial, _ = await take_synced(again)
    assert reset.reset.reason == RESET_REASON_HISTORY_LOST
    assert (initial.change.kind, initial.change.run) == (CHANGE_KIND_INITIAL, now)
    again.cancel()
    failing = server.watch_run(run.run_id, resume_token=token, on_history_loss=HISTORY_LOSS_POLICY_FAIL)
    _, error = await ended(failing)
    assert error.code() == grpc.StatusCode.OUT_OF_RANGE


async def test_a_token_of_another_watch_is_refused(server: Wire) -> None:
    run, other = await server.create_run(), await server.create_run()
    event = await append(server, run.run_id)
    watches = [server.watch_run(other.run_id), server.watch(run_id=run.run_id), server.watch(event_id=event.event_id)]
    tokens = [(await take_synced(call))[-1].resume_token for call in watches]
    for call in watches:
        call.cancel()
    for token in ("x", *tokens):
        failed = await failure(take_all(server.watch_run(run.run_id, resume_token=token)))
        assert (failed.code, failed.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "RESUME_TOKEN_INVALID")


async def test_a_watch_is_told_when_its_run_expires(server: Wire) -> None:
    run = await server.create_run(ttl=1)
    *_, synced, expired, closing = await take_all(server.watch_run(run.run_id))
    assert synced.HasField("synced")
    assert (expired.change.kind, expired.change.run) == (CHANGE_KIND_EXPIRED, run)
    assert closing.closing.reason == CLOSING_REASON_TERMINAL
    assert (await failure(server.runs.GetRun(GetRunRequest(run_id=run.run_id)))).reason == "RUN_NOT_FOUND"


async def test_the_watch_of_a_log_ends_when_its_run_expires(server: Wire) -> None:
    run = await server.create_run(ttl=1)
    call = server.watch(run_id=run.run_id)
    messages = await take_all(call)
    assert messages[-1].closing.reason == CLOSING_REASON_SCOPE_GONE


async def test_a_quiet_watch_tells_that_it_is_alive_and_ends_when_asked_to(server: Wire) -> None:
    run = await server.create_run()
    call = server.watch_run(run.run_id, heartbeat_interval=SECOND, max_duration=Duration(seconds=2, nanos=500_000_000))
    messages = await take_all(call)
    assert messages[2].bookmark.source_state == SOURCE_STATE_LIVE
    assert messages[-1].closing.reason == CLOSING_REASON_MAX_DURATION
    assert await call.code() == grpc.StatusCode.OK


async def test_the_log_of_a_run_is_told_in_the_order_of_its_numbers_then_live(server: Wire) -> None:
    run = await server.create_run()
    for _ in range(3):
        await append(server, run.run_id)
    calls = [server.watch(run_id=run.run_id), server.watch(mission_id=run.mission_id)]
    for call in calls:
        told = (await take_synced(call))[:-1]
        assert [message.change.event.sequence for message in told] == [1, 2, 3]
        assert {message.change.kind for message in told} == {CHANGE_KIND_INITIAL}
    event = await append(server, run.run_id)
    for call in calls:
        *_, live = await take_until(call, lambda message: message.HasField("change"))
        assert live.change.event == event
        call.cancel()


async def test_what_is_wrong_with_a_watch_is_named(server: Wire) -> None:
    request = WatchRunRequest(heartbeat_interval=Duration(seconds=61), max_duration=Duration())
    failed = await failure(take_all(server.runs.WatchRun(request)))
    assert failed.fields.keys() == {"run_id", "heartbeat_interval", "max_duration"}
