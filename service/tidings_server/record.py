"""What is stored of an event: the message, and what the service must remember besides. Pure.

Here an event is born and goes from one revision to the next: ids, stamps, transitions, retention and the
memory that makes retries safe.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import uuid_utils
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from tidings.v1 import error_reason_pb2 as reasons
from tidings.v1 import task_pb2
from tidings.v1.event_pb2 import Event, StateTransition
from tidings.v1.event_service_pb2 import CreateEventRequest
from tidings.v1.task_pb2 import TaskState
from tidings_server.clock import to_millis, to_timestamp
from tidings_server.errors import Failure, Violation, invalid, revision_mismatch
from tidings_server.lifecycle import TERMINAL, stamp_latency
from tidings_server.limits import Limits

DAY: Final = 24 * 60 * 60 * 1000
FACT_RETENTION: Final = 30 * DAY
ENDED_TASK_RETENTION: Final = DAY
OPEN_TASK_RETENTION: Final = 7 * DAY
TRANSITION_MESSAGE_MAX: Final = 256

_SET_BY_SERVICE: Final = ("create_time", "update_time", "revision", "transitions")
_SET_BY_SERVICE_IN_STATUS: Final = ("task_id", "update_time", "latency", "cancel_requested", "revision")

_KEYED_IDS: Final = uuid.UUID("6f1c3c0e-6c1f-5f0e-9c55-3a5f2b0f7d11")
"""The UUIDv5 namespace of ids derived from idempotency keys. Changing it would break every retry under way."""


@dataclass(frozen=True, slots=True)
class RememberedRequest:
    """A request that changed the event: its id, and a digest of what it asked for."""

    request_id: str
    digest: bytes


@dataclass(slots=True)
class Record:
    """An event of a project with its memory."""

    project: str
    event: Event
    content_digest: bytes
    first_revision: int = 1
    expiry_fixed: bool = False
    deleted: bool = False
    requests: list[RememberedRequest] = field(default_factory=list)

    @property
    def is_task(self) -> bool:
        return self.event.HasField("status")

    def is_gone(self, now: int) -> bool:
        return self.deleted or to_millis(self.event.expire_time) <= now


@dataclass(frozen=True, slots=True)
class Mutation:
    """A change that somebody asks for: the rule that makes it, and under which conditions."""

    rule: Callable[[Record, int], bool]
    """Changes the record at the given time; False if there is nothing to change."""
    digest: bytes
    expected_revision: int = 0
    request_id: str = ""


def digest_of(request: Message) -> bytes:
    return hashlib.sha256(request.SerializeToString(deterministic=True)).digest()


def new_record(project: str, request: CreateEventRequest, now: int, limits: Limits, *, path: str = "event") -> Record:
    """The record of the event that a checked request asks for, with everything stamped.

    Raises Failure PAYLOAD_TOO_LARGE, in which the event is named by its path in the caller's request.
    """
    content = _content(request)
    event = Event()
    event.CopyFrom(content.event)
    event.event_id = event.event_id or _derived_id(project, event)
    event.revision = 1
    event.create_time.CopyFrom(to_timestamp(now))
    event.event_time.CopyFrom(to_timestamp(to_millis(event.event_time) if event.HasField("event_time") else now))
    record = Record(project, event, digest_of(content), expiry_fixed=_fixes_expiry(content))
    if record.is_task:
        _stamp_new_task(event, now)
    if content.HasField("ttl"):
        event.expire_time.CopyFrom(to_timestamp(now + to_millis(content.ttl)))
    elif event.HasField("expire_time"):
        event.expire_time.CopyFrom(to_timestamp(to_millis(event.expire_time)))
    _finish(record, task_pb2.TASK_STATE_UNSPECIFIED, now, limits)
    _check_size(event, path, limits)
    return record


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
    for name in ("create_time", "start_time", "end_time"):
        time = getattr(status, name)
        if status.HasField(name):
            time.CopyFrom(to_timestamp(to_millis(time)))
    if not status.HasField("create_time"):
        earliest = min([to_millis(time) for time in _own_times(event)], default=now)
        status.create_time.CopyFrom(to_timestamp(min(earliest, now)))
    status.update_time.CopyFrom(max(_own_times(event), key=to_millis))
    stamp_latency(status)


def _own_times(event: Event) -> list[Timestamp]:
    status = event.status
    return [getattr(status, name) for name in ("create_time", "start_time", "end_time") if status.HasField(name)]


def created_over(record: Record, old: Record) -> Record:
    """The record when its id was used before: its revisions go on from the old ones."""
    record.first_revision = old.event.revision + 1
    record.event.revision = record.first_revision
    if record.is_task:
        record.event.status.revision = record.first_revision
        record.event.transitions[0].revision = record.first_revision
    return record


def changed(record: Record, mutation: Mutation, now: int, limits: Limits) -> bool:
    """Take the record to its next revision as the mutation wants; False if there is nothing to change.

    Raises Failure: REVISION_MISMATCH, IDEMPOTENCY_CONFLICT, and what the rule raises.
    """
    if _was_answered(record, mutation):
        return False
    event = record.event
    if mutation.expected_revision not in {0, event.revision}:
        raise revision_mismatch(event.event_id, event.revision)
    before = event.status.state
    if not mutation.rule(record, now):
        return False
    event.revision += 1
    if record.is_task:
        event.status.update_time.CopyFrom(to_timestamp(now))
    if mutation.request_id:
        record.requests.append(RememberedRequest(mutation.request_id, mutation.digest))
        del record.requests[: -limits.remembered_requests_max]
    _finish(record, before, now, limits)
    _check_size(event, "", limits)
    return True


def _was_answered(record: Record, mutation: Mutation) -> bool:
    for request in record.requests:
        if mutation.request_id and request.request_id == mutation.request_id:
            if request.digest != mutation.digest:
                raise Failure(
                    reasons.ERROR_REASON_IDEMPOTENCY_CONFLICT,
                    f'request id "{mutation.request_id}" was used with other content',
                    metadata={"event_id": record.event.event_id},
                )
            return True
    return False


def deletion(record: Record, now: int) -> bool:
    """The rule of a deletion: a change like any other, after which the record is expired."""
    record.deleted = True
    record.expiry_fixed = True
    record.event.expire_time.CopyFrom(to_timestamp(now))
    return True


def _finish(record: Record, before: TaskState.ValueType, now: int, limits: Limits) -> None:
    event = record.event
    event.update_time.CopyFrom(to_timestamp(now))
    if record.is_task:
        event.status.revision = event.revision
        if event.status.state != before:
            _remember_transition(event, before, now, limits)
    if not record.expiry_fixed:
        event.expire_time.CopyFrom(to_timestamp(now + _retention(record)))


def _remember_transition(event: Event, before: TaskState.ValueType, now: int, limits: Limits) -> None:
    transition = StateTransition(
        revision=event.revision,
        to=event.status.state,
        time=to_timestamp(now),
        message=event.status.message[:TRANSITION_MESSAGE_MAX],
        **{"from": before},
    )
    event.transitions.append(transition)
    del event.transitions[: -limits.transitions_max]


def _retention(record: Record) -> int:
    if not record.is_task:
        return FACT_RETENTION
    return ENDED_TASK_RETENTION if record.event.status.state in TERMINAL else OPEN_TASK_RETENTION


def _check_size(event: Event, path: str, limits: Limits) -> None:
    # The transitions are ours: a task must not become too large to be told about by being told about.
    size = event.ByteSize() - sum(transition.ByteSize() for transition in event.transitions)
    if size > limits.event_bytes_max:
        sentence = f"the event would have {size} bytes, more than {limits.event_bytes_max}"
        raise invalid([Violation(path, sentence, reasons.ERROR_REASON_PAYLOAD_TOO_LARGE)])
