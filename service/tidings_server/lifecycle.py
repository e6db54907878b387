"""The life of a task: which state may follow which, and what a transition stamps. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tidings.v1 import error_reason_pb2 as reasons
from tidings.v1 import task_pb2
from tidings.v1.event_pb2 import Event
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


def state_name(state: TaskState.ValueType) -> str:
    """The state's name as people write it: `RUNNING`."""
    return task_pb2.TaskState.Name(state).removeprefix("TASK_STATE_")


def move(status: TaskStatus, to: TaskState.ValueType, now: int) -> bool:
    """Move a task to a state and stamp what the transition stamps; False if it is there already.

    Raises Failure: TASK_TERMINAL if it has ended, ILLEGAL_TRANSITION if `to` cannot follow its state.
    """
    if to == status.state:
        return False
    if status.state in TERMINAL:
        raise task_terminal(status)
    if to not in NEXT_STATES[status.state]:
        raise _illegal(status, to)
    status.state = to
    if to == RUNNING and not status.HasField("start_time"):
        status.start_time.CopyFrom(to_timestamp(now))
    if to in TERMINAL:
        status.end_time.CopyFrom(to_timestamp(now))
    stamp_latency(status)
    return True


def stamp_latency(status: TaskStatus) -> None:
    if status.HasField("start_time") and status.HasField("end_time"):
        # A clock set back between the two must not give a negative duration.
        latency = max(0, to_millis(status.end_time) - to_millis(status.start_time))
        status.latency.CopyFrom(to_duration(latency))


def state_before(event: Event) -> TaskState.ValueType:
    """The state that the event's newest revision left behind, if that was a change of state."""
    if event.transitions and event.transitions[-1].revision == event.revision:
        before: TaskState.ValueType = getattr(event.transitions[-1], "from")
        return before
    return task_pb2.TASK_STATE_UNSPECIFIED


def task_terminal(status: TaskStatus) -> Failure:
    state = state_name(status.state)
    return Failure(
        reasons.ERROR_REASON_TASK_TERMINAL,
        f'task "{status.task_id}" has ended: it is {state}',
        metadata={"event_id": status.task_id, "state": state},
    )


def _illegal(status: TaskStatus, to: TaskState.ValueType) -> Failure:
    before, after = state_name(status.state), state_name(to)
    return Failure(
        reasons.ERROR_REASON_ILLEGAL_TRANSITION,
        f'task "{status.task_id}" is {before}, which {after} cannot follow',
        metadata={"event_id": status.task_id, "from": before, "to": after},
    )


def apply_update(event: Event, request: UpdateTaskStatusRequest, now: int) -> bool:
    """Make the changes that the request asks for, all or none; False if everything is so already."""
    status, ended = event.status, event.status.state in TERMINAL
    moved = request.state != task_pb2.TASK_STATE_UNSPECIFIED and move(status, request.state, now)
    edited = _edited(event, request)
    if edited and ended:
        raise task_terminal(status)
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
