"""Failures as Tidings' own face tells them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fastapi.responses import JSONResponse

from tidings_server.gateway.refusal import Refusal

_STATUS_NAMES: Final[Mapping[int, str]] = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
}
"""For what the gRPC port was not asked for; other such requests are invalid."""
_REASONS: Final[Mapping[int, str]] = {400: "MALFORMED_REQUEST", 413: "PAYLOAD_TOO_LARGE"}
"""For bodies that no dialect reads."""


def refuse(refusal: Refusal) -> JSONResponse:
    return JSONResponse(error_json(refusal), refusal.status, refusal.headers)


def error_json(refusal: Refusal) -> dict[str, Any]:
    error: dict[str, Any] = {
        "code": refusal.status,
        "status": refusal.grpc_status or _status_name(refusal.status),
        "reason": refusal.reason or _REASONS.get(refusal.status, ""),
        "message": refusal.message,
    }
    if refusal.metadata:
        error["metadata"] = dict(refusal.metadata)
    if refusal.flaws:
        error["violations"] = [
            {"field": ".".join(map(str, flaw.location[1:])), "description": flaw.message} for flaw in refusal.flaws
        ]
    if refusal.request_id:
        error["requestId"] = refusal.request_id
    return {"error": error}


def _status_name(status: int) -> str:
    return _STATUS_NAMES.get(status, "INVALID_ARGUMENT" if status < 500 else "INTERNAL")
