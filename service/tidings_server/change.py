"""A change of the deployment, and its place in the order of all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, NamedTuple

from tidings.v1.event_pb2 import Event
from tidings.v1.event_service_pb2 import (
    CHANGE_KIND_DELETED,
    CHANGE_KIND_UNSPECIFIED,
    ChangeKind,
    EventChange,
    WatchEventResponse,
)
from tidings.v1.run_pb2 import Run
from tidings.v1.run_service_pb2 import RunChange, WatchRunResponse
from tidings.v1.task_pb2 import TASK_STATE_UNSPECIFIED, TaskState
from tidings_server.record import Resource


class Position(NamedTuple):
    """A place in the order of all changes: a cluster time of the store, and the number of the change within it."""

    seconds: int
    increment: int
    ordinal: int


LAST_OF_ITS_TIME: Final = 2**31 - 1
"""The ordinal of the position after all changes of one cluster time."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A position with what the store needs to go on right after it, which costs it less than to look for the place."""

    position: Position
    token: Mapping[str, object]
    """The store's own, and never shown to callers."""


class HistoryLost(Exception):
    """The store no longer has the changes after a position: what happened since cannot be told."""

    def __init__(self, after: Position | None = None) -> None:
        """With `after` None it is the position of whoever asked."""
        super().__init__()
        self.after = after


@dataclass(frozen=True)
class Change:
    """One change of a resource. Without one it only says that everything up to its position has been seen."""

    position: Position
    project: str = ""
    resource: Resource | None = None
    """What was changed. Shared by all watchers: never to be changed."""
    kind: ChangeKind.ValueType = CHANGE_KIND_UNSPECIFIED
    previous_state: TaskState.ValueType = TASK_STATE_UNSPECIFIED
    noun: str = "event"
    """What the resource is: `event`, `run` or `mission`."""
    unreadable_id: str = ""
    """The id of the changed resource if its record cannot be read."""
    unreadable_in: Mapping[str, str] = field(default_factory=dict)
    """The `run_id` and `mission_id` of an event that cannot be read, as far as they can."""
    beat: str = ""
    """The name of the canary's beat, if the change is one."""
    checkpoint: Checkpoint | None = None

    @property
    def event(self) -> Event | None:
        return self.resource if isinstance(self.resource, Event) else None

    @cached_property
    def encoded(self) -> bytes:
        """The message that tells of this change, but for its token: the same for every watcher, so made only once."""
        if isinstance(self.resource, Run):
            of_run = RunChange(kind=self.kind, run=self.resource, previous_state=self.previous_state)
            return WatchRunResponse(change=of_run).SerializeToString()
        of_event = EventChange(kind=self.kind, event=self.event, previous_state=self.previous_state)
        return WatchEventResponse(change=of_event).SerializeToString()

    @property
    def is_telling(self) -> bool:
        """Whether there is anything to tell, and not only a position."""
        return self.resource is not None or bool(self.unreadable_id)

    @property
    def ends_scope(self) -> bool:
        """Whether a run or a mission is gone, and its events with it."""
        return self.kind == CHANGE_KIND_DELETED and not isinstance(self.resource, Event)
