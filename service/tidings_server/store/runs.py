"""Runs in MongoDB, each with its plan in its record and its log beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bson.datetime_ms import DatetimeMS

from tidings.v1.run_pb2 import Run
from tidings.v1.task_pb2 import TaskState
from tidings_server.clock import Clock
from tidings_server.lifecycle import TERMINAL, state_name
from tidings_server.limits import Limits
from tidings_server.mission_record import MISSION
from tidings_server.record import Mutation, Record
from tidings_server.run_record import RUN
from tidings_server.store.connection import RUNS_COLLECTION, Database, Session, in_transaction, store_call
from tidings_server.store.documents import RUNS
from tidings_server.store.missions import MissionStore
from tidings_server.store.records import NOT_DELETED, Filter, Key, Page, RecordStore
from tidings_server.store.run_log import RunLog


@dataclass(frozen=True, slots=True)
class RunQuery:
    """Which runs of a project to list: of a mission, if one is given, and in some states, if any are."""

    project: str
    mission_id: str = ""
    states: Sequence[TaskState.ValueType] = ()


class RunStore(RecordStore[Run]):
    """The runs of all projects."""

    def __init__(
        self, database: Database, missions: MissionStore, run_log: RunLog, clock: Clock, limits: Limits
    ) -> None:
        super().__init__(database[RUNS_COLLECTION], RUN, RUNS, clock, limits)
        self._database = database
        self._missions = missions
        self._run_log = run_log

    async def create(self, record: Record[Run]) -> Run:
        """As RecordStore.create, together with the run's log. Also raises Failure MISSION_NOT_FOUND."""
        mission_id = record.resource.mission_id
        with store_call():
            if not await self._missions.known(record.project, {mission_id}):
                raise MISSION.missing(mission_id)
        run = await self._numbered(record.project, await super().create(record))
        with store_call():
            if not await self._missions.known(record.project, {mission_id}):
                # Deleted meanwhile, and perhaps swept before the run was there to be found.
                await self.sweep(record.project, run.run_id)
                raise MISSION.missing(mission_id)
        return run

    async def get(self, project: str, resource_id: str) -> Run:
        return await self._numbered(project, await super().get(project, resource_id))

    async def change(self, project: str, resource_id: str, mutation: Mutation[Run]) -> Run:
        return await self._numbered(project, await super().change(project, resource_id, mutation))

    async def page(self, query: RunQuery, *, after: Key | None, limit: int, skip: int = 0) -> Page[Run]:
        """The runs that match, without their plans, newest first."""
        criteria = await self._criteria(query)
        page = await self._page(criteria, newest_first=True, after=after, limit=limit, skip=skip)
        with store_call():
            last = await self._run_log.last_sequences(query.project, [run.run_id for run in page.items])
        for run in page.items:
            run.last_sequence = last.get(run.run_id, 0)
            run.ClearField("plan")
        return page

    async def count(self, query: RunQuery) -> int:
        """How many runs match."""
        return await self._count(await self._criteria(query))

    async def _criteria(self, query: RunQuery) -> list[Filter]:
        with store_call():
            gone = await self._missions.all_gone(query.project)
        alive = {"$or": [{"expire_time": None}, {"expire_time": {"$gt": DatetimeMS(self._clock())}}]}
        criteria: list[Filter] = [{"project": query.project}, NOT_DELETED, alive, {"mission_id": {"$nin": gone}}]
        if query.mission_id:
            criteria.append({"mission_id": query.mission_id})
        if query.states:
            criteria.append({"state": {"$in": [state_name(state) for state in query.states]}})
        return criteria

    async def _numbered(self, project: str, run: Run) -> Run:
        with store_call():
            last = await self._run_log.last_sequences(project, [run.run_id])
        run.last_sequence = last.get(run.run_id, 0)
        return run

    async def _find(self, project: str, resource_id: str) -> Record[Run]:
        record = await super()._find(project, resource_id)
        if await self._missions.gone(project, {record.resource.mission_id}):
            raise RUN.missing(resource_id)
        return record

    async def _insert(self, record: Record[Run]) -> None:
        async def insert(session: Session) -> None:
            await self._collection.insert_one(self._codec.to_document(record), session=session)
            await self._run_log.open(record.project, record.resource, session)

        await in_transaction(self._database, insert)

    async def _replace(self, record: Record[Run], revision: int) -> bool:
        """Replace the record; with one that begins or ends the run, its log begins or ends in the same transaction."""
        run = record.resource
        begins, ends = run.revision == record.first_revision, _has_just_ended(run)
        if not begins and not ends:
            return await super()._replace(record, revision)

        async def replace(session: Session) -> bool:
            document = self._codec.to_document(record)
            where = {"_id": document["_id"], "revision": revision}
            if not (await self._collection.replace_one(where, document, session=session)).matched_count:
                return False
            if begins:
                await self._run_log.open(record.project, run, session)
            if ends:
                await self._run_log.close(record.project, run, session)
            return True

        return await in_transaction(self._database, replace)


def _has_just_ended(run: Run) -> bool:
    return run.state in TERMINAL and bool(run.transitions) and run.transitions[-1].revision == run.revision
