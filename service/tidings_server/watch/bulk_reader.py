"""Reads of single events made together: when many watches begin at once, the store is asked once for all of them."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from contextvars import Context
from typing import Final

from tidings.v1.event_pb2 import Event
from tidings_server.store import EventStore

READ_AT_ONCE: Final = 500


class BulkReader:
    """Reads events. What is asked for while a read is under way is read together by the next."""

    def __init__(self, events: EventStore) -> None:
        self._events = events
        self._wanted: defaultdict[str, dict[str, list[asyncio.Future[Event]]]] = defaultdict(dict)
        self._reading: asyncio.Task[None] | None = None

    async def get(self, project: str, event_id: str) -> Event:
        """Raises Failure as EventStore.get."""
        read: asyncio.Future[Event] = asyncio.get_running_loop().create_future()
        self._wanted[project].setdefault(event_id, []).append(read)
        if self._reading is None:
            # In a context of its own: the time that its first caller has left must not bound the others'.
            self._reading = asyncio.get_running_loop().create_task(self._read_all(), context=Context())
        return await read

    async def _read_all(self) -> None:
        while self._wanted:
            project, wanted = next(iter(self._wanted.items()))
            some = {event_id: wanted.pop(event_id) for event_id in list(wanted)[:READ_AT_ONCE]}
            if not wanted:
                del self._wanted[project]
            try:
                outcomes: Iterable[Event | Exception] = await self._events.get_many(project, list(some))
            except Exception as error:  # noqa: BLE001 (it is raised to those who wait)
                outcomes = [error] * len(some)
            for reads, outcome in zip(some.values(), outcomes, strict=True):
                _settle(reads, outcome)
        self._reading = None


def _settle(reads: Iterable[asyncio.Future[Event]], outcome: Event | Exception) -> None:
    for read in reads:
        if read.done():  # its caller has gone
            continue
        if isinstance(outcome, Exception):
            read.set_exception(outcome)
        else:
            read.set_result(outcome)
