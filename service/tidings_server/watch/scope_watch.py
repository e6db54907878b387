"""The watch of a run, a mission or a project: a snapshot of what matches, then every change of it.

The snapshot needs nothing of the store but plain reads: a page is read, a barrier is passed, and the changes
up to the barrier are applied to the page in memory. So every page is exact at a known position, memory is
bounded by one page, and at `synced` the watcher's picture equals the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from itertools import chain
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

Messages = AsyncGenerator[bytes]


class _ScopeGone(Exception):
    """The run or the mission that is watched was deleted, or has expired."""


class ScopeWatch:
    """Follows the events of a selection. `messages` may be called once."""

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

    async def messages(self) -> Messages:
        resumed = self._stream.resumed.position
        try:
            while not self._stream.is_over:
                try:
                    await self._check_past(resumed)
                    async for message in self._until_synced():
                        yield message
                    while not self._stream.is_over:
                        for message in await self._news():
                            yield message
                except HistoryLost:
                    resumed = None
                    if self._told_up_to != _BEFORE_ALL:  # else nothing has been told that could be wrong now
                        yield self._start_over()
            for message in self._stream.end(self._place):
                yield message
        except _ScopeGone:
            yield self._stream.closing(self._place, CLOSING_REASON_SCOPE_GONE)
        except Draining:
            yield self._stream.closing(self._place, CLOSING_REASON_DRAINING)
            raise draining() from None
        finally:
            await self._tail.aclose()

    def _start_over(self) -> bytes:
        """Forget what was told, and say so; or raise Failure HISTORY_LOST if the caller would rather know."""
        if self._request.on_history_loss == HISTORY_LOSS_POLICY_FAIL:
            raise history_lost() from None
        self._told_up_to = _BEFORE_ALL
        return self._stream.reset()

    def _begin_here(self, after: Position | None = None) -> None:
        """Take the changes after a position, or from now on: what was before, and may be lost, has no part in it."""
        self._subscription.begin_again(self._hub.newest)
        self._tail = Tail(self._hub, self._selection, self._subscription, after)

    @property
    def _place(self) -> Place:
        return self._after(self._tail.position)

    def _after(self, position: Position) -> Place:
        return Place(position, told_up_to=self._told_up_to)

    async def _until_synced(self) -> Messages:
        async for message in self._snapshot() if self._told_up_to else self._missed():
            yield message
        if not self._stream.is_over:
            yield self._stream.synced(self._place)

    async def _missed(self) -> Messages:
        """Tell the changes between the place resumed from and now; a live watch begins now."""
        now = await self._hub.barrier()
        if self._request.live_only:
            self._begin_here(now)
        while self._tail.position < now and not self._stream.is_over:
            change = await self._next(now)
            if change is not None:
                yield self._told(change)
            elif self._stream.needs_bookmark:
                yield self._stream.bookmark(self._place)

    async def _news(self) -> Iterable[bytes]:
        """What is to be told next: the changes that have come, when there are any, or a bookmark when it is time."""
        change = await self._next()
        if change is not None:
            return chain([self._told(change)], map(self._told, self._tail.at_hand()))
        return [self._stream.bookmark(self._place)] if self._stream.needs_bookmark else []

    async def _next(self, target: Position | None = None) -> Change | None:
        """As Tail.next, until something else is to be told. Raises _ScopeGone when the scope has expired."""
        if monotonic() >= self._gone_at:
            raise _ScopeGone
        return await self._tail.next(min(self._stream.due, self._gone_at), target)

    async def _check_past(self, resumed: Position | None) -> None:
        """Raise HistoryLost if the place resumed from has not been yet: the store was restored from an older copy."""
        if resumed is not None and resumed > self._hub.newest and resumed > await self._hub.barrier():
            raise HistoryLost

    async def _snapshot(self) -> Messages:
        """Tell every matching event as it is, from where this was begun, exact at the tail's position when done."""
        query = self._selection.query()
        while (told_up_to := self._told_up_to) is not None and not self._stream.is_over:
            if not await self._has_turn():
                yield self._stream.bookmark(self._place)
                continue
            page = await self._page(query, told_up_to)
            page_end = page.next or _AFTER_ALL
            items = {event.event_id: event for event in page.items}
            for event_id in page.unreadable:
                yield self._stream.unreadable(self._place, event_id)
            async for change in self._tail.up_to(await self._hub.barrier()):
                if change.event is None or self._key(change.event) <= told_up_to:
                    yield self._told(change)
                elif self._key(change.event) <= page_end:
                    self._apply(change, items)
            now = self._tail.position
            for event in sorted(items.values(), key=self._key):
                if to_millis(event.expire_time) > self._clock():
                    self._told_up_to = self._key(event)
                    yield self._stream.change(self._after(now), EventChange(kind=CHANGE_KIND_INITIAL, event=event))
            self._told_up_to = page.next

    async def _has_turn(self) -> bool:
        """Wait for the turn to read a page, but no longer than until something must be told."""
        self._subscription.end_if_draining()
        try:
            async with asyncio.timeout(max(0, self._stream.due - monotonic())):
                return await self._hub.snapshot_turn.acquire()
        except TimeoutError:
            return False

    async def _page(self, query: Query, told_up_to: Key) -> Page[Event]:
        """The next page of the snapshot, and the turn is over."""
        try:
            if told_up_to == _BEFORE_ALL:
                self._begin_here()
            after = None if told_up_to == _BEFORE_ALL else told_up_to
            return await self._events.page(query, after=after, limit=self._limits.watch_page_size)
        finally:
            self._hub.snapshot_turn.release()

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

    def _told(self, change: Change) -> bytes:
        if change.ends_scope:
            raise _ScopeGone
        place = self._after(change.position)
        if change.event is None:
            return self._stream.unreadable(place, change.unreadable_id)
        return self._stream.told(place, change)
