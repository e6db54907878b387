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
        self._has_dropped = False
        """Whether something was offered that can no longer be taken."""
        self._waiting: asyncio.Future[bool] | None = None
        self._until = self._rings_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def offer(self, change: Change) -> None:
        if not self._matches(change):
            return
        if isinstance(self._trouble, Lagged):
            self._trouble.newest = change
        elif self._trouble is not None:
            self._has_dropped = True
        elif len(self._queue) >= self._queue_max:
            self.interrupt(Lagged(change))
        else:
            self._queue.append(change)
            self._wake()

    def interrupt(self, trouble: Exception) -> None:
        """Drop what is queued and let `next` raise instead. Draining is final: nothing replaces it."""
        self._has_dropped = self._has_dropped or bool(self._queue) or not isinstance(trouble, Draining)
        if not isinstance(self._trouble, Draining):
            self._queue.clear()
            self._trouble = trouble
            self._wake()

    def begin_again(self, start: Position) -> None:
        """Take changes again, after Lagged or HistoryLost, beginning after a position."""
        if not isinstance(self._trouble, Draining):
            self._trouble = None
            self._has_dropped = False
        self.start = start

    def end_if_draining(self) -> None:
        """Raise Draining if the server shuts down: for a watcher that does not call `next` for a while."""
        if isinstance(self._trouble, Draining):
            raise self._trouble

    @property
    def is_waiting(self) -> bool:
        """Whether the watcher has taken everything, and its transport has taken it from the watcher."""
        return self._waiting is not None and not self._waiting.done()

    def is_empty(self) -> bool:
        return not self._queue and self._trouble is None

    @property
    def is_all_taken(self) -> bool:
        """Whether the watcher has taken all that was offered: a server that drains drops what comes from then on."""
        return not self._queue and not self._has_dropped

    @property
    def at_hand(self) -> int:
        """How many changes have come and are not taken yet."""
        return len(self._queue)

    def next_at_hand(self) -> Change | None:
        """The next change, or None if there is none yet, or something that `next` raises."""
        return self._queue.popleft() if self._queue else None

    async def next(self, until: float) -> Change | None:
        """The next change, or None if there is none until a time of the monotonic clock.

        Raises Lagged, HistoryLost or Draining.
        """
        if self.is_empty() and not await self._woken(until):
            return None
        if self._trouble is not None:
            raise self._trouble
        return self._queue.popleft()

    async def _woken(self, until: float) -> bool:
        """Wait for something to happen; False if nothing has until a time of the monotonic clock."""
        self._waiting = asyncio.get_running_loop().create_future()
        self._until = until
        # A timer that is there already looks again when it rings: most waits end long before it, and set none.
        if self._timer is None or self._rings_at > until:
            self._set_timer()
        try:
            return await self._waiting
        finally:
            self._waiting = None

    def _wake(self) -> None:
        if self._waiting is not None and self.is_waiting:
            self._waiting.set_result(True)

    def _set_timer(self) -> None:
        self.close()
        self._rings_at = self._until
        self._timer = asyncio.get_running_loop().call_later(max(0, self._until - monotonic()), self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._waiting is None or not self.is_waiting:
            return
        if monotonic() >= self._until:
            self._waiting.set_result(False)
        else:
            self._set_timer()

    def close(self) -> None:
        """Take nothing more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


__all__ = ["Draining", "HistoryLost", "Lagged", "Subscription"]
