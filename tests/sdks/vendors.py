"""A server as the vendors' customers see it, and programs that are run in the environment of a vendor's SDK."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from conftest import Start
from faces import keyed
from wire import Keyed
from worker_process import working

VENDORS: Final = ("exa", "gomemory", "mem0", "memos", "telnyx")
_ENVIRONMENTS: Final = Path(__file__).parents[2] / ".venv-sdks"
_ARE_MADE: Final = all((_ENVIRONMENTS / vendor / ".made").exists() for vendor in VENDORS)
MUST_RUN_ALL: Final = os.environ.get("TIDINGS_TEST_ALL_SDKS") == "1"

needs_sdks: Final = pytest.mark.skipif(
    not _ARE_MADE and not MUST_RUN_ALL, reason="the SDKs are not installed: `make test-sdks` does it and runs this"
)

PROGRAM_SECONDS: Final = 90.0
"""How long a program may take; the import of MemOS alone takes ten."""


@dataclass(frozen=True, slots=True)
class Service:
    """A server that asks for keys, a worker that does the tasks that SDKs hand in, and one of its keys."""

    client: Keyed
    key: str

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.client.server.http_port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"


@asynccontextmanager
async def service(start: Start) -> AsyncIterator[Service]:
    types = ("--type", "ADD", "--type", "memory.add")
    async with keyed(start) as (client, key), working(client.target, *types, key=key):
        yield Service(client, key)


def python_of(vendor: str) -> str:
    """The Python that has the vendor's SDK."""
    return str(_ENVIRONMENTS / vendor / "bin" / "python")


async def run(*command: str, folder: Path, environment: Mapping[str, str]) -> str:
    """Run a program that must succeed, with a folder as its home, and return what it printed."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env={
            "PATH": f"{Path(command[0]).parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(folder),
            "PYTHONUNBUFFERED": "1",
            "MEM0_TELEMETRY": "False",
            **environment,
        },
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    end = asyncio.get_running_loop().call_later(PROGRAM_SECONDS, process.kill)
    printed, complaints = await process.communicate()
    end.cancel()
    assert process.returncode == 0, (
        f"{command} ended with {process.returncode}\n{printed.decode()}\n{complaints.decode()}"
    )
    return printed.decode()
