"""Whether calls are answered while a change is sent to thousands of watchers.

Run as `python bench/calls_beside.py`. GetEvent is called again and again, one call after the other, while changes are
on their way to all watchers, and by turns as often while nothing is.
"""

from __future__ import annotations

import asyncio
from time import monotonic

import grpc

from processes import WHOLE_PROJECT, Readers, tidings
from table import heading, line, p50_p99
from tidings.v1.event_service_pb2 import CreateEventRequest, GetEventRequest
from tidings.v1.event_service_pb2_grpc import EventServiceStub
from tidings_server.embedded import EmbeddedStore
from writes import EVENT, writing

WATCHERS = 5_000
CHANGES = 8
ROUNDS = 5


async def main() -> None:
    async with (
        EmbeddedStore(None) as store,
        tidings(store.uri) as server,
        writing(store.uri, server.target) as writer,
        grpc.aio.insecure_channel(server.target) as channel,
        Readers(server, [WHOLE_PROJECT] * WATCHERS) as readers,
    ):
        events = EventServiceStub(channel)
        await readers.arrivals(1)
        created = await events.CreateEvent(CreateEventRequest(event=EVENT))
        await readers.arrivals(1)
        request = GetEventRequest(event_id=created.event.event_id)

        async def broadcast() -> None:
            for _ in range(CHANGES):
                await writer.write()
                await readers.arrivals(1)

        async def time() -> float:
            """How many milliseconds a call takes."""
            begin = monotonic()
            await events.GetEvent(request)
            return 1000 * (monotonic() - begin)

        heading("p50 ms beside / without", "p99 ms", "worst ms")
        rounds = []
        for number in range(ROUNDS):
            sending = asyncio.create_task(broadcast())
            beside = []
            while not sending.done():
                beside.append(await time())
            await sending
            without = [await time() for _ in beside]
            rounds.append(((*p50_p99(beside), max(beside)), (*p50_p99(without), max(without))))
            line(f"round {number + 1}, {len(beside)} calls", rounds[-1:])
        line("median", rounds)


if __name__ == "__main__":
    asyncio.run(main())
