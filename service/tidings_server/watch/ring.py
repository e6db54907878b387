"""The most recent changes, kept in memory so that those who were away for a moment need not trouble the store."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from itertools import islice
from time import monotonic
from typing import Final

from tidings_server.change import LAST_OF_ITS_TIME, Change, HistoryLost, Position
from tidings_server.limits import Limits

CHANGE_OVERHEAD_BYTES: Final = 1024
"""What a change costs besides its resource and the message made of it, as measured: objects, not contents."""


class Ring:
    """Recent changes in order, without a gap; the oldest go when there are too many, or they are too large or old."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._changes: deque[tuple[Change, int, float]] = deque()
        self._bytes = 0
        self._start: Position | None = None

    def append(self, change: Change) -> None:
        size, now = _size(change), monotonic()
        self._changes.append((change, size, now))
        self._bytes += size
        while self._is_over(now):
            oldest, size, _ = self._changes.popleft()
            self._bytes -= size
            self._start = oldest.position

    def begin(self, start: Position) -> None:
        """Remember what comes after a position, and nothing from before it."""
        self._changes.clear()
        self._bytes, self._start = 0, start

    @property
    def start(self) -> Position | None:
        """What came after this is at hand."""
        return self._start

    def after(self, position: Position, count: int) -> list[Change] | None:
        """The next changes after a position, at most `count`; None if some of them may be gone.

        Raises HistoryLost if no change was at the position: it is from before the store was restored from a copy.
        """
        if self._start is None or position < self._start:
            return None
        first = bisect_right(self._changes, position, key=_position)
        before = self._changes[first - 1][0].position if first else self._start
        if position.ordinal != LAST_OF_ITS_TIME and position != before:
            raise HistoryLost
        return [change for change, _, _ in islice(self._changes, first, first + count)]

    def _is_over(self, now: float) -> bool:
        limits = self._limits
        return bool(self._changes) and (
            len(self._changes) > limits.ring_changes_max
            or self._bytes > limits.ring_bytes_max
            or self._changes[0][2] < now - limits.ring_age_seconds
        )


def _size(change: Change) -> int:
    resource = 0 if change.resource is None else change.resource.ByteSize()
    return CHANGE_OVERHEAD_BYTES + 2 * resource


def _position(entry: tuple[Change, int, float]) -> Position:
    return entry[0].position
