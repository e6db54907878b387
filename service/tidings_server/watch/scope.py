"""What can be watched: one event, one run, one mission, or a project; and which of its events."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, Literal, NamedTuple

from tidings.v1.event_pb2 import Event
from tidings.v1.event_service_pb2 import EventFilter, WatchEventRequest
from tidings.v1.mission_pb2 import Mission
from tidings.v1.run_pb2 import Run
from tidings_server.change import Change
from tidings_server.store import Query

ScopeKind = Literal["event_id", "run_id", "mission_id", "project", "run"]
"""`run_id` is the events of a run; `run` is the run itself."""


class Scope(NamedTuple):
    """A set of events of one project, by the id that they share; the id of a whole project is empty."""

    project: str
    kind: ScopeKind
    id: str

    @classmethod
    def of(cls, project: str, request: WatchEventRequest) -> Scope:
        match request.WhichOneof("scope"):
            case "event_id":
                return cls(project, "event_id", request.event_id)
            case "run_id":
                return cls(project, "run_id", request.run_id)
            case "mission_id":
                return cls(project, "mission_id", request.mission_id)
            case _:
                return cls(project, "project", "")


_GROUPS: Final[tuple[ScopeKind, ...]] = ("run_id", "mission_id")


def scopes_of(change: Change) -> Iterator[Scope]:
    """Every scope that a change is in. Of one that cannot be read only the id is known."""
    project, resource = change.project, change.resource
    if change.unreadable_id and change.noun == "event":
        yield Scope(project, "event_id", change.unreadable_id)
        yield Scope(project, "project", "")
        yield from (Scope(project, kind, change.unreadable_in.get(kind, "")) for kind in _GROUPS)
    elif change.unreadable_id and change.noun == "run":
        yield Scope(project, "run", change.unreadable_id)
    if isinstance(resource, Event):
        yield Scope(project, "event_id", resource.event_id)
        yield Scope(project, "project", "")
        if resource.run_id:
            yield Scope(project, "run_id", resource.run_id)
        if resource.mission_id:
            yield Scope(project, "mission_id", resource.mission_id)
    elif isinstance(resource, Run):
        yield Scope(project, "run", resource.run_id)
        if change.ends_scope:
            yield Scope(project, "run_id", resource.run_id)
    elif isinstance(resource, Mission) and change.ends_scope:
        yield Scope(project, "mission_id", resource.mission_id)


class Selection:
    """The events of a scope that pass a filter."""

    def __init__(self, scope: Scope, wanted: EventFilter) -> None:
        self.scope: Final = scope
        self._types = frozenset(wanted.types)
        self._states = frozenset(wanted.states)

    def has(self, event: Event) -> bool:
        """Whether an event of the scope passes the filter as it is."""
        return self._type_passes(event) and (not self._states or event.status.state in self._states)

    def tells(self, change: Change) -> bool:
        """Whether a change is to be told: of an event that passes the filter, or did before the change."""
        if change.event is None:
            return bool(change.unreadable_id) or change.ends_scope
        return self._type_passes(change.event) and (
            not self._states or change.event.status.state in self._states or change.previous_state in self._states
        )

    def tells_of_scope(self) -> Callable[[Change], bool]:
        """Like `tells`, for changes that may be of other scopes."""
        return lambda change: self.scope in scopes_of(change) and self.tells(change)

    def query(self) -> Query:
        scope = self.scope
        ids: dict[str, str] = {} if scope.kind == "project" else {scope.kind: scope.id}
        return Query(scope.project, types=sorted(self._types), states=sorted(self._states), ids=ids)

    def fingerprint(self) -> tuple[bytes, ...]:
        """What a resume token is bound to: the same for every way of writing the same selection."""
        parts = [*self.scope, ",".join(sorted(self._types)), ",".join(str(state) for state in sorted(self._states))]
        return tuple(part.encode() for part in parts)

    def _type_passes(self, event: Event) -> bool:
        return not self._types or event.type in self._types
