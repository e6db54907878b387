"""One run, 16 writers, two servers of which one is killed: its log stays dense, in order, and complete.

TIDINGS_TEST_EVENTS_PER_WRITER says how much each writes (500 is the long run), TIDINGS_TEST_LISTED_EVENTS how long the
listed log is (10,000).
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from contextlib import AsyncExitStack

import grpc
import pytest

from conftest import Start
from process import ServerProcess, server_process
from tidings.v1.event_pb2 import Event
from tidings.v1.event_service_pb2 import (
    LIST_ORDER_NEWEST_FIRST,
    LIST_ORDER_OLDEST_FIRST,
    BatchCreateEventsRequest,
    CreateEventRequest,
    ListEventsRequest,
    ListOrder,
    WatchEventRequest,
)
from wire import WITHIN_SECONDS, Failed, Wire

WRITERS = 16
EVENTS_PER_WRITER = int(os.environ.get("TIDINGS_TEST_EVENTS_PER_WRITER", "25"))
LISTED = int(os.environ.get("TIDINGS_TEST_LISTED_EVENTS", "1000"))
RUN = "run"


class Log:
    """What writers were told of the events that they added, and watchers of all."""

    def __init__(self, doomed: Wire, survivor: Wire) -> None:
        self.wires = [doomed, survivor]
        self.survivor = survivor
        self.acknowledged: dict[str, int] = {}
        """The sequence of each event, by its key."""
        self.half_done = asyncio.Event()
        self.trouble: Counter[str] = Counter()

    async def write(self, number: int) -> None:
        """Add events to the run, one after the other, through the one server or, once that is gone, the other."""
        wire, last = self.wires[number % 2], 0
        for count in range(EVENTS_PER_WRITER):
            key = f"{number}-{count}"
            request = CreateEventRequest(event=Event(type="test.event", run_id=RUN, idempotency_key=key))
            while key not in self.acknowledged:
                try:
                    event = (await wire.events.CreateEvent(request)).event
                    self.acknowledged[key] = event.sequence
                except grpc.aio.AioRpcError as error:
                    if self._is_dead(error):
                        wire = self.survivor
            assert self.acknowledged[key] > last, "what is added later has a higher number"
            last = self.acknowledged[key]
            if len(self.acknowledged) * 2 >= WRITERS * EVENTS_PER_WRITER:
                self.half_done.set()

    async def watch(self, wire: Wire) -> list[tuple[int, str]]:
        """Watch the run until everything has been told, going on with the other server if this one dies."""
        told: list[tuple[int, str]] = []
        token = ""
        while len(told) < WRITERS * EVENTS_PER_WRITER:
            try:
                async for message in wire.events.WatchEvent(WatchEventRequest(run_id=RUN, resume_token=token)):
                    assert not message.HasField("reset")
                    token = message.resume_token
                    if message.HasField("change"):
                        told.append((message.change.event.sequence, message.change.event.idempotency_key))
                    if len(told) == WRITERS * EVENTS_PER_WRITER:
                        break
            except grpc.aio.AioRpcError as error:
                if self._is_dead(error):
                    wire = self.survivor
        return told

    def _is_dead(self, error: grpc.aio.AioRpcError) -> bool:
        """Whether a server is gone, rather than busy. Any other failure is raised."""
        reason = Failed(error).reason
        self.trouble[f"{error.code().name} {reason}"] += 1
        if error.code() != grpc.StatusCode.UNAVAILABLE or reason not in {"", "STORE_UNAVAILABLE"}:
            raise error
        return not reason


@pytest.mark.timeout(180 + EVENTS_PER_WRITER)
async def test_the_log_of_a_run_is_dense_and_complete_though_a_server_is_killed(
    mongodb_uri: str, database: str
) -> None:
    async with AsyncExitStack() as stack:
        arguments = ("--mongodb-uri", mongodb_uri, "--mongodb-database", database)
        processes = [await stack.enter_async_context(server_process(*arguments)) for _ in range(2)]
        doomed, survivor = [await stack.enter_async_context(await wire_of(process)) for process in processes]
        await survivor.create_run(run_id=RUN)
        log = Log(doomed, survivor)
        async with asyncio.TaskGroup() as tasks:
            watchers = [tasks.create_task(log.watch(wire)) for wire in (doomed, survivor)]
            writers = [tasks.create_task(log.write(number)) for number in range(WRITERS)]
            await log.half_done.wait()
            processes[0].send(signal.SIGKILL)
            await asyncio.wait(writers)
            async with asyncio.timeout(WITHIN_SECONDS):
                await asyncio.gather(*watchers)
        total = WRITERS * EVENTS_PER_WRITER
        print(f"{total} events, {dict(log.trouble)}")  # noqa: T201
        assert sorted(log.acknowledged.values()) == list(range(1, total + 1)), "dense, none twice"
        expected = sorted((sequence, key) for key, sequence in log.acknowledged.items())
        for watcher in watchers:
            assert watcher.result() == expected, "told in the order of commits, which is the order of numbers"
        stored = await pages(survivor, ListEventsRequest(run_id=RUN, order=LIST_ORDER_OLDEST_FIRST, page_size=1000))
        assert [(event.sequence, event.idempotency_key) for event in stored] == expected, "nothing is missing"


async def wire_of(process: ServerProcess) -> Wire:
    return Wire(f"127.0.0.1:{(await process.logged('serving'))['port']}")


async def pages(wire: Wire, request: ListEventsRequest) -> list[Event]:
    events: list[Event] = []
    while True:
        page = await wire.events.ListEvents(request)
        events += page.events
        if not page.next_page_token:
            return events
        request.page_token = page.next_page_token


def batch(size: int) -> BatchCreateEventsRequest:
    request = CreateEventRequest(event=Event(type="test.event", run_id=RUN))
    return BatchCreateEventsRequest(requests=[request] * size)


@pytest.mark.timeout(60 + LISTED // 20)
@pytest.mark.parametrize("order", [LIST_ORDER_OLDEST_FIRST, LIST_ORDER_NEWEST_FIRST], ids=["oldest", "newest"])
async def test_a_list_shows_what_was_there_exactly_once_while_more_is_written(
    start: Start, order: ListOrder.ValueType
) -> None:
    async with start() as reader, start() as writer:
        await writer.create_run(run_id=RUN)
        ids: list[str] = []
        while len(ids) < LISTED:
            reply = await writer.events.BatchCreateEvents(batch(min(500, LISTED - len(ids))))
            ids += [result.event.event_id for result in reply.results]
        listing = asyncio.create_task(pages(reader, ListEventsRequest(run_id=RUN, order=order, page_size=100)))
        added = 0
        while not listing.done():
            await writer.events.BatchCreateEvents(batch(10))
            added += 10
        listed = await listing
        shown = Counter(event.event_id for event in listed)
        print(f"{len(listed)} listed, {added} added meanwhile")  # noqa: T201
        assert added > 0
        assert max(shown.values()) == 1
        assert shown.keys() >= set(ids)
        sequences = [event.sequence for event in listed]
        assert sequences == sorted(sequences, reverse=order == LIST_ORDER_NEWEST_FIRST)
