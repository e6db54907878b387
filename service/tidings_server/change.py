"""A change of the deployment, and its place in the order of all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from tidings.v1.event_pb2 import Event
from tidings.v1.event_service_pb2 import CHANGE_KIND_UNSPECIFIED, ChangeKind
from tidings.v1.task_pb2 import TASK_STATE_UNSPECIFIED, TaskState


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
    """One change. Without an event it only says that everything before its position has been seen."""

    position: Position
    project: str = ""
    event: Event | None = None
    """Shared by all watchers: never to be changed."""
    kind: ChangeKind.ValueType = CHANGE_KIND_UNSPECIFIED
    previous_state: TaskState.ValueType = TASK_STATE_UNSPECIFIED
    unreadable_id: str = ""
    """The id of the changed event if its record cannot be read."""
    unreadable_in: Mapping[str, str] = field(default_factory=dict)
    """The `run_id` and `mission_id` of an event that cannot be read, as far as they can."""
    beat: str = ""
    """The name of the canary's beat, if the change is one."""
