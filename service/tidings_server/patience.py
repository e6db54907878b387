"""How long a stream waits for its reader: one that takes nothing is ended, so that its place is free for others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from time import monotonic

Write = Callable[[bytes], Awaitable[None]]
Abort = Callable[[], Awaitable[None]]


class Patience:
    """Ends the calls of readers that let one message wait for too long."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._ending: set[asyncio.Task[None]] = set()

    @contextmanager
    def guarding(self, write: Write, abort: Abort) -> Iterator[Offer]:
        """Guard the stream that the current task sends with `write`. `abort` ends its call with a status."""
        call = asyncio.current_task()
        assert call is not None
        offer = Offer(write)
        self._look_after(self._seconds, offer, call, abort)
        try:
            yield offer
        finally:
            offer.timer.cancel()

    def _look_after(self, seconds: float, offer: Offer, call: asyncio.Task[None], abort: Abort) -> None:
        # One timer for a stream, not one for each of its messages.
        offer.timer = asyncio.get_running_loop().call_later(seconds, self._look, offer, call, abort)

    def _look(self, offer: Offer, call: asyncio.Task[None], abort: Abort) -> None:
        left = self._seconds if offer.made_at is None else offer.made_at + self._seconds - monotonic()
        if left > 0:
            self._look_after(left, offer, call, abort)
            return
        ending = asyncio.create_task(_end(call, abort))
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)


class Offer:
    """What a stream sends, one message at a time."""

    timer: asyncio.TimerHandle

    def __init__(self, write: Write) -> None:
        self._write = write
        self.made_at: float | None = None
        """Since when a message waits for its reader."""

    async def send(self, message: bytes) -> None:
        self.made_at = monotonic()
        await self._write(message)
        self.made_at = None


async def _end(call: asyncio.Task[None], abort: Abort) -> None:
    """Free what the call holds at once; a reader that comes back finds the status after what is still on its way."""
    status = asyncio.ensure_future(abort())
    await asyncio.sleep(0)  # the status is under way before the call ends without one
    call.cancel()
    with suppress(Exception):  # grpc.aio raises into whoever aborts, and when the reader has gone
        await status
