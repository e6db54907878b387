"""One watcher's place at the hub: a bounded queue of the changes that it has not taken yet."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic

from tidings_server.change import Change, HistoryLost, Position


class Lagged(Exception):
    """The queue overflowed and was emptied: of what came since the last change taken only the newest is at hand."""

    def __init__(self, newest: Change) -> None:
        super().__init__()
        self.newest = newest


class Draining(Exception):
    """The server shuts down: end the watch and let it be resumed elsewhere."""


class Subscription:
    """The changes that pass through the hub from `start` on, kept for one watcher as references.

    Offering never waits. When the queue is full it is emptied, and the watcher is told once, by Lagged.
    """

    def __init__(self, matches: Callable[[Change], bool], start: Position, queue_max: int) -> None:
        self.start = start
        """Changes after this position are offered."""
        self._matches = matches
        self._queue: deque[Change] = deque()
        self._queue_max = queue_max
        self._trouble: Exception | None = None
        self._wake = asyncio.Event()

    def offer(self, change: Change) -> None:
        if not self._matches(change):
            return
        if isinstance(self._trouble, Lagged):
            self._trouble.newest = change
        elif self._trouble is None and len(self._queue) >= self._queue_max:
            self.interrupt(Lagged(change))
        elif self._trouble is None:
            self._queue.append(change)
            self._wake.set()

    def interrupt(self, trouble: Exception) -> None:
        """Drop what is queued and let `next` raise instead. Draining is final: nothing replaces it."""
        if not isinstance(self._trouble, Draining):
            self._queue.clear()
            self._trouble = trouble
            self._wake.set()

    def begin_again(self, start: Position) -> None:
        """Take changes again, after Lagged or HistoryLost, beginning after a position."""
        if not isinstance(self._trouble, Draining):
            self._trouble = None
        self.start = start

    def end_if_draining(self) -> None:
        """Raise Draining if the server shuts down: for a watcher that does not call `next` for a while."""
        if isinstance(self._trouble, Draining):
            raise self._trouble

    def is_empty(self) -> bool:
        return not self._queue and self._trouble is None

    async def next(self, until: float) -> Change | None:
        """The next change, or None if there is none until a time of the monotonic clock.

        Raises Lagged, HistoryLost or Draining.
        """
        while self.is_empty():
            self._wake.clear()
            try:
                async with asyncio.timeout(max(0, until - monotonic())):
                    await self._wake.wait()
            except TimeoutError:
                return None
        if self._trouble is not None:
            raise self._trouble
        return self._queue.popleft()


__all__ = ["Draining", "HistoryLost", "Lagged", "Subscription"]
