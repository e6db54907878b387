"""What a client makes of a watch: its messages in a few words, and the picture of the store that they add up to."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from tidings.v1.event_pb2 import Event
from tidings.v1.event_service_pb2 import (
    CHANGE_KIND_CREATED,
    CHANGE_KIND_DELETED,
    CHANGE_KIND_INITIAL,
    CHANGE_KIND_UPDATED,
    ChangeKind,
    ClosingReason,
    EventChange,
    ListEventsRequest,
    ResetReason,
    SourceState,
    WatchEventResponse,
)
from tidings.v1.task_pb2 import TaskState
from wire import Wire


def sketch(messages: Iterable[WatchEventResponse]) -> list[str]:
    """Each message in a few words, such as `UPDATED 2 RUNNING from PENDING`; the number is the revision."""
    return [_sketch(message) for message in messages]


def _sketch(message: WatchEventResponse) -> str:
    match message.WhichOneof("message"):
        case "change":
            return _sketch_of_change(message.change)
        case "bookmark":
            return f"bookmark {SourceState.Name(message.bookmark.source_state).removeprefix('SOURCE_STATE_')}"
        case "reset":
            return f"reset {ResetReason.Name(message.reset.reason).removeprefix('RESET_REASON_')}"
        case "closing":
            return f"closing {ClosingReason.Name(message.closing.reason).removeprefix('CLOSING_REASON_')}"
        case kind:
            return str(kind)


def _sketch_of_change(change: EventChange) -> str:
    words = [ChangeKind.Name(change.kind).removeprefix("CHANGE_KIND_"), str(change.event.revision)]
    if change.event.HasField("status"):
        words.append(_state(change.event.status.state))
    if change.previous_state:
        words += ["from", _state(change.previous_state)]
    if change.partial:
        words.append("partial")
    return " ".join(words)


def _state(state: TaskState.ValueType) -> str:
    return TaskState.Name(state).removeprefix("TASK_STATE_")


class Picture:
    """The events that a watcher of many events knows of, across all of its streams.

    Every message is held against what the ones before it said: nothing is told twice, and no revision is left out.
    """

    def __init__(self, states: Collection[TaskState.ValueType] = ()) -> None:
        """With the states of the watch's filter."""
        self.events: dict[str, Event] = {}
        self.token = ""
        self.is_synced = False
        self.unreadable: list[str] = []
        self._states = states
        self._told: dict[str, int] = {}
        """The newest revision told of each event, also of those that are gone."""

    def add(self, message: WatchEventResponse) -> None:
        self.token = message.resume_token
        match message.WhichOneof("message"):
            case "reset":
                self._forget()
            case "synced":
                self.is_synced = True
            case "change":
                self._change(message.change)
            case "unreadable":
                self.unreadable.append(message.unreadable.event_id)

    def add_all(self, messages: Iterable[WatchEventResponse]) -> None:
        for message in messages:
            self.add(message)

    def _forget(self) -> None:
        self.is_synced = False
        self.events.clear()
        self._told.clear()

    def _change(self, change: EventChange) -> None:
        event = change.event
        known = self.events.pop(event.event_id, None)
        told = self._told.get(event.event_id, 0)
        if change.kind == CHANGE_KIND_CREATED and event.revision == 1 and known is None:
            told = 0  # the store had purged what was deleted before the id was used again
        assert event.revision > told, f"told again or out of order: {_sketch_of_change(change)}, after {told}"
        self._told[event.event_id] = event.revision
        if change.kind in {CHANGE_KIND_INITIAL, CHANGE_KIND_CREATED}:
            assert known is None, f"told as new: {_sketch_of_change(change)}, after {told}"
        elif known is not None:
            assert event.revision == known.revision + 1, f"left out: before {_sketch_of_change(change)}, after {told}"
        else:  # only a change of state brings in what did not pass the filter
            assert change.kind == CHANGE_KIND_UPDATED, f"never told of: {_sketch_of_change(change)}"
            assert change.previous_state not in {0, *self._states}, f"left out: before {_sketch_of_change(change)}"
            assert event.status.state in self._states, f"was never in: {_sketch_of_change(change)}"
        if change.kind != CHANGE_KIND_DELETED and (not self._states or event.status.state in self._states):
            self.events[event.event_id] = event


async def stored(wire: Wire, request: ListEventsRequest) -> dict[str, Event]:
    """The events of a list, over all of its pages."""
    events: dict[str, Event] = {}
    while True:
        page = await wire.events.ListEvents(request)
        events.update({event.event_id: event for event in page.events})
        if not page.next_page_token:
            return events
        request.page_token = page.next_page_token
