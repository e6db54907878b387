"""Do the tasks of some types, each once, however many workers there are: `python worker.py --type ADD [TARGET]`.

The API key, if the service asks for one, is that in TIDINGS_API_KEY. Ctrl-C or SIGTERM stops a worker when it has done
what it is at. When it is killed, the next one with its name does again what it was at.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any, Final
from uuid import NAMESPACE_OID, uuid4, uuid5

from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.struct_pb2 import Value
from grpc import StatusCode

from tidings import AsyncClient, TidingsError
from tidings.v1 import task_pb2 as states
from tidings.v1.event_pb2 import Event
from tidings.v1.event_service_pb2 import EventFilter, ListEventsRequest, ProjectScope, WatchEventRequest
from tidings.v1.task_pb2 import TaskError, TaskProgress, TaskState
from tidings.v1.task_service_pb2 import UpdateTaskStatusRequest

NOT_OURS: Final = {StatusCode.ABORTED, StatusCode.FAILED_PRECONDITION, StatusCode.NOT_FOUND}
"""How a change fails of a task that another worker has taken, that has ended, or that is gone."""
PASSING: Final = {StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED, StatusCode.RESOURCE_EXHAUSTED}
RETRY_SECONDS: Final = 1.0


async def do(task: Event, report: Callable[[TaskProgress], Awaitable[object]]) -> list[Value]:
    """The work itself, in whose place you put yours: it returns the results, or raises what the task fails with.

    This one keeps what each message of the payload says, and cannot do what says "please fail".
    """
    messages = MessageToDict(task.payload)["messages"]
    results = []
    for number, message in enumerate(messages, start=1):
        memory = message["content"]
        if "please fail" in memory:
            raise ValueError(f"message {number} asks to fail")
        memory_id = str(uuid5(NAMESPACE_OID, f"{task.event_id}/{number}"))
        results.append(ParseDict({"id": memory_id, "event": "ADD", "data": {"memory": memory}}, Value()))
        await report(TaskProgress(completed=number, total=len(messages), unit="messages"))
    return results


class Worker:
    """Takes tasks as they come, but no more than so many at once."""

    def __init__(self, client: AsyncClient, types: list[str], name: str, at_once: int) -> None:
        self._client = client
        self._types = types
        self._mark = f"taken by {name}"
        self._slots = asyncio.Semaphore(at_once)

    async def run(self) -> None:
        """Work until a signal says to stop."""
        pending = EventFilter(types=self._types, states=[states.TASK_STATE_PENDING])
        request = WatchEventRequest(project=ProjectScope(), filter=pending)
        async with asyncio.TaskGroup() as at_work, self._client.watch(request) as watch:
            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, lambda: at_work.create_task(watch.close()))
            await self._slots.acquire()
            async for task in self._left_behind():
                at_work.create_task(self._take(task))
                await self._slots.acquire()
            async for message in watch:
                if message.change.event.status.state == states.TASK_STATE_PENDING:
                    at_work.create_task(self._take(message.change.event))
                    await self._slots.acquire()  # before the next one is read, which while it waited would become stale

    async def _left_behind(self) -> AsyncIterator[Event]:
        """What a worker of this name was at when it was killed."""
        request = ListEventsRequest(types=self._types, states=[states.TASK_STATE_RUNNING])
        while True:
            page = await lasting(self._client.events.ListEvents, request)
            for task in page.events:
                if task.transitions[-1].message == self._mark:
                    yield task
            request.page_token = page.next_page_token
            if not request.page_token:
                return

    async def _take(self, task: Event) -> None:
        """Claim a task and do it. Of all workers that try one succeeds: for the others the revision has changed."""
        claim = {"state": states.TASK_STATE_RUNNING, "message": self._mark, "expected_revision": task.revision}
        try:
            if await self._report(task, **claim):
                await self._work_on(task)
        finally:
            self._slots.release()

    async def _work_on(self, task: Event) -> None:
        """Do a task, unless it is called off meanwhile, and report what came of it."""
        work = asyncio.create_task(do(task, lambda progress: self._report(task, progress=progress)))
        called_off = asyncio.create_task(self._called_off(task))
        await asyncio.wait((work, called_off), return_when=asyncio.FIRST_COMPLETED)
        work.cancel()
        called_off.cancel()
        await asyncio.wait((work, called_off))
        if work.cancelled():
            await self._report(task, state=states.TASK_STATE_CANCELLED)
        else:
            await self._report_end(task, work)

    async def _report_end(self, task: Event, work: asyncio.Task[list[Value]]) -> None:
        try:
            await self._report(task, state=states.TASK_STATE_SUCCEEDED, results=work.result())
        except Exception as error:  # noqa: BLE001 - whatever the work raised, or the service, which may refuse the results
            reason = TaskError(code=type(error).__name__, message=str(error)[:1000])
            await self._report(task, state=states.TASK_STATE_FAILED, error=reason)

    async def _called_off(self, task: Event) -> None:
        """Wait until somebody asks to cancel the task, or has ended it."""
        with suppress(TidingsError):
            async for message in self._client.watch(WatchEventRequest(event_id=task.event_id)):
                if message.change.event.status.cancel_requested:
                    return

    async def _report(self, task: Event, **changes: Any) -> bool:
        """Change a task's status; False if the task is not ours."""
        request = UpdateTaskStatusRequest(task_id=task.event_id, request_id=str(uuid4()), **changes)
        try:
            status = (await lasting(self._client.tasks.UpdateTaskStatus, request)).status
        except TidingsError as error:
            if error.code() not in NOT_OURS:
                raise
            return False
        if "state" in changes:
            print(task.event_id, TaskState.Name(status.state), flush=True)  # noqa: T201
        return True


async def lasting(call: Callable[[Any], Awaitable[Any]], request: Any) -> Any:
    """Call until the service is there to answer: its `request_id` makes a change safe to repeat."""
    while True:
        try:
            return await call(request)
        except TidingsError as error:
            if error.code() not in PASSING:
                raise
            await asyncio.sleep(error.retry_delay_seconds or RETRY_SECONDS)


async def main() -> None:
    parser = argparse.ArgumentParser(description="Do the tasks of some types.")
    parser.add_argument("target", nargs="?", default="127.0.0.1:50051")
    parser.add_argument("--type", dest="types", action="append", required=True, help="may be given several times")
    parser.add_argument("--name", default=f"{socket.gethostname()}/{os.getpid()}", help="of one worker at a time")
    parser.add_argument("--at-once", type=int, default=8, help="how many tasks")
    chosen = parser.parse_args()
    async with AsyncClient(chosen.target, key=os.environ.get("TIDINGS_API_KEY")) as client:
        await Worker(client, chosen.types, chosen.name, chosen.at_once).run()


if __name__ == "__main__":
    asyncio.run(main())
