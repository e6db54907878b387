"""The watch of one event: from what it is, through every change of its state, to its end.

The event's record carries its transitions, so this watch needs no history of the store: whatever it missed,
it reads the event again and tells the transitions since.
"""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic

from tidings.v1 import error_reason_pb2 as reasons
from tidings.v1.event_pb2 import Event, StateTransition
from tidings.v1.event_service_pb2 import (
    CHANGE_KIND_DELETED,
    CHANGE_KIND_EXPIRED,
    CHANGE_KIND_INITIAL,
    CHANGE_KIND_UPDATED,
    CLOSING_REASON_DRAINING,
    CLOSING_REASON_MAX_DURATION,
    CLOSING_REASON_TERMINAL,
    HISTORY_LOSS_POLICY_FAIL,
    ChangeKind,
    EventChange,
    WatchEventRequest,
    WatchEventResponse,
)
from tidings.v1.task_pb2 import TaskState, TaskStatus
from tidings_server.change import Change, HistoryLost
from tidings_server.clock import Clock, to_millis
from tidings_server.errors import Failure
from tidings_server.lifecycle import TERMINAL, state_before
from tidings_server.limits import Limits
from tidings_server.store import EventStore
from tidings_server.watch.scope import Scope
from tidings_server.watch.stream import Messages, Stream, draining, history_lost
from tidings_server.watch.subscription import Draining, Lagged, Subscription
from tidings_server.watch.token import Place

_GONE = frozenset({reasons.ERROR_REASON_EVENT_NOT_FOUND, reasons.ERROR_REASON_EVENT_EXPIRED})


class EventWatch:
    """Follows one event. `messages` may be called once."""

    def __init__(
        self,
        scope: Scope,
        request: WatchEventRequest,
        stream: Stream,
        subscription: Subscription,
        events: EventStore,
        clock: Clock,
        limits: Limits,
    ) -> None:
        self._scope = scope
        self._request = request
        self._stream = stream
        self._subscription = subscription
        self._events = events
        self._clock = clock
        self._limits = limits
        self._seen = stream.resumed.revision or 0
        self._created = stream.resumed.create_time
        self._event = Event()
        self._gone = False

    async def messages(self) -> Messages:
        event = await self._read()
        if self._request.live_only:
            self._seen, self._created = event.revision, to_millis(event.create_time)
        for message in self._tell_up_to(event, CHANGE_KIND_UPDATED):
            yield message
        yield self._stream.synced(self._place)
        while not self._is_final():
            try:
                async for message in self._next():
                    yield message
            except Draining:
                yield self._stream.closing(self._place, CLOSING_REASON_DRAINING)
                raise draining() from None
            if self._stream.is_over:
                yield self._stream.closing(self._place, CLOSING_REASON_MAX_DURATION)
                return
            if self._stream.needs_bookmark:
                yield self._stream.bookmark(self._place)
        yield self._stream.closing(self._place, CLOSING_REASON_TERMINAL)

    async def _next(self) -> Messages:
        """Tell the next change, or what the event has become if none was heard."""
        heard = True
        change = None
        try:
            change = await self._subscription.next(min(self._stream.due, self._expiry()))
        except Lagged as lagged:
            self._subscription.begin_again(self._subscription.start)
            change = lagged.newest
        except HistoryLost:
            self._subscription.begin_again(self._subscription.start)
            heard = False
        if change is not None:
            for message in self._tell(change):
                yield message
        elif not heard or self._expiry() <= monotonic():
            async for message in self._read_again():
                yield message

    @property
    def _place(self) -> Place:
        return Place(revision=self._seen, create_time=self._created)

    def _is_final(self) -> bool:
        ended = not self._event.HasField("status") or self._event.status.state in TERMINAL
        return self._gone or (ended and not self._request.stay_open)

    def _expiry(self) -> float:
        """When the event expires, on the monotonic clock."""
        return monotonic() + (to_millis(self._event.expire_time) - self._clock()) / 1000

    async def _read(self) -> Event:
        return await self._events.get(self._scope.project, self._scope.id)

    async def _read_again(self) -> Messages:
        """Tell what happened while the changes were not heard, or the end that has come by itself."""
        try:
            event = await self._read()
        except Failure as failure:
            if failure.reason not in _GONE:
                raise
            # Its record may have been purged since.
            expired = failure.reason == reasons.ERROR_REASON_EVENT_EXPIRED or self._expiry() <= monotonic()
            yield self._end(CHANGE_KIND_EXPIRED if expired else CHANGE_KIND_DELETED)
            return
        for message in self._tell_up_to(event, CHANGE_KIND_UPDATED):
            yield message

    def _tell(self, change: Change) -> Iterator[WatchEventResponse]:
        """Tell a change from the hub, unless it was told already."""
        if change.event is None:
            yield self._stream.unreadable(self._place, change.unreadable_id)
        elif change.event.revision > self._seen:
            self._gone = change.kind == CHANGE_KIND_DELETED
            yield from self._tell_up_to(change.event, change.kind)

    def _tell_up_to(self, event: Event, kind: ChangeKind.ValueType) -> Iterator[WatchEventResponse]:
        """Tell what the event has become, and before that the changes of its state since the revision told last."""
        if self._seen and self._is_history_lost(event):
            if self._request.on_history_loss == HISTORY_LOSS_POLICY_FAIL:
                raise history_lost()
            yield self._stream.reset()
            self._seen = 0
        self._event, self._created = event, to_millis(event.create_time)
        if not self._seen and kind != CHANGE_KIND_DELETED:
            yield self._told(EventChange(kind=CHANGE_KIND_INITIAL, event=event))
        elif event.revision > self._seen:
            for transition in event.transitions:
                if self._seen and self._seen < transition.revision < event.revision:
                    yield self._told(_partial(event, transition))
            yield self._told(EventChange(kind=kind, event=event, previous_state=state_before(event)))

    def _told(self, change: EventChange) -> WatchEventResponse:
        self._seen = change.event.revision
        return self._stream.change(self._place, change)

    def _end(self, kind: ChangeKind.ValueType) -> WatchEventResponse:
        self._gone = True
        return self._stream.change(self._place, EventChange(kind=kind, event=self._event))

    def _is_history_lost(self, event: Event) -> bool:
        """Whether transitions since the revision told last may have been dropped from the record.

        A record that is older than what was told was restored from a copy; one that was created at another time is
        of another event with the id.
        """
        transitions = event.transitions
        dropped = len(transitions) >= self._limits.transitions_max and transitions[0].revision > self._seen + 1
        return dropped or event.revision < self._seen or to_millis(event.create_time) != self._created


def _partial(event: Event, transition: StateTransition) -> EventChange:
    """A change of state of which only the transition is known."""
    before: TaskState.ValueType = getattr(transition, "from")
    status = TaskStatus(
        task_id=event.event_id,
        state=transition.to,
        message=transition.message,
        update_time=transition.time,
        revision=transition.revision,
    )
    then = Event(
        event_id=event.event_id,
        type=event.type,
        mission_id=event.mission_id,
        run_id=event.run_id,
        step_id=event.step_id,
        agent_id=event.agent_id,
        status=status,
        update_time=transition.time,
        revision=transition.revision,
    )
    return EventChange(kind=CHANGE_KIND_UPDATED, event=then, previous_state=before, partial=True)
