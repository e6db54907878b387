"""Events in MongoDB."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bson.datetime_ms import DatetimeMS
from pymongo.errors import BulkWriteError

from tidings.v1.event_pb2 import Event
from tidings.v1.task_pb2 import TaskState
from tidings_server.clock import Clock, to_millis
from tidings_server.errors import Failure
from tidings_server.event_record import EVENT
from tidings_server.lifecycle import state_name
from tidings_server.limits import Limits
from tidings_server.mission_record import MISSION
from tidings_server.record import Record
from tidings_server.store.connection import DUPLICATE_KEY, EVENTS_COLLECTION, Database, store_call
from tidings_server.store.documents import EVENTS
from tidings_server.store.fields import document_id
from tidings_server.store.missions import MissionStore
from tidings_server.store.records import Filter, Key, Page, RecordStore
from tidings_server.store.run_log import RunLog, taken


@dataclass(frozen=True, slots=True)
class Query:
    """Which events of a project to list: those that match every criterion that is given."""

    project: str
    types: Sequence[str] = ()
    states: Sequence[TaskState.ValueType] = ()
    ids: Mapping[str, str] = field(default_factory=dict)
    """Values of `run_id`, `mission_id`, `step_id`, `agent_id`."""
    created_from: int | None = None
    created_before: int | None = None
    newest_first: bool = False


class EventStore(RecordStore[Event]):
    """The events of all projects. Those of runs are stored through the run's log, which numbers them."""

    ORDER = ("create_time", "sequence", "_id")

    def __init__(
        self, database: Database, missions: MissionStore, run_log: RunLog, clock: Clock, limits: Limits
    ) -> None:
        super().__init__(database[EVENTS_COLLECTION], EVENT, EVENTS, clock, limits)
        self._missions = missions
        self._run_log = run_log

    async def create(self, record: Record[Event]) -> Event:
        """As RecordStore.create; also raises Failure MISSION_NOT_FOUND, RUN_NOT_FOUND, RUN_CLOSED."""
        (outcome,) = await self.create_many([record])
        if isinstance(outcome, Failure):
            raise outcome
        return outcome

    async def create_many(self, records: Sequence[Record[Event]]) -> list[Event | Failure]:
        """Store new records, each for itself, and return what `create` returns or raises for each."""
        by_run: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
        for index, record in enumerate(records):
            by_run[record.project, record.resource.run_id].append(index)
        outcomes: dict[int, Event | Failure] = {}
        for indices, results in await asyncio.gather(
            *(self._create_in(run_id, records, indices) for (_, run_id), indices in by_run.items())
        ):
            outcomes.update(zip(indices, results, strict=True))
        return [outcomes[index] for index in range(len(records))]

    async def get_many(self, project: str, event_ids: Sequence[str]) -> list[Event | Failure]:
        """What `get` would return or raise for each id, in the same order."""
        with store_call():
            wanted = list({document_id(project, event_id) for event_id in event_ids})
            found = {each["_id"]: each async for each in self._collection.find({"_id": {"$in": wanted}})}
            gone = await self._missions.gone(project, {each.get("mission_id", "") for each in found.values()})
        return [self._outcome(event_id, found.get(document_id(project, event_id)), gone) for event_id in event_ids]

    async def page(self, query: Query, *, after: Key | None, limit: int, skip: int = 0) -> Page[Event]:
        """The next `limit` events that match, after a key and some to skip, within the size of a response."""
        criteria = await self._criteria(query)
        run_id = query.ids.get("run_id", "")
        with store_call():
            last = (await self._run_log.last_sequences(query.project, [run_id])).get(run_id) if run_id else None
        if last is None:  # not of one run, or of one that is purged
            return await self._page(criteria, newest_first=query.newest_first, after=after, limit=limit, skip=skip)
        beyond = after and int(after[1])
        low, high = (0, (beyond or last + 1) - 1) if query.newest_first else (beyond or 0, last)
        documents = self._of_log(query, run_id, criteria, low, high, skip + limit + 1)
        with store_call():
            return await self._fill(_skipping(documents, skip), limit)

    async def count(self, query: Query) -> int:
        """How many events match."""
        return await self._count(await self._criteria(query))

    async def _of_log(
        self, query: Query, run_id: str, criteria: Sequence[Filter], low: int, high: int, size: int
    ) -> AsyncIterator[dict[str, Any]]:
        """The documents of a run that meet all criteria, of those with numbers above `low` and up to `high`.

        They are read in stretches, each twice as long as the one before: the embedded store reads all that an index
        gives it before it sorts and limits, and it uses one only for a condition like the first.
        """
        order = {"sequence": -1 if query.newest_first else 1}
        while low < high:
            begin, end = (max(low, high - size), high) if query.newest_first else (low, min(low + size, high))
            stretch = {"project": query.project, "run_id": run_id, "sequence": {"$gt": begin, "$lte": end}}
            steps: list[Filter] = [{"$match": stretch}, {"$match": {"$and": criteria}}, {"$sort": order}]
            async for document in self._collection.aggregate(steps):
                yield document
            low, high = (low, begin) if query.newest_first else (end, high)
            size *= 2

    def key_of(self, project: str, event: Event) -> Key:
        """Where an event stands in a list."""
        return to_millis(event.create_time), event.sequence, document_id(project, event.event_id)

    async def _create_in(
        self, run_id: str, records: Sequence[Record[Event]], indices: list[int]
    ) -> tuple[list[int], Sequence[Event | Failure]]:
        chosen = [records[index] for index in indices]
        if run_id:
            return indices, await self._run_log.append(chosen)
        return indices, await self._create_outside_runs(chosen)

    async def _create_outside_runs(self, records: Sequence[Record[Event]]) -> Sequence[Event | Failure]:
        with store_call():
            missions = {record.resource.mission_id for record in records} - {""}
            known = await self._missions.known(records[0].project, missions)
            sound = [
                record for record in records if not record.resource.mission_id or record.resource.mission_id in known
            ]
            try:
                if sound:
                    await self._collection.insert_many(
                        [self._codec.to_document(record) for record in sound], ordered=False
                    )
                failed: set[int] = set()
            except BulkWriteError as error:
                failed = _duplicates(error)
        stored = {id(record) for index, record in enumerate(sound) if index not in failed}
        return [record.resource if id(record) in stored else await self._settled(record, known) for record in records]

    async def _settled(self, record: Record[Event], known: set[str]) -> Event | Failure:
        """What becomes of a record that could not simply be inserted."""
        mission_id = record.resource.mission_id
        if mission_id and mission_id not in known:
            return MISSION.missing(mission_id)
        try:
            return await super().create(record)
        except Failure as failure:
            return failure

    async def _find(self, project: str, resource_id: str) -> Record[Event]:
        record = await super()._find(project, resource_id)
        mission_id = record.resource.mission_id
        if mission_id and await self._missions.gone(project, {mission_id}):
            raise EVENT.missing(resource_id)
        return record

    def _outcome(self, event_id: str, document: Mapping[str, Any] | None, gone: set[str]) -> Event | Failure:
        if document is None or document.get("mission_id") in gone:
            return EVENT.missing(event_id)
        try:
            record = self._readable(document)
            self._check_is_there(record)
        except Failure as failure:
            return failure
        return record.resource

    async def _criteria(self, query: Query) -> list[Filter]:
        with store_call():
            gone = await self._missions.all_gone(query.project)
        # A deletion expires the record at once, so that one condition hides both the deleted and the expired.
        criteria: list[Filter] = [{"project": query.project}, {"expire_time": {"$gt": DatetimeMS(self._clock())}}]
        criteria += [{name: value} for name, value in query.ids.items()]
        if query.types:
            criteria.append({"type": {"$in": list(query.types)}})
        if query.states:
            criteria.append({"status.state": {"$in": [state_name(state) for state in query.states]}})
        if query.created_from is not None:
            criteria.append({"create_time": {"$gte": DatetimeMS(query.created_from)}})
        if query.created_before is not None:
            criteria.append({"create_time": {"$lt": DatetimeMS(query.created_before)}})
        if gone:
            criteria.append({"mission_id": {"$nin": gone}})
        return criteria

    def _taken(self, record: Record[Event]) -> Failure:
        return taken(record)


async def _skipping(documents: AsyncIterator[dict[str, Any]], skip: int) -> AsyncIterator[dict[str, Any]]:
    async for document in documents:
        if skip <= 0:
            yield document
        skip -= 1


def _duplicates(error: BulkWriteError) -> set[int]:
    """The positions of the records that were there already. Raises the error if anything else went wrong."""
    details: Mapping[str, Any] = error.details or {}
    failures: Iterable[Mapping[str, Any]] = details.get("writeErrors", ())
    if details.get("writeConcernErrors") or any(failure["code"] != DUPLICATE_KEY for failure in failures):
        raise error
    return {failure["index"] for failure in failures}
