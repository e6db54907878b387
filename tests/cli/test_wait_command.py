"""`tidings wait`: the exit code tells how the task ended."""

from __future__ import annotations

import asyncio
from asyncio.subprocess import Process
from pathlib import Path

import pytest
from command import Tidings, end, interrupt

from tidings.v1.event_service_pb2 import DeleteEventRequest
from tidings.v1.task_pb2 import (
    TASK_STATE_CANCELLED,
    TASK_STATE_FAILED,
    TASK_STATE_RUNNING,
    TASK_STATE_SUCCEEDED,
    TaskState,
)
from wire import WITHIN_SECONDS, Wire

OUTCOMES = [(TASK_STATE_SUCCEEDED, 0), (TASK_STATE_FAILED, 3), (TASK_STATE_CANCELLED, 4)]


async def waiting(server: Wire, home: Path, task_id: str, *options: str) -> Process:
    """A command that waits for a new task."""
    await server.create_task(event_id=task_id)
    process = await Tidings(home, server.target).begin("wait", task_id, *options)
    assert process.stderr is not None
    async with asyncio.timeout(WITHIN_SECONDS):
        assert await process.stderr.readline() == f"{task_id} is PENDING\n".encode()
    return process


@pytest.mark.parametrize(("state", "code"), OUTCOMES)
async def test_the_exit_code_tells_how_a_task_ends(
    server: Wire, tmp_path: Path, some_id: str, state: TaskState.ValueType, code: int
) -> None:
    process = await waiting(server, tmp_path, some_id)
    await server.update(some_id, TASK_STATE_RUNNING)
    await server.update(some_id, state, message="over")
    result = await end(process)
    assert (result.code, result.err) == (code, "")
    assert f"state        {TaskState.Name(state).removeprefix('TASK_STATE_')}\nmessage      over\n" in result.out


async def test_a_task_that_has_ended_is_not_waited_for(server: Wire, tmp_path: Path, some_id: str) -> None:
    await server.create_task(event_id=some_id)
    await server.update(some_id, TASK_STATE_FAILED)
    result = await Tidings(tmp_path, server.target).run("wait", some_id, "-o", "json")
    assert (result.code, result.json["state"], result.err) == (3, "TASK_STATE_FAILED", "")


async def test_the_exit_code_tells_that_the_time_was_up(server: Wire, tmp_path: Path, some_id: str) -> None:
    result = await end(await waiting(server, tmp_path, some_id, "--timeout", "0.1s"))
    assert (result.code, "state        PENDING\n" in result.out) == (5, True)


async def test_a_task_that_is_deleted_is_not_found(server: Wire, tmp_path: Path, some_id: str) -> None:
    process = await waiting(server, tmp_path, some_id)
    await server.events.DeleteEvent(DeleteEventRequest(event_id=some_id))
    result = await end(process)
    assert (result.code, result.out, "EVENT_NOT_FOUND" in result.err) == (69, "", True)


async def test_a_fact_cannot_be_waited_for(server: Wire, tmp_path: Path, some_id: str) -> None:
    await server.create(event_id=some_id)
    result = await Tidings(tmp_path, server.target).run("wait", some_id)
    assert (result.code, "TASK_NOT_FOUND" in result.err) == (69, True)


async def test_ctrl_c_ends_the_wait(server: Wire, tmp_path: Path, some_id: str) -> None:
    result = await interrupt(await waiting(server, tmp_path, some_id))
    assert result == (130, "", "")
