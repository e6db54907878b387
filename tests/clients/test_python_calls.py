"""What the Python clients add to a call: a deadline, the key, ids that make a retry safe, and typed failures."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status

from steps import End, fail
from tidings import AsyncClient, Client, TidingsError, _calls
from tidings.v1 import event_service_pb2, mission_service_pb2, run_service_pb2, task_service_pb2
from tidings.v1.error_reason_pb2 import ERROR_REASON_EVENT_NOT_FOUND, ERROR_REASON_UNSPECIFIED
from tidings.v1.event_pb2 import Event
from tidings.v1.event_service_pb2 import (
    BatchCreateEventsRequest,
    CreateEventRequest,
    GetEventRequest,
    WatchEventRequest,
)
from tidings.v1.task_service_pb2 import UpdateTaskStatusRequest, WaitTaskStatusRequest
from wire import WITHIN_SECONDS

FILES = {
    "events": event_service_pb2,
    "tasks": task_service_pb2,
    "missions": mission_service_pb2,
    "runs": run_service_pb2,
}
METHODS = [
    (stub, method)
    for stub, file in FILES.items()
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
    if not method.server_streaming
]
CREATED = {"CreateEvent": "event", "CreateMission": "mission", "CreateRun": "run"}


@dataclass
class Received:
    """A call as the service gets it."""

    request: bytes
    metadata: dict[str, str | bytes]


@dataclass
class Service(grpc.GenericRpcHandler):
    """Answers any call with what is next of its plays, and then with an empty message."""

    plays: list[End] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)
    hangs: bool = False

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        if handler_call_details.method.endswith("/WatchEvent"):
            return grpc.unary_stream_rpc_method_handler(self._stream)
        return grpc.unary_unary_rpc_method_handler(self._answer)

    async def _answer(self, request: bytes, context: Any) -> bytes:
        self.received.append(Received(request, dict(context.invocation_metadata())))
        if self.hangs:
            await asyncio.Event().wait()
        if self.plays:
            play = self.plays.pop(0)
            await context.abort(play.code, "scripted", (("grpc-status-details-bin", play.details),))
        return b""

    async def _stream(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield await self._answer(request, context)


@dataclass
class Caller:
    """Either client, called in the same way."""

    client: AsyncClient | Client
    service: Service

    async def call(self, stub: str, method: str, request: Message, **options: Any) -> Any:
        rpc = getattr(getattr(self.client, stub), method)
        if isinstance(self.client, AsyncClient):
            return await rpc(request, **options)
        return await asyncio.to_thread(rpc, request, **options)

    async def first(self, call: Any) -> None:
        """The first message of a stream."""
        await (call.read() if isinstance(self.client, AsyncClient) else asyncio.to_thread(next, call))

    async def received(self, stub: str, method: str, request: Message, **options: Any) -> Received:
        await self.call(stub, method, request, **options)
        return self.service.received[-1]


Callers = Callable[..., Any]


@pytest.fixture(params=["asyncio", "synchronous"])
def connect(request: pytest.FixtureRequest) -> Callers:
    """Makes a caller of each client, with a service of its own."""

    @asynccontextmanager
    async def connected(**options: Any) -> AsyncIterator[Caller]:
        service, server = Service(), grpc.aio.server()
        server.add_generic_rpc_handlers((service,))
        target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        try:
            if request.param == "asyncio":
                async with AsyncClient(target, **options) as client:
                    yield Caller(client, service)
            else:
                with Client(target, **options) as client:
                    yield Caller(client, service)
        finally:
            await server.stop(None)

    return connected


@pytest.mark.parametrize(("stub", "method"), METHODS, ids=lambda each: getattr(each, "name", each))
async def test_what_the_service_cannot_do_now_is_repeated_so_that_it_is_done_once(
    connect: Callers, stub: str, method: Any
) -> None:
    request: Any = GetMessageClass(method.input_type)()
    async with connect() as caller:
        caller.service.plays = [fail("UNAVAILABLE", "STORE_UNAVAILABLE")]
        await caller.call(stub, method.name, request)
        first, second = caller.service.received
    assert first.request == second.request
    sent = type(request).FromString(first.request)
    if "request_id" in method.input_type.fields_by_name:
        assert len(sent.request_id) == 36
    if resource := CREATED.get(method.name):
        assert getattr(getattr(sent, resource), f"{resource}_id")[14] == "7", "a UUIDv7"
    assert request == type(request)(), "the caller's own is left as it is"


async def test_it_is_repeated_three_times_at_most(connect: Callers) -> None:
    async with connect() as caller:
        caller.service.plays = [fail("UNAVAILABLE", "STORE_UNAVAILABLE", 3)] * 5
        with pytest.raises(TidingsError) as failure:
            await caller.call("events", "GetEvent", GetEventRequest(event_id="ev"))
        assert len(caller.service.received) == 4
        assert failure.value.code() == grpc.StatusCode.UNAVAILABLE
        assert failure.value.retry_delay_seconds == 3


async def test_other_failures_are_not_repeated(connect: Callers) -> None:
    async with connect() as caller:
        caller.service.plays = [fail("NOT_FOUND", "EVENT_NOT_FOUND")]
        with pytest.raises(TidingsError) as failure:
            await caller.call("events", "GetEvent", GetEventRequest(event_id="ev"))
        assert len(caller.service.received) == 1
        assert failure.value.reason == ERROR_REASON_EVENT_NOT_FOUND
        assert str(failure.value) == "NOT_FOUND (EVENT_NOT_FOUND): scripted"


async def test_a_stream_is_not_repeated_behind_the_watchs_back(connect: Callers) -> None:
    async with connect() as caller:
        caller.service.plays = [fail("UNAVAILABLE"), fail("NOT_FOUND")]
        call = caller.client.events.WatchEvent(WatchEventRequest(event_id="ev"))
        with pytest.raises(grpc.RpcError) as failure:
            await caller.first(call)
        assert failure.value.code() == grpc.StatusCode.UNAVAILABLE
        assert len(caller.service.received) == 1


async def test_ids_and_keys_that_the_caller_chose_are_kept(connect: Callers) -> None:
    named = CreateEventRequest(event=Event(event_id="ev-1"))
    keyed = CreateEventRequest(event=Event(idempotency_key="key-1"))
    update = UpdateTaskStatusRequest(task_id="ev-1", request_id="mine")
    batch = BatchCreateEventsRequest(requests=[named, keyed, CreateEventRequest()])
    async with connect() as caller:
        for method, request in {"CreateEvent": named, "BatchCreateEvents": batch}.items():
            sent = type(request).FromString((await caller.received("events", method, request)).request)
            if isinstance(sent, BatchCreateEventsRequest):
                assert sent.requests.pop().event.event_id
                assert list(sent.requests) == [named, keyed]
            else:
                assert sent == request
        received = await caller.received("tasks", "UpdateTaskStatus", update)
        assert UpdateTaskStatusRequest.FromString(received.request) == update


@pytest.mark.parametrize(
    ("request_", "seconds"),
    [
        (GetEventRequest(event_id="ev"), 10),
        (WaitTaskStatusRequest(task_id="ev"), 35),
        (WaitTaskStatusRequest(task_id="ev", timeout=Duration(seconds=50)), 55),
    ],
    ids=["call", "wait", "wait-of-50-seconds"],
)
def test_a_call_has_ten_seconds_and_a_wait_five_more_than_it_may_take(request_: Message, seconds: float) -> None:
    assert _calls.deadline_seconds(request_) == seconds


@pytest.mark.parametrize("options", [{}, {"timeout": 0.1}], ids=["default", "given"])
async def test_a_call_ends_at_its_deadline(
    connect: Callers, monkeypatch: pytest.MonkeyPatch, options: dict[str, float]
) -> None:
    monkeypatch.setattr(_calls, "DEADLINE_SECONDS", 60 if options else 0.1)
    async with connect() as caller:
        caller.service.hangs = True
        with pytest.raises(TidingsError) as failure:
            await caller.call("events", "GetEvent", GetEventRequest(event_id="ev"), **options)
        assert failure.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


async def test_the_key_is_sent_with_every_call_and_with_the_callers_own_metadata(connect: Callers) -> None:
    async with connect(key="secret") as caller:
        own = (("trace", "1"),)
        received = await caller.received("events", "GetEvent", GetEventRequest(event_id="ev"), metadata=own)
        assert received.metadata["authorization"] == "Bearer secret"
        assert received.metadata["trace"] == "1"
        call = caller.client.events.WatchEvent(WatchEventRequest(event_id="ev"))
        await caller.first(call)
        assert caller.service.received[-1].metadata["authorization"] == "Bearer secret"


async def test_a_future_is_handed_out_before_it_is_done() -> None:
    server = grpc.aio.server()
    service = Service(plays=[fail("NOT_FOUND")])
    server.add_generic_rpc_handlers((service,))
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    with Client(target) as client:
        future = client.events.GetEvent.future(GetEventRequest(event_id="ev"))
        failure = await asyncio.to_thread(future.exception, WITHIN_SECONDS)
        assert isinstance(failure, grpc.Call)
        assert failure.code() == grpc.StatusCode.NOT_FOUND
    await server.stop(None)


@pytest.mark.parametrize(
    "target", ["localhost:1", "dns:///127.0.0.1:1", "[::1]:1", "ipv6:[::1]:1", "unix:/run/tidings"]
)
def test_to_this_machine_it_speaks_in_plaintext(target: str) -> None:
    assert _calls.channel_credentials(target, None, insecure=False) is None
    assert _calls.channel_credentials(target, grpc.ssl_channel_credentials(), insecure=False) is not None


@pytest.mark.parametrize(
    "target", ["tidings.example:443", "dns:///10.0.0.1:1", "localhost.example:1", "ipv4:10.0.0.1:1,127.0.0.1:1"]
)
def test_to_others_only_if_told_to(target: str) -> None:
    assert _calls.channel_credentials(target, None, insecure=False) is not None
    assert _calls.channel_credentials(target, None, insecure=True) is None


def test_credentials_and_plaintext_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="either credentials or insecure"):
        Client("tidings.example:443", credentials=grpc.ssl_channel_credentials(), insecure=True)


def test_failures_of_others_have_no_reason() -> None:
    def reason(details: bytes) -> int:
        trailers = grpc.aio.Metadata(("grpc-status-details-bin", details))
        return TidingsError(grpc.StatusCode.INTERNAL, grpc.aio.Metadata(), trailers, "no").reason

    ours = fail("INTERNAL", "EVENT_NOT_FOUND").details
    assert reason(ours) == ERROR_REASON_EVENT_NOT_FOUND
    assert reason(ours.replace(b"tidings", b"another")) == ERROR_REASON_UNSPECIFIED
    assert reason(fail("INTERNAL", "NEWER").details) == ERROR_REASON_UNSPECIFIED
    assert reason(b"\xff\xff") == ERROR_REASON_UNSPECIFIED


def test_of_a_field_with_two_faults_both_are_named() -> None:
    status, bad = Status(), BadRequest()
    for description in ("too long", "not visible"):
        bad.field_violations.add(field="id", description=description)
    status.details.add().Pack(bad)
    trailers = grpc.aio.Metadata(("grpc-status-details-bin", status.SerializeToString()))
    error = TidingsError(grpc.StatusCode.INVALID_ARGUMENT, grpc.aio.Metadata(), trailers, "no")
    assert error.violations == {"id": "too long; not visible"}


def test_a_failure_survives_the_way_to_another_process() -> None:
    trailers = grpc.aio.Metadata(("grpc-status-details-bin", fail("NOT_FOUND", "EVENT_NOT_FOUND").details))
    error = TidingsError(grpc.StatusCode.NOT_FOUND, grpc.aio.Metadata(), trailers, "gone")
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.code(), copy.reason, str(copy)) == (error.code(), error.reason, str(error))
