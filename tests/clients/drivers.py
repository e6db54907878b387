"""The drivers: a program in each language that watches with its client and prints what it is told.

`DRIVER TARGET STEP...` plays conformance steps, `DRIVER --event-id ID TARGET` watches one event of a real service to
its end.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest

CLIENTS: Final = {"python-async": "Python, asyncio", "python": "Python", "go": "Go", "java": "Java"}
"""What the drivers are of."""
_TOOLS: Final = {"go": "go", "java": "mvn"}

_REPOSITORY: Final = Path(__file__).parents[2]
_PYTHON: Final = str(Path(__file__).parent / "conformance_python.py")


def is_available(client: str) -> bool:
    """Whether its toolchain is there."""
    return client not in _TOOLS or shutil.which(_TOOLS[client]) is not None


def require(client: str) -> None:
    """Skip a test where the toolchain of the client is missing; fail it where everything must be tested, as in CI."""
    if not is_available(client):
        give_up = pytest.fail if os.environ.get("TIDINGS_TEST_ALL_CLIENTS") == "1" else pytest.skip
        give_up(f"{_TOOLS[client]} is not installed")


async def command(client: str, build_folder: Path) -> list[str]:
    """How to run a driver, built if need be."""
    match client:
        case "go":
            binary = build_folder / "conformance-go"
            await _build("go", "build", "-o", str(binary), "./internal/conformance", folder=_REPOSITORY / "clients/go")
            return [str(binary)]
        case "java":
            folder = _REPOSITORY / "clients/java"
            await _build("mvn", "--batch-mode", "--quiet", "test-compile", folder=folder)
            target = folder / "target"
            libraries = (target / "classpath.txt").read_text(encoding="utf-8").strip()
            classes = os.pathsep.join([str(target / "test-classes"), str(target / "classes"), libraries])
            return ["java", "-cp", classes, "dev.tidings.Conformance"]
        case _:
            return [sys.executable, _PYTHON, "async" if client == "python-async" else "sync"]


async def _build(tool: str, *arguments: str, folder: Path) -> None:
    building = await asyncio.create_subprocess_exec(tool, *arguments, cwd=folder)
    assert await building.wait() == 0, f"{tool} {' '.join(arguments)} failed"


@asynccontextmanager
async def driver(*arguments: str, heartbeat_seconds: int = 15) -> AsyncIterator[asyncio.StreamReader]:
    """Run a driver: its output. It is killed at the end if it is still there."""
    process = await asyncio.create_subprocess_exec(
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "TIDINGS_HEARTBEAT_SECONDS": str(heartbeat_seconds)},
    )
    assert process.stdout is not None
    try:
        yield process.stdout
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def lines(output: asyncio.StreamReader) -> AsyncIterator[dict[str, Any]]:
    """What a driver says, to its end."""
    while line := await output.readline():
        yield json.loads(line)


def free_port() -> int:
    """A port that no connection takes for its own end while the server is away."""
    for port in range(20_000, 30_000):
        with socket.socket() as tried, suppress(OSError):
            tried.bind(("127.0.0.1", port))
            return port
    raise AssertionError("there is no free port")
