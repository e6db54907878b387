"""What an append into a run costs, against an event outside of runs, and whether it grows with the run.

Run as `python bench/append.py`. Everything is measured through the wire, one call after the other, on the embedded
store; what is compared is measured by turns, so that a busy machine slows down both.
"""

from __future__ import annotations

import asyncio
import time
from statistics import median
from typing import TYPE_CHECKING

import grpc

from tidings.v1.event_pb2 import Event
from tidings.v1.event_service_pb2 import BatchCreateEventsRequest, CreateEventRequest
from tidings.v1.event_service_pb2_grpc import EventServiceStub
from tidings.v1.mission_pb2 import Mission
from tidings.v1.mission_service_pb2 import CreateMissionRequest
from tidings.v1.mission_service_pb2_grpc import MissionServiceStub
from tidings.v1.run_pb2 import Run
from tidings.v1.run_service_pb2 import CreateRunRequest
from tidings.v1.run_service_pb2_grpc import RunServiceStub
from tidings_server.config import Config
from tidings_server.logs import configure_logs
from tidings_server.server import serve

if TYPE_CHECKING:  # a type of the stubs only
    from tidings.v1.event_service_pb2_grpc import EventServiceAsyncStub

LENGTHS = (100, 1_000, 10_000)
CALLS = 200
BATCH = 100


async def main() -> None:
    configure_logs("auto")
    async with (
        serve(Config(listen="127.0.0.1:0", http_port="off")) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        events = EventServiceStub(channel)
        mission = Mission(mission_id="bench", name="bench")
        await MissionServiceStub(channel).CreateMission(CreateMissionRequest(mission=mission))
        print(f"{'events in the run':>18}{'append':>12}{'plain event':>14}{'ratio':>8}")  # noqa: T201
        for length in LENGTHS:
            run = Run(run_id=f"run-of-{length}", mission_id=mission.mission_id)
            await RunServiceStub(channel).CreateRun(CreateRunRequest(run=run))
            await fill(events, run.run_id, length)
            append, plain = await measured(events, run.run_id)
            print(f"{length:>18,}{append:>9.2f} ms{plain:>11.2f} ms{append / plain:>8.2f}")  # noqa: T201


def creation(run_id: str) -> CreateEventRequest:
    return CreateEventRequest(event=Event(type="bench.event", summary="an event", run_id=run_id))


async def fill(events: EventServiceAsyncStub, run_id: str, length: int) -> None:
    for _ in range(length // BATCH):
        await events.BatchCreateEvents(BatchCreateEventsRequest(requests=[creation(run_id)] * BATCH))


async def measured(events: EventServiceAsyncStub, run_id: str) -> tuple[float, float]:
    """The median milliseconds of an append into the run, and of the creation of a plain event."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(CALLS):
        for request, taken in zip((creation(run_id), creation("")), times, strict=True):
            begin = time.perf_counter()
            await events.CreateEvent(request)
            taken.append(1000 * (time.perf_counter() - begin))
    return median(times[0]), median(times[1])


if __name__ == "__main__":
    asyncio.run(main())
