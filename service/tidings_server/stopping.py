"""How the process is asked to stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager


class StoppedAtOnce(Exception):
    """A second signal came before everything was stopped in order."""


@asynccontextmanager
async def stop_signals() -> AsyncIterator[Callable[[], Awaitable[object]]]:
    """Give what waits for SIGTERM or SIGINT, and bound what is done inside by them.

    A signal before the wait, while things are still starting, ends the context, as does the one after the
    wait; a second one raises StoppedAtOnce.
    """
    signals, waiting = 0, False
    asked = asyncio.Event()
    task = asyncio.current_task()
    assert task is not None

    def on_signal() -> None:
        nonlocal signals
        signals += 1
        asked.set()
        if signals > 1 or not waiting:
            task.cancel()

    async def wait() -> None:
        nonlocal waiting
        waiting = True
        await asked.wait()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    try:
        yield wait
    except asyncio.CancelledError:
        if signals > 1:
            raise StoppedAtOnce from None
        if signals == 0:
            raise
        task.uncancel()
