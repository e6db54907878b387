"""Servers and readers in processes of their own, so that what one of them costs is not mixed with the others.

The servers that are compared are Tidings and bare grpc.aio servers. All are read by the same readers, which take
messages as bytes: it is the servers that are measured.
"""

from __future__ import annotations

import asyncio
import os
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from time import monotonic
from typing import Any, Self

import bson
import grpc
from google.protobuf.duration_pb2 import Duration
from motor.motor_asyncio import AsyncIOMotorClient
from pydantic import SecretStr

from tidings.v1.event_service_pb2 import ProjectScope, WatchEventRequest
from tidings_server.config import Config
from tidings_server.limits import Limits
from tidings_server.logs import configure_logs
from tidings_server.runner import run as run_as_a_server
from tidings_server.server import serve

WITHIN_SECONDS = 120.0
"""Longer than anything takes."""
STREAMS_PER_CONNECTION = 500
OPENING_AT_ONCE = 100
"""How a storm of new watches fares is another question."""
WATCH = "/tidings.v1.EventService/WatchEvent"
QUIET = Duration(seconds=60)
WHOLE_PROJECT = WatchEventRequest(project=ProjectScope(), live_only=True, heartbeat_interval=QUIET)
"""A watch that is told `synced` and from then on nothing but changes, for a minute of silence at least."""

_LIMITS = Limits(watches_per_project_max=20_000, watches_max=20_000)
_ACCEPT_ALL = (("grpc.server.max_pending_requests", 20_000), ("grpc.server.max_pending_requests_hard_limit", 20_000))
_OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)
_context = get_context("spawn")  # gRPC does not survive a fork


class Worker:
    """A process that does some work, and a pipe to it. It is killed at the end."""

    def __init__(self, work: Callable[..., Awaitable[None]], *arguments: object) -> None:
        self._pipe, theirs = _context.Pipe()
        self._process = _context.Process(target=_run, args=(work, theirs, *arguments), daemon=True)
        self._process.start()
        theirs.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()

    def tell(self, order: object) -> None:
        self._pipe.send(order)

    async def hear(self) -> Any:
        if not await asyncio.to_thread(self._pipe.poll, WITHIN_SECONDS):
            raise TimeoutError
        return self._pipe.recv()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # user and system

    @property
    def rss_bytes(self) -> int:
        fields = Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()
        return int(fields[1]) * os.sysconf("SC_PAGESIZE")


class Server(Worker):
    """A server in a process, started when entered."""

    async def __aenter__(self) -> Self:
        self.target = f"127.0.0.1:{await self.hear()}"
        return self


def tidings(store_uri: str) -> Server:
    return Server(_tidings, store_uri)


def bare() -> Server:
    """Sends every reader what it is told: a message, and how many times."""
    return Server(_bare)


def relay(store_uri: str) -> Server:
    """Sends every reader the changes of the store's events as they are: the least that a server can do."""
    return Server(_relay, store_uri)


class Readers(Worker):
    """Readers in a process, each with a stream of its own for one of the requests."""

    def __init__(self, server: Server, requests: Sequence[WatchEventRequest]) -> None:
        super().__init__(_readers, server.target, [request.SerializeToString() for request in requests])

    async def arrivals(self, count: int) -> list[array[float]]:
        """When each reader has received its next `count` messages, on the clock of time.monotonic."""
        self.tell(count)
        times: list[array[float]] = await self.hear()
        return times


def _run(work: Callable[..., Awaitable[None]], pipe: Connection, *arguments: object) -> None:
    configure_logs("auto")

    async def run() -> None:
        with suppress(EOFError):  # of the pipe, when the bench has ended
            await work(pipe, *arguments)

    # Tidings runs as its command does, and everything else as grpc.aio's documentation has it.
    as_usual = run_as_a_server if work is _tidings else asyncio.run
    as_usual(run())


async def _tidings(pipe: Connection, store_uri: str) -> None:
    config = Config(listen="127.0.0.1:0", http_port="off", mongodb_uri=SecretStr(store_uri))
    async with serve(config, limits=_LIMITS) as server:
        pipe.send(server.port)
        await asyncio.to_thread(pipe.recv)


async def _bare(pipe: Connection) -> None:
    async with _broadcast(pipe) as tell:
        while True:
            message, count = await asyncio.to_thread(pipe.recv)
            for _ in range(count):
                tell(message)
                await asyncio.sleep(0)


async def _relay(pipe: Connection, store_uri: str) -> None:
    events = AsyncIOMotorClient[dict[str, Any]](store_uri)["tidings"]["events"]
    async with _broadcast(pipe) as tell, events.watch(max_await_time_ms=500) as changes:
        async for change in changes:
            tell(bson.encode(change["fullDocument"]))


@asynccontextmanager
async def _broadcast(pipe: Connection) -> AsyncIterator[Callable[[bytes], None]]:
    """Serve what can be called to send every reader a message."""
    queues: set[asyncio.Queue[bytes]] = set()

    async def watch(_: bytes, context: object) -> AsyncIterator[bytes]:
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        queue.put_nowait(b"synced")
        queues.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            queues.discard(queue)

    def tell(message: bytes) -> None:
        for queue in queues:
            queue.put_nowait(message)

    server = grpc.aio.server(options=_ACCEPT_ALL)
    service, method = WATCH.strip("/").split("/")
    handler: Any = grpc.unary_stream_rpc_method_handler(watch)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    pipe.send(port)
    yield tell


async def _readers(pipe: Connection, target: str, requests: Sequence[bytes]) -> None:
    received = _Received(len(requests))
    opening = asyncio.Semaphore(OPENING_AT_ONCE)

    async def read(watch: Any, request: bytes, index: int) -> None:
        async with opening:
            stream = watch(request)
            message = await stream.read()
        while message is not grpc.aio.EOF:
            received.by(index)
            message = await stream.read()
        raise EOFError  # a bench without one of its readers measures nothing

    async with asyncio.TaskGroup() as reading:
        for index, request in enumerate(requests):
            if index % STREAMS_PER_CONNECTION == 0:
                channel = grpc.aio.insecure_channel(target, options=_OWN_CONNECTION)
                watch: Any = channel.unary_stream(WATCH)
            reading.create_task(read(watch, request, index))
        while True:
            pipe.send(await received.next(await asyncio.to_thread(pipe.recv)))


class _Received:
    """When each of some readers has received what."""

    def __init__(self, readers: int) -> None:
        self._times = [array("d") for _ in range(readers)]
        self._missing = 0
        self._complete = asyncio.Event()

    def by(self, reader: int) -> None:
        self._times[reader].append(monotonic())
        self._missing -= 1
        if not self._missing:
            self._complete.set()

    async def next(self, count: int) -> list[array[float]]:
        """The times of the next messages, `count` for each reader."""
        self._complete.clear()
        self._missing += count * len(self._times)
        if self._missing:
            await self._complete.wait()
        times, self._times = self._times, [array("d") for _ in self._times]
        return times
