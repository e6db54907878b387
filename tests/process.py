"""A server as its operators run it: a process with a command line, signals, a log and an exit code."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from wire import WITHIN_SECONDS


class ServerProcess:
    """A running `tidings-server`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._log: asyncio.Queue[bytes] = asyncio.Queue()
        self._reading = asyncio.create_task(self._read())

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def logged(self, event: str) -> dict[str, Any]:
        """The next log line that begins with these words."""
        async with asyncio.timeout(WITHIN_SECONDS):
            while line := await self._log.get():
                entry = _entry(line)
                if entry["event"].startswith(event):
                    return entry
        raise AssertionError(f"the server ended without logging {event!r}")

    def unread(self) -> list[dict[str, Any]]:
        """The log lines that nobody has asked for yet."""
        lines = [self._log.get_nowait() for _ in range(self._log.qsize())]
        return [_entry(line) for line in lines if line]

    async def exit_code(self) -> int:
        """The exit code, when it has ended. Raises AssertionError with the stacks of its threads if it does not."""
        try:
            async with asyncio.timeout(WITHIN_SECONDS):
                await asyncio.shield(self._reading)
        except TimeoutError:
            self.send(signal.SIGABRT)
            await self._reading
            said = "\n".join(entry["event"] for entry in self.unread())
            raise AssertionError(f"the server has not ended within {WITHIN_SECONDS:.0f} s:\n{said}") from None
        return await self._process.wait()

    async def _read(self) -> None:
        """Take the log as it comes, so that the pipe is never full; an empty line is its end."""
        assert self._process.stderr is not None
        while line := await self._process.stderr.readline():
            self._log.put_nowait(line)
        self._log.put_nowait(b"")

    def children(self) -> list[int]:
        """The ids of the processes that the server started."""
        text = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text(encoding="ascii")
        return [int(child) for child in text.split()]


def _entry(line: bytes) -> dict[str, Any]:
    """A line of the log. The driver of the store writes about its own threads past every log."""
    try:
        entry: dict[str, Any] = json.loads(line)
    except json.JSONDecodeError:
        return {"event": line.decode(errors="replace"), "level": "text"}
    return entry


@asynccontextmanager
async def server_process(
    *arguments: str, program: Sequence[str] = ("-m", "tidings_server")
) -> AsyncIterator[ServerProcess]:
    """Run the server; it is killed at the end if it has not stopped by itself."""
    async with _process(*program, "--listen", "127.0.0.1:0", "--http-port", "off", *arguments) as server:
        yield server


@asynccontextmanager
async def gateway_process(target: str, *arguments: str) -> AsyncIterator[ServerProcess]:
    """Run the HTTP face alone, for the server at an address; it is killed at the end as a server is."""
    command = ("-m", "tidings_server", "gateway", "--target", target, "--http-port", "0")
    async with _process(*command, *arguments) as server:
        yield server


@asynccontextmanager
async def _process(*arguments: str) -> AsyncIterator[ServerProcess]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-X", "faulthandler", *arguments, "--log-format", "json"), stderr=asyncio.subprocess.PIPE
    )
    server = ServerProcess(process)
    try:
        yield server
    finally:
        if process.returncode is None:
            process.kill()
        await server.exit_code()


def is_running(pid: int) -> bool:
    """Whether a process exists and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
