"""The watch of a run, a mission or a project: a snapshot of what matches, then every change of it.

The snapshot needs nothing of the store but plain reads: a page is read, a barrier is passed, and the changes
up to the barrier are applied to the page in memory. So every page is exact at a known position, memory is
bounded by one page, and at `synced` the watcher's picture equals the store.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from time import monotonic
from typing import Final

from tidings.v1.event_pb2 import Event
from tidings.v1.event_service_pb2 import (
    CHANGE_KIND_DELETED,
    CHANGE_KIND_INITIAL,
    CLOSING_REASON_DRAINING,
    CLOSING_REASON_SCOPE_GONE,
    HISTORY_LOSS_POLICY_FAIL,
    EventChange,
    WatchEventRequest,
)
from tidings_server.change import Change, HistoryLost, Position
from tidings_server.clock import Clock, to_millis
from tidings_server.limits import Limits
from tidings_server.store import EventStore, Key, Page, Query
from tidings_server.watch.hub import Hub
from tidings_server.watch.scope import Selection
from tidings_server.watch.stream import Stream, draining, history_lost
from tidings_server.watch.subscription import Draining, Subscription
from tidings_server.watch.tail import Tail
from tidings_server.watch.token import NOWHERE, Place

_BEFORE_ALL: Final[Key] = (-1, 0, "")
_AFTER_ALL: Final[Key] = (2**63, 0, "")


class _ScopeGone(Exception):
    """The run or the mission that is watched was deleted, or has expired."""


class ScopeWatch:
    """Follows the events of a selection. `run` may be called once."""

    def __init__(
        self,
        selection: Selection,
        request: WatchEventRequest,
        stream: Stream,
        subscription: Subscription,
        hub: Hub,
        events: EventStore,
        clock: Clock,
        limits: Limits,
        gone_at: float,
    ) -> None:
        """The run or the mission that is watched expires at `gone_at`, a time of the monotonic clock."""
        self._selection = selection
        self._request = request
        self._stream = stream
        self._subscription = subscription
        self._hub = hub
        self._events = events
        self._clock = clock
        self._limits = limits
        self._gone_at = gone_at
        self._tail = Tail(hub, selection, subscription, stream.resumed.position)
        self._told_up_to = _BEFORE_ALL if stream.resumed == NOWHERE else stream.resumed.told_up_to
        """How far the snapshot has been told; None when there is nothing left of it to tell."""
        if request.live_only:
            self._told_up_to = None

    async def run(self) -> None:
        """Tell until the end. Raises Failure: HISTORY_LOST, DRAINING, WATCH_MAX_AGE, STORE_UNAVAILABLE."""
        resumed = self._stream.resumed.position
        try:
            while not self._stream.is_over:
                try:
                    await self._check_past(resumed)
                    await self._tell_until_synced()
                    while not self._stream.is_over:
                        await self._tell_news()
                except HistoryLost:
                    resumed = None
                    if self._told_up_to != _BEFORE_ALL:  # else nothing has been told that could be wrong now
                        await self._start_over()
            await self._stream.end(self._place)
        except _ScopeGone:
            await self._stream.closing(self._place, CLOSING_REASON_SCOPE_GONE)
        except Draining:
            await self._stream.closing(self._place, CLOSING_REASON_DRAINING)
            raise draining() from None
        finally:
            await self._tail.aclose()

    async def _start_over(self) -> None:
        """Forget what was told, and say so; or raise Failure HISTORY_LOST if the caller would rather know."""
        if self._request.on_history_loss == HISTORY_LOSS_POLICY_FAIL:
            raise history_lost() from None
        self._told_up_to = _BEFORE_ALL
        await self._stream.reset()

    def _begin_here(self, after: Position | None = None) -> None:
        """Take the changes after a position, or from now on: what was before, and may be lost, has no part in it."""
        self._subscription.begin_again(self._hub.newest)
        self._tail = Tail(self._hub, self._selection, self._subscription, after)

    @property
    def _place(self) -> Place:
        return self._after(self._tail.position)

    def _after(self, position: Position) -> Place:
        return Place(position, told_up_to=self._told_up_to)

    async def _tell_until_synced(self) -> None:
        if self._told_up_to:
            await self._tell_snapshot()
        else:
            await self._tell_missed()
        if not self._stream.is_over:
            await self._stream.synced(self._place)

    async def _tell_missed(self) -> None:
        """Tell the changes between the place resumed from and now; a live watch begins now."""
        now = await self._hub.barrier()
        if self._request.live_only:
            self._begin_here(now)
        async for change in self._up_to(now):
            await self._tell(change)

    async def _tell_news(self) -> None:
        """Tell the next change with those that have come behind it, or a bookmark when it is time."""
        change = await self._next()
        if change is not None:
            await self._tell(change)
            for more in self._tail.at_hand():
                await self._tell(more)
        else:
            await self._keep_alive()

    async def _up_to(self, target: Position) -> AsyncIterator[Change]:
        """The changes up to a position that the hub has passed, with bookmarks meanwhile, until the stream is over."""
        while self._tail.position < target and not self._stream.is_over:
            change = await self._next(target)
            if change is not None:
                yield change
            else:
                await self._keep_alive()

    async def _keep_alive(self) -> None:
        """Tell a bookmark when it is time."""
        if self._stream.needs_bookmark:
            await self._stream.bookmark(self._place)

    async def _next(self, target: Position | None = None) -> Change | None:
        """As Tail.next, until something else is to be told. Raises _ScopeGone when the scope has expired."""
        if monotonic() >= self._gone_at:
            raise _ScopeGone
        return await self._tail.next(min(self._stream.due, self._gone_at), target)

    async def _check_past(self, resumed: Position | None) -> None:
        """Raise HistoryLost if the place resumed from has not been yet: the store was restored from an older copy."""
        if resumed is not None and resumed > self._hub.newest and resumed > await self._hub.barrier():
            raise HistoryLost

    async def _tell_snapshot(self) -> None:
        """Tell every matching event as it is, from where this was begun, exact at the tail's position when done."""
        query = self._selection.query()
        while (told_up_to := self._told_up_to) is not None and not self._stream.is_over:
            page = await self._page(query, told_up_to)
            if page is None:
                return
            page_end = page.next or _AFTER_ALL
            items = {event.event_id: event for event in page.items}
            for event_id in page.unreadable:
                await self._stream.unreadable(self._place, event_id)
            async for change in self._up_to(await self._hub.barrier()):
                if change.event is None or self._key(change.event) <= told_up_to:
                    await self._tell(change)
                elif self._key(change.event) <= page_end:
                    self._apply(change, items)
            if self._stream.is_over:
                return
            now = self._tail.position
            for event in sorted(items.values(), key=self._key):
                if to_millis(event.expire_time) > self._clock():
                    self._told_up_to = self._key(event)
                    await self._stream.change(self._after(now), EventChange(kind=CHANGE_KIND_INITIAL, event=event))
            self._told_up_to = page.next

    async def _page(self, query: Query, told_up_to: Key) -> Page[Event] | None:
        """The next page of the snapshot, when it is this watch's turn to read one; None if the stream is over first."""
        with self._hub.snapshot_turns.line_up() as turn:
            while not await turn.comes(self._stream.due):
                if self._stream.is_over:
                    return None
                self._subscription.end_if_draining()
                await self._keep_alive()
            self._subscription.end_if_draining()
            if told_up_to == _BEFORE_ALL:
                self._begin_here()
            after = None if told_up_to == _BEFORE_ALL else told_up_to
            return await self._events.page(query, after=after, limit=self._limits.watch_page_size)

    def _apply(self, change: Change, items: dict[str, Event]) -> None:
        """Roll a page forward by one change. What comes after the page is left to the page that will hold it."""
        event = change.event
        assert event is not None
        read = items.get(event.event_id)
        if read is not None and read.revision >= event.revision:
            return
        items.pop(event.event_id, None)
        if change.kind != CHANGE_KIND_DELETED and self._selection.has(event):
            items[event.event_id] = event

    def _key(self, event: Event) -> Key:
        return self._events.key_of(self._selection.scope.project, event)

    def _tell(self, change: Change) -> Awaitable[None]:
        if change.ends_scope:
            raise _ScopeGone
        place = self._after(change.position)
        if change.event is None:
            return self._stream.unreadable(place, change.unreadable_id)
        return self._stream.told(place, change)
