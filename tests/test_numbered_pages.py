"""Lists for callers that count pages: what is skipped, and how many there are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from conftest import Start
from tidings.v1.event_service_pb2 import LIST_ORDER_OLDEST_FIRST, ListEventsRequest
from tidings.v1.mission_service_pb2 import DeleteMissionRequest, ListMissionsRequest
from tidings.v1.run_service_pb2 import ListRunsRequest
from wire import Wire

COUNT = 7


@pytest.fixture
async def stocked(start: Start) -> AsyncIterator[Wire]:
    """A server with missions, runs and events of known number, some of them in a mission that is deleted."""
    async with start() as wire:
        for number in range(COUNT):
            await wire.create_mission(mission_id=f"mission-{number}")
            await wire.create_run("mission-0", run_id=f"run-{number}")
            await wire.create(event_id=f"in-run-{number}", run_id="run-0", mission_id="mission-0")
            await wire.create(event_id=f"plain-{number}", type_="plain")
        await wire.create_run("mission-1", run_id="gone")
        await wire.create(run_id="gone", mission_id="mission-1")
        await wire.missions.DeleteMission(DeleteMissionRequest(mission_id="mission-1"))
        yield wire


async def listed(wire: Wire, kind: str, **fields: Any) -> tuple[list[str], Any]:
    match kind:
        case "events":
            answer = await wire.events.ListEvents(ListEventsRequest(types=["plain"], **fields))
            return [event.event_id for event in answer.events], answer
        case "log":
            answer = await wire.events.ListEvents(ListEventsRequest(run_id="run-0", **fields))
            return [event.event_id for event in answer.events], answer
        case "oldest first":
            oldest = ListEventsRequest(run_id="run-0", order=LIST_ORDER_OLDEST_FIRST, **fields)
            answer = await wire.events.ListEvents(oldest)
            return [event.event_id for event in answer.events], answer
        case "runs":
            runs = await wire.runs.ListRuns(ListRunsRequest(**fields))
            return [run.run_id for run in runs.runs], runs
        case _:
            missions = await wire.missions.ListMissions(ListMissionsRequest(**fields))
            return [mission.mission_id for mission in missions.missions], missions


@pytest.mark.parametrize("kind", ["events", "log", "oldest first", "runs", "missions"])
async def test_numbered_pages_together_are_the_list(kind: str, stocked: Wire) -> None:
    everything, whole = await listed(stocked, kind, page_size=100)
    assert len(everything) == (COUNT - 1 if kind == "missions" else COUNT)
    assert whole.total_size == 0  # nobody asked for a count
    paged = []
    for skip in range(0, len(everything), 3):
        ids, page = await listed(stocked, kind, page_size=3, skip=skip, count_total=True)
        assert page.total_size == len(everything)
        paged += ids
    assert paged == everything
    beyond, page = await listed(stocked, kind, page_size=3, skip=100, count_total=True)
    assert (beyond, page.total_size, page.next_page_token) == ([], len(everything), "")


@pytest.mark.parametrize("kind", ["events", "log", "runs", "missions"])
async def test_a_numbered_page_can_be_followed_by_its_token(kind: str, stocked: Wire) -> None:
    everything, _ = await listed(stocked, kind, page_size=100)
    first, page = await listed(stocked, kind, page_size=2, skip=1)
    rest, _ = await listed(stocked, kind, page_size=100, page_token=page.next_page_token)
    assert first + rest == everything[1:]


@pytest.mark.parametrize("kind", ["events", "runs", "missions"])
async def test_a_page_is_asked_for_by_number_or_by_token(kind: str, stocked: Wire) -> None:
    _, page = await listed(stocked, kind, page_size=2)
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await listed(stocked, kind, skip=1, page_token=page.next_page_token)
    assert refusal.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "skip" in str(refusal.value.details())
