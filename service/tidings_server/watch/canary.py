"""The canary: a document rewritten every few seconds, whose changes show that the store lives and what has been seen.

It keeps a quiet change stream moving, and it marks a position that certainly comes after what was written before it.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import Final

import structlog

from tidings_server.change import Change, Position
from tidings_server.errors import Failure, store_unavailable
from tidings_server.store import Store
from tidings_server.watch.checkpoints import Checkpoints

CANARY_SECONDS: Final = 2.0
BARRIER_SECONDS: Final = 2.0
RETRY_SECONDS: Final = 0.1

log = structlog.get_logger()


class Canary:
    """Writes beats, and tells those who wait when one that was written for them has been seen."""

    def __init__(self, store: Store, checkpoints: Checkpoints) -> None:
        self._store = store
        self._checkpoints = checkpoints
        self._wanted = asyncio.Event()
        self._waiting: list[asyncio.Future[Position]] = []
        self._beats: dict[str, list[asyncio.Future[Position]]] = {}

    async def run(self) -> None:
        """Rewrite the canary, on time and for whoever waits for it, until cancelled."""
        while True:
            waiting, self._waiting = self._waiting, []
            self._wanted.clear()
            await self._beat_for(waiting)
            if not self._waiting:
                await self._until_wanted()

    async def barrier(self) -> Position:
        """A position after every write acknowledged before the call, when all changes up to it have been seen.

        Raises Failure STORE_UNAVAILABLE if that takes too long.
        """
        passed: asyncio.Future[Position] = asyncio.get_running_loop().create_future()
        self._waiting.append(passed)
        self._wanted.set()
        try:
            async with asyncio.timeout(BARRIER_SECONDS):
                return await passed
        except TimeoutError:
            raise store_unavailable() from None

    def seen(self, change: Change) -> None:
        """A change has been seen, and every change before it."""
        for passed in self._beats.pop(change.beat, ()):
            if not passed.done():
                passed.set_result(change.position)

    def begin_again(self) -> None:
        """Write new beats for those who wait: the ones written until now will not be seen."""
        self._waiting += [passed for waiting in self._beats.values() for passed in waiting]
        self._beats.clear()
        self._wanted.set()

    async def _beat_for(self, waiting: list[asyncio.Future[Position]]) -> None:
        name = uuid.uuid4().hex
        self._beats[name] = waiting
        try:
            await self._store.beat(name, self._checkpoints.recent)
        except Exception as error:  # whatever it is, the canary must go on
            if not isinstance(error, Failure):
                log.exception("writing the canary failed")
            self._beats.pop(name, None)
            for passed in waiting:
                if not passed.done():
                    passed.set_exception(store_unavailable())
            await asyncio.sleep(RETRY_SECONDS)

    async def _until_wanted(self) -> None:
        try:
            async with asyncio.timeout(CANARY_SECONDS):
                await self._wanted.wait()
        except TimeoutError:
            # Beats that were written and never heard of went with the stream that should have told them.
            self._beats.clear()
