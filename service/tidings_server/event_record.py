"""The record of an event: how one begins, and what every revision of it needs. Pure."""

from __future__ import annotations

import uuid
from typing import Final

import uuid_utils
from google.protobuf.timestamp_pb2 import Timestamp

from tidings.v1 import error_reason_pb2 as reasons
from tidings.v1 import task_pb2
from tidings.v1.event_pb2 import Event
from tidings.v1.event_service_pb2 import CreateEventRequest, EventParent
from tidings.v1.task_pb2 import TaskState
from tidings_server.clock import to_millis, to_timestamp
from tidings_server.lifecycle import TERMINAL, stamp_latency
from tidings_server.limits import Limits
from tidings_server.record import Kind, Record, begun, digest_of, remember_transition

DAY: Final = 24 * 60 * 60 * 1000
FACT_RETENTION: Final = 30 * DAY
ENDED_TASK_RETENTION: Final = DAY
OPEN_TASK_RETENTION: Final = 7 * DAY

_SET_BY_SERVICE: Final = ("create_time", "update_time", "revision", "transitions", "sequence")
_SET_BY_SERVICE_IN_STATUS: Final = ("task_id", "update_time", "latency", "cancel_requested", "revision")

_KEYED_IDS: Final = uuid.UUID("6f1c3c0e-6c1f-5f0e-9c55-3a5f2b0f7d11")
"""The UUIDv5 namespace of ids derived from idempotency keys. Changing it would break every retry under way."""


def new_event(
    project: str, request: CreateEventRequest, now: int, limits: Limits, *, path: str = "event"
) -> Record[Event]:
    """The record of the event that a checked request asks for, with everything stamped.

    Raises Failure PAYLOAD_TOO_LARGE, in which the event is named by its path in the caller's request.
    """
    content = _content(request)
    event = Event()
    event.CopyFrom(content.event)
    event.event_id = event.event_id or _derived_id(project, event)
    event.event_time.CopyFrom(to_timestamp(to_millis(event.event_time) if event.HasField("event_time") else now))
    record = Record(project, event, digest_of(content), expiry_fixed=_fixes_expiry(content))
    if event.HasField("status"):
        _stamp_new_task(event, now)
    if content.HasField("ttl"):
        event.expire_time.CopyFrom(to_timestamp(now + to_millis(content.ttl)))
    elif event.HasField("expire_time"):
        event.expire_time.CopyFrom(to_timestamp(to_millis(event.expire_time)))
    return begun(EVENT, record, now, limits, path)


def check_parent(event: Event, parent: EventParent) -> None:
    """Raise Failure EVENT_NOT_FOUND if the event is not of the run and the mission that are given."""
    if parent.run_id not in {"", event.run_id} or parent.mission_id not in {"", event.mission_id}:
        raise EVENT.missing(event.event_id)


def _content(request: CreateEventRequest) -> CreateEventRequest:
    """The request without what callers cannot set: two requests with the same content ask for the same event."""
    content = CreateEventRequest()
    content.CopyFrom(request)
    for event_field in _SET_BY_SERVICE:
        content.event.ClearField(event_field)
    if content.event.HasField("status"):
        for status_field in _SET_BY_SERVICE_IN_STATUS:
            content.event.status.ClearField(status_field)
    return content


def _derived_id(project: str, event: Event) -> str:
    if event.idempotency_key:
        # Neither a project nor a run has a slash in its name, so no two keys meet.
        return str(uuid.uuid5(_KEYED_IDS, f"{project}/{event.run_id}/{event.idempotency_key}"))
    return str(uuid_utils.uuid7())


def _fixes_expiry(content: CreateEventRequest) -> bool:
    return content.HasField("ttl") or content.event.HasField("expire_time")


def _stamp_new_task(event: Event, now: int) -> None:
    status = event.status
    status.task_id = event.event_id
    status.state = status.state or task_pb2.TASK_STATE_PENDING
    for time in _own_times(event):
        time.CopyFrom(to_timestamp(to_millis(time)))
    if not status.HasField("create_time"):
        earliest = min([to_millis(time) for time in _own_times(event)], default=now)
        status.create_time.CopyFrom(to_timestamp(min(earliest, now)))
    status.update_time.CopyFrom(max(_own_times(event), key=to_millis))
    stamp_latency(status)


def _own_times(event: Event) -> list[Timestamp]:
    status = event.status
    return [getattr(status, name) for name in ("create_time", "start_time", "end_time") if status.HasField(name)]


def _state_of(event: Event) -> TaskState.ValueType:
    return event.status.state


def _settle(record: Record[Event], before: TaskState.ValueType, now: int, limits: Limits) -> None:
    event, status = record.resource, record.resource.status
    if event.HasField("status"):
        status.revision = event.revision
        if event.revision > record.first_revision:
            status.update_time.CopyFrom(to_timestamp(now))
        if status.state != before:
            remember_transition(event, status.state, before, status.message, now, limits)
    if not record.expiry_fixed:
        event.expire_time.CopyFrom(to_timestamp(now + _retention(event)))


def _retention(event: Event) -> int:
    if not event.HasField("status"):
        return FACT_RETENTION
    return ENDED_TASK_RETENTION if event.status.state in TERMINAL else OPEN_TASK_RETENTION


EVENT: Final[Kind[Event]] = Kind(
    noun="event",
    not_found=reasons.ERROR_REASON_EVENT_NOT_FOUND,
    expired=reasons.ERROR_REASON_EVENT_EXPIRED,
    already_exists=reasons.ERROR_REASON_EVENT_ALREADY_EXISTS,
    state_of=_state_of,
    settle=_settle,
    bytes_max=lambda limits: limits.event_bytes_max,
)
