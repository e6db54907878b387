"""Telnyx's AI Missions API: missions, and what there is of all of them.

Not its tools, knowledge bases, MCP servers and linked agents, which are about the agents that Telnyx hosts.
"""

from __future__ import annotations

from fastapi import APIRouter

from tidings.v1.event_service_pb2 import ListEventsRequest
from tidings.v1.mission_service_pb2 import (
    CreateMissionRequest,
    DeleteMissionRequest,
    GetMissionRequest,
    ListMissionsRequest,
)
from tidings.v1.run_service_pb2 import ListRunsRequest
from tidings_server.gateway.caller import Tidings
from tidings_server.gateway.telnyx import runs
from tidings_server.gateway.telnyx.bodies import EVENT_TYPES, MissionChange, NewMission
from tidings_server.gateway.telnyx.pages import Number, OfType, Size, event_page, mission_page, run_page, states_called
from tidings_server.gateway.telnyx.refusals import REFUSALS, TelnyxRoute
from tidings_server.gateway.telnyx.views import Answer, EventData, MissionData, MissionRunData, Page

router = APIRouter(
    prefix="/v2/ai/missions",
    route_class=TelnyxRoute,
    tags=["Telnyx AI Missions"],
    responses=REFUSALS,
    generate_unique_id_function=lambda route: f"telnyx_{route.name}",
)
router.include_router(runs.router)


@router.post("", status_code=201)
async def create_mission(body: NewMission, tidings: Tidings) -> Answer[MissionData]:
    answer = await tidings.call(tidings.client.missions.CreateMission, body.to_creation())
    return Answer(data=MissionData.of(answer.mission))


@router.get("")
async def list_missions(tidings: Tidings, number: Number = 1, size: Size = 20) -> Page[MissionData]:
    return await mission_page(tidings, ListMissionsRequest(), number, size)


@router.get("/events")
async def list_events(tidings: Tidings, type_: OfType = None, number: Number = 1, size: Size = 50) -> Page[EventData]:
    """The events of all missions, newest first."""
    # By their types: other events of the project, such as the tasks of other dialects, are of no mission.
    request = ListEventsRequest(types=EVENT_TYPES if type_ is None else [type_])
    return await event_page(tidings, request, number, size)


@router.get("/runs")
async def list_all_runs(
    tidings: Tidings, status: str | None = None, number: Number = 1, size: Size = 20
) -> Page[MissionRunData]:
    """The runs of all missions, newest first."""
    return await run_page(tidings, ListRunsRequest(states=states_called(status)), number, size)


@router.get("/{mission_id}")
async def get_mission(mission_id: str, tidings: Tidings) -> Answer[MissionData]:
    answer = await tidings.call(tidings.client.missions.GetMission, GetMissionRequest(mission_id=mission_id))
    return Answer(data=MissionData.of(answer.mission))


@router.put("/{mission_id}")
async def update_mission(mission_id: str, body: MissionChange, tidings: Tidings) -> Answer[MissionData]:
    """Change what is given, and leave the rest as it is."""
    answer = await tidings.call(tidings.client.missions.UpdateMission, body.to_request(mission_id))
    return Answer(data=MissionData.of(answer.mission))


@router.delete("/{mission_id}", status_code=204)
async def delete_mission(mission_id: str, tidings: Tidings) -> None:
    await tidings.call(tidings.client.missions.DeleteMission, DeleteMissionRequest(mission_id=mission_id))


@router.post("/{mission_id}/clone", status_code=201)
async def clone_mission(mission_id: str, tidings: Tidings) -> Answer[MissionData]:
    """Create a mission like this one; its runs stay with this one."""
    answer = await tidings.call(tidings.client.missions.GetMission, GetMissionRequest(mission_id=mission_id))
    answer.mission.ClearField("mission_id")
    request = CreateMissionRequest(mission=answer.mission)
    created = await tidings.call(tidings.client.missions.CreateMission, request)
    return Answer(data=MissionData.of(created.mission))
