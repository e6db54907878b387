"""The hub: the one reader of the store's change stream, and the way from there to every watcher."""

from __future__ import annotations

import asyncio
import uuid
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from time import monotonic
from typing import Final

import structlog

from tidings_server.change import Change, HistoryLost, Position
from tidings_server.errors import Failure, store_unavailable
from tidings_server.limits import Limits
from tidings_server.store import Store
from tidings_server.watch.scope import Scope, scopes_of
from tidings_server.watch.subscription import Draining, Subscription

log = structlog.get_logger()

CANARY_SECONDS: Final = 2.0
STALLED_AFTER_SECONDS: Final = 3 * CANARY_SECONDS
BARRIER_SECONDS: Final = 2.0
RECONNECT_SECONDS: Final = 0.2


class Hub:
    """Reads the change stream and offers each change to those who watch its event, run, mission or project.

    A canary that is rewritten every few seconds keeps a quiet stream moving, shows that the store is alive,
    and marks a position that certainly comes after what was written before it.
    """

    def __init__(self, store: Store, limits: Limits) -> None:
        self._store = store
        self._limits = limits
        self._subscriptions: defaultdict[Scope, set[Subscription]] = defaultdict(set)
        self._beat_wanted = asyncio.Event()
        self._waiting: list[asyncio.Future[Position]] = []
        self._beats: dict[str, list[asyncio.Future[Position]]] = {}
        self._catch_ups = asyncio.Semaphore(limits.catch_up_streams_max)
        self._heard_at = 0.0
        self._draining = False
        self._connected = False
        self.position = Position(0, 0, 0)
        """Every change up to here has been offered."""

    async def run(self) -> None:
        """Read the change stream until cancelled, whatever happens to it."""
        while True:
            try:
                if not self._connected:
                    await self._begin()
                await self._read()
            except HistoryLost:
                log.warning("the store lost changes before they were read: every watch starts over")
                self._connected = False
            except Failure:
                log.warning("the change stream broke: going on from the last change", position=self.position)
            except Exception:
                log.exception("reading the change stream failed: going on from the last change", position=self.position)
            await asyncio.sleep(RECONNECT_SECONDS)

    async def beat(self) -> None:
        """Rewrite the canary, on time and for whoever waits for it, until cancelled."""
        while True:
            waiting, self._waiting = self._waiting, []
            self._beat_wanted.clear()
            await self._beat_for(waiting)
            if not self._waiting:
                await self._until_beat_wanted()

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
        passed: asyncio.Future[Position] = asyncio.get_running_loop().create_future()
        self._waiting.append(passed)
        self._beat_wanted.set()
        try:
            async with asyncio.timeout(BARRIER_SECONDS):
                return await passed
        except TimeoutError:
            raise store_unavailable() from None

    @contextmanager
    def subscribe(self, scope: Scope, matches: Callable[[Change], bool]) -> Iterator[Subscription]:
        """Offer the changes of a scope that match, from now on, until the context ends."""
        subscription = Subscription(matches, self.position, self._limits.watch_queue_max)
        if self._draining:
            subscription.interrupt(Draining())
        self._subscriptions[scope].add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions[scope].discard(subscription)
            if not self._subscriptions[scope]:
                del self._subscriptions[scope]

    async def catch_up(self, after: Position, up_to: Position) -> AsyncGenerator[Change | None]:
        """The changes of all scopes between two positions from the store; None when there is none for a while.

        At most a few of these are read at once; the others wait for their turn, which comes after each change, for
        whoever is given one may be slow to take it. Raises HistoryLost and Failure as the store does.
        """
        async with aclosing(self._store.changes(after)) as changes:
            while True:
                async with self._catch_ups:
                    change = await anext(changes)
                if change is not None and change.position > up_to:
                    return
                yield change
                if change is not None and change.position == up_to:
                    return

    def drain(self) -> None:
        """End every watch, now and from now on."""
        self._draining = True
        self._interrupt_all(Draining())

    @property
    def lag_seconds(self) -> float:
        """How long ago the change stream was last heard."""
        return monotonic() - self._heard_at

    @property
    def is_live(self) -> bool:
        return self.lag_seconds < STALLED_AFTER_SECONDS

    async def _begin(self) -> None:
        self.position = await self._store.now()
        self._connected = True
        # Beats written before it will not be heard.
        self._waiting += [passed for waiting in self._beats.values() for passed in waiting]
        self._beats.clear()
        self._beat_wanted.set()
        # Not before the new position is known: a snapshot read earlier would miss what came between.
        self._interrupt_all(HistoryLost())

    async def _read(self) -> None:
        async with aclosing(self._store.changes(self.position)) as changes:
            async for change in changes:
                if change is not None:
                    self._publish(change)

    def _publish(self, change: Change) -> None:
        self.position = change.position
        self._heard_at = monotonic()
        for scope in scopes_of(change):
            for subscription in self._subscriptions.get(scope, ()):
                subscription.offer(change)
        for passed in self._beats.pop(change.beat, ()):
            if not passed.done():
                passed.set_result(change.position)

    async def _beat_for(self, waiting: list[asyncio.Future[Position]]) -> None:
        name = uuid.uuid4().hex
        self._beats[name] = waiting
        try:
            await self._store.beat(name)
        except Failure as failure:
            self._beats.pop(name, None)
            for passed in waiting:
                if not passed.done():
                    passed.set_exception(failure)

    async def _until_beat_wanted(self) -> None:
        try:
            async with asyncio.timeout(CANARY_SECONDS):
                await self._beat_wanted.wait()
        except TimeoutError:
            # Beats that were written and never heard of went with the stream that should have told them.
            self._beats.clear()

    def _interrupt_all(self, trouble: Exception) -> None:
        for subscriptions in self._subscriptions.values():
            for subscription in subscriptions:
                subscription.interrupt(trouble)
