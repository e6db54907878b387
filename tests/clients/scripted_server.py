"""A server that plays the conformance steps (steps.py), whatever they are, and notes what it was asked.

A step is chosen by the request: `WatchEvent` with the step's name as `event_id`; for a name that begins with
`project-`, with the scope `project` and the name as the filter's only type; for one that begins with `run-`, `WatchRun`
with the name as `run_id`. Requests have a `heartbeat_interval` of TIDINGS_HEARTBEAT_SECONDS, and beyond that what the
beginning of the name says:

    live-only-       `live_only`
    max-duration-    `max_duration` of two seconds
    resumed-         the resume token `given`

Run as `python tests/clients/scripted_server.py` it prints its port, and when its input ends what clients did wrong.
"""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final

import grpc

from steps import (
    GIVEN_TOKEN,
    MAX_DURATION_SECONDS,
    NO_TOKEN,
    OK,
    STEPS,
    Connection,
    Cut,
    End,
    Pause,
    Step,
)
from tidings.v1.event_service_pb2 import WatchEventRequest, WatchEventResponse
from tidings.v1.event_service_pb2_grpc import EventServiceServicer, add_EventServiceServicer_to_server
from tidings.v1.run_pb2 import Run
from tidings.v1.run_service_pb2 import RunChange, WatchRunRequest, WatchRunResponse
from tidings.v1.run_service_pb2_grpc import RunServiceServicer, add_RunServiceServicer_to_server

_TIMER_SLACK_SECONDS: Final = 0.02
"""Clocks of two processes are not read at one moment, nor are timers exact."""


@dataclass
class Seen:
    """A request, when it came, and when its stream ended."""

    request: WatchEventRequest | WatchRunRequest
    began_at: float
    ended_at: float = 0.0


class ScriptedServer:
    """Plays the steps on a port of its own."""

    def __init__(self) -> None:
        self.seen: dict[str, list[Seen]] = defaultdict(list)
        self._connections: set[asyncio.StreamWriter] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[int]:
        """Serve; the port."""
        server = grpc.aio.server()
        add_EventServiceServicer_to_server(_Events(self), server)
        add_RunServiceServicer_to_server(_Runs(self), server)
        self._hidden_port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        relay = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        try:
            yield relay.sockets[0].getsockname()[1]
        finally:
            relay.close()
            self._cut()
            await server.stop(None)

    def complaints(self) -> list[str]:
        """What clients asked otherwise than the steps say they must."""
        return [each for name, seen in self.seen.items() for each in _complaints(STEPS[name], seen)]

    async def play(self, name: str, request: Any, context: Any) -> AsyncIterator[WatchEventResponse]:
        """The next connection of a step."""
        step = STEPS.get(name)
        if step is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f'there is no step "{name}"')
            return
        number = len(self.seen[name]) + 1
        seen = Seen(request, monotonic())
        self.seen[name].append(seen)
        try:
            if number > len(step.connections):
                await context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"{name} has no connection {number}")
            async for message in self._play(step.connections[number - 1], number, context):
                yield message
        finally:
            seen.ended_at = monotonic()

    async def _play(self, connection: Connection, number: int, context: Any) -> AsyncIterator[WatchEventResponse]:
        told = 0
        for action in connection.plays:
            match action:
                case WatchEventResponse():
                    told += 1
                    message = WatchEventResponse()
                    message.CopyFrom(action)
                    message.resume_token = "" if action.resume_token == NO_TOKEN else f"{number}.{told}"
                    yield message
                case Pause(seconds):
                    await asyncio.sleep(seconds)
                case Cut():
                    # What was sent must have arrived, for the step says which messages come before the cut.
                    await asyncio.sleep(0.05)
                    self._cut()
                case End(code, details) if code != OK:
                    trailers = (("grpc-status-details-bin", details),) if details else ()
                    await context.abort(code, "scripted", trailers)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Hand on the bytes of a TCP connection, so that it can be cut: gRPC gives no access to its own."""
        hidden_reader, hidden_writer = await asyncio.open_connection("127.0.0.1", self._hidden_port)
        self._connections |= {writer, hidden_writer}
        try:
            await asyncio.gather(_hand_on(reader, hidden_writer), _hand_on(hidden_reader, writer))
        finally:
            self._connections -= {writer, hidden_writer}

    def _cut(self) -> None:
        for writer in self._connections:
            writer.transport.abort()


async def _hand_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


class _Events(EventServiceServicer):
    def __init__(self, server: ScriptedServer) -> None:
        self._server = server

    async def WatchEvent(self, request: WatchEventRequest, context: Any) -> AsyncIterator[WatchEventResponse]:  # noqa: N802
        name = request.filter.types[0] if request.HasField("project") and request.filter.types else request.event_id
        async for message in self._server.play(name, request, context):
            if message.HasField("change"):
                message.change.event.event_id = message.change.event.event_id or name
            yield message


class _Runs(RunServiceServicer):
    def __init__(self, server: ScriptedServer) -> None:
        self._server = server

    async def WatchRun(self, request: WatchRunRequest, context: Any) -> AsyncIterator[WatchRunResponse]:  # noqa: N802
        async for message in self._server.play(request.run_id, request, context):
            yield _of_run(message, request.run_id)


def _of_run(message: WatchEventResponse, run_id: str) -> WatchRunResponse:
    if not message.HasField("change"):
        return WatchRunResponse.FromString(message.SerializeToString())
    event = message.change.event
    run = Run(run_id=run_id, revision=event.revision, create_time=event.create_time, state=event.status.state)
    return WatchRunResponse(resume_token=message.resume_token, change=RunChange(kind=message.change.kind, run=run))


def request_of(name: str, heartbeat_seconds: int) -> WatchEventRequest | WatchRunRequest:
    """What a driver asks for a step at first."""
    request = WatchRunRequest(run_id=name) if name.startswith("run-") else WatchEventRequest()
    if isinstance(request, WatchEventRequest):
        if name.startswith("project-"):
            request.project.SetInParent()
            request.filter.types.append(name)
        else:
            request.event_id = name
        if name.startswith("live-only-"):
            request.live_only = True
    request.heartbeat_interval.seconds = heartbeat_seconds
    if name.startswith("max-duration-"):
        request.max_duration.seconds = MAX_DURATION_SECONDS
    if name.startswith("resumed-"):
        request.resume_token = GIVEN_TOKEN
    return request


def _complaints(step: Step, seen: list[Seen]) -> list[str]:
    found = []
    if len(seen) != len(step.connections):
        found.append(f"{len(seen)} streams instead of {len(step.connections)}")
    for number, (connection, each) in enumerate(zip(step.connections, seen, strict=False), 1):
        asked, expected = each.request, request_of(step.name, step.heartbeat_seconds)
        if connection.token:
            expected.resume_token = connection.token
        if limits := connection.max_duration_seconds:
            given = asked.max_duration.ToTimedelta().total_seconds()
            if not limits[0] <= given <= limits[1]:
                found.append(f"stream {number}: max_duration is {given} s, not between {limits[0]} and {limits[1]}")
            expected.max_duration.CopyFrom(asked.max_duration)
        if asked != expected:
            found.append(f"stream {number}: asked for {{ {asked} }} instead of {{ {expected} }}".replace("\n", " "))
        waited = each.began_at - seen[number - 2].ended_at
        if connection.waited_seconds and waited < connection.waited_seconds - _TIMER_SLACK_SECONDS:
            found.append(f"stream {number}: came after {waited:.3f} s, not {connection.waited_seconds}")
        if not 0 < each.ended_at <= seen[-1].ended_at:
            found.append(f"stream {number}: was left open")
    return [f"{step.name}: {each}" for each in found]


async def _main() -> None:
    server = ScriptedServer()
    async with server.running() as port:
        print(port, flush=True)  # noqa: T201 (its output)
        await asyncio.to_thread(sys.stdin.read)
    for complaint in server.complaints():
        print(complaint)  # noqa: T201


if __name__ == "__main__":
    asyncio.run(_main())
