"""The suites of the Go and the Java client against a real service: each language's own tests, examples included."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from wire import Wire

ROOT = Path(__file__).parents[2]
MUST_RUN_ALL = bool(os.environ.get("TIDINGS_TEST_ALL_CLIENTS"))


@pytest.mark.parametrize(("target", "tool"), [("test-go", "go"), ("test-java", "mvn")])
@pytest.mark.timeout(900)  # where nothing is installed yet, the tools fetch what they build with
async def test_a_client_passes_its_own_suite(server: Wire, target: str, tool: str) -> None:
    if shutil.which(tool) is None and not MUST_RUN_ALL:
        pytest.skip(f"there is no {tool} on the PATH")
    suite = await asyncio.create_subprocess_exec(
        "make",
        "--no-print-directory",
        target,
        cwd=ROOT,
        env={**os.environ, "TIDINGS_TEST_TARGET": server.target},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await suite.communicate()
    assert suite.returncode == 0, said.decode()[-20_000:]
