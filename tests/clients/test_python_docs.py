"""What the Python client's README and example show works, and needs nothing of the server's."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

from tidings.v1.task_pb2 import TASK_STATE_RUNNING, TASK_STATE_SUCCEEDED
from wire import WITHIN_SECONDS, Wire

CLIENT = Path(__file__).parents[2] / "clients" / "python"
README = (CLIENT / "README.md").read_text(encoding="utf-8")


async def test_the_readme_shows_how_to_follow_the_tasks_of_a_project(server: Wire) -> None:
    program = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0]
    assert "127.0.0.1:50051" in program
    program = program.replace("127.0.0.1:50051", server.target)
    running = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
    assert running.stdout is not None
    try:
        async with asyncio.timeout(WITHIN_SECONDS):
            task_id = (await server.create_task("demo.task")).event_id
            told = [await running.stdout.readline()]
            for state in (TASK_STATE_RUNNING, TASK_STATE_SUCCEEDED):
                await server.update(task_id, state)
                told.append(await running.stdout.readline())
        states = ("PENDING", "RUNNING", "SUCCEEDED")
        assert b"".join(told).decode() == "".join(f"{task_id} TASK_STATE_{state}\n" for state in states)
    finally:
        running.kill()
        await running.wait()


async def test_the_example_follows_a_task_to_its_end(server: Wire) -> None:
    follow = str(CLIENT / "examples" / "follow.py")
    running = await asyncio.create_subprocess_exec(
        sys.executable, follow, server.target, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(WITHIN_SECONDS):
        output, _ = await running.communicate()
    told = output.decode().splitlines()
    assert running.returncode == 0
    assert told[-1] == "TASK_STATE_SUCCEEDED 2 of 3 pages"
    assert set(told[:-1]) <= {
        "TASK_STATE_PENDING 0 of 3 pages",
        *(f"TASK_STATE_RUNNING {n} of 3 pages" for n in range(3)),
    }


async def test_the_client_imports_nothing_of_the_server() -> None:
    program = "import sys, tidings; print(*{name.partition('.')[0] for name in sys.modules})"
    running = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
    output, _ = await running.communicate()
    assert running.returncode == 0
    imported = set(output.decode().split())
    assert "grpc" in imported
    assert not imported & {"tidings_server", "motor", "pymongo", "bson", "protovalidate", "pydantic", "typer", "rich"}
