"""What an idle watcher costs: the server's memory, against a stream of a bare grpc.aio server, and the store's work.

Run as `python bench/memory.py`. Memory is by how much the server's resident set has grown since its first stream,
divided by the streams opened since. Each watch of an event is of an event of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from itertools import pairwise
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from processes import QUIET, WHOLE_PROJECT, Readers, Server, bare, tidings
from table import heading, line
from tidings.v1.event_pb2 import Event
from tidings.v1.event_service_pb2 import WatchEventRequest
from tidings.v1.task_pb2 import TASK_STATE_PENDING, TaskStatus
from tidings_server.embedded import EmbeddedStore
from writes import Writer, writing

COUNTS = (1, 100, 1_000, 5_000, 10_000)
PROJECTS = [WHOLE_PROJECT] * COUNTS[-1]
TASK = Event(type="bench.task", summary="a task", status=TaskStatus(state=TASK_STATE_PENDING))
WRITTEN_AT_ONCE = 1_000
IDLE_SECONDS = 10


async def main() -> None:
    async with EmbeddedStore(None) as store:
        async with bare() as server, AsyncExitStack() as readers:
            raw = await growth(server, PROJECTS, readers)
        async with tidings(store.uri) as server, writing(store.uri, server.target, TASK) as writer:
            event_watches = await watches_of_events(writer)
            alone = await work(server, writer.database)
            async with AsyncExitStack() as readers:
                project = await growth(server, PROJECTS, readers)
                watched = await work(server, writer.database)
        async with tidings(store.uri) as server, AsyncExitStack() as readers:
            event = await growth(server, event_watches, readers, first_messages=2)
    heading("project KiB / bare", "event KiB / bare")
    for count, *kibibytes, bare_kibibytes in zip(COUNTS[1:], project, event, raw, strict=True):
        line(f"{count:,} watchers", [(kibibytes, [bare_kibibytes] * 2)])
    print(f"\n{'a second':>28}{'no watcher':>14}{f'{COUNTS[-1]:,} watchers':>18}")  # noqa: T201
    for name in alone:
        print(f"{name:>28}{alone[name]:>14.2f}{watched[name]:>18.2f}")  # noqa: T201


async def watches_of_events(writer: Writer) -> list[WatchEventRequest]:
    for _ in range(0, COUNTS[-1], WRITTEN_AT_ONCE):
        await writer.write(WRITTEN_AT_ONCE)
    records = writer.database["events"].find({}, {"_id": 1}, limit=COUNTS[-1])
    ids = [record["_id"].partition("/")[2] async for record in records]
    return [WatchEventRequest(event_id=event_id, heartbeat_interval=QUIET) for event_id in ids]


async def growth(
    server: Server, requests: Sequence[WatchEventRequest], opened: AsyncExitStack, *, first_messages: int = 1
) -> list[float]:
    """How many KiB the server has grown for each stream, at each of the counts after the first."""
    sizes = []
    for already, count in pairwise((0, *COUNTS)):
        readers = await opened.enter_async_context(Readers(server, requests[already:count]))
        await readers.arrivals(first_messages)
        sizes.append(server.rss_bytes / 1024)
    return [(size - sizes[0]) / (count - COUNTS[0]) for count, size in zip(COUNTS[1:], sizes[1:], strict=True)]


async def work(server: Server, database: AsyncDatabase[dict[str, Any]]) -> dict[str, float]:
    """What the store and the server do in a second while nothing happens, and the change streams that are open."""
    cpu, begin = server.cpu_seconds, await status(database)
    await asyncio.sleep(IDLE_SECONDS)
    end = await status(database)
    counters = begin["opcounters"]
    done = {f"store: {name}": (end["opcounters"][name] - counters[name]) / IDLE_SECONDS for name in counters}
    done["server: CPU seconds"] = (server.cpu_seconds - cpu) / IDLE_SECONDS
    return {**done, "open cursors (not a second)": end["metrics"]["cursor"]["open"]["total"]}


async def status(database: AsyncDatabase[dict[str, Any]]) -> dict[str, Any]:
    return await database.client.admin.command("serverStatus")


if __name__ == "__main__":
    asyncio.run(main())
