"""What it costs to deliver changes to many watchers, against a bare grpc.aio server that sends the same bytes.

Run as `python bench/fanout.py`. The two servers are measured by turns: with all changes at once, which shows how many
deliveries a process is capable of, and with one after the other. On a machine with few cores, which the readers need
too, the processor time of the server is the steadier figure.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import grpc

from processes import WATCH, WHOLE_PROJECT, Readers, Server, bare, tidings
from table import heading, line
from tidings_server.embedded import EmbeddedStore
from writes import Writer, writing

WATCHERS = 500
CHANGES = 100
PAUSE_SECONDS = 0.05
ROUNDS = 9

Write = Callable[[int], Awaitable[object]]


class Cost(NamedTuple):
    per_second: float
    cpu_micros: float


async def main() -> None:
    async with (
        EmbeddedStore(None) as store,
        tidings(store.uri) as ours,
        bare() as raw,
        writing(store.uri, ours.target) as writer,
    ):
        message = await sample(ours, writer)

        async def tell_raw(count: int) -> None:
            raw.tell((message, count))

        print(f"{WATCHERS} watchers, messages of {len(message)} bytes: Tidings / bare")  # noqa: T201
        heading("deliveries/s", "CPU us/delivery")
        async with (
            Readers(ours, [WHOLE_PROJECT] * WATCHERS) as our_readers,
            Readers(raw, [WHOLE_PROJECT] * WATCHERS) as raw_readers,
        ):
            await our_readers.arrivals(1)
            await raw_readers.arrivals(1)
            await cost(ours, our_readers, writer.write, 0.0)  # so that both have warmed up
            await cost(raw, raw_readers, tell_raw, 0.0)
            for name, pause in (("all at once", 0.0), ("one by one", PAUSE_SECONDS)):
                rounds = []
                for number in range(ROUNDS):
                    our_cost = await cost(ours, our_readers, writer.write, pause)
                    raw_cost = await cost(raw, raw_readers, tell_raw, pause)
                    rounds.append((our_cost, raw_cost))
                    line(f"{name} {number + 1}", rounds[-1:])
                line(f"{name}, median", rounds)


async def sample(server: Server, writer: Writer) -> bytes:
    """The bytes of a change, as a watcher receives them."""
    async with grpc.aio.insecure_channel(server.target) as channel:
        stream: Any = channel.unary_stream(WATCH)
        watch = stream(WHOLE_PROJECT.SerializeToString())
        await watch.read()
        await writer.write()
        message: bytes = await watch.read()
        return message


async def cost(server: Server, readers: Readers, write: Write, pause: float) -> Cost:
    """What it takes to deliver the changes that are written, all at once or with a pause after each."""
    begin = server.cpu_seconds
    if not pause:
        await write(CHANGES)
    else:
        for _ in range(CHANGES):
            await write(1)
            await asyncio.sleep(pause)
    times = await readers.arrivals(CHANGES)
    seconds = max(each[-1] for each in times) - min(each[0] for each in times)
    deliveries = WATCHERS * CHANGES
    return Cost(deliveries / seconds, (server.cpu_seconds - begin) / deliveries * 1e6)


if __name__ == "__main__":
    asyncio.run(main())
