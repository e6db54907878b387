"""The changes of a selection after a position: from the hub, or from its past for one who has fallen behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from time import monotonic

from tidings_server.change import Change, HistoryLost, Position
from tidings_server.errors import Failure
from tidings_server.watch.hub import Hub
from tidings_server.watch.scope import Selection
from tidings_server.watch.subscription import Lagged, Subscription


class Tail:
    """Gives every matching change once, in order, however far the watcher falls behind."""

    def __init__(self, hub: Hub, selection: Selection, subscription: Subscription, after: Position | None) -> None:
        """With `after` None, the changes from the subscription's start on."""
        self._hub = hub
        self._matches = selection.tells_of_scope()
        self._subscription = subscription
        self._given = after or subscription.start
        self._missed: AsyncGenerator[Change] | None = None

    @property
    def position(self) -> Position:
        """Every matching change up to here has been given."""
        if self.is_behind or not self._subscription.is_all_taken:
            return self._given
        return max(self._given, self._hub.position)

    def at_hand(self) -> Iterator[Change]:
        """The changes that have come already: a burst of them is told without a wait for each."""
        for _ in range(0 if self.is_behind else self._subscription.at_hand):
            change = self._subscription.next_at_hand()
            if change is not None and change.position > self._given:
                self._given = change.position
                yield change

    async def next(self, until: float, target: Position | None = None) -> Change | None:
        """The next change, or None when there is none until about a time of the monotonic clock, or up to a target.

        Raises HistoryLost, Draining, and Failure STORE_UNAVAILABLE while catching up.
        """
        while monotonic() < until and (target is None or self.position < target):
            change = await self._caught_up(until) if self.is_behind else await self._live(until)
            if change is not None:
                return change
        return None

    async def aclose(self) -> None:
        if self._missed is not None:
            await self._missed.aclose()
            self._missed = None

    @property
    def is_behind(self) -> bool:
        return self._given < self._subscription.start

    async def _live(self, until: float) -> Change | None:
        try:
            change = await self._subscription.next(until)
        except Lagged:
            self._subscription.begin_again(self._hub.newest)
            return None
        except HistoryLost as lost:
            self._subscription.begin_again(self._hub.newest)
            if lost.after is None or not lost.after < self._given <= self._hub.newest:
                raise
            # Another server, which was not cut off from the store, has told more than was lost here.
            return None
        if change is None or change.position <= self._given:
            return None
        self._given = change.position
        return change

    async def _caught_up(self, until: float) -> Change | None:
        """One step through what was missed: a matching change, or None."""
        self._subscription.end_if_draining()
        if self._missed is None:
            self._missed = self._hub.missed(self._given, self._subscription.start, self._matches)
        try:
            async with asyncio.timeout(max(0, until - monotonic())):
                change = await anext(self._missed)
        except (TimeoutError, StopAsyncIteration, Failure, HistoryLost) as end:
            await self.aclose()
            if isinstance(end, Failure | HistoryLost):
                raise
            if isinstance(end, StopAsyncIteration):
                self._given = self._subscription.start
            return None
        self._given = change.position
        if not self.is_behind:
            await self.aclose()
        return change if change.is_telling else None
