"""The hub: the one reader of the store's change stream, and the way from there to every watcher."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Collection, Iterator
from contextlib import aclosing, contextmanager
from time import monotonic
from typing import Final

import structlog

from tidings_server.change import Change, Checkpoint, HistoryLost, Position
from tidings_server.errors import Failure
from tidings_server.limits import Limits
from tidings_server.store import Store
from tidings_server.watch.canary import CANARY_SECONDS, Canary
from tidings_server.watch.catch_up import CatchUp
from tidings_server.watch.checkpoints import Checkpoints
from tidings_server.watch.ring import Ring
from tidings_server.watch.scope import Scope, scopes_of
from tidings_server.watch.subscription import Draining, Subscription
from tidings_server.watch.turns import Turns

log = structlog.get_logger()

STALLED_AFTER_SECONDS: Final = 3 * CANARY_SECONDS
RECONNECT_SECONDS: Final = 0.2
CROWD: Final = 1_000
OFFERED_AT_ONCE: Final = 64
TURN_SECONDS: Final = 0.001
TURNS_MAX: Final = 20
"""A change is told to a crowd in parts, and after each part others get turns, until most of it has sent it on: a
call that comes meanwhile would otherwise wait in the transport behind all of the messages. Fewer watchers are told at
once, which costs less.
"""
REPLAYED_AT_ONCE: Final = 200


class Hub:
    """Reads the change stream and offers each change to those who watch its event, run, mission or project."""

    def __init__(self, store: Store, limits: Limits) -> None:
        self._store = store
        self._limits = limits
        self._subscriptions: defaultdict[Scope, set[Subscription]] = defaultdict(set)
        self._ring = Ring(limits)
        self._checkpoints = Checkpoints()
        self._catch_up = CatchUp(store, self._checkpoints, limits)
        self._is_new = True
        self._checkpoint: Checkpoint | None = None
        """Where to go on; None to begin with now."""
        self._heard_at = 0.0
        self._draining = False
        self.canary: Final = Canary(store, self._checkpoints)
        self.snapshot_turns: Final = Turns(limits.snapshot_pages_at_once_max)
        """Held while a page of a snapshot is read: when everybody starts over the store must not be overrun."""
        self.position = Position(0, 0, 0)
        """Every change up to here has been offered to every watcher."""
        self.newest = self.position
        """No change after this has been offered to any watcher."""

    async def run(self) -> None:
        """Read the change stream until cancelled, whatever happens to it."""
        while True:
            try:
                if self._is_new:
                    await self._remember()
                    self._is_new = False
                await self._read()
            except HistoryLost:
                log.warning("the store lost changes before they were read: every watch starts over")
                self._checkpoint = None
            except Failure:
                log.warning("the change stream broke: going on from the last change", position=self.position)
            except Exception:
                log.exception("reading the change stream failed: going on from the last change", position=self.position)
            await asyncio.sleep(RECONNECT_SECONDS)

    async def heard(self) -> None:
        """Return when the change stream has been heard once."""
        while not self._heard_at:
            try:
                await self.barrier()
            except Failure:
                log.warning("waiting for the store's change stream")

    async def barrier(self) -> Position:
        """A position after every write acknowledged before the call, when all changes up to it have been offered.

        Raises Failure STORE_UNAVAILABLE if that takes too long.
        """
        return await self.canary.barrier()

    @contextmanager
    def subscribe(self, scope: Scope, matches: Callable[[Change], bool]) -> Iterator[Subscription]:
        """Offer the changes of a scope that match, from now on, until the context ends."""
        subscription = Subscription(matches, self.newest, self._limits.watch_queue_max)
        if self._draining:
            subscription.interrupt(Draining())
        self._subscriptions[scope].add(subscription)
        try:
            yield subscription
        finally:
            subscription.close()
            self._subscriptions[scope].discard(subscription)
            if not self._subscriptions[scope]:
                del self._subscriptions[scope]

    async def missed(
        self, after: Position, up_to: Position, matches: Callable[[Change], bool]
    ) -> AsyncGenerator[Change]:
        """The matching changes between two positions, and now and then one that only says how far this is.

        They come from memory, or where that does not go back so far from the store. Raises HistoryLost and Failure
        as the store does.
        """
        while after < up_to:
            recent = self._ring.after(after, REPLAYED_AT_ONCE)
            if recent is None:
                remembered = min(up_to, self._ring.start or up_to)
                async with aclosing(self._catch_up.changes(after, remembered, matches)) as changes:
                    async for change in changes:
                        yield change
                after = remembered
            elif not recent:
                return
            else:
                for change in recent:
                    after = change.position
                    if after <= up_to and matches(change):
                        yield change
                yield Change(min(after, up_to))
                await asyncio.sleep(0)  # for others to have a turn

    def drain(self) -> None:
        """End every watch, now and from now on."""
        self._draining = True
        self._interrupt_all(Draining())

    @property
    def watchers(self) -> int:
        return sum(len(subscriptions) for subscriptions in self._subscriptions.values())

    @property
    def lag_seconds(self) -> float:
        """How long ago the change stream was last heard."""
        return monotonic() - self._heard_at

    @property
    def is_live(self) -> bool:
        return self.lag_seconds < STALLED_AFTER_SECONDS

    async def _read(self) -> None:
        async with aclosing(self._store.changes(self._checkpoint)) as changes:
            if self._checkpoint is None:
                await self._begin(await anext(changes))
            async for change in changes:
                if change is not None:
                    await self._publish(change)
                    # Those who were woken go first: the driver's thread, asked for more, would hold them up.
                    await asyncio.sleep(0)

    async def _begin(self, first: Change | None) -> None:
        """Start from now, when a stream has just answered for the first time."""
        lost = HistoryLost(self.position)
        self.newest = self.position = await self._store.now()
        self._ring.begin(self.position)
        self._checkpoints.clear()
        self.canary.begin_again()
        # Not before the new position is known: a snapshot read earlier would miss what came between.
        self._interrupt_all(lost)
        if first is not None:
            await self._publish(first)

    async def _remember(self) -> None:
        """Start from the checkpoint that is kept in the store, so that those who were cut off find what they missed."""
        self._checkpoint = await self._store.checkpoint()
        if self._checkpoint is not None:
            self.newest = self.position = self._checkpoint.position
            self._ring.begin(self.position)

    async def _publish(self, change: Change) -> None:
        if change.position <= self.newest:  # from between the stream's first answer and the position it began with
            return
        self.newest = change.position
        self._ring.append(change)
        for scope in scopes_of(change):
            await self._offer(change, self._subscriptions.get(scope, ()))
        self.position = change.position
        self._checkpoint = change.checkpoint
        self._checkpoints.note(change)
        self._heard_at = monotonic()
        self.canary.seen(change)

    async def _offer(self, change: Change, subscriptions: Collection[Subscription]) -> None:
        if len(subscriptions) <= CROWD:
            for subscription in subscriptions:
                subscription.offer(change)
            return
        everybody = list(subscriptions)
        for begin in range(0, len(everybody), OFFERED_AT_ONCE):
            some = everybody[begin : begin + OFFERED_AT_ONCE]
            for subscription in some:
                subscription.offer(change)
            await _give_turns(some)

    def _interrupt_all(self, trouble: Exception) -> None:
        for subscriptions in self._subscriptions.values():
            for subscription in subscriptions:
                subscription.interrupt(trouble)


async def _give_turns(offered: Collection[Subscription]) -> None:
    for _ in range(TURNS_MAX):
        await asyncio.sleep(TURN_SECONDS)
        # Not all of them: one may have a reader that takes nothing, and delay nobody by that.
        if 4 * sum(subscription.is_waiting for subscription in offered) >= 3 * len(offered):
            return
