"""MissionService. Requests come here checked, and from a known caller."""

from __future__ import annotations

from typing import Any

import grpc

from tidings.v1.mission_pb2 import Mission
from tidings.v1.mission_service_pb2 import (
    CreateMissionRequest,
    CreateMissionResponse,
    DeleteMissionRequest,
    DeleteMissionResponse,
    GetMissionRequest,
    GetMissionResponse,
    ListMissionsRequest,
    ListMissionsResponse,
    UpdateMissionRequest,
    UpdateMissionResponse,
)
from tidings.v1.mission_service_pb2_grpc import MissionServiceServicer
from tidings_server.auth import CALLER
from tidings_server.clock import Clock
from tidings_server.limits import Limits
from tidings_server.mission_record import apply_update, new_mission
from tidings_server.record import Mutation, deletion, digest_of
from tidings_server.services.page_token import PageTokens
from tidings_server.store import MissionStore, Sweeper

Context = grpc.aio.ServicerContext[Any, Any]


class MissionService(MissionServiceServicer):
    """Creates, reads, changes and deletes missions in the caller's project."""

    def __init__(
        self, missions: MissionStore, sweeper: Sweeper, page_tokens: PageTokens, clock: Clock, limits: Limits
    ) -> None:
        self._missions = missions
        self._sweeper = sweeper
        self._page_tokens = page_tokens
        self._clock = clock
        self._limits = limits

    async def CreateMission(self, request: CreateMissionRequest, context: Context) -> CreateMissionResponse:
        record = new_mission(CALLER.get().project, request, self._clock(), self._limits)
        return CreateMissionResponse(mission=await self._missions.create(record))

    async def GetMission(self, request: GetMissionRequest, context: Context) -> GetMissionResponse:
        return GetMissionResponse(mission=await self._missions.get(CALLER.get().project, request.mission_id))

    async def ListMissions(self, request: ListMissionsRequest, context: Context) -> ListMissionsResponse:
        project = CALLER.get().project
        page = await self._missions.page(
            project,
            after=self._page_tokens.read(request.page_token, project, request),
            limit=request.page_size or self._limits.page_size_default,
            skip=request.skip,
        )
        return ListMissionsResponse(
            missions=page.items,
            next_page_token=self._page_tokens.write(page.next, project, request),
            total_size=await self._missions.count(project) if request.count_total else 0,
        )

    async def UpdateMission(self, request: UpdateMissionRequest, context: Context) -> UpdateMissionResponse:
        mutation: Mutation[Mission] = Mutation(
            lambda record, now: apply_update(record.resource, request),
            digest_of(request),
            request.expected_revision,
            request.request_id,
        )
        mission = await self._missions.change(CALLER.get().project, request.mission.mission_id, mutation)
        return UpdateMissionResponse(mission=mission)

    async def DeleteMission(self, request: DeleteMissionRequest, context: Context) -> DeleteMissionResponse:
        mutation: Mutation[Mission] = Mutation(
            deletion, digest_of(request), request.expected_revision, request.request_id
        )
        await self._missions.change(CALLER.get().project, request.mission_id, mutation)
        self._sweeper.wake()
        return DeleteMissionResponse()
