"""Why an HTTP request is not answered with what it asked for, before a dialect puts that into its vendor's words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Final

import grpc
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from tidings import TidingsError

_STATUSES: Final[Mapping[grpc.StatusCode, int]] = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.FAILED_PRECONDITION: 409,
    grpc.StatusCode.OUT_OF_RANGE: 410,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}

Location = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Flaw:
    """One thing that is wrong with a request: where, first `body`, `query`, `path` or `header`, and what."""

    location: Location
    message: str
    kind: str = "value_error"


@dataclass(frozen=True, slots=True)
class Refusal(Exception):
    """An HTTP status, the reason that the service gives for it (`EVENT_NOT_FOUND`), and a sentence for people."""

    status: int
    message: str
    reason: str = ""
    flaws: tuple[Flaw, ...] = ()
    retry_after: int | None = None
    """Seconds after which the request may be repeated."""
    grpc_status: str = ""
    """The name of the status with which the service failed the call, if it was called."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """What the reason is about, as ErrorReason says for each."""
    request_id: str = ""
    """Under which the log tells more about an INTERNAL failure."""
    more_headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, error: Exception) -> Refusal:
        """Why a handler failed. Raises the error again if it is none that a caller can do something about."""
        match error:
            case Refusal():
                return error
            case TidingsError():
                return _of_call(error)
            case RequestValidationError():
                return _of_validation(error)
            case HTTPException():
                return cls(error.status_code, str(error.detail), more_headers=error.headers or {})
            case _:
                raise error

    @property
    def headers(self) -> dict[str, str]:
        headers = {} if self.retry_after is None else {"retry-after": str(self.retry_after)}
        return {**self.more_headers, **headers, **({"www-authenticate": "Bearer"} if self.status == 401 else {})}


def _of_call(error: TidingsError) -> Refusal:
    flaws = tuple(
        Flaw(("body", *field.split(".")) if field else ("body",), text) for field, text in error.violations.items()
    )
    delay = error.retry_delay_seconds
    return Refusal(
        _STATUSES.get(error.code(), 500),
        error.details() or error.code().name,
        error.info.reason,
        flaws,
        None if delay is None else ceil(delay),
        error.code().name,
        error.metadata,
        error.request_id,
    )


def _of_validation(error: RequestValidationError) -> Refusal:
    flaws = tuple(Flaw(tuple(each["loc"]), each["msg"], each["type"]) for each in error.errors())
    named = "; ".join(f"{'.'.join(map(str, flaw.location))}: {flaw.message}" for flaw in flaws)
    return Refusal(422, f"invalid request: {named}", "INVALID_FIELD", flaws)
