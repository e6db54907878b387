"""How long after a write was acknowledged a watcher knows of it, against a change stream of the store itself.

Run as `python bench/latency.py`. Both are read here, at the same time, for the same writes. The store may tell of a
change before it acknowledges the write: the delay from then may be next to nothing, or negative, and its ratio say
little. So the delay from the beginning of the write is there as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any

import grpc
from pymongo.asynchronous.change_stream import AsyncChangeStream

from processes import WHOLE_PROJECT, tidings
from table import Figures, heading, line, p50_p99
from tidings.v1.event_service_pb2_grpc import EventServiceStub
from tidings_server.embedded import EmbeddedStore
from writes import Writer, writing

WRITES = 300
PAUSE_SECONDS = 0.02
ROUNDS = 5


async def main() -> None:
    async with (
        EmbeddedStore(None) as store,
        tidings(store.uri) as server,
        writing(store.uri, server.target) as writer,
        grpc.aio.insecure_channel(server.target) as channel,
        await writer.database.watch(full_document="updateLookup", max_await_time_ms=500) as stream,
    ):
        watch = EventServiceStub(channel).WatchEvent(WHOLE_PROJECT)
        await watch.read()
        heading("watch / stream p50 ms", "p99 ms")
        since_begun: list[tuple[Figures, Figures]] = []
        since_acknowledged: list[tuple[Figures, Figures]] = []
        for _ in range(ROUNDS):
            watched, streamed, written = await asyncio.gather(
                arrivals(watch.read), arrivals(lambda: next_event(stream)), written_at(writer)
            )
            for begin, rounds in zip(zip(*written, strict=True), (since_begun, since_acknowledged), strict=True):
                rounds.append((delays(watched, begin), delays(streamed, begin)))
        for name, rounds in (("acknowledged", since_acknowledged), ("begun", since_begun)):
            for number, figures in enumerate(rounds, 1):
                line(f"since {name} {number}", [figures])
            line(f"since {name}, median", rounds)


async def arrivals(receive: Callable[[], Awaitable[object]]) -> list[float]:
    times = []
    for _ in range(WRITES):
        await receive()
        times.append(monotonic())
    return times


async def next_event(stream: AsyncChangeStream[dict[str, Any]]) -> None:
    while (await anext(stream))["ns"]["coll"] != "events":
        pass


async def written_at(writer: Writer) -> list[tuple[float, float]]:
    """When each write was begun, and when it was acknowledged."""
    times = []
    for _ in range(WRITES):
        begin = monotonic()
        times.append((begin, await writer.write()))
        await asyncio.sleep(PAUSE_SECONDS)
    return times


def delays(arrived: list[float], begun: tuple[float, ...]) -> tuple[float, float]:
    """The median and the 99th percentile, in milliseconds."""
    return p50_p99([1000 * (end - begin) for end, begin in zip(arrived, begun, strict=True)])


if __name__ == "__main__":
    asyncio.run(main())
