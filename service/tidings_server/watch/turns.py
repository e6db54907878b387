"""Turns that come in the order in which they were asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic


class Turns:
    """So many have a turn at once; the others stand in line, and keep their places while they do something else."""

    def __init__(self, at_once: int) -> None:
        self._free = at_once
        self._line: dict[Turn, None] = {}

    @contextmanager
    def line_up(self) -> Iterator[Turn]:
        """A place at the end of the line. The turn is over when the context ends."""
        turn = Turn(self._call)
        self._line[turn] = None
        try:
            yield turn
        finally:
            self._line.pop(turn, None)
            self._free += turn.has_come
            self._call()

    def _call(self) -> None:
        """Give what is free to the first who wait for it."""
        while self._free and (turn := next((each for each in self._line if each.is_awaited), None)) is not None:
            del self._line[turn]
            self._free -= 1
            turn.come()


class Turn:
    """A place in the line."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._coming: asyncio.Future[None] | None = None
        self.has_come = False

    async def comes(self, until: float) -> bool:
        """Wait for the turn, no longer than until a time of the monotonic clock, and return whether it has come.

        It comes only to who waits: one that is busy when it could have come is passed over, and holds up nobody.
        """
        self._coming = asyncio.get_running_loop().create_future()
        self._call()
        try:
            await asyncio.wait([self._coming], timeout=max(0, until - monotonic()))
        finally:
            self._coming = None
        return self.has_come

    @property
    def is_awaited(self) -> bool:
        return self._coming is not None

    def come(self) -> None:
        self.has_come = True
        if self._coming is not None:
            self._coming.set_result(None)
