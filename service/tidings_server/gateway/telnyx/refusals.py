"""Failures in the words of Telnyx's API."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from fastapi.responses import JSONResponse
from pydantic import BaseModel

from tidings_server.gateway.dialect import DialectRoute
from tidings_server.gateway.refusal import Flaw, Location, Refusal

_CODES: Final[Mapping[int, tuple[str, str]]] = {
    401: ("10009", "Authentication failed"),
    403: ("10010", "Authorization failed"),
    404: ("10005", "Resource not found"),
    409: ("10015", "Bad request"),
    413: ("10015", "Bad request"),
    429: ("10011", "Too many requests"),
}
_DUPLICATE: Final = ("10012", "Duplicate resource")
_UNEXPECTED: Final = ("10007", "Unexpected error")

_PLACES: Final[Mapping[str, Location]] = {
    "state": ("body", "status"),
    "error": ("body", "error"),
    "types": ("query", "type"),
    "agent_id": ("query", "agent_id"),
    "mission_id": ("path", "mission_id"),
    "run_id": ("path", "run_id"),
    "step_id": ("path", "step_id"),
    "event_id": ("path", "event_id"),
}
"""Where Telnyx's callers find what the service has under another name, or elsewhere than in the body."""


class ErrorMeta(BaseModel):
    url: str


class ErrorData(BaseModel):
    code: str
    title: str
    detail: str
    meta: ErrorMeta


class Errors(BaseModel):
    errors: list[ErrorData]


class ValidationFlaw(BaseModel):
    loc: list[str | int]
    msg: str
    type: str


class HTTPValidationError(BaseModel):
    detail: list[ValidationFlaw]


REFUSALS: Final[dict[int | str, dict[str, Any]]] = {
    422: {"model": HTTPValidationError, "description": "Something in the request is not as it must be."},
    **{status: {"model": Errors} for status in (*_CODES, 500, 503, 504)},
}


def refuse(refusal: Refusal) -> JSONResponse:
    if refusal.status in {400, 422}:
        return JSONResponse({"detail": _flaws(refusal)}, 422, refusal.headers)
    code, title = _code(refusal)
    meta = {"url": f"https://developers.telnyx.com/docs/overview/errors/{code}"}
    error = {"code": code, "title": title, "detail": refusal.message, "meta": meta}
    # Without this the SDKs repeat the request twice, to meet the same conflict.
    headers = refusal.headers | ({"x-should-retry": "false"} if refusal.status == 409 else {})
    return JSONResponse({"errors": [error]}, refusal.status, headers)


class TelnyxRoute(DialectRoute):
    refuse = staticmethod(refuse)

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **{**settings, "response_model_exclude_none": True})  # Telnyx has no nulls


def _code(refusal: Refusal) -> tuple[str, str]:
    if refusal.reason.endswith("_ALREADY_EXISTS") or refusal.reason == "IDEMPOTENCY_CONFLICT":
        return _DUPLICATE
    return _CODES.get(refusal.status, _UNEXPECTED)


def _flaws(refusal: Refusal) -> list[dict[str, Any]]:
    flaws = refusal.flaws or (Flaw(("body",), refusal.message),)
    locate = _location if refusal.status == 400 else lambda location: location  # the gateway's own flaws are in place
    return [{"loc": locate(flaw.location), "msg": flaw.message, "type": flaw.kind} for flaw in flaws]


def _location(location: Location) -> Location:
    """Where in Telnyx's request that is which the service names by its place in its own: `steps[0].sequence`."""
    parts = [part for name in location[1:] for part in re.findall(r"[^\[\]]+", str(name))]
    names = [int(part) if part.isdecimal() else part for part in parts]
    match names:
        case ["mission" | "run" | "event" | "parent", name, *rest]:
            return _PLACES[name] if name in {"mission_id", "run_id"} else ("body", name, *rest)
        case [str(name), *_] if name in _PLACES:
            return _PLACES[name]
        case _:
            return ("body", *names)
