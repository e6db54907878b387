"""The conformance steps as data: what the scripted server does on each connection, and what a client must make of it.

The messages of a connection carry tokens by their place: `2.1` is the first message on the second connection. So a
connection says with which token the client must have come.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from tidings.v1.event_pb2 import Event
from tidings.v1.event_service_pb2 import (
    CLOSING_REASON_DRAINING,
    CLOSING_REASON_MAX_DURATION,
    CLOSING_REASON_SCOPE_GONE,
    CLOSING_REASON_TERMINAL,
    RESET_REASON_HISTORY_LOST,
    Bookmark,
    ChangeKind,
    Closing,
    ClosingReason,
    EventChange,
    Reset,
    Synced,
    Unreadable,
    WatchEventResponse,
)
from tidings.v1.task_pb2 import TASK_STATE_RUNNING, TaskState, TaskStatus

PATIENT_SECONDS: Final = 20
"""The heartbeat interval where nobody is silent: nothing that a busy machine does takes as long."""
IMPATIENT_SECONDS: Final = 2
"""The heartbeat interval where the server is silent: with the slack of half a second it is given up after 4.5."""
MAX_DURATION_SECONDS: Final = 2
GIVEN_TOKEN: Final = "given"  # a resume token, as the driver gives it where a step begins with one

OK: Final = grpc.StatusCode.OK
NEWER: Final = 99
"""A value that an enum of a later version may have."""


@dataclass(frozen=True)
class Pause:
    """The server is silent for this long."""

    seconds: float


@dataclass(frozen=True)
class Cut:
    """The TCP connection is reset."""


@dataclass(frozen=True)
class End:
    """The stream ends with a status."""

    code: grpc.StatusCode
    details: bytes = b""


SILENCE: Final = Pause(60)
"""Longer than any watchdog waits here."""

Action = WatchEventResponse | Pause | Cut | End


@dataclass(frozen=True)
class Connection:
    """One stream: what the client must have asked for, and what the server does."""

    plays: tuple[Action, ...]
    token: str = ""
    waited_seconds: float = 0.0
    """How long after the stream before, at least."""
    max_duration_seconds: tuple[float, float] | None = None
    """Between which the request's `max_duration` must be; None: as the driver gave it."""


@dataclass(frozen=True)
class Step:
    """A name, which says how the driver asks (see scripted_server), and what must come of it."""

    name: str
    what: str
    connections: tuple[Connection, ...]
    delivers: tuple[str, ...]
    ends: str = "complete"
    number: int = field(default=0, compare=False)

    @property
    def heartbeat_seconds(self) -> int:
        is_silent = any(isinstance(each, Pause) for connection in self.connections for each in connection.plays)
        return IMPATIENT_SECONDS if is_silent else PATIENT_SECONDS


def on(
    *plays: Action,
    token: str = "",
    waited_seconds: float = 0.0,
    max_duration_seconds: tuple[float, float] | None = None,
) -> Connection:
    return Connection(plays, token, waited_seconds, max_duration_seconds)


def change(
    kind: str | int,
    revision: int,
    event_id: str = "",
    *,
    created: int = 1_000,
    state: int = TASK_STATE_RUNNING,
    partial: bool = False,
    token: str = "",
) -> WatchEventResponse:
    """A change of an event; of the one that has the step's name if none is given."""
    number = kind if isinstance(kind, int) else ChangeKind.Value(f"CHANGE_KIND_{kind}")
    event = Event(
        event_id=event_id,
        type="conformance",
        revision=revision,
        create_time=None if partial else Timestamp(seconds=created),
        status=TaskStatus(state=TaskState.ValueType(state)),
    )
    return WatchEventResponse(
        change=EventChange(kind=ChangeKind.ValueType(number), event=event, partial=partial), resume_token=token
    )


SYNCED: Final = WatchEventResponse(synced=Synced())
BOOKMARK: Final = WatchEventResponse(bookmark=Bookmark())
RESET: Final = WatchEventResponse(reset=Reset(reason=RESET_REASON_HISTORY_LOST))
UNKNOWN: Final = WatchEventResponse()
"""What a message of a later version looks like to a client that does not know its kind."""
NO_TOKEN: Final = "none"  # stands for an empty token; one that is not set is filled in


def closing(reason: int, reconnect_after: float | None = None) -> WatchEventResponse:
    after = None if reconnect_after is None else _duration(reconnect_after)
    return WatchEventResponse(closing=Closing(reason=ClosingReason.ValueType(reason), reconnect_after=after))


TERMINAL: Final = (closing(CLOSING_REASON_TERMINAL), End(OK))
DRAINING: Final = closing(CLOSING_REASON_DRAINING)


def fail(code: str, reason: str = "", retry_seconds: float | None = None) -> End:
    """A failure with the details that the service adds; none if there is no reason and no delay."""
    status_code = grpc.StatusCode[code]
    status = Status(code=status_code.value[0], message="scripted")
    for detail in (
        ErrorInfo(reason=reason, domain="tidings") if reason else None,
        None if retry_seconds is None else RetryInfo(retry_delay=_duration(retry_seconds)),
    ):
        if detail is not None:
            packed = Any()
            packed.Pack(detail)
            status.details.append(packed)
    return End(status_code, status.SerializeToString() if status.details else b"")


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromTimedelta(timedelta(seconds=seconds))
    return duration


UNAVAILABLE: Final = fail("UNAVAILABLE", "STORE_UNAVAILABLE")

_BEGUN: Final = (change("INITIAL", 1), SYNCED)
_DONE: Final = (SYNCED, change("UPDATED", 2), *TERMINAL)


def _resumes(name: str, what: str, *end: Action, waited_seconds: float = 0.0) -> Step:
    """After the snapshot something happens, and the client goes on where it was."""
    return Step(
        name,
        what,
        (on(*_BEGUN, *end), on(*_DONE, token=_last_token(*_BEGUN, *end), waited_seconds=waited_seconds)),
        ("INITIAL 1", "synced", "synced", "UPDATED 2"),
    )


def _last_token(*plays: Action) -> str:
    return f"1.{sum(isinstance(each, WatchEventResponse) for each in plays)}"


def _begins_anew(name: str, what: str, end: Action, waited_seconds: float = 0.0) -> Step:
    """The first stream ends before its first message."""
    return Step(
        name,
        what,
        (on(end), on(*_BEGUN, *TERMINAL, waited_seconds=waited_seconds)),
        ("INITIAL 1", "synced"),
    )


def _fails(name: str, what: str, end: End, ends: str) -> Step:
    """The first stream ends with what no retry mends."""
    return Step(name, what, (on(*_BEGUN, end),), ("INITIAL 1", "synced"), f"error {ends}")


_STEPS: Final = (
    # How a watch ends
    Step(
        "terminal",
        "`closing` (TERMINAL), then OK",
        (on(*_BEGUN, change("UPDATED", 2), *TERMINAL),),
        ("INITIAL 1", "synced", "UPDATED 2"),
    ),
    Step("fact", "a fact: `closing` right after `synced`", (on(*_BEGUN, *TERMINAL),), ("INITIAL 1", "synced")),
    Step(
        "deleted",
        "DELETED, `closing`, OK",
        (on(*_BEGUN, change("DELETED", 2), *TERMINAL),),
        ("INITIAL 1", "synced", "DELETED 2"),
    ),
    Step(
        "expired",
        "EXPIRED at the revision that was told",
        (on(*_BEGUN, change("EXPIRED", 1), *TERMINAL),),
        ("INITIAL 1", "synced", "EXPIRED 1"),
    ),
    Step(
        "project-scope-gone",
        "`closing` (SCOPE_GONE), then OK",
        (on(SYNCED, closing(CLOSING_REASON_SCOPE_GONE), End(OK)),),
        ("synced",),
    ),
    Step(
        "unknown-closing-reason",
        "`closing` with a reason of a later version, then OK",
        (on(*_BEGUN, closing(NEWER), End(OK)),),
        ("INITIAL 1", "synced"),
    ),
    Step(
        "message-after-closing",
        "a change after `closing`, then OK",
        (on(*_BEGUN, closing(CLOSING_REASON_TERMINAL), change("UPDATED", 2), End(OK)),),
        ("INITIAL 1", "synced", "UPDATED 2"),
    ),
    _resumes("ok-without-closing", "OK without `closing`", End(OK)),
    Step(
        "ok-after-terminal-change",
        "OK without `closing`, though the task has ended",
        (
            on(*_BEGUN, change("UPDATED", 2), End(OK)),
            on(SYNCED, *TERMINAL, token="1.3"),
        ),
        ("INITIAL 1", "synced", "UPDATED 2", "synced"),
    ),
    _resumes("closing-then-unavailable", "`closing` (TERMINAL), then UNAVAILABLE", TERMINAL[0], UNAVAILABLE),
    Step(
        "closing-of-another-stream",
        "`closing` (TERMINAL) and UNAVAILABLE; on the next stream OK without `closing`",
        (
            on(*_BEGUN, TERMINAL[0], UNAVAILABLE),
            on(SYNCED, End(OK), token="1.3"),
            on(*_DONE, token="2.1"),
        ),
        ("INITIAL 1", "synced", "synced", "synced", "UPDATED 2"),
    ),
    # Connections that break
    _resumes("unavailable", "UNAVAILABLE", UNAVAILABLE),
    _resumes("unavailable-from-proxy", "UNAVAILABLE without details", fail("UNAVAILABLE")),
    _resumes("unavailable-for-a-newer-reason", "UNAVAILABLE, with an unknown reason", fail("UNAVAILABLE", "NEWER")),
    _resumes(
        "unreadable-details",
        "UNAVAILABLE with details that are no google.rpc.Status",
        End(grpc.StatusCode.UNAVAILABLE, b"\xff\xff"),
    ),
    _resumes(
        "retry-info",
        "UNAVAILABLE with RetryInfo",
        fail("UNAVAILABLE", "STORE_UNAVAILABLE", 0.4),
        waited_seconds=0.4,
    ),
    _begins_anew(
        "retry-info-at-once",
        "UNAVAILABLE with RetryInfo, before any message",
        fail("UNAVAILABLE", "NOT_READY", 0.4),
        waited_seconds=0.4,
    ),
    Step(
        "unavailable-often",
        "UNAVAILABLE eight times in a row",
        (*(on(UNAVAILABLE) for _ in range(8)), on(*_BEGUN, *TERMINAL)),
        ("INITIAL 1", "synced"),
    ),
    _resumes("cancelled-unasked", "CANCELLED that nobody asked for", fail("CANCELLED")),
    _resumes("deadline-unasked", "DEADLINE_EXCEEDED that nobody set", fail("DEADLINE_EXCEEDED")),
    _resumes("internal-from-proxy", "INTERNAL without ErrorInfo", fail("INTERNAL")),
    _resumes("unknown-from-proxy", "UNKNOWN without ErrorInfo", fail("UNKNOWN")),
    _resumes("connection-cut", "the TCP connection is reset", Cut()),
    _begins_anew("connection-cut-at-once", "the TCP connection is reset before any message", Cut()),
    _resumes(
        "draining",
        "`closing` (DRAINING) with `reconnect_after`, which counts before RetryInfo",
        closing(CLOSING_REASON_DRAINING, 0.4),
        fail("UNAVAILABLE", "DRAINING", 0.0),
        waited_seconds=0.4,
    ),
    _resumes(
        "draining-retry-info",
        "`closing` (DRAINING) without `reconnect_after`, then RetryInfo",
        DRAINING,
        fail("UNAVAILABLE", "DRAINING", 0.4),
        waited_seconds=0.4,
    ),
    _resumes("draining-then-ok", "`closing` (DRAINING), then OK", DRAINING, End(OK)),
    _resumes(
        "watch-limit",
        "RESOURCE_EXHAUSTED (WATCH_LIMIT) with RetryInfo",
        fail("RESOURCE_EXHAUSTED", "WATCH_LIMIT", 0.4),
        waited_seconds=0.4,
    ),
    _resumes("rate-limited", "RESOURCE_EXHAUSTED (RATE_LIMITED)", fail("RESOURCE_EXHAUSTED", "RATE_LIMITED")),
    _resumes("watcher-stalled", "RESOURCE_EXHAUSTED (WATCHER_STALLED)", fail("RESOURCE_EXHAUSTED", "WATCHER_STALLED")),
    # Silence
    _resumes("silence", "silence past the heartbeat", SILENCE),
    _begins_anew("silence-at-once", "silence from the beginning", SILENCE),
    Step(
        "bookmarks",
        "bookmarks for longer than the watchdog waits",
        (on(*_BEGUN, *(Pause(IMPATIENT_SECONDS), BOOKMARK) * 3, change("UPDATED", 2), *TERMINAL),),
        ("INITIAL 1", "synced", "UPDATED 2"),
    ),
    # Tokens
    _resumes("bookmark-token", "a bookmark's token", BOOKMARK, UNAVAILABLE),
    _resumes("unknown-message", "a message of an unknown kind, and its token", UNKNOWN, UNAVAILABLE),
    Step(
        "empty-token",
        "a message without a token",
        (on(*_BEGUN, change("UPDATED", 2, token=NO_TOKEN), UNAVAILABLE), on(SYNCED, *TERMINAL, token="1.2")),
        ("INITIAL 1", "synced", "UPDATED 2", "synced"),
    ),
    Step(
        "resumed-with-given-token",
        "a token given by the caller, used until there is another one",
        (on(UNAVAILABLE, token=GIVEN_TOKEN), on(*_DONE, token=GIVEN_TOKEN)),
        ("synced", "UPDATED 2"),
    ),
    Step(
        "live-only-then-token",
        "`live_only`, given up for the token",
        (on(UNAVAILABLE), on(SYNCED, UNAVAILABLE), on(*_DONE, token="2.1")),
        ("synced", "synced", "UPDATED 2"),
    ),
    # Once and in order
    Step(
        "repeated",
        "a change that was told, on the same stream and on the next",
        (
            on(*_BEGUN, change("UPDATED", 2), change("UPDATED", 2), UNAVAILABLE),
            on(change("UPDATED", 2), SYNCED, change("UPDATED", 3), *TERMINAL, token="1.4"),
        ),
        ("INITIAL 1", "synced", "UPDATED 2", "synced", "UPDATED 3"),
    ),
    Step(
        "older",
        "a change older than what was told",
        (on(change("INITIAL", 3), SYNCED, change("UPDATED", 2), change("UPDATED", 4), *TERMINAL),),
        ("INITIAL 3", "synced", "UPDATED 4"),
    ),
    Step(
        "partial",
        "partial changes, which have no time of creation",
        (
            on(*_BEGUN, UNAVAILABLE),
            on(
                change("UPDATED", 2, partial=True),
                change("UPDATED", 2, partial=True),
                change("UPDATED", 3, partial=True),
                change("UPDATED", 4),
                SYNCED,
                *TERMINAL,
                token="1.2",
            ),
        ),
        ("INITIAL 1", "synced", "UPDATED 2", "UPDATED 3", "UPDATED 4", "synced"),
    ),
    Step(
        "project-drop-in-mid-snapshot",
        "a snapshot cut and begun again",
        (
            on(change("INITIAL", 1, "a"), change("INITIAL", 1, "b"), UNAVAILABLE),
            on(
                change("INITIAL", 1, "a"),
                change("INITIAL", 1, "b"),
                change("INITIAL", 1, "c"),
                SYNCED,
                closing(CLOSING_REASON_SCOPE_GONE),
                End(OK),
                token="1.2",
            ),
        ),
        ("INITIAL 1 a", "INITIAL 1 b", "INITIAL 1 c", "synced"),
    ),
    Step(
        "project-snapshot-changed",
        "a snapshot cut and begun again, an event of which has changed",
        (
            on(change("INITIAL", 1, "a"), change("INITIAL", 1, "b"), UNAVAILABLE),
            on(change("INITIAL", 2, "a"), change("INITIAL", 1, "b"), Cut(), token="1.2"),
            on(
                change("INITIAL", 2, "a"),
                change("INITIAL", 5, "b"),
                SYNCED,
                closing(CLOSING_REASON_SCOPE_GONE),
                End(OK),
                token="2.2",
            ),
        ),
        ("INITIAL 1 a", "INITIAL 1 b", "INITIAL 2 a", "INITIAL 5 b", "synced"),
    ),
    Step(
        "project-changed-in-snapshot",
        "a change told in the middle of a snapshot that is then begun again",
        (
            on(change("INITIAL", 1, "a"), change("UPDATED", 2, "a"), UNAVAILABLE),
            on(change("INITIAL", 2, "a"), SYNCED, closing(CLOSING_REASON_SCOPE_GONE), End(OK), token="1.2"),
        ),
        ("INITIAL 1 a", "UPDATED 2 a", "synced"),
    ),
    Step(
        "project-recreated",
        "events deleted and created again: the revision goes on, or begins anew at a later time",
        (
            on(
                change("INITIAL", 3, "a"),
                change("INITIAL", 3, "b"),
                SYNCED,
                change("DELETED", 4, "a"),
                change("CREATED", 5, "a", created=2_000),
                change("DELETED", 4, "b"),
                change("CREATED", 1, "b", created=2_000),
                closing(CLOSING_REASON_SCOPE_GONE),
                End(OK),
            ),
        ),
        ("INITIAL 3 a", "INITIAL 3 b", "synced", "DELETED 4 a", "CREATED 5 a", "DELETED 4 b", "CREATED 1 b"),
    ),
    Step(
        "reset",
        "`reset`: the snapshot after it is told, whatever was told before",
        (
            on(change("INITIAL", 5), SYNCED, UNAVAILABLE),
            on(RESET, change("INITIAL", 5), SYNCED, change("UPDATED", 6), *TERMINAL, token="1.2"),
        ),
        ("INITIAL 5", "synced", "reset", "INITIAL 5", "synced", "UPDATED 6"),
    ),
    Step(
        "reset-to-older",
        "`reset` to a store that was restored from a copy",
        (
            on(change("INITIAL", 5), SYNCED, UNAVAILABLE),
            on(RESET, change("INITIAL", 2), SYNCED, change("UPDATED", 3), *TERMINAL, token="1.2"),
        ),
        ("INITIAL 5", "synced", "reset", "INITIAL 2", "synced", "UPDATED 3"),
    ),
    Step(
        "project-unreadable",
        "an event that cannot be read",
        (
            on(
                WatchEventResponse(unreadable=Unreadable(event_id="broken")),
                SYNCED,
                closing(CLOSING_REASON_SCOPE_GONE),
                End(OK),
            ),
        ),
        ("unreadable broken", "synced"),
    ),
    Step(
        "newer-state",
        "a state of a later version",
        (on(*_BEGUN, change("UPDATED", 2, state=NEWER), *TERMINAL),),
        ("INITIAL 1", "synced", "UPDATED 2"),
    ),
    Step(
        "newer-change",
        "a kind of change of a later version",
        (on(*_BEGUN, change(NEWER, 2), *TERMINAL),),
        ("INITIAL 1", "synced", f"{NEWER} 2"),
    ),
    # The caller's own time
    Step(
        "max-duration-over",
        "`closing` (MAX_DURATION), then OK",
        (on(*_BEGUN, closing(CLOSING_REASON_MAX_DURATION), End(OK)),),
        ("INITIAL 1", "synced"),
    ),
    Step(
        "max-duration-left",
        "UNAVAILABLE: the rest of `max_duration` is asked for",
        (
            on(*_BEGUN, fail("UNAVAILABLE", "DRAINING", 0.4)),
            on(
                SYNCED,
                closing(CLOSING_REASON_MAX_DURATION),
                End(OK),
                token="1.2",
                waited_seconds=0.4,
                max_duration_seconds=(1.0, MAX_DURATION_SECONDS - 0.4),
            ),
        ),
        ("INITIAL 1", "synced", "synced"),
    ),
    Step(
        "max-duration-used-up",
        "UNAVAILABLE with a RetryInfo beyond `max_duration`",
        (on(*_BEGUN, fail("UNAVAILABLE", "DRAINING", MAX_DURATION_SECONDS)),),
        ("INITIAL 1", "synced"),
    ),
    # What no retry mends
    Step(
        "not-found",
        "NOT_FOUND at once",
        (on(fail("NOT_FOUND", "EVENT_NOT_FOUND")),),
        (),
        "error NOT_FOUND EVENT_NOT_FOUND",
    ),
    Step(
        "token-invalid",
        "INVALID_ARGUMENT after a reconnect",
        (on(*_BEGUN, UNAVAILABLE), on(fail("INVALID_ARGUMENT", "RESUME_TOKEN_INVALID"), token="1.2")),
        ("INITIAL 1", "synced"),
        "error INVALID_ARGUMENT RESUME_TOKEN_INVALID",
    ),
    Step(
        "history-lost",
        "OUT_OF_RANGE after a reconnect",
        (on(*_BEGUN, UNAVAILABLE), on(fail("OUT_OF_RANGE", "HISTORY_LOST"), token="1.2")),
        ("INITIAL 1", "synced"),
        "error OUT_OF_RANGE HISTORY_LOST",
    ),
    _fails(
        "unauthenticated",
        "UNAUTHENTICATED",
        fail("UNAUTHENTICATED", "UNAUTHENTICATED"),
        "UNAUTHENTICATED UNAUTHENTICATED",
    ),
    _fails(
        "permission-denied",
        "PERMISSION_DENIED",
        fail("PERMISSION_DENIED", "PERMISSION_DENIED"),
        "PERMISSION_DENIED PERMISSION_DENIED",
    ),
    _fails("data-loss", "DATA_LOSS", fail("DATA_LOSS", "CORRUPT_RECORD"), "DATA_LOSS CORRUPT_RECORD"),
    _fails("internal", "INTERNAL with ErrorInfo", fail("INTERNAL", "INTERNAL"), "INTERNAL INTERNAL"),
    _fails("internal-for-a-newer-reason", "INTERNAL, with an unknown reason", fail("INTERNAL", "NEWER"), "INTERNAL"),
    _fails(
        "message-too-large", "RESOURCE_EXHAUSTED without ErrorInfo", fail("RESOURCE_EXHAUSTED"), "RESOURCE_EXHAUSTED"
    ),
    _fails("unimplemented", "UNIMPLEMENTED without ErrorInfo", fail("UNIMPLEMENTED"), "UNIMPLEMENTED"),
    # The other watch
    Step(
        "run-unavailable",
        "WatchRun, UNAVAILABLE",
        (on(*_BEGUN, UNAVAILABLE), on(*_DONE, token="1.2")),
        ("INITIAL 1", "synced", "synced", "UPDATED 2"),
    ),
    Step(
        "run-not-found",
        "WatchRun, NOT_FOUND at once",
        (on(fail("NOT_FOUND", "RUN_NOT_FOUND")),),
        (),
        "error NOT_FOUND RUN_NOT_FOUND",
    ),
)

STEPS: Final = {step.name: Step(**{**vars(step), "number": number}) for number, step in enumerate(_STEPS, 1)}
