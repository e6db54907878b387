"""The life of a task, a run or a step of a plan: which state may follow which, and what a transition stamps. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tidings.v1 import error_reason_pb2 as reasons
from tidings.v1 import task_pb2
from tidings.v1.event_pb2 import Event
from tidings.v1.run_pb2 import PlanStep, Run
from tidings.v1.task_pb2 import TaskState, TaskStatus
from tidings.v1.task_service_pb2 import CancelTaskRequest, UpdateTaskStatusRequest
from tidings_server.clock import to_duration, to_millis, to_timestamp
from tidings_server.errors import Failure

PENDING: Final = task_pb2.TASK_STATE_PENDING
RUNNING: Final = task_pb2.TASK_STATE_RUNNING
PAUSED: Final = task_pb2.TASK_STATE_PAUSED
CANCELLED: Final = task_pb2.TASK_STATE_CANCELLED

TERMINAL: Final = frozenset(
    {task_pb2.TASK_STATE_SUCCEEDED, task_pb2.TASK_STATE_FAILED, CANCELLED, task_pb2.TASK_STATE_SKIPPED}
)

NEXT_STATES: Final[Mapping[TaskState.ValueType, frozenset[TaskState.ValueType]]] = {
    PENDING: TERMINAL | {RUNNING},
    RUNNING: TERMINAL | {PAUSED},
    PAUSED: TERMINAL | {RUNNING},
    **{state: frozenset() for state in TERMINAL},
}


Stateful = TaskStatus | Run | PlanStep

_ID_NAMES: Final = {"task": "event_id", "run": "run_id", "step": "step_id"}


def state_name(state: TaskState.ValueType) -> str:
    """The state's name as people write it: `RUNNING`."""
    return task_pb2.TaskState.Name(state).removeprefix("TASK_STATE_")


def move(subject: Stateful, to: TaskState.ValueType, now: int) -> bool:
    """Move a task, run or step to a state and stamp what the transition stamps; False if it is there already.

    Raises Failure: TASK_TERMINAL if it has ended, ILLEGAL_TRANSITION if `to` cannot follow its state.
    """
    if to == subject.state:
        return False
    if subject.state in TERMINAL:
        raise terminal(subject)
    if to not in NEXT_STATES[subject.state]:
        raise _illegal(subject, to)
    subject.state = to
    if to == RUNNING and not subject.HasField("start_time"):
        subject.start_time.CopyFrom(to_timestamp(now))
    if to in TERMINAL:
        subject.end_time.CopyFrom(to_timestamp(now))
    if isinstance(subject, TaskStatus):
        stamp_latency(subject)
    return True


def stamp_latency(status: TaskStatus) -> None:
    if status.HasField("start_time") and status.HasField("end_time"):
        # A clock set back between the two must not give a negative duration.
        latency = max(0, to_millis(status.end_time) - to_millis(status.start_time))
        status.latency.CopyFrom(to_duration(latency))


def state_before(event: Event | Run) -> TaskState.ValueType:
    """The state that the newest revision left behind, if that was a change of state."""
    if event.transitions and event.transitions[-1].revision == event.revision:
        before: TaskState.ValueType = getattr(event.transitions[-1], "from")
        return before
    return task_pb2.TASK_STATE_UNSPECIFIED


def terminal(subject: Stateful) -> Failure:
    """TASK_TERMINAL, for something that has ended."""
    noun, subject_id = _named(subject)
    state = state_name(subject.state)
    return Failure(
        reasons.ERROR_REASON_TASK_TERMINAL,
        f'{noun} "{subject_id}" has ended: it is {state}',
        metadata={_ID_NAMES[noun]: subject_id, "state": state},
    )


def _illegal(subject: Stateful, to: TaskState.ValueType) -> Failure:
    noun, subject_id = _named(subject)
    before, after = state_name(subject.state), state_name(to)
    return Failure(
        reasons.ERROR_REASON_ILLEGAL_TRANSITION,
        f'{noun} "{subject_id}" is {before}, which {after} cannot follow',
        metadata={_ID_NAMES[noun]: subject_id, "from": before, "to": after},
    )


def _named(subject: Stateful) -> tuple[str, str]:
    if isinstance(subject, TaskStatus):
        return "task", subject.task_id
    return ("run", subject.run_id) if isinstance(subject, Run) else ("step", subject.step_id)


def apply_update(event: Event, request: UpdateTaskStatusRequest, now: int) -> bool:
    """Make the changes that the request asks for, all or none; False if everything is so already."""
    status, ended = event.status, event.status.state in TERMINAL
    moved = request.state != task_pb2.TASK_STATE_UNSPECIFIED and move(status, request.state, now)
    edited = _edited(event, request)
    if edited and ended:
        raise terminal(status)
    if request.HasField("message"):
        status.message = request.message
    if request.HasField("progress"):
        status.progress.CopyFrom(request.progress)
    if request.HasField("error"):
        status.error.CopyFrom(request.error)
    if request.results:
        del event.results[:]
        event.results.extend(request.results)
    return moved or edited


def _edited(event: Event, request: UpdateTaskStatusRequest) -> bool:
    status = event.status
    return (
        (request.HasField("message") and request.message != status.message)
        or (request.HasField("progress") and not (status.HasField("progress") and request.progress == status.progress))
        or (request.HasField("error") and not (status.HasField("error") and request.error == status.error))
        or (bool(request.results) and list(request.results) != list(event.results))
    )


def apply_cancel(event: Event, request: CancelTaskRequest, now: int) -> bool:
    """Cancel a task that has not begun, ask a begun one to stop; False if that has been done already."""
    status = event.status
    if status.state == CANCELLED or (status.cancel_requested and status.state not in TERMINAL):
        return False
    if status.state in {RUNNING, PAUSED}:
        status.cancel_requested = True
    else:
        move(status, CANCELLED, now)
    if request.HasField("message"):
        status.message = request.message
    return True
