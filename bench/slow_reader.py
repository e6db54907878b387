"""Whether one reader that has stopped reading delays the others.

Run as `python bench/slow_reader.py`. How long after a write was acknowledged the others receive the change is measured
by turns with such a reader and without. It is sent more than the transport takes in for it, in large events that the
others do not watch, so that it holds up its own stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import chain
from statistics import median

import grpc

from processes import QUIET, WHOLE_PROJECT, Readers, Server, tidings
from table import heading, line, p50_p99
from tidings.v1.event_pb2 import Event
from tidings.v1.event_service_pb2 import EventFilter, ProjectScope, WatchEventRequest
from tidings.v1.event_service_pb2_grpc import EventServiceStub
from tidings_server.embedded import EmbeddedStore
from writes import EVENT, Writer, writing

OTHERS = 499
WRITES = 40
PAUSE_SECONDS = 0.08
ROUNDS = 7
SMALL_ONLY = WatchEventRequest(
    project=ProjectScope(), live_only=True, heartbeat_interval=QUIET, filter=EventFilter(types=[EVENT.type])
)
LARGE = Event(type="bench.large")
LARGE.payload["text"] = 200 * 1024 * "x"
LARGE_WRITES = 40


async def main() -> None:
    async with (
        EmbeddedStore(None) as store,
        tidings(store.uri) as server,
        writing(store.uri, server.target) as writer,
        writing(store.uri, server.target, LARGE) as large_writer,
        Readers(server, [SMALL_ONLY] * OTHERS) as others,
    ):
        await others.arrivals(1)
        await delays(others, writer)  # of a server that has warmed up
        heading("p50 ms with / without", "p99 ms", "p99 of a write, ms")
        rounds = []
        for number in range(ROUNDS):
            without = await delays(others, writer)
            async with stalled(server, large_writer):
                rounds.append((await delays(others, writer), without))
            line(f"{OTHERS} others {number + 1}", rounds[-1:])
        line("median", rounds)


@asynccontextmanager
async def stalled(server: Server, large_writer: Writer) -> AsyncIterator[None]:
    """A reader that has begun to read, and stopped."""
    async with grpc.aio.insecure_channel(server.target) as channel:
        watch = EventServiceStub(channel).WatchEvent(WHOLE_PROJECT)
        await watch.read()
        for _ in range(LARGE_WRITES):
            await large_writer.write()
        yield


async def delays(others: Readers, writer: Writer) -> tuple[float, float, float]:
    """Of all deliveries of some writes the median and the 99th percentile, and the latter of the median write, in ms.

    Whatever else the machine does delays some of the writes, and so decides the 99th percentile of them all.
    """
    acknowledged = []
    for _ in range(WRITES):
        acknowledged.append(await writer.write())
        await asyncio.sleep(PAUSE_SECONDS)
    arrived = zip(*await others.arrivals(WRITES), strict=True)
    of_writes = [[1000 * (end - begin) for end in ends] for ends, begin in zip(arrived, acknowledged, strict=True)]
    typical = median(p50_p99(of_write)[1] for of_write in of_writes)
    return *p50_p99(list(chain.from_iterable(of_writes))), typical


if __name__ == "__main__":
    asyncio.run(main())
