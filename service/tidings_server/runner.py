"""How a process of ours runs: on uvloop where there is one, collecting garbage seldom."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Coroutine
from typing import Any


def run(work: Coroutine[Any, Any, None]) -> None:
    """Do work to its end, as the only work of this process. Raises what it raises."""
    # With thousands of watches a full collection stops everybody for half a second, and finds next to nothing.
    gc.set_threshold(100_000, 50, 1_000)
    with asyncio.Runner(loop_factory=_new_event_loop) as runner:
        runner.run(work)


def _new_event_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:  # as on Windows, for which there is none
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
