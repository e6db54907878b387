"""How many calls and watches may be under way: each kind apart, so that watches never starve calls."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tidings.v1 import error_reason_pb2 as reasons
from tidings_server.errors import Failure
from tidings_server.limits import Limits


class Admission:
    """Counts what is under way and refuses what would be too much, at once."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._calls: Counter[str] = Counter()
        self._watches: Counter[str] = Counter()
        self.idle: Final = asyncio.Event()
        """Set while nothing is under way."""
        self.idle.set()

    @contextmanager
    def call(self, project: str) -> Iterator[None]:
        """Raises Failure RATE_LIMITED."""
        if self._calls[project] >= self._limits.calls_per_project_max:
            raise Failure(reasons.ERROR_REASON_RATE_LIMITED, "the project has too many calls under way")
        with self._counted(self._calls, project):
            yield

    @contextmanager
    def watch(self, project: str) -> Iterator[None]:
        """Raises Failure WATCH_LIMIT."""
        if self._watches[project] >= self._limits.watches_per_project_max:
            raise Failure(reasons.ERROR_REASON_WATCH_LIMIT, "the project has too many watches open")
        if self._watches.total() >= self._limits.watches_max:
            raise Failure(reasons.ERROR_REASON_WATCH_LIMIT, "the server has too many watches open")
        with self._counted(self._watches, project):
            yield

    @contextmanager
    def _counted(self, under_way: Counter[str], project: str) -> Iterator[None]:
        under_way[project] += 1
        self.idle.clear()
        try:
            yield
        finally:
            under_way[project] -= 1
            if not under_way[project]:
                del under_way[project]  # or every project that ever called would be kept
            if not self._calls and not self._watches:
                self.idle.set()
