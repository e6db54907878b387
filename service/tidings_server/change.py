"""A change of the deployment, and its place in the order of all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from tidings.v1.event_pb2 import Event
from tidings.v1.event_service_pb2 import CHANGE_KIND_DELETED, CHANGE_KIND_UNSPECIFIED, ChangeKind
from tidings.v1.task_pb2 import TASK_STATE_UNSPECIFIED, TaskState
from tidings_server.record import Resource


class Position(NamedTuple):
    """A place in the order of all changes: a cluster time of the store, and the number of the change within it."""

    seconds: int
    increment: int
    ordinal: int


LAST_OF_ITS_TIME: Final = 2**31 - 1
"""The ordinal of the position after all changes of one cluster time."""


class HistoryLost(Exception):
    """The store no longer has the changes after a position: what happened since cannot be told."""


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a resource. Without one it only says that everything before its position has been seen."""

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

    @property
    def event(self) -> Event | None:
        return self.resource if isinstance(self.resource, Event) else None

    @property
    def ends_scope(self) -> bool:
        """Whether a run or a mission is gone, and its events with it."""
        return self.kind == CHANGE_KIND_DELETED and not isinstance(self.resource, Event)
