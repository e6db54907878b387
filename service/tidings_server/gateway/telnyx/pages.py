"""Lists in Telnyx's form: pages that the caller numbers."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from tidings.v1.event_service_pb2 import ListEventsRequest
from tidings.v1.mission_service_pb2 import ListMissionsRequest
from tidings.v1.run_service_pb2 import ListRunsRequest
from tidings.v1.task_pb2 import TASK_STATE_SKIPPED, TaskState
from tidings_server.gateway.caller import Caller
from tidings_server.gateway.numbered_pages import numbered_page
from tidings_server.gateway.telnyx.views import EventData, MissionData, MissionRunData, Page
from tidings_server.gateway.words import TELNYX_RUN, states_of

Number = Annotated[int, Query(alias="page[number]", ge=1, lt=2**31)]
Size = Annotated[int, Query(alias="page[size]", ge=1, le=1000)]
OfType = Annotated[str | None, Query(alias="type", min_length=1, max_length=128)]


async def mission_page(tidings: Caller, request: ListMissionsRequest, number: int, size: int) -> Page[MissionData]:
    rpc = tidings.client.missions.ListMissions
    missions, total = await numbered_page(tidings, rpc, request, "missions", number, size)
    return Page.of([MissionData.of(mission) for mission in missions], number, size, total)


async def run_page(tidings: Caller, request: ListRunsRequest, number: int, size: int) -> Page[MissionRunData]:
    runs, total = await numbered_page(tidings, tidings.client.runs.ListRuns, request, "runs", number, size)
    return Page.of([MissionRunData.of(run) for run in runs], number, size, total)


async def event_page(tidings: Caller, request: ListEventsRequest, number: int, size: int) -> Page[EventData]:
    events, total = await numbered_page(tidings, tidings.client.events.ListEvents, request, "events", number, size)
    return Page.of([EventData.of(event) for event in events], number, size, total)


def states_called(status: str | None) -> list[TaskState.ValueType]:
    """The states to list runs by; for a word that is none, one that no run is ever in."""
    return [] if status is None else states_of(status, TELNYX_RUN) or [TASK_STATE_SKIPPED]
