"""The wire, from a client's side: stubs on a real channel, and the only places where tests wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from types import SimpleNamespace, TracebackType
from typing import Any, Self, TypeVar

import grpc
from google.rpc import error_details_pb2, status_pb2

from tidings.v1.event_pb2 import Event
from tidings.v1.event_service_pb2 import CreateEventRequest, WatchEventRequest, WatchEventResponse
from tidings.v1.event_service_pb2_grpc import EventServiceStub
from tidings.v1.mission_pb2 import Mission
from tidings.v1.mission_service_pb2 import CreateMissionRequest
from tidings.v1.mission_service_pb2_grpc import MissionServiceStub
from tidings.v1.run_pb2 import Run
from tidings.v1.run_service_pb2 import CreateRunRequest, WatchRunRequest, WatchRunResponse
from tidings.v1.run_service_pb2_grpc import RunServiceStub
from tidings.v1.task_pb2 import TASK_STATE_UNSPECIFIED, TaskState, TaskStatus
from tidings.v1.task_service_pb2 import UpdateTaskStatusRequest
from tidings.v1.task_service_pb2_grpc import TaskServiceStub
from tidings_server.clock import system_clock
from tidings_server.server import Server

WITHIN_SECONDS = 20.0
"""Longer than anything takes: a test that waits this long has failed."""

Told = TypeVar("Told", WatchEventResponse, WatchRunResponse)
Watch = grpc.aio.UnaryStreamCall[Any, Told]
Call = grpc.aio.UnaryStreamCall[WatchEventRequest, WatchEventResponse]
RunCall = grpc.aio.UnaryStreamCall[WatchRunRequest, WatchRunResponse]


class Wire:
    """A client of a running server."""

    def __init__(self, server: Server | str, channel: grpc.aio.Channel | None = None) -> None:
        """Of a server in this process, or of the one at an address."""
        if isinstance(server, Server):
            self.server = server
        self.target = server if isinstance(server, str) else f"127.0.0.1:{server.port}"
        self.channel = channel or grpc.aio.insecure_channel(self.target)
        self.events = EventServiceStub(self.channel)
        self.tasks = TaskServiceStub(self.channel)
        self.missions = MissionServiceStub(self.channel)
        self.runs = RunServiceStub(self.channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.channel.close()

    async def create(self, type_: str = "test.event", **fields: Any) -> Event:
        """Create an event; with `ttl` in seconds, and in a run or a mission that need not be there yet."""
        await self.ensure(fields.get("run_id", ""), fields.get("mission_id", ""))
        request = CreateEventRequest()
        if ttl := fields.pop("ttl", None):
            request.ttl.seconds = ttl
        request.event.MergeFrom(Event(type=type_, **fields))
        return (await self.events.CreateEvent(request)).event

    async def ensure(self, run_id: str = "", mission_id: str = "") -> None:
        """Create the mission and the run unless they are there; of a run that has none given, one of its own."""
        if run_id and not mission_id:
            mission_id = f"mission-of-{run_id}"[:128]
        if mission_id:
            await existing(self.create_mission("test", mission_id=mission_id))
        if run_id:
            await existing(self.create_run(mission_id, run_id=run_id))

    async def create_task(self, type_: str = "test.task", **fields: Any) -> Event:
        return await self.create(type_, **{"status": TaskStatus(), **fields})

    async def update(
        self, task_id: str, state: TaskState.ValueType = TASK_STATE_UNSPECIFIED, **fields: Any
    ) -> TaskStatus:
        request = UpdateTaskStatusRequest(task_id=task_id, state=state, **fields)
        return (await self.tasks.UpdateTaskStatus(request)).status

    async def create_mission(self, name: str = "test", **fields: Any) -> Mission:
        request = CreateMissionRequest(mission=Mission(name=name, **fields))
        return (await self.missions.CreateMission(request)).mission

    async def create_run(self, mission_id: str = "", **fields: Any) -> Run:
        """Create a run, and a mission for it if none is given; with `ttl` in seconds."""
        request = CreateRunRequest()
        if ttl := fields.pop("ttl", None):
            request.ttl.seconds = ttl
        mission_id = mission_id or (await self.create_mission()).mission_id
        request.run.MergeFrom(Run(mission_id=mission_id, **fields))
        return (await self.runs.CreateRun(request)).run

    def watch(self, **fields: Any) -> Call:
        call: Call = self.events.WatchEvent(WatchEventRequest(**fields))
        return call

    def watch_run(self, run_id: str, **fields: Any) -> RunCall:
        call: RunCall = self.runs.WatchRun(WatchRunRequest(run_id=run_id, **fields))
        return call

    def narrow(self) -> Wire:
        """Another client of the server, for which the transport holds one or two large messages, not megabytes."""
        return Wire(self.server, grpc.aio.insecure_channel(self.target, options=[("grpc.http2.bdp_probe", 0)]))


async def existing(creation: Awaitable[object]) -> None:
    """Create something unless it is there."""
    try:
        await creation
    except grpc.aio.AioRpcError as error:
        if error.code() != grpc.StatusCode.ALREADY_EXISTS:
            raise


class Keyed(Wire):
    """A client that sends an API key, or other metadata, with every call."""

    def __init__(self, server: Server, key: str = "", *, metadata: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(server)
        self.metadata = metadata or (("x-api-key", key),)
        self.events: Any = self._keyed(self.events)
        self.tasks: Any = self._keyed(self.tasks)
        self.missions: Any = self._keyed(self.missions)
        self.runs: Any = self._keyed(self.runs)

    def _keyed(self, stub: object) -> SimpleNamespace:
        calls = {name: partial(call, metadata=self.metadata) for name, call in vars(stub).items()}
        return SimpleNamespace(**calls)


class SetClock:
    """A clock that stands still until it is put forward. It begins at the present, for the store purges by its own."""

    def __init__(self) -> None:
        self.now = system_clock()

    def __call__(self) -> int:
        return self.now

    def forward(self, *, days: int = 0, seconds: int = 0, milliseconds: int = 0) -> None:
        self.now += (days * 24 * 60 * 60 + seconds) * 1000 + milliseconds


async def take(call: Watch[Told]) -> Told:
    """The next message of a watch. Raises the call's status if it has ended."""
    async with asyncio.timeout(WITHIN_SECONDS):
        message = await call.read()
    if message is grpc.aio.EOF:
        code, details = await call.code(), await call.details()
        raise AssertionError(f"the watch ended with {code}: {details}")
    return message


async def take_until(call: Watch[Told], wanted: Callable[[Told], bool]) -> list[Told]:
    """The messages up to and with the first that is wanted."""
    messages: list[Told] = []
    while not messages or not wanted(messages[-1]):
        messages.append(await take(call))
    return messages


async def take_synced(call: Watch[Told]) -> list[Told]:
    """The messages up to and with `synced`."""
    return await take_until(call, lambda message: message.HasField("synced"))


async def take_all(call: Watch[Told]) -> list[Told]:
    """All messages to the end of a watch that ends with OK. Raises its status otherwise."""
    messages: list[Told] = []
    async with asyncio.timeout(WITHIN_SECONDS):
        while (message := await call.read()) is not grpc.aio.EOF:
            messages.append(message)
    return messages


async def ended(call: Watch[Told]) -> tuple[list[Told], grpc.aio.AioRpcError]:
    """The messages of a watch that ends with an error, and the error."""
    messages: list[Told] = []
    try:
        async with asyncio.timeout(WITHIN_SECONDS):
            while (message := await call.read()) is not grpc.aio.EOF:
                messages.append(message)
    except grpc.aio.AioRpcError as error:
        return messages, error
    raise AssertionError("the watch ended with OK")


async def failure(call: Any) -> Failed:
    """The status that a call fails with."""
    try:
        async with asyncio.timeout(WITHIN_SECONDS):
            await call
    except grpc.aio.AioRpcError as error:
        return Failed(error)
    raise AssertionError("the call succeeded")


class Failed:
    """The status that a call has failed with, its details unpacked."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        self.code = error.code()
        self.message = error.details() or ""
        trailers = dict(error.trailing_metadata() or ())
        self.status = status_pb2.Status.FromString(trailers.get("grpc-status-details-bin", b""))
        info = self._detail(error_details_pb2.ErrorInfo())
        self.reason, self.domain, self.metadata = info.reason, info.domain, dict(info.metadata)
        self.fields = {
            each.field: each.reason for each in self._detail(error_details_pb2.BadRequest()).field_violations
        }
        self.retry_seconds = self._detail(error_details_pb2.RetryInfo()).retry_delay.seconds
        self.request_id = self._detail(error_details_pb2.RequestInfo()).request_id

    def _detail(self, detail: Any) -> Any:
        for packed in self.status.details:
            if packed.Unpack(detail):
                break
        return detail


def reason_of(status: status_pb2.Status) -> str:
    """The reason in the status of a batch's item."""
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return info.reason
