"""A server as its operators run it: a process with a command line, signals, a log and an exit code."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from wire import WITHIN_SECONDS


class ServerProcess:
    """A running `tidings-server`."""

    def __init__(self, process: asyncio.subprocess.Process, log: asyncio.StreamReader) -> None:
        self._process = process
        self._log = log

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def logged(self, event: str) -> dict[str, Any]:
        """The next log line that begins with these words."""
        async with asyncio.timeout(WITHIN_SECONDS):
            while line := await self._log.readline():
                entry: dict[str, Any] = json.loads(line)
                if entry["event"].startswith(event):
                    return entry
        raise AssertionError(f"the server ended without logging {event!r}")

    async def exit_code(self) -> int:
        async with asyncio.timeout(WITHIN_SECONDS):
            await self._log.read()
            return await self._process.wait()

    def children(self) -> list[int]:
        """The ids of the processes that the server started."""
        text = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text(encoding="ascii")
        return [int(child) for child in text.split()]


@asynccontextmanager
async def server_process(*arguments: str) -> AsyncIterator[ServerProcess]:
    """Run the server; it is killed at the end if it has not stopped by itself."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tidings_server",
        "--listen",
        "127.0.0.1:0",
        "--log-format",
        "json",
        *arguments,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        yield ServerProcess(process, process.stderr)
    finally:
        if process.returncode is None:
            process.kill()
            await process.stderr.read()
            await process.wait()


def is_running(pid: int) -> bool:
    """Whether a process exists and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
