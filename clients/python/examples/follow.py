"""Submit a task, work on it, and follow it to its end: `python follow.py [TARGET]`."""

from __future__ import annotations

import asyncio
import sys

from tidings import AsyncClient
from tidings.v1.event_pb2 import Event
from tidings.v1.event_service_pb2 import CreateEventRequest, WatchEventRequest
from tidings.v1.task_pb2 import TASK_STATE_RUNNING, TASK_STATE_SUCCEEDED, TaskProgress, TaskState, TaskStatus
from tidings.v1.task_service_pb2 import UpdateTaskStatusRequest

PAGES = 3


async def submit(client: AsyncClient) -> str:
    event = Event(type="example.task", summary="Read three pages", status=TaskStatus())
    return (await client.events.CreateEvent(CreateEventRequest(event=event))).event.event_id


async def work(client: AsyncClient, task_id: str) -> None:
    """What a worker does, here in the same process."""
    for page in range(PAGES):
        progress = TaskProgress(completed=page, total=PAGES, unit="pages")
        await client.tasks.UpdateTaskStatus(
            UpdateTaskStatusRequest(task_id=task_id, state=TASK_STATE_RUNNING, progress=progress)
        )
    await client.tasks.UpdateTaskStatus(UpdateTaskStatusRequest(task_id=task_id, state=TASK_STATE_SUCCEEDED))


async def follow(client: AsyncClient, task_id: str) -> None:
    async for message in client.watch(WatchEventRequest(event_id=task_id)):
        if message.HasField("change"):
            status = message.change.event.status
            print(TaskState.Name(status.state), f"{status.progress.completed} of {PAGES} pages")  # noqa: T201


async def main(target: str = "127.0.0.1:50051") -> None:
    async with AsyncClient(target) as client:
        task_id = await submit(client)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(follow(client, task_id))
            tasks.create_task(work(client, task_id))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
