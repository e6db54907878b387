"""The worker example of the Python client: each task once, whoever stops, is killed or asks for cancellation."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.struct_pb2 import Struct

from drivers import free_port
from process import server_process
from tidings.v1.event_pb2 import Event
from tidings.v1.task_pb2 import TASK_STATE_CANCELLED, TASK_STATE_FAILED, TASK_STATE_PENDING, TASK_STATE_SUCCEEDED
from tidings.v1.task_service_pb2 import CancelTaskRequest, GetTaskStatusRequest
from tidings_server.limits import Limits
from wire import WITHIN_SECONDS, Wire, take_all, take_until
from worker_process import working

LONG = 200
"""Messages of a task that a worker is at for a while."""


def saying(*contents: str) -> Struct:
    messages = [{"role": "user", "content": content} for content in contents]
    return ParseDict({"messages": messages}, Struct())


async def submit(server: Wire, type_: str, *contents: str) -> Event:
    return await server.create_task(type_, payload=saying(*contents))


async def final(server: Wire, task: Event) -> Event:
    """The task when it has ended."""
    told = await take_all(server.watch(event_id=task.event_id))
    return [message.change.event for message in told if message.HasField("change")][-1]


async def state_of(server: Wire, task: Event) -> int:
    return (await server.tasks.GetTaskStatus(GetTaskStatusRequest(task_id=task.event_id))).status.state


async def begun(server: Wire, task: Event) -> None:
    watch = server.watch(event_id=task.event_id)
    async with asyncio.timeout(WITHIN_SECONDS):
        await take_until(watch, lambda message: message.change.event.status.progress.completed > 0)


async def test_two_workers_do_every_task_once(server: Wire, some_id: str) -> None:
    tasks = [await submit(server, some_id, f"message {number}") for number in range(10)]
    async with (
        working(server.target, "--type", some_id, "--at-once", "3") as one,
        working(server.target, "--type", some_id, "--at-once", "3") as other,
    ):
        tasks += [await submit(server, some_id, f"message {number}") for number in range(10, 20)]
        done = [await final(server, task) for task in tasks]
        for worker in (one, other):
            assert await worker.stop(signal.SIGINT) == 0
        reported = [line.split() for worker in (one, other) async for line in worker.lines()]

    memories = [MessageToDict(each.results[0])["data"]["memory"] for each in done]
    assert memories == [f"message {number}" for number in range(20)]
    for state in ("TASK_STATE_RUNNING", "TASK_STATE_SUCCEEDED"):
        assert sorted(task_id for task_id, to in reported if to == state) == sorted(each.event_id for each in tasks)


async def test_it_takes_no_other_types(server: Wire, some_id: str) -> None:
    other = await submit(server, f"{some_id}.other", "not for it")
    async with working(server.target, "--type", some_id, "--type", f"{some_id}.too"):
        for type_ in (some_id, f"{some_id}.too"):
            assert (await final(server, await submit(server, type_, "for it"))).status.state == TASK_STATE_SUCCEEDED
    assert await state_of(server, other) == TASK_STATE_PENDING


async def test_what_it_cannot_do_fails_with_an_error(server: Wire, some_id: str) -> None:
    tasks = [await submit(server, some_id, "hello", "please fail"), await server.create_task(some_id)]
    async with working(server.target, "--type", some_id):
        refused, malformed = [(await final(server, task)).status for task in tasks]
    assert refused.state == malformed.state == TASK_STATE_FAILED
    assert (refused.error.code, refused.error.message) == ("ValueError", "message 2 asks to fail")
    assert (refused.progress.completed, refused.progress.total) == (1, 2)
    assert malformed.error.code == "KeyError"


async def test_results_that_the_service_refuses_fail_the_task(server: Wire, some_id: str) -> None:
    """A payload that just fits makes results that do not."""
    task = await submit(server, some_id, "x" * (Limits().payload_bytes_max - 80))
    async with working(server.target, "--type", some_id) as worker:
        status = (await final(server, task)).status
        assert await worker.stop(signal.SIGTERM) == 0
    assert status.state == TASK_STATE_FAILED
    assert status.error.code == "TidingsError"


async def test_a_task_that_is_called_off_is_cancelled(server: Wire, some_id: str) -> None:
    task = await submit(server, some_id, *["long"] * LONG)
    async with working(server.target, "--type", some_id):
        await begun(server, task)
        await server.tasks.CancelTask(CancelTaskRequest(task_id=task.event_id))
        status = (await final(server, task)).status
    assert status.state == TASK_STATE_CANCELLED
    assert status.progress.completed < LONG


async def test_a_worker_that_is_told_to_stop_finishes_what_it_is_at(server: Wire, some_id: str) -> None:
    tasks = [await submit(server, some_id, *["long"] * LONG) for _ in range(3)]
    async with working(server.target, "--type", some_id, "--at-once", "1") as worker:
        taken = (await worker.line()).split()[0]
        assert await worker.stop(signal.SIGTERM) == 0
    states = {task.event_id: await state_of(server, task) for task in tasks}
    assert states.pop(taken) == TASK_STATE_SUCCEEDED
    assert list(states.values()) == [TASK_STATE_PENDING] * 2


async def test_what_a_killed_worker_was_at_is_done_by_the_next_one_of_its_name(server: Wire, some_id: str) -> None:
    task = await submit(server, some_id, *["long"] * LONG)
    arguments = (server.target, "--type", some_id, "--name", some_id)
    async with working(*arguments) as worker:
        await begun(server, task)
        await worker.stop(signal.SIGKILL)
    async with working(*arguments):
        done = await final(server, task)
    assert done.status.state == TASK_STATE_SUCCEEDED
    assert len(done.results) == LONG


async def test_a_worker_outlives_the_server(tmp_path: Path, some_id: str) -> None:
    target = f"127.0.0.1:{free_port()}"
    server_arguments = ("--listen", target, "--data-dir", str(tmp_path))
    async with working(target, "--type", some_id) as worker:
        async with server_process(*server_arguments) as process, Wire(target) as server:
            await process.logged("serving")
            first = await submit(server, some_id, *["long"] * LONG)
            await begun(server, first)
            process.send(signal.SIGKILL)
            await process.exit_code()
        async with server_process(*server_arguments) as process, Wire(target) as server:
            await process.logged("serving")
            tasks = [first, await submit(server, some_id, "after the restart")]
            assert [(await final(server, task)).status.state for task in tasks] == [TASK_STATE_SUCCEEDED] * 2
        assert worker.process.returncode is None
