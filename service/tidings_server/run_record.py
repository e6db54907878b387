"""The record of a run with its plan: how one begins, how it changes, and what every revision of it needs. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import uuid_utils

from tidings.v1 import error_reason_pb2 as reasons
from tidings.v1 import task_pb2
from tidings.v1.run_pb2 import PlanProgress, PlanStep, Run
from tidings.v1.run_service_pb2 import CreateRunRequest, UpdatePlanStepRequest, UpdateRunRequest
from tidings.v1.task_pb2 import TaskState
from tidings_server.clock import to_millis, to_timestamp
from tidings_server.errors import Violation, invalid
from tidings_server.lifecycle import move
from tidings_server.limits import Limits
from tidings_server.record import Kind, Record, begun, digest_of, remember_transition

_SET_BY_SERVICE: Final = (
    "plan",
    "progress",
    "last_sequence",
    "start_time",
    "end_time",
    "create_time",
    "update_time",
    "expire_time",
    "revision",
    "transitions",
)
_STEP_SET_BY_SERVICE: Final = ("start_time", "end_time")


def new_run(project: str, request: CreateRunRequest, now: int, limits: Limits) -> Record[Run]:
    """The record of the run that a checked request asks for, with everything stamped."""
    content = CreateRunRequest()
    content.CopyFrom(request)
    for name in _SET_BY_SERVICE:
        content.run.ClearField(name)
    run = Run()
    run.CopyFrom(content.run)
    run.run_id = run.run_id or str(uuid_utils.uuid7())
    wanted, run.state = run.state, task_pb2.TASK_STATE_PENDING
    if wanted:
        move(run, wanted, now)
    if content.HasField("ttl"):
        run.expire_time.CopyFrom(to_timestamp(now + to_millis(content.ttl)))
    return begun(RUN, Record(project, run, digest_of(content), expiry_fixed=True), now, limits, "run")


def apply_update(run: Run, request: UpdateRunRequest, now: int) -> bool:
    """Make the changes that the request asks for, all or none; False if everything is so already."""
    moved = request.state != task_pb2.TASK_STATE_UNSPECIFIED and move(run, request.state, now)
    edited = False
    if request.HasField("result_summary") and request.result_summary != run.result_summary:
        run.result_summary, edited = request.result_summary, True
    for name in ("result_payload", "error", "metadata"):
        given = getattr(request, name)
        if request.HasField(name) and not (run.HasField(name) and given == getattr(run, name)):
            getattr(run, name).CopyFrom(given)
            edited = True
    return moved or edited


def create_plan(run: Run, steps: Sequence[PlanStep], now: int, limits: Limits) -> bool:
    """Give the run its plan; False if it has just this one. Raises Failure PLAN_ALREADY_EXISTS, INVALID_FIELD."""
    if not run.plan:
        return add_steps(run, steps, now, limits)
    if {step.step_id for step in run.plan} != {step.step_id for step in steps} or not _all_there(run, steps):
        raise RUN.failure(reasons.ERROR_REASON_PLAN_ALREADY_EXISTS, run.run_id, "has another plan: add steps to it")
    return False


def add_steps(run: Run, steps: Sequence[PlanStep], now: int, limits: Limits) -> bool:
    """Add steps to the plan, all or none; False if all are there. Raises Failure STEP_ALREADY_EXISTS, INVALID_FIELD."""
    fresh = [_new_step(step, now) for step in steps if not _is_there(run, step)]
    plan = [*run.plan, *fresh]
    _check_plan(plan, steps, limits)
    plan.sort(key=lambda step: (step.sequence, step.step_id))
    del run.plan[:]
    run.plan.extend(plan)
    return bool(fresh)


def update_step(run: Run, request: UpdatePlanStepRequest, now: int) -> bool:
    """Make the changes that the request asks for; False if everything is so already. Raises Failure STEP_NOT_FOUND."""
    step = step_of(run, request.step_id)
    moved = request.state != task_pb2.TASK_STATE_UNSPECIFIED and move(step, request.state, now)
    edited = request.HasField("metadata") and not (step.HasField("metadata") and request.metadata == step.metadata)
    if edited:
        step.metadata.CopyFrom(request.metadata)
    return moved or edited


def check_mission(run: Run, mission_id: str) -> None:
    """Raise Failure RUN_NOT_FOUND if the run is of another mission than the one given."""
    if mission_id not in {"", run.mission_id}:
        raise RUN.missing(run.run_id)


def step_of(run: Run, step_id: str) -> PlanStep:
    """Raises Failure STEP_NOT_FOUND."""
    for step in run.plan:
        if step.step_id == step_id:
            return step
    what = f'has no step "{step_id}" in its plan'
    raise RUN.failure(reasons.ERROR_REASON_STEP_NOT_FOUND, run.run_id, what, step_id=step_id)


def progress_of(plan: Iterable[PlanStep]) -> PlanProgress:
    """How many steps there are in each group of states."""
    count = Counter(step.state for step in plan)
    return PlanProgress(
        total=count.total(),
        pending=count[task_pb2.TASK_STATE_PENDING],
        running=count[task_pb2.TASK_STATE_RUNNING] + count[task_pb2.TASK_STATE_PAUSED],
        succeeded=count[task_pb2.TASK_STATE_SUCCEEDED],
        failed=count[task_pb2.TASK_STATE_FAILED],
        skipped=count[task_pb2.TASK_STATE_SKIPPED] + count[task_pb2.TASK_STATE_CANCELLED],
    )


def _new_step(step: PlanStep, now: int) -> PlanStep:
    fresh = _defined(step)
    wanted, fresh.state = fresh.state, task_pb2.TASK_STATE_PENDING
    move(fresh, wanted or task_pb2.TASK_STATE_PENDING, now)
    return fresh


def _defined(step: PlanStep) -> PlanStep:
    """The step as its author defined it."""
    defined = PlanStep()
    defined.CopyFrom(step)
    for name in _STEP_SET_BY_SERVICE:
        defined.ClearField(name)
    return defined


def _is_there(run: Run, step: PlanStep) -> bool:
    """Whether the plan has this step, whatever has become of it. Raises Failure STEP_ALREADY_EXISTS if it differs."""
    for other in run.plan:
        if other.step_id == step.step_id:
            if _definition(other) != _definition(step):
                what = f'has another step "{step.step_id}" in its plan'
                raise RUN.failure(reasons.ERROR_REASON_STEP_ALREADY_EXISTS, run.run_id, what, step_id=step.step_id)
            return True
    return False


def _definition(step: PlanStep) -> tuple[str, int, str, str]:
    """What does not change in the life of a step."""
    return step.step_id, step.sequence, step.description, step.parent_step_id


def _all_there(run: Run, steps: Sequence[PlanStep]) -> bool:
    known = {step.step_id: _definition(step) for step in run.plan}
    return all(known.get(step.step_id) == _definition(step) for step in steps)


def _check_plan(plan: Sequence[PlanStep], given: Sequence[PlanStep], limits: Limits) -> None:
    parents = {step.step_id: step.parent_step_id for step in plan}
    violations = []
    if len(plan) > limits.plan_steps_max:
        violations.append(Violation("steps", f"would make a plan of {len(plan)}, more than {limits.plan_steps_max}"))
    seen: set[str] = set()
    for index, step in enumerate(given):
        if step.step_id in seen:
            violations.append(Violation(f"steps[{index}].step_id", "is given twice"))
        seen.add(step.step_id)
        if step.parent_step_id and step.parent_step_id not in parents:
            violations.append(Violation(f"steps[{index}].parent_step_id", "names no step of the plan"))
        elif _is_own_ancestor(step.step_id, parents):
            violations.append(Violation(f"steps[{index}].parent_step_id", "makes the step a part of itself"))
    if violations:
        raise invalid(violations)


def _is_own_ancestor(step_id: str, parents: Mapping[str, str]) -> bool:
    ancestor, visited = parents.get(step_id, ""), set[str]()
    while ancestor and ancestor not in visited:
        if ancestor == step_id:
            return True
        visited.add(ancestor)
        ancestor = parents.get(ancestor, "")
    return False


def _state_of(run: Run) -> TaskState.ValueType:
    return run.state


def _settle(record: Record[Run], before: TaskState.ValueType, now: int, limits: Limits) -> None:
    run = record.resource
    if run.state != before:
        message = run.error.message or run.result_summary
        remember_transition(run, run.state, before, message, now, limits)
    run.progress.CopyFrom(progress_of(run.plan))


RUN: Final[Kind[Run]] = Kind(
    noun="run",
    not_found=reasons.ERROR_REASON_RUN_NOT_FOUND,
    expired=reasons.ERROR_REASON_RUN_NOT_FOUND,
    already_exists=reasons.ERROR_REASON_RUN_ALREADY_EXISTS,
    state_of=_state_of,
    settle=_settle,
    bytes_max=lambda limits: limits.run_bytes_max,
)
