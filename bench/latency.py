"""How long after a write was acknowledged a watcher knows of it, against a change stream of the store itself.

Run as `python bench/latency.py`. Both are read here, at the same time, for the same writes. The store may tell of a
change before it acknowledges the write: the delay from then may be next to nothing, or negative, and its ratio say
little. So the delay from the beginning of the write is there as well; and, by turns with Tidings, a bare grpc.aio
server that passes on what its own change stream gives it: as much as the way through a second process takes by
itself.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from time import monotonic
from typing import Any

import grpc
from pymongo.asynchronous.change_stream import AsyncChangeStream

from processes import WATCH, WHOLE_PROJECT, Server, relay, tidings
from table import Figures, heading, line, p50_p99
from tidings_server.embedded import EmbeddedStore
from writes import Writer, writing

WRITES = 300
WARMING_WRITES = 100
PAUSE_SECONDS = 0.02
ROUNDS = 5

Stream = AsyncChangeStream[dict[str, Any]]
Delays = tuple[tuple[Figures, Figures], tuple[Figures, Figures]]
"""Of a server and of the stream: since the writes were acknowledged, and since they were begun."""


async def main() -> None:
    async with EmbeddedStore(None) as store, AsyncExitStack() as stack:
        async with tidings(store.uri) as ours:
            writer = await stack.enter_async_context(writing(store.uri, ours.target))
        changes = await writer.database.watch(full_document="updateLookup", max_await_time_ms=500)
        stream = await stack.enter_async_context(changes)
        since: dict[str, list[tuple[Figures, Figures]]] = defaultdict(list)
        heading("it / stream p50 ms", "p99 ms")
        for number in range(1, ROUNDS + 1):
            for name, server in {"watch": tidings, "relay": relay}.items():
                acknowledged, begun = await delays_at(server(store.uri), stream, writer)
                since[f"{name} since acknowledged"].append(acknowledged)
                since[f"{name} since begun"].append(begun)
                line(f"{name} since acknowledged {number}", [acknowledged])
        for title, rounds in since.items():
            line(f"{title}, median", rounds)


async def delays_at(server: Server, stream: Stream, writer: Writer) -> Delays:
    """As `delays_of`, when the server has warmed up. It runs no longer, for it would be in the way of the others."""
    async with server, grpc.aio.insecure_channel(server.target) as channel:
        await delays_of(channel, stream, writer, WARMING_WRITES)
        return await delays_of(channel, stream, writer, WRITES)


async def delays_of(channel: grpc.aio.Channel, stream: Stream, writer: Writer, writes: int) -> Delays:
    """How late a server's watch and the stream were, after the writes were acknowledged, and after they were begun."""
    watch: Any = channel.unary_stream(WATCH)(WHOLE_PROJECT.SerializeToString())
    await watch.read()
    watched, streamed, written = await asyncio.gather(
        arrivals(watch.read, writes), arrivals(lambda: next_event(stream), writes), written_at(writer, writes)
    )
    watch.cancel()
    begun, acknowledged = zip(*written, strict=True)
    after_ack = delays(watched, acknowledged), delays(streamed, acknowledged)
    return after_ack, (delays(watched, begun), delays(streamed, begun))


async def arrivals(receive: Callable[[], Awaitable[object]], count: int) -> list[float]:
    times = []
    for _ in range(count):
        await receive()
        times.append(monotonic())
    return times


async def next_event(stream: Stream) -> None:
    while (await anext(stream))["ns"]["coll"] != "events":
        pass


async def written_at(writer: Writer, count: int) -> list[tuple[float, float]]:
    """When each write was begun, and when it was acknowledged."""
    times = []
    for _ in range(count):
        begin = monotonic()
        times.append((begin, await writer.write()))
        await asyncio.sleep(PAUSE_SECONDS)
    return times


def delays(arrived: list[float], begun: tuple[float, ...]) -> tuple[float, float]:
    """The median and the 99th percentile, in milliseconds."""
    return p50_p99([1000 * (end - begin) for end, begin in zip(arrived, begun, strict=True)])


if __name__ == "__main__":
    asyncio.run(main())
