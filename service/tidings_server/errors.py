"""Our failures: each has a reason, and each reason one status.

A failure is raised where it happens and becomes a status in one place, the interceptor. What is not a
`Failure` never reaches a caller in its own words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from tidings.v1 import error_reason_pb2 as reasons
from tidings.v1.error_reason_pb2 import ErrorReason

DOMAIN: Final = "tidings"
FIELD_CHARACTERS_MAX: Final = 256
VIOLATIONS_BYTES_MAX: Final = 6 * 1024
"""gRPC clients take 8 KiB of trailers for certain, and what is larger ends a call with an error of their own."""
VIOLATION_BYTES_BESIDE: Final = 32
"""What a violation takes beside its texts: lengths, tags and the reason."""
STATUS_DETAILS_KEY: Final = "grpc-status-details-bin"

_CODES: Final[Mapping[ErrorReason.ValueType, grpc.StatusCode]] = {
    reasons.ERROR_REASON_MALFORMED_REQUEST: grpc.StatusCode.INVALID_ARGUMENT,
    reasons.ERROR_REASON_INVALID_FIELD: grpc.StatusCode.INVALID_ARGUMENT,
    reasons.ERROR_REASON_PAYLOAD_TOO_LARGE: grpc.StatusCode.INVALID_ARGUMENT,
    reasons.ERROR_REASON_PAYLOAD_TOO_DEEP: grpc.StatusCode.INVALID_ARGUMENT,
    reasons.ERROR_REASON_RESUME_TOKEN_INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    reasons.ERROR_REASON_EVENT_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    reasons.ERROR_REASON_EVENT_EXPIRED: grpc.StatusCode.NOT_FOUND,
    reasons.ERROR_REASON_TASK_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    reasons.ERROR_REASON_MISSION_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    reasons.ERROR_REASON_RUN_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    reasons.ERROR_REASON_STEP_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    reasons.ERROR_REASON_MISSION_ALREADY_EXISTS: grpc.StatusCode.ALREADY_EXISTS,
    reasons.ERROR_REASON_RUN_ALREADY_EXISTS: grpc.StatusCode.ALREADY_EXISTS,
    reasons.ERROR_REASON_PLAN_ALREADY_EXISTS: grpc.StatusCode.ALREADY_EXISTS,
    reasons.ERROR_REASON_STEP_ALREADY_EXISTS: grpc.StatusCode.ALREADY_EXISTS,
    reasons.ERROR_REASON_EVENT_ALREADY_EXISTS: grpc.StatusCode.ALREADY_EXISTS,
    reasons.ERROR_REASON_IDEMPOTENCY_CONFLICT: grpc.StatusCode.ALREADY_EXISTS,
    reasons.ERROR_REASON_REVISION_MISMATCH: grpc.StatusCode.ABORTED,
    reasons.ERROR_REASON_ILLEGAL_TRANSITION: grpc.StatusCode.FAILED_PRECONDITION,
    reasons.ERROR_REASON_TASK_TERMINAL: grpc.StatusCode.FAILED_PRECONDITION,
    reasons.ERROR_REASON_RUN_CLOSED: grpc.StatusCode.FAILED_PRECONDITION,
    reasons.ERROR_REASON_UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    reasons.ERROR_REASON_PERMISSION_DENIED: grpc.StatusCode.PERMISSION_DENIED,
    reasons.ERROR_REASON_HISTORY_LOST: grpc.StatusCode.OUT_OF_RANGE,
    reasons.ERROR_REASON_RATE_LIMITED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    reasons.ERROR_REASON_WATCH_LIMIT: grpc.StatusCode.RESOURCE_EXHAUSTED,
    reasons.ERROR_REASON_WATCHER_STALLED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    reasons.ERROR_REASON_RESPONSE_TOO_LARGE: grpc.StatusCode.RESOURCE_EXHAUSTED,
    reasons.ERROR_REASON_STORE_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    reasons.ERROR_REASON_DRAINING: grpc.StatusCode.UNAVAILABLE,
    reasons.ERROR_REASON_NOT_READY: grpc.StatusCode.UNAVAILABLE,
    reasons.ERROR_REASON_WATCH_MAX_AGE: grpc.StatusCode.UNAVAILABLE,
    reasons.ERROR_REASON_CORRUPT_RECORD: grpc.StatusCode.DATA_LOSS,
    reasons.ERROR_REASON_INTERNAL: grpc.StatusCode.INTERNAL,
}

_RETRY_AFTER_SECONDS: Final[Mapping[ErrorReason.ValueType, int]] = {
    reasons.ERROR_REASON_RATE_LIMITED: 1,
    reasons.ERROR_REASON_WATCH_LIMIT: 10,
    reasons.ERROR_REASON_WATCHER_STALLED: 1,
    reasons.ERROR_REASON_RESPONSE_TOO_LARGE: 0,
    reasons.ERROR_REASON_STORE_UNAVAILABLE: 1,
    reasons.ERROR_REASON_DRAINING: 1,
    reasons.ERROR_REASON_NOT_READY: 1,
    reasons.ERROR_REASON_WATCH_MAX_AGE: 0,
}


@dataclass(frozen=True, slots=True)
class Violation:
    """One field that breaks a rule: its path in the request, the rule in words, and the reason if not INVALID_FIELD."""

    field: str
    description: str
    reason: ErrorReason.ValueType = reasons.ERROR_REASON_INVALID_FIELD


class Failure(Exception):
    """What a caller is told: a reason, a sentence that they can act on, and the facts as metadata."""

    def __init__(
        self,
        reason: ErrorReason.ValueType,
        message: str,
        *,
        violations: Sequence[Violation] = (),
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.violations = violations
        self.metadata = dict(metadata or {})

    @property
    def code(self) -> grpc.StatusCode:
        return _CODES[self.reason]

    def to_status(self) -> status_pb2.Status:
        """The failure as a google.rpc.Status with all its details (https://google.aip.dev/193)."""
        return status_pb2.Status(
            code=self.code.value[0], message=self.message, details=[_packed(detail) for detail in self._details()]
        )

    def _details(self) -> list[Message]:
        name = reasons.ErrorReason.Name(self.reason).removeprefix("ERROR_REASON_")
        details: list[Message] = [error_details_pb2.ErrorInfo(reason=name, domain=DOMAIN, metadata=self.metadata)]
        if self.violations:
            details.append(
                error_details_pb2.BadRequest(
                    field_violations=[
                        error_details_pb2.BadRequest.FieldViolation(
                            field=violation.field,
                            description=violation.description,
                            reason=reasons.ErrorReason.Name(violation.reason).removeprefix("ERROR_REASON_"),
                        )
                        for violation in self.violations
                    ]
                )
            )
        if self.reason in _RETRY_AFTER_SECONDS:
            delay = duration_pb2.Duration(seconds=_RETRY_AFTER_SECONDS[self.reason])
            details.append(error_details_pb2.RetryInfo(retry_delay=delay))
        if "request_id" in self.metadata and self.reason == reasons.ERROR_REASON_INTERNAL:
            details.append(error_details_pb2.RequestInfo(request_id=self.metadata["request_id"]))
        return details


def _packed(detail: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed


def invalid(violations: Sequence[Violation]) -> Failure:
    """INVALID_ARGUMENT that names every violation, as far as there is room; its reason is that of the first."""
    violations = list(_with_room(violations))
    named = "; ".join(": ".join(filter(None, (each.field, each.description))) for each in violations[:3])
    more = f"; and {len(violations) - 3} more" if len(violations) > 3 else ""
    return Failure(violations[0].reason, f"invalid request: {named}{more}", violations=violations)


def _with_room(violations: Sequence[Violation]) -> Iterator[Violation]:
    """Those of the violations that a gRPC client takes, fields shortened that have a payload's longest keys in them."""
    room = VIOLATIONS_BYTES_MAX
    for violation in violations:
        field = violation.field
        if len(field) > FIELD_CHARACTERS_MAX:
            field = f"{field[:FIELD_CHARACTERS_MAX]}…"
        room -= len(field.encode()) + len(violation.description.encode()) + VIOLATION_BYTES_BESIDE
        if room < 0:
            return
        yield replace(violation, field=field)


def response_too_large(event_id: str) -> Failure:
    return Failure(
        reasons.ERROR_REASON_RESPONSE_TOO_LARGE,
        f'the response was full before event "{event_id}": ask for it again',
        metadata={"event_id": event_id},
    )


def store_unavailable() -> Failure:
    return Failure(reasons.ERROR_REASON_STORE_UNAVAILABLE, "the store does not answer in time; try again")
