"""Changes from before the ring, read from the store once for all who are that far behind."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import structlog

from tidings_server.change import LAST_OF_ITS_TIME, Change, Checkpoint, HistoryLost, Position
from tidings_server.errors import Failure
from tidings_server.limits import Limits
from tidings_server.store import Store
from tidings_server.watch.checkpoints import Checkpoints

log = structlog.get_logger()


class _Laggard:
    """One who is behind: the matching changes read so far, and how far that is."""

    def __init__(self, after: Position, up_to: Position, matches: Callable[[Change], bool], queue_max: int) -> None:
        self.position = after
        self.is_certain = after.ordinal == LAST_OF_ITS_TIME
        """Whether the store is known to have had a change at the position: not one from which it was restored since."""
        self.is_served = False
        """Whether a stream reads for it, or will."""
        self._up_to = up_to
        self._matches = matches
        self._queue: deque[Change] = deque()
        self._queue_max = queue_max
        self._trouble: Exception | None = None
        self._wake = asyncio.Event()

    def offer(self, change: Change) -> None:
        """Take the change, or none from here on if there is no room for it."""
        self.is_certain = self.is_certain or change.position == self.position
        if not self.is_served or change.position <= self.position:
            return
        if not self.is_certain:
            self.fail(HistoryLost())
        elif change.position > self._up_to:
            self._pass(self._up_to)
        elif not self._matches(change):
            self._pass(change.position)
        elif len(self._queue) < self._queue_max:
            self._queue.append(change)
            self._wake.set()
            self._pass(change.position)
        else:
            self.is_served = False

    def _pass(self, position: Position) -> None:
        self.position = position
        if position >= self._up_to:
            self.is_served = False
            self._wake.set()

    def fail(self, trouble: Exception) -> None:
        self.is_served = False
        self._trouble = trouble
        self._wake.set()

    def wake(self) -> None:
        """Let it say how far it is."""
        self._wake.set()

    @property
    def needs_more(self) -> bool:
        return not self.is_served and not self._queue and self._trouble is None and self.position < self._up_to

    async def next(self) -> Change | None:
        """The next matching change, one that only says how far this is, or None at the end. Raises what went wrong."""
        if self.is_served and not self._queue:
            self._wake.clear()
            await self._wake.wait()
        if self._queue:
            return self._queue.popleft()
        if self._trouble is not None:
            raise self._trouble
        return Change(self.position) if self.is_served else None


class CatchUp:
    """Reads the store's past for laggards. However many there are, at most a few change streams are open."""

    def __init__(self, store: Store, checkpoints: Checkpoints, limits: Limits) -> None:
        self._store = store
        self._checkpoints = checkpoints
        self._limits = limits
        self._waiting: list[_Laggard] = []
        self._streams: set[asyncio.Task[None]] = set()

    async def changes(
        self, after: Position, up_to: Position, matches: Callable[[Change], bool]
    ) -> AsyncGenerator[Change]:
        """The matching changes between two positions, and now and then one that only says how far this is.

        A laggard whose queue is full is left behind by the stream, and joins another when it has taken what it has.
        Raises HistoryLost, and Failure STORE_UNAVAILABLE.
        """
        laggard = _Laggard(after, up_to, matches, self._limits.watch_queue_max)
        try:
            while True:
                if laggard.needs_more:
                    self._enlist(laggard)
                change = await laggard.next()
                if change is not None:
                    yield change
                elif not laggard.needs_more:
                    return
        finally:
            laggard.is_served = False

    def _enlist(self, laggard: _Laggard) -> None:
        laggard.is_served = True
        self._waiting.append(laggard)
        if len(self._streams) < self._limits.catch_up_streams_max:
            stream = asyncio.create_task(self._serve())
            self._streams.add(stream)
            stream.add_done_callback(self._streams.discard)

    async def _serve(self) -> None:
        """Read for those who wait, and for those who come meanwhile, until nobody does."""
        while self._waiting:
            served, self._waiting = [laggard for laggard in self._waiting if laggard.is_served], []
            if not served:
                return
            start = min(laggard.position for laggard in served)
            try:
                await self._read_from(start, served)
            except HistoryLost as lost:
                # What is lost for the one who is furthest behind may be there for the others.
                for laggard in served:
                    if laggard.position == start:
                        laggard.fail(lost)
                self._waiting += [laggard for laggard in served if laggard.is_served]
            except Failure as failure:
                _fail_all(served, failure)
            except Exception as error:
                log.exception("reading the store's past failed")
                _fail_all(served, error)

    async def _read_from(self, start: Position, served: list[_Laggard]) -> None:
        checkpoint = self._checkpoints.before(start)
        if checkpoint is not None:
            try:
                await self._read(checkpoint, start, served)
            except HistoryLost:
                if checkpoint.position == start:
                    raise
            else:
                return
        # The store may have forgotten the checkpoint, which is a little older, but not yet what is asked for.
        await self._read(None, start, served)

    async def _read(self, checkpoint: Checkpoint | None, start: Position, served: list[_Laggard]) -> None:
        for laggard in served:
            # A stream shows that it has where it begins.
            begins_there = laggard.position == (checkpoint.position if checkpoint else start)
            laggard.is_certain = laggard.is_certain or begins_there
        async with aclosing(self._store.changes(checkpoint or start)) as changes:
            async for change in changes:
                if change is None:
                    for laggard in served:
                        laggard.wake()
                else:
                    served += self._joining(change.position)
                    for laggard in served:
                        laggard.offer(change)
                served[:] = [laggard for laggard in served if laggard.is_served]
                if not served:
                    return

    def _joining(self, position: Position) -> list[_Laggard]:
        """Those who wait and are not further behind than a stream is."""
        joining = [laggard for laggard in self._waiting if laggard.position >= position]
        self._waiting = [laggard for laggard in self._waiting if laggard.position < position]
        return joining


def _fail_all(served: list[_Laggard], trouble: Exception) -> None:
    for laggard in served:
        laggard.fail(trouble)
