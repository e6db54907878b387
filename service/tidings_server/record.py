"""What is stored of an event, a run or a mission: the message, and what the service must remember besides. Pure.

Here a record goes from one revision to the next, in the same way for all kinds of resource: conditions, the memory
that makes retries safe, stamps, and the end. What is special to a kind stands beside it, in event_record.py and its
like.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from google.protobuf.message import Message

from tidings.v1 import error_reason_pb2 as reasons
from tidings.v1 import task_pb2
from tidings.v1.error_reason_pb2 import ErrorReason
from tidings.v1.event_pb2 import Event, StateTransition
from tidings.v1.mission_pb2 import Mission
from tidings.v1.run_pb2 import Run
from tidings.v1.task_pb2 import TaskState
from tidings_server.clock import to_millis, to_timestamp
from tidings_server.errors import Failure, Violation, invalid
from tidings_server.limits import Limits

TRANSITION_MESSAGE_MAX: Final = 256

Resource = Event | Run | Mission
R = TypeVar("R", bound=Resource)


@dataclass(frozen=True, slots=True)
class RememberedRequest:
    """A request that changed the resource: its id, and a digest of what it asked for."""

    request_id: str
    digest: bytes


@dataclass(slots=True)
class Record(Generic[R]):
    """A resource of a project with its memory."""

    project: str
    resource: R
    content_digest: bytes
    first_revision: int = 1
    expiry_fixed: bool = False
    deleted: bool = False
    requests: list[RememberedRequest] = field(default_factory=list)

    def remembers(self, request_id: str) -> bool:
        return any(request.request_id == request_id for request in self.requests)

    def is_gone(self, now: int) -> bool:
        return self.deleted or ((expire_time := expiry_of(self.resource)) is not None and expire_time <= now)


@dataclass(frozen=True, slots=True)
class Kind(Generic[R]):
    """What is particular about events, runs or missions."""

    noun: str
    not_found: ErrorReason.ValueType
    expired: ErrorReason.ValueType
    already_exists: ErrorReason.ValueType
    state_of: Callable[[R], TaskState.ValueType]
    """The state; unspecified for what has none."""
    settle: Callable[[Record[R], TaskState.ValueType, int, Limits], None]
    """Makes a new revision whole, given the state before and the time."""
    bytes_max: Callable[[Limits], int]
    """How large a resource may become."""

    def id_of(self, resource: R) -> str:
        resource_id: str = getattr(resource, f"{self.noun}_id")
        return resource_id

    def failure(self, reason: ErrorReason.ValueType, resource_id: str, what: str, **metadata: str) -> Failure:
        """A failure that concerns one resource: `what` follows its name in the sentence."""
        sentence = f'{self.noun} "{resource_id}" {what}'
        return Failure(reason, sentence, metadata={f"{self.noun}_id": resource_id, **metadata})

    def missing(self, resource_id: str) -> Failure:
        return self.failure(self.not_found, resource_id, "not found")

    def gone(self, resource_id: str) -> Failure:
        return self.failure(self.expired, resource_id, "has expired")

    def moved_on(self, resource_id: str, revision: int) -> Failure:
        reason = reasons.ERROR_REASON_REVISION_MISMATCH
        return self.failure(reason, resource_id, f"is at revision {revision}", current_revision=str(revision))

    def corrupt(self, resource_id: str) -> Failure:
        return self.failure(reasons.ERROR_REASON_CORRUPT_RECORD, resource_id, "has a record that cannot be read")


@dataclass(frozen=True, slots=True)
class Mutation(Generic[R]):
    """A change that somebody asks for: the rule that makes it, and under which conditions."""

    rule: Callable[[Record[R], int], bool]
    """Changes the record at the given time; False if there is nothing to change."""
    digest: bytes
    expected_revision: int = 0
    request_id: str = ""


def digest_of(request: Message) -> bytes:
    """A digest of a request and its type: some that ask for different things have the same fields."""
    content = request.DESCRIPTOR.full_name.encode() + b"\0" + request.SerializeToString(deterministic=True)
    return hashlib.sha256(content).digest()


def expiry_of(resource: Resource) -> int | None:
    """When the resource expires, in milliseconds since 1970; None if it does not."""
    if isinstance(resource, Mission) or not resource.HasField("expire_time"):
        return None
    return to_millis(resource.expire_time)


def begun(kind: Kind[R], record: Record[R], now: int, limits: Limits, path: str) -> Record[R]:
    """The record at its first revision, stamped. Raises Failure PAYLOAD_TOO_LARGE, naming a path in the request."""
    record.resource.revision = 1
    record.resource.create_time.CopyFrom(to_timestamp(now))
    record.resource.update_time.CopyFrom(to_timestamp(now))
    kind.settle(record, task_pb2.TASK_STATE_UNSPECIFIED, now, limits)
    check_size(record.resource, kind.bytes_max(limits), path)
    return record


def created_over(record: Record[R], old: Record[R]) -> Record[R]:
    """The record when its id was used before: its revisions go on from the old ones."""
    resource = record.resource
    record.first_revision = resource.revision = old.resource.revision + 1
    if isinstance(resource, Event) and resource.HasField("status"):
        resource.status.revision = resource.revision
    if not isinstance(resource, Mission):
        for transition in resource.transitions:
            transition.revision = resource.revision
    return record


def changed(kind: Kind[R], record: Record[R], mutation: Mutation[R], now: int, limits: Limits) -> bool:
    """Take the record to its next revision as the mutation wants; False if there is nothing to change.

    Raises Failure: REVISION_MISMATCH, IDEMPOTENCY_CONFLICT, and what the rule raises.
    """
    if was_answered(kind, record, mutation):
        return False
    resource = record.resource
    if mutation.expected_revision not in {0, resource.revision}:
        raise kind.moved_on(kind.id_of(resource), resource.revision)
    before = kind.state_of(resource)
    if not mutation.rule(record, now):
        return False
    resource.revision += 1
    resource.update_time.CopyFrom(to_timestamp(now))
    if mutation.request_id:
        record.requests.append(RememberedRequest(mutation.request_id, mutation.digest))
        del record.requests[: -limits.remembered_requests_max]
    kind.settle(record, before, now, limits)
    check_size(resource, kind.bytes_max(limits), "")
    return True


def was_answered(kind: Kind[R], record: Record[R], mutation: Mutation[R]) -> bool:
    """Whether the mutation is a retry of one that was made. Raises Failure IDEMPOTENCY_CONFLICT."""
    for request in record.requests:
        if mutation.request_id and request.request_id == mutation.request_id:
            if request.digest != mutation.digest:
                reason, what = reasons.ERROR_REASON_IDEMPOTENCY_CONFLICT, "was changed by another request with this id"
                raise kind.failure(reason, kind.id_of(record.resource), what)
            return True
    return False


def deletion(record: Record[R], now: int) -> bool:
    """The rule of a deletion: a change like any other, after which the record is expired."""
    record.deleted = True
    record.expiry_fixed = True
    if not isinstance(record.resource, Mission):
        record.resource.expire_time.CopyFrom(to_timestamp(now))
    return True


def remember_transition(
    resource: Event | Run, to: TaskState.ValueType, before: TaskState.ValueType, message: str, now: int, limits: Limits
) -> None:
    """Add a change of state to those that the resource keeps."""
    transition = StateTransition(
        revision=resource.revision,
        to=to,
        time=to_timestamp(now),
        message=message[:TRANSITION_MESSAGE_MAX],
        **{"from": before},
    )
    resource.transitions.append(transition)
    del resource.transitions[: -limits.transitions_max]


def check_size(resource: Resource, bytes_max: int, path: str) -> None:
    """Raise Failure PAYLOAD_TOO_LARGE, which names a path in the request, if a resource is too large to keep."""
    # The transitions are ours: a task must not become too large to be told about by being told about.
    transitions = () if isinstance(resource, Mission) else resource.transitions
    size = resource.ByteSize() - sum(transition.ByteSize() for transition in transitions)
    if size > bytes_max:
        sentence = f"the result would have {size} bytes, more than {bytes_max}"
        raise invalid([Violation(path, sentence, reasons.ERROR_REASON_PAYLOAD_TOO_LARGE)])
