"""The entries of a recording: every attempt to write or read, every message of every stream, every fault.

Times are of one monotonic clock; `Begun` ties it to the clock on the wall, by which events expire.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic
from typing import Final

from tidings.v1.event_service_pb2 import (
    ChangeKind,
    ClosingReason,
    ResetReason,
    SourceState,
    WatchEventResponse,
)
from tidings.v1.task_pb2 import TaskState
from tidings_server.clock import to_millis

MARKER: Final = "end of the run"
"""The summary of the events that every watcher must be told of at last."""


@dataclass(frozen=True, slots=True)
class Begun:
    """The run: how far the wall's clock is ahead, in seconds, and how many changes the store keeps (0: enough)."""

    wall_ahead: float
    history_max: int = 0


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt to write one event."""

    writer: str
    project: str
    call: str
    event_id: str
    sent: float
    answered: float
    outcome: str
    """`acknowledged`, `failed` (nothing was changed), or `unknown`."""
    status: str = ""
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Read:
    """A GetEvent."""

    project: str
    event_id: str
    sent: float
    status: str
    """OK, or the code and the reason of the failure."""
    text: str = ""
    revision: int = 0
    expires: int = 0


@dataclass(frozen=True, slots=True)
class Opened:
    """A stream as it was asked for. Each of a watcher's streams resumes from the last token of the one before."""

    time: float
    watcher: str
    number: int
    server: int
    project: str
    scope: str
    """`event_id`, `run_id`, `mission_id` or `project`."""
    scope_id: str = ""
    types: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    start: str = "snapshot"
    """`snapshot`, `live`, `resumed`, or `foreign`: with the token of another watch."""
    fails_on_loss: bool = False
    stay_open: bool = False
    heartbeat: float = 15.0
    max_duration: float = 0.0


@dataclass(frozen=True, slots=True)
class Told:
    """A message of a stream."""

    time: float
    watcher: str
    number: int
    kind: str
    """The kind of a change in capitals, or `synced`, `bookmark`, `reset`, `closing`, `unreadable`."""
    event_id: str = ""
    revision: int = 0
    updated: int = 0
    state: str = ""
    previous: str = ""
    agent: str = ""
    sequence: int = 0
    partial: bool = False
    expires: int = 0
    is_marker: bool = False
    detail: str = ""
    """The source state of a bookmark, the reason of a reset or of a closing."""
    lag: float = 0.0

    @property
    def is_change(self) -> bool:
        return self.kind.isupper()

    @property
    def is_news(self) -> bool:
        """Whether it tells a revision: an expiry tells none, nor does a deletion that was found, not heard."""
        return self.is_change and self.kind != "EXPIRED"


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of a stream: its status, with the reason of a failure, or LEFT when the watcher ended it."""

    time: float
    watcher: str
    number: int
    status: str


@dataclass(frozen=True, slots=True)
class Paused:
    """A time in which a watcher did not read."""

    watcher: str
    begin: float
    end: float


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that was done to the deployment. `server` is -1 when it concerns all of them."""

    kind: str
    server: int
    begin: float
    end: float


@dataclass(frozen=True, slots=True)
class Survivor:
    """A watcher that was there at the end, and so must have been told of the marker, or that its event is final."""

    watcher: str


KINDS: Final = {each.__name__: each for each in (Begun, Attempt, Read, Opened, Told, Ended, Paused, Fault, Survivor)}
Entry = Begun | Attempt | Read | Opened | Told | Ended | Paused | Fault | Survivor


def told(watcher: str, number: int, message: WatchEventResponse) -> Told:
    """A message as it is recorded, now."""
    at = (monotonic(), watcher, number)
    match message.WhichOneof("message"):
        case "change":
            change, event = message.change, message.change.event
            return Told(
                *at,
                kind=ChangeKind.Name(change.kind).removeprefix("CHANGE_KIND_"),
                event_id=event.event_id,
                revision=event.revision,
                updated=to_millis(event.update_time),
                state=_state(event.status.state),
                previous=_state(change.previous_state),
                agent=event.agent_id,
                sequence=event.sequence,
                partial=change.partial,
                expires=to_millis(event.expire_time),
                is_marker=event.summary == MARKER,
            )
        case "bookmark":
            state = SourceState.Name(message.bookmark.source_state).removeprefix("SOURCE_STATE_")
            return Told(*at, kind="bookmark", detail=state, lag=to_millis(message.bookmark.source_lag) / 1000)
        case "reset":
            return Told(*at, kind="reset", detail=ResetReason.Name(message.reset.reason).removeprefix("RESET_REASON_"))
        case "closing":
            reason = ClosingReason.Name(message.closing.reason).removeprefix("CLOSING_REASON_")
            return Told(*at, kind="closing", detail=reason)
        case kind:
            return Told(*at, kind=str(kind), event_id=message.unreadable.event_id)


def _state(state: TaskState.ValueType) -> str:
    return TaskState.Name(state).removeprefix("TASK_STATE_") if state else ""
