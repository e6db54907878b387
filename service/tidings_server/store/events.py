"""Events in MongoDB: created, read, listed and changed by compare-and-set."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from bson.datetime_ms import DatetimeMS
from pymongo.errors import BulkWriteError, DuplicateKeyError

from tidings.v1 import error_reason_pb2 as reasons
from tidings.v1.event_pb2 import Event
from tidings.v1.task_pb2 import TaskState
from tidings_server.clock import Clock
from tidings_server.errors import Failure, corrupt_record, event_expired, event_not_found, revision_mismatch
from tidings_server.lifecycle import state_name
from tidings_server.limits import Limits
from tidings_server.record import Mutation, Record, changed, created_over, deletion
from tidings_server.store.connection import Database, store_call
from tidings_server.store.documents import CorruptDocument, document_id, id_parts, to_document, to_record

COLLECTION: Final = "events"
DUPLICATE_KEY: Final = 11000

Key = tuple[int, str]
"""Where an event stands in a list: its create_time in milliseconds, then its id."""

_BEFORE_ALL: Final[Key] = (-(2**63), "")


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


@dataclass(frozen=True, slots=True)
class Page:
    """Some events in order, and where the next page begins: None after the last event."""

    events: list[Event]
    unreadable: list[str]
    next: Key | None


class EventStore:
    """The events of all projects. Every method raises Failure STORE_UNAVAILABLE when the store does not answer."""

    def __init__(self, database: Database, clock: Clock, limits: Limits) -> None:
        self._events = database[COLLECTION]
        self._clock = clock
        self._limits = limits

    async def create(self, record: Record) -> Event:
        """Store a new record and return its event, or the stored one if this creation is a retry.

        Raises Failure: EVENT_ALREADY_EXISTS or IDEMPOTENCY_CONFLICT if the id has other content.
        """
        with store_call():
            for _ in range(self._limits.change_attempts_max):
                try:
                    await self._events.insert_one(to_document(record))
                except DuplicateKeyError:
                    if event := await self._create_again(record):
                        return event
                else:
                    return record.event
        raise _taken(record)

    async def create_many(self, records: Sequence[Record]) -> list[Event | Failure]:
        """Store new records, each for itself, and return what `create` would have returned or raised."""
        with store_call():
            try:
                await self._events.insert_many([to_document(record) for record in records], ordered=False)
                failed: set[int] = set()
            except BulkWriteError as error:
                failed = _duplicates(error)
        return [await self._settled(record) if n in failed else record.event for n, record in enumerate(records)]

    async def get(self, project: str, event_id: str) -> Event:
        """Raises Failure: EVENT_NOT_FOUND, EVENT_EXPIRED, CORRUPT_RECORD."""
        with store_call():
            return (await self._read(project, event_id)).event

    async def get_many(self, project: str, event_ids: Sequence[str]) -> list[Event | Failure]:
        """What `get` would return or raise for each id, in the same order."""
        with store_call():
            wanted = list({document_id(project, event_id) for event_id in event_ids})
            found = {each["_id"]: each async for each in self._events.find({"_id": {"$in": wanted}})}
        return [self._outcome(event_id, found.get(document_id(project, event_id))) for event_id in event_ids]

    async def list(self, query: Query, *, after: Key | None, limit: int) -> Page:
        """The next `limit` events that match, beginning after a key, within the size of a response."""
        direction = -1 if query.newest_first else 1
        with store_call():
            cursor = self._events.find(self._filter(query, after)).sort(
                [("create_time", direction), ("_id", direction)]
            )
            return await self._page(cursor.limit(limit + 1).batch_size(limit + 1), limit)

    async def change(self, project: str, event_id: str, mutation: Mutation) -> Event:
        """Apply a mutation to the event as it is, as one compare-and-set, and return the event after it.

        Raises Failure: what `get` and the mutation raise; REVISION_MISMATCH also when others changed the event
        at every attempt.
        """
        with store_call():
            for attempt in range(self._limits.change_attempts_max):
                record = await self._read_for_change(project, event_id, mutation)
                before = record.event.revision
                if not changed(record, mutation, self._clock(), self._limits):
                    return record.event
                if await self._replace(record, before):
                    return record.event
                await asyncio.sleep(random.uniform(0, 0.002 * 2**attempt))  # noqa: S311 (spreads contenders)
        raise revision_mismatch(event_id, before)

    async def _create_again(self, record: Record) -> Event | None:
        """What a creation comes to when its id is there already; None if that went away meanwhile."""
        document = await self._events.find_one({"_id": document_id(record.project, record.event.event_id)})
        if document is None:
            return None
        old = _readable(document)
        if old.is_gone(self._clock()):
            return record.event if await self._replace(created_over(record, old), old.event.revision) else None
        if old.content_digest != record.content_digest:
            raise _taken(record)
        return old.event

    async def _settled(self, record: Record) -> Event | Failure:
        try:
            return await self.create(record)
        except Failure as failure:
            return failure

    async def _read(self, project: str, event_id: str) -> Record:
        record = await self._find(project, event_id)
        if record.deleted:
            raise event_not_found(event_id)
        if record.is_gone(self._clock()):
            raise event_expired(event_id)
        return record

    async def _read_for_change(self, project: str, event_id: str, mutation: Mutation) -> Record:
        record = await self._find(project, event_id)
        # Of a deleted event only its deletion may be repeated.
        repeats = mutation.rule is deletion and any(each.request_id == mutation.request_id for each in record.requests)
        if record.deleted and not repeats:
            raise event_not_found(event_id)
        if not record.deleted and record.is_gone(self._clock()):
            raise event_expired(event_id)
        return record

    async def _find(self, project: str, event_id: str) -> Record:
        document = await self._events.find_one({"_id": document_id(project, event_id)})
        if document is None:
            raise event_not_found(event_id)
        return _readable(document)

    async def _replace(self, record: Record, revision: int) -> bool:
        document = to_document(record)
        # Not find_one_and_replace, which the embedded store answers with a scan of the collection.
        result = await self._events.replace_one({"_id": document["_id"], "revision": revision}, document)
        return result.matched_count == 1

    def _outcome(self, event_id: str, document: Mapping[str, Any] | None) -> Event | Failure:
        if document is None:
            return event_not_found(event_id)
        try:
            record = _readable(document)
        except Failure as failure:
            return failure
        if record.deleted:
            return event_not_found(event_id)
        return event_expired(event_id) if record.is_gone(self._clock()) else record.event

    def _filter(self, query: Query, after: Key | None) -> dict[str, Any]:
        # A deletion expires the record at once, so that one condition hides both the deleted and the expired.
        criteria: list[dict[str, Any]] = [{"expire_time": {"$gt": DatetimeMS(self._clock())}}]
        criteria += [{name: value} for name, value in query.ids.items()]
        if query.types:
            criteria.append({"type": {"$in": list(query.types)}})
        if query.states:
            criteria.append({"status.state": {"$in": [state_name(state) for state in query.states]}})
        if query.created_from is not None:
            criteria.append({"create_time": {"$gte": DatetimeMS(query.created_from)}})
        if query.created_before is not None:
            criteria.append({"create_time": {"$lt": DatetimeMS(query.created_before)}})
        if after:
            criteria.append(_beyond(query, after))
        return {"project": query.project, "$and": criteria}

    async def _page(self, documents: AsyncIterator[dict[str, Any]], limit: int) -> Page:
        page, size, key = Page([], [], None), 0, _BEFORE_ALL
        async for document in documents:
            if len(page.events) + len(page.unreadable) >= limit:
                return Page(page.events, page.unreadable, key)
            try:
                event = to_record(document).event
                size += event.ByteSize()
                if size > self._limits.response_bytes_max and page.events:
                    return Page(page.events, page.unreadable, key)
                page.events.append(event)
            except CorruptDocument:
                page.unreadable.append(id_parts(document["_id"])[1])
            if isinstance(time := document.get("create_time"), DatetimeMS):  # or there is no going on from here
                key = int(time), id_parts(document["_id"])[1]
        return page


def _beyond(query: Query, after: Key) -> dict[str, Any]:
    time, event_id = DatetimeMS(after[0]), document_id(query.project, after[1])
    past = "$lt" if query.newest_first else "$gt"
    return {"$or": [{"create_time": {past: time}}, {"create_time": time, "_id": {past: event_id}}]}


def _readable(document: Mapping[str, Any]) -> Record:
    try:
        return to_record(document)
    except CorruptDocument as error:
        raise corrupt_record(id_parts(document["_id"])[1]) from error


def _taken(record: Record) -> Failure:
    event = record.event
    if event.idempotency_key:
        sentence = f'idempotency key "{event.idempotency_key}" was used with other content'
        return Failure(reasons.ERROR_REASON_IDEMPOTENCY_CONFLICT, sentence, metadata={"event_id": event.event_id})
    sentence = f'event "{event.event_id}" exists with other content'
    return Failure(reasons.ERROR_REASON_EVENT_ALREADY_EXISTS, sentence, metadata={"event_id": event.event_id})


def _duplicates(error: BulkWriteError) -> set[int]:
    """The positions of the records that were there already. Raises the error if anything else went wrong."""
    details: Mapping[str, Any] = error.details or {}
    failures: Iterable[Mapping[str, Any]] = details.get("writeErrors", ())
    if details.get("writeConcernErrors") or any(failure["code"] != DUPLICATE_KEY for failure in failures):
        raise error
    return {failure["index"] for failure in failures}
