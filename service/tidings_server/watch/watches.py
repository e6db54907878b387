"""Where watches begin: a request becomes a subscription, and that a stream of messages."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from time import monotonic

from tidings.v1.event_pb2 import Event
from tidings.v1.event_service_pb2 import CHANGE_KIND_DELETED, WatchEventRequest
from tidings_server.change import HistoryLost
from tidings_server.clock import Clock, to_millis
from tidings_server.errors import event_expired, event_not_found
from tidings_server.limits import Limits
from tidings_server.store import EventStore
from tidings_server.watch.event_watch import EventWatch
from tidings_server.watch.hub import Hub
from tidings_server.watch.scope import Scope, Selection
from tidings_server.watch.scope_watch import ScopeWatch
from tidings_server.watch.stream import Messages, Stream, draining, ended_when_stalled
from tidings_server.watch.subscription import Draining, Lagged, Subscription
from tidings_server.watch.token import Tokens


class Watches:
    """Opens watches of events, and waits for one to become what somebody waits for."""

    def __init__(self, hub: Hub, events: EventStore, tokens: Tokens, clock: Clock, limits: Limits) -> None:
        self._hub = hub
        self._events = events
        self._tokens = tokens
        self._clock = clock
        self._limits = limits

    async def open(self, project: str, request: WatchEventRequest) -> Messages:
        """The messages of a watch until its end.

        Raises Failure: EVENT_NOT_FOUND, EVENT_EXPIRED, RESUME_TOKEN_INVALID, HISTORY_LOST, DRAINING, WATCHER_STALLED,
        STORE_UNAVAILABLE.
        """
        selection = Selection(Scope.of(project, request), request.filter)
        stream = Stream(self._hub, self._tokens, selection.fingerprint(), request)
        with self._hub.subscribe(selection.scope, selection.tells) as subscription:
            messages = self._messages(selection, request, stream, subscription)
            async with aclosing(ended_when_stalled(messages, self._limits.watch_stall_seconds)) as bounded:
                async for message in bounded:
                    yield message

    def _messages(
        self, selection: Selection, request: WatchEventRequest, stream: Stream, subscription: Subscription
    ) -> Messages:
        events, clock, limits = self._events, self._clock, self._limits
        if selection.scope.kind == "event_id":
            return EventWatch(selection.scope, request, stream, subscription, events, clock, limits).messages()
        return ScopeWatch(selection, request, stream, subscription, self._hub, events, clock, limits).messages()

    async def wait(
        self, project: str, event_id: str, satisfied: Callable[[Event], bool], until: float
    ) -> tuple[Event, bool]:
        """The event when it satisfies, or as it is at a time of the monotonic clock, and whether it does.

        Raises Failure: EVENT_NOT_FOUND, EVENT_EXPIRED, DRAINING, STORE_UNAVAILABLE, and what `satisfied` raises.
        """
        with self._hub.subscribe(Scope(project, "event_id", event_id), lambda _: True) as subscription:
            event = await self._events.get(project, event_id)
            while not satisfied(event) and monotonic() < until:
                event = await self._next(project, event, subscription, until)
            if to_millis(event.expire_time) <= self._clock():
                raise event_expired(event_id)
            return event, satisfied(event)

    async def _next(self, project: str, event: Event, subscription: Subscription, until: float) -> Event:
        expiry = monotonic() + (to_millis(event.expire_time) - self._clock()) / 1000
        try:
            change = await subscription.next(min(until, expiry))
        except Draining:
            raise draining() from None
        except (Lagged, HistoryLost):
            subscription.begin_again(subscription.start)
            return await self._events.get(project, event.event_id)
        if change is None and monotonic() >= expiry:
            return await self._events.get(project, event.event_id)
        if change is None or change.event is None or change.event.revision <= event.revision:
            return event
        if change.kind == CHANGE_KIND_DELETED:
            raise event_not_found(event.event_id)
        return change.event
