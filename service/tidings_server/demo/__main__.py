"""`make run`: the service at 127.0.0.1:50051, for HTTP 8080, on the embedded store, with samples and a worker."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib.resources import files
from typing import TYPE_CHECKING, Final

import grpc
from google.protobuf import json_format

from tidings.v1.event_pb2 import Event
from tidings.v1.event_service_pb2 import CreateEventRequest
from tidings.v1.event_service_pb2_grpc import EventServiceStub
from tidings.v1.mission_pb2 import Mission
from tidings.v1.mission_service_pb2 import CreateMissionRequest
from tidings.v1.mission_service_pb2_grpc import MissionServiceStub
from tidings.v1.run_pb2 import Run
from tidings.v1.run_service_pb2 import CreateRunRequest
from tidings.v1.run_service_pb2_grpc import RunServiceStub
from tidings.v1.task_pb2 import TASK_STATE_RUNNING, TASK_STATE_SUCCEEDED, TaskProgress, TaskStatus
from tidings.v1.task_service_pb2 import UpdateTaskStatusRequest
from tidings.v1.task_service_pb2_grpc import TaskServiceStub
from tidings_server.config import Config
from tidings_server.embedded import EmbeddedStoreError
from tidings_server.logs import configure_logs
from tidings_server.runner import run
from tidings_server.server import Server, StartRefused, serve
from tidings_server.stopping import StoppedAtOnce, stop_signals

if TYPE_CHECKING:  # these exist for the type checker only
    from tidings.v1.event_service_pb2_grpc import EventServiceAsyncStub
    from tidings.v1.task_service_pb2_grpc import TaskServiceAsyncStub

TASK_TYPE: Final = "demo.task"
TASK_TTL_SECONDS: Final = 600
PAGES: Final = 9
SECONDS_PER_PAGE: Final = 3.0
SECONDS_BETWEEN_TASKS: Final = 5.0

_WELCOME: Final = """
Tidings is ready at {address}. In another terminal:

  grpcurl -plaintext -d '{{"event_id": "{event_id}"}}' \\
    {address} tidings.v1.EventService/GetEvent

  grpcurl -plaintext -d '{{"project": {{}}, "filter": {{"types": ["{task_type}"]}}}}' \\
    {address} tidings.v1.EventService/WatchEvent

or over HTTP:

  curl -N 'http://127.0.0.1:{http_port}/tidings/v1/events:watch?filter.types={task_type}'

Ctrl-C stops it.
"""


def samples() -> Iterator[CreateEventRequest]:
    """The requests that store the samples, in the order of their file names."""
    for file in sorted((files(__package__) / "samples").iterdir(), key=lambda file: file.name):
        yield json_format.ParseDict(json.loads(file.read_text(encoding="utf-8"))["request"], CreateEventRequest())


async def load_samples(channel: grpc.aio.Channel) -> list[Event]:
    """Store the samples, with the missions and runs that they are of, and return their events."""
    events, loaded = EventServiceStub(channel), []
    for request in samples():
        if request.event.run_id:
            await _create_run(channel, request.event.mission_id, request.event.run_id)
        with suppress(grpc.aio.AioRpcError):  # one sample is a later moment of another's task
            loaded.append((await events.CreateEvent(request)).event)
    return loaded


async def _create_run(channel: grpc.aio.Channel, mission_id: str, run_id: str) -> None:
    """Create a run and its mission, unless they are there."""
    mission = Mission(mission_id=mission_id, name="sample")
    await MissionServiceStub(channel).CreateMission(CreateMissionRequest(mission=mission))
    await RunServiceStub(channel).CreateRun(CreateRunRequest(run=Run(mission_id=mission_id, run_id=run_id)))


async def work_for_ever(events: EventServiceAsyncStub, tasks: TaskServiceAsyncStub) -> None:
    """Create a task every few seconds and work on each, until cancelled."""
    async with asyncio.TaskGroup() as under_way:
        while True:
            request = CreateEventRequest(event=Event(type=TASK_TYPE, summary="read a document", status=TaskStatus()))
            request.ttl.seconds = TASK_TTL_SECONDS
            under_way.create_task(work_on((await events.CreateEvent(request)).event, tasks))
            await asyncio.sleep(SECONDS_BETWEEN_TASKS)


async def work_on(event: Event, tasks: TaskServiceAsyncStub) -> None:
    """Claim a task, report progress for half a minute, and finish it."""
    await asyncio.sleep(SECONDS_PER_PAGE)
    claim = UpdateTaskStatusRequest(task_id=event.event_id, state=TASK_STATE_RUNNING, expected_revision=event.revision)
    await tasks.UpdateTaskStatus(claim)
    for page in range(1, PAGES + 1):
        await asyncio.sleep(SECONDS_PER_PAGE)
        progress = TaskProgress(completed=page, total=PAGES, unit="pages", message=f"page {page}")
        await tasks.UpdateTaskStatus(UpdateTaskStatusRequest(task_id=event.event_id, progress=progress))
    await tasks.UpdateTaskStatus(UpdateTaskStatusRequest(task_id=event.event_id, state=TASK_STATE_SUCCEEDED))


async def keep_working(server: Server) -> None:
    """Work, and after a failure, such as a restart of the store, begin again."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        while True:
            with suppress(grpc.aio.AioRpcError, ExceptionGroup):
                await work_for_ever(EventServiceStub(channel), TaskServiceStub(channel))
            await asyncio.sleep(1)


async def _run(config: Config) -> None:
    async with stop_signals() as stop_asked, serve(config) as server:
        address = f"127.0.0.1:{server.port}"
        async with grpc.aio.insecure_channel(address) as channel:
            loaded = await load_samples(channel)
        shown = next(event for event in loaded if event.type == "ADD")
        names = {"address": address, "http_port": server.http_port, "task_type": TASK_TYPE}
        print(_WELCOME.format(event_id=shown.event_id, **names), flush=True)  # noqa: T201
        worker = asyncio.create_task(keep_working(server))
        await stop_asked()
        worker.cancel()
        await asyncio.wait([worker])


def main() -> None:
    configure_logs("text")
    try:
        run(_run(Config()))
    except (StartRefused, EmbeddedStoreError) as error:
        sys.exit(f"tidings-server: {error}")
    except StoppedAtOnce:
        sys.exit(130)


if __name__ == "__main__":
    main()
