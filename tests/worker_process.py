"""The worker example of the Python client, as a process of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from wire import WITHIN_SECONDS

WORKER: Final = Path(__file__).parent.parent / "clients" / "python" / "examples" / "worker.py"


class Worker:
    """A running worker, and what it prints."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def line(self) -> str:
        assert self.process.stdout is not None
        async with asyncio.timeout(WITHIN_SECONDS):
            return (await self.process.stdout.readline()).decode().rstrip()

    async def lines(self) -> AsyncIterator[str]:
        while line := await self.line():
            yield line

    async def stop(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        async with asyncio.timeout(WITHIN_SECONDS):
            return await self.process.wait()


@asynccontextmanager
async def working(target: str, *arguments: str, key: str = "") -> AsyncIterator[Worker]:
    """Let a worker work; it is killed at the end if it is still there."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(WORKER),
        target,
        *arguments,
        env={**os.environ, "TIDINGS_API_KEY": key},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Worker(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
