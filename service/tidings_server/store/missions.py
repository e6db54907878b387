"""Missions in MongoDB. A deleted one hides its runs and events at once; they are swept away later."""

from __future__ import annotations

from collections.abc import Iterable

from tidings.v1 import error_reason_pb2 as reasons
from tidings.v1.mission_pb2 import Mission
from tidings_server.clock import Clock
from tidings_server.limits import Limits
from tidings_server.mission_record import MISSION
from tidings_server.record import Record
from tidings_server.store.connection import MISSIONS_COLLECTION, Database
from tidings_server.store.documents import MISSIONS
from tidings_server.store.fields import document_id, id_parts
from tidings_server.store.records import NOT_DELETED, Key, Page, RecordStore


class MissionStore(RecordStore[Mission]):
    """The missions of all projects."""

    def __init__(self, database: Database, clock: Clock, limits: Limits) -> None:
        super().__init__(database[MISSIONS_COLLECTION], MISSION, MISSIONS, clock, limits)

    async def _create_again(self, record: Record[Mission]) -> Mission | None:
        document_id_ = document_id(record.project, record.resource.mission_id)
        if await self._collection.find_one({"_id": document_id_, "deleted": True, "expire_time": None}, {"_id": 1}):
            # What is left of the deleted mission would become a part of the new one.
            what = "was deleted, and what belonged to it is still being swept away; try again"
            raise MISSION.failure(reasons.ERROR_REASON_STORE_UNAVAILABLE, record.resource.mission_id, what)
        return await super()._create_again(record)

    async def page(self, project: str, *, after: Key | None, limit: int, skip: int = 0) -> Page[Mission]:
        """The project's missions, newest first."""
        criteria = [{"project": project}, NOT_DELETED]
        return await self._page(criteria, newest_first=True, after=after, limit=limit, skip=skip)

    async def count(self, project: str) -> int:
        """How many missions the project has."""
        return await self._count([{"project": project}, NOT_DELETED])

    async def known(self, project: str, mission_ids: Iterable[str]) -> set[str]:
        """Those of the missions that exist."""
        return await self._among(project, mission_ids, deleted=False)

    async def gone(self, project: str, mission_ids: Iterable[str]) -> set[str]:
        """Those of the missions that are deleted, and may have runs and events left that must not be seen."""
        return await self._among(project, mission_ids, deleted=True)

    async def all_gone(self, project: str) -> list[str]:
        """The missions of a project that are deleted and not swept away yet."""
        found = self._collection.find({"project": project, "deleted": True}, {"_id": 1})
        return [id_parts(document["_id"])[1] async for document in found]

    async def _among(self, project: str, mission_ids: Iterable[str], *, deleted: bool) -> set[str]:
        wanted = [document_id(project, mission_id) for mission_id in mission_ids if mission_id]
        if not wanted:
            return set()
        criteria = {"_id": {"$in": wanted}, "deleted": True if deleted else {"$ne": True}}
        return {id_parts(document["_id"])[1] async for document in self._collection.find(criteria, {"_id": 1})}
