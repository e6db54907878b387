"""Where watches begin: a request becomes a subscription, and that a stream of messages."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from time import monotonic

from tidings.v1.event_pb2 import Event
from tidings.v1.event_service_pb2 import CHANGE_KIND_DELETED, EventParent, WatchEventRequest, WatchEventResponse
from tidings.v1.run_service_pb2 import WatchRunRequest, WatchRunResponse
from tidings_server.change import HistoryLost
from tidings_server.clock import Clock, to_millis
from tidings_server.event_record import EVENT
from tidings_server.limits import Limits
from tidings_server.run_record import check_mission
from tidings_server.store import Store
from tidings_server.watch.bulk_reader import BulkReader
from tidings_server.watch.followed import followed_event, followed_run
from tidings_server.watch.hub import Hub
from tidings_server.watch.scope import Scope, Selection
from tidings_server.watch.scope_watch import ScopeWatch
from tidings_server.watch.state_watch import StateWatch
from tidings_server.watch.stream import Send, Stream, draining
from tidings_server.watch.subscription import Draining, Lagged, Subscription
from tidings_server.watch.token import Tokens


class Watches:
    """Opens watches of events and runs, and waits for one to become what somebody waits for."""

    def __init__(self, hub: Hub, store: Store, tokens: Tokens, clock: Clock, limits: Limits) -> None:
        self._hub = hub
        self._store = store
        self._events = store.events
        self._current = BulkReader(store.events)
        self._tokens = tokens
        self._clock = clock
        self._limits = limits

    async def tell(self, project: str, request: WatchEventRequest, send: Send) -> None:
        """Send the messages of a watch until its end.

        Raises Failure: EVENT_NOT_FOUND, EVENT_EXPIRED, RUN_NOT_FOUND, MISSION_NOT_FOUND, RESUME_TOKEN_INVALID,
        HISTORY_LOST, DRAINING, WATCH_MAX_AGE, STORE_UNAVAILABLE.
        """
        selection = Selection(Scope.of(project, request), request.filter)
        stream = Stream(
            self._hub, self._tokens, selection.fingerprint(), request, WatchEventResponse, send, self._limits
        )
        with self._hub.subscribe(selection.scope, selection.tells) as subscription:
            gone_at = await self._expiry(selection.scope, request.parent)
            await self._watch(selection, request, stream, subscription, gone_at).run()

    async def tell_run(self, project: str, request: WatchRunRequest, send: Send) -> None:
        """Send the messages of a watch of a run with its plan until its end. Raises Failure as `tell`."""
        scope = Scope(project, "run", request.run_id)
        fingerprint = tuple(part.encode() for part in scope)
        stream = Stream(self._hub, self._tokens, fingerprint, request, WatchRunResponse, send, self._limits)
        with self._hub.subscribe(scope, lambda _: True) as subscription:
            followed = followed_run(self._store.runs, project, request.run_id, request.mission_id)
            await StateWatch(followed, request, stream, subscription, self._clock, self._limits).run()

    def _watch(
        self,
        selection: Selection,
        request: WatchEventRequest,
        stream: Stream,
        subscription: Subscription,
        gone_at: float,
    ) -> ScopeWatch | StateWatch[Event]:
        events, clock, limits = self._events, self._clock, self._limits
        scope = selection.scope
        if scope.kind == "event_id":
            followed = followed_event(self._current, self._events, scope.project, scope.id, request.parent)
            return StateWatch(followed, request, stream, subscription, clock, limits)
        return ScopeWatch(selection, request, stream, subscription, self._hub, events, clock, limits, gone_at)

    async def _expiry(self, scope: Scope, parent: EventParent) -> float:
        """When the run or the mission that is watched expires, on the monotonic clock.

        Raises Failure RUN_NOT_FOUND, MISSION_NOT_FOUND if there is none, or not where it should be.
        """
        if scope.kind == "run_id":
            run = await self._store.runs.get(scope.project, scope.id)
            check_mission(run, parent.mission_id)
            if run.HasField("expire_time"):
                return monotonic() + (to_millis(run.expire_time) - self._clock()) / 1000
        elif scope.kind == "mission_id":
            await self._store.missions.get(scope.project, scope.id)
        return inf

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
                raise EVENT.gone(event_id)
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
            raise EVENT.missing(event.event_id)
        return change.event
