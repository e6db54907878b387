"""The command `tidings` as people run it: a process with arguments, an environment, pipes or a terminal."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import re
import signal
import struct
import sys
import termios
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from wire import WITHIN_SECONDS

TIDINGS = Path(sys.executable).parent / "tidings"
SCREEN = (24, 120)
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
TAKE_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""What a shell does for its commands, so that Ctrl-C reaches them."""
REDRAWN = "\x1b[2K"
"""How a table that is drawn anew wipes out a line of the one before."""


class Result(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def rows(self) -> list[list[str]]:
        return [line.split("\t") for line in self.lines]


class Tidings:
    """The command of somebody with a home folder of their own, for the server at an address."""

    def __init__(self, home: Path, target: str = "", **environment: str) -> None:
        self._target = ["--target", target] if target else []
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TIDINGS")}
        self.environment = {**inherited, "XDG_CONFIG_HOME": str(home), "TERM": "xterm-256color", **environment}
        self.environment.pop("NO_COLOR", None) if "NO_COLOR" not in environment else None

    async def run(self, *arguments: str, stdin: str = "") -> Result:
        process = await self.begin(*arguments, stdin=PIPE)
        return await end(process, stdin)

    async def done(self, *arguments: str, stdin: str = "") -> Result:
        """The result of a command that must succeed."""
        result = await self.run(*arguments, stdin=stdin)
        assert result.code == 0, result
        return result

    async def begin(self, *arguments: str, stdin: int = PIPE) -> Process:
        return await asyncio.create_subprocess_exec(
            TIDINGS, *self._target, *arguments, stdin=stdin, stdout=PIPE, stderr=PIPE, env=self.environment
        )

    @asynccontextmanager
    async def on_terminal(self, *arguments: str) -> AsyncIterator[Terminal]:
        """Run it where a person would."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", *SCREEN, 0, 0))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", TAKE_TERMINAL, TIDINGS),
            *self._target,
            *arguments,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=self.environment,
            start_new_session=True,
        )
        os.close(theirs)
        terminal = Terminal(ours, process)
        try:
            yield terminal
        finally:
            await terminal.close()


async def end(process: Process, stdin: str = "") -> Result:
    async with asyncio.timeout(WITHIN_SECONDS):
        out, err = await process.communicate(stdin.encode())
    assert process.returncode is not None
    return Result(process.returncode, out.decode(), err.decode())


async def interrupt(process: Process) -> Result:
    process.send_signal(signal.SIGINT)
    return await end(process)


async def line(process: Process) -> str:
    """The next line of a command that goes on."""
    assert process.stdout is not None
    async with asyncio.timeout(WITHIN_SECONDS):
        return (await process.stdout.readline()).decode().rstrip("\n")


class Terminal:
    """A screen, a keyboard, and the command that runs there."""

    def __init__(self, descriptor: int, process: Process) -> None:
        self._descriptor = descriptor
        self._process = process
        self._changed = asyncio.Event()
        self._raw = b""
        asyncio.get_running_loop().add_reader(descriptor, self._read)

    @property
    def raw(self) -> str:
        """All that was written to the screen, with what moves the cursor and gives colours."""
        return self._raw.decode(errors="replace")

    @property
    def screen(self) -> str:
        """The picture that was drawn last, as text."""
        return ESCAPE.sub("", self.raw.rpartition(REDRAWN)[2]).replace("\r", "")

    async def shows(self, *words: str) -> str:
        """The screen, as soon as it has all of these words."""
        async with asyncio.timeout(WITHIN_SECONDS):
            while not all(word in self.screen for word in words):
                self._changed.clear()
                await self._changed.wait()
        return self.screen

    def type(self, keys: str) -> None:
        os.write(self._descriptor, keys.encode())

    async def exit_code(self) -> int:
        async with asyncio.timeout(WITHIN_SECONDS):
            return await self._process.wait()

    async def close(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self.exit_code()
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)

    def _read(self) -> None:
        try:
            self._raw += os.read(self._descriptor, 65536)
        except OSError:  # the command has ended, and with it the other side
            asyncio.get_running_loop().remove_reader(self._descriptor)
        self._changed.set()
