"""The logs of runs in MongoDB: events appended with numbers that are dense, in commit order, and never used again.

Each log has a head beside the run's record: the last number, the mission, and until when the log is open. An append
takes numbers from the head and inserts its events in one transaction, so transactions of one log exclude each other,
the order of commits is the order of numbers, and a crash leaves no hole. The head is apart from the run so that an
append costs the same however large the plan is, and does not change the run's revision.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextvars import Context
from functools import partial
from typing import Any

from bson.datetime_ms import DatetimeMS
from bson.int64 import Int64
from pymongo.errors import BulkWriteError, DuplicateKeyError

from tidings.v1 import error_reason_pb2 as reasons
from tidings.v1.event_pb2 import Event
from tidings.v1.run_pb2 import Run
from tidings_server.clock import Clock, to_millis, to_timestamp
from tidings_server.errors import Failure, store_unavailable
from tidings_server.event_record import EVENT
from tidings_server.limits import Limits
from tidings_server.record import Record, created_over
from tidings_server.run_record import RUN
from tidings_server.store.connection import (
    DUPLICATE_KEY,
    EVENTS_COLLECTION,
    RUN_LOGS_COLLECTION,
    Database,
    Session,
    in_transaction,
    store_call,
)
from tidings_server.store.documents import EVENTS
from tidings_server.store.fields import CorruptDocument, document_id, id_parts
from tidings_server.store.missions import MissionStore

Outcome = Event | Failure
Waiting = tuple[Sequence[Record[Event]], "asyncio.Future[Sequence[Outcome]]"]


class RunLog:
    """Appends to the logs of all runs. What is appended to one log at the same time is committed together."""

    def __init__(self, database: Database, missions: MissionStore, clock: Clock, limits: Limits) -> None:
        self._database = database
        self._missions = missions
        self._heads = database[RUN_LOGS_COLLECTION]
        self._events = database[EVENTS_COLLECTION]
        self._clock = clock
        self._limits = limits
        self._waiting: dict[str, deque[Waiting]] = {}
        self._committing: set[asyncio.Task[None]] = set()

    async def append(self, records: Sequence[Record[Event]]) -> Sequence[Outcome]:
        """Append events of one run, and return for each the stored event or why there is none.

        Raises Failure STORE_UNAVAILABLE if the store does not answer.
        """
        log_id = document_id(records[0].project, records[0].resource.run_id)
        done: asyncio.Future[Sequence[Outcome]] = asyncio.get_running_loop().create_future()
        if log_id in self._waiting:
            self._waiting[log_id].append((records, done))
        else:
            self._waiting[log_id] = deque([(records, done)])
            # In a context of its own: the time that its first caller has left must not bound the others'.
            task = asyncio.get_running_loop().create_task(self._commit_all(log_id), context=Context())
            self._committing.add(task)
            task.add_done_callback(self._committing.discard)
        return await done

    async def open(self, project: str, run: Run, session: Session) -> None:
        """Begin the log of a new run, as a part of the transaction that stores it.

        Where the id was used before, the numbers go on from the old ones.
        """
        head = {"project": project, "mission_id": run.mission_id, "grace_millis": Int64(to_millis(run.grace_period))}
        if run.HasField("expire_time"):
            head["expire_time"] = DatetimeMS(to_millis(run.expire_time))
        gone = {name: "" for name in ("closes_at", "deleted", "expire_time") if name not in head}
        begin = {"last_sequence": Int64(0), "last_time": DatetimeMS(0)}
        log_id = document_id(project, run.run_id)
        change = {"$set": head, "$unset": gone, "$setOnInsert": begin}
        await self._heads.update_one({"_id": log_id}, change, upsert=True, session=session)

    async def close(self, project: str, run: Run, session: Session) -> None:
        """Let the log of a run that has ended take no more events, but for its grace period; of a deleted one none."""
        closes_at = DatetimeMS(to_millis(run.end_time) + to_millis(run.grace_period))
        log_id = document_id(project, run.run_id)
        await self._heads.update_one({"_id": log_id}, {"$set": {"closes_at": closes_at}}, session=session)

    async def drop(self, project: str, run_id: str) -> None:
        """Let the log of a deleted run take no more events; its head is purged."""
        gone = {"deleted": True, "expire_time": DatetimeMS(self._clock())}
        await self._heads.update_one({"_id": document_id(project, run_id)}, {"$set": gone})

    async def last_sequences(self, project: str, run_ids: Iterable[str]) -> dict[str, int]:
        """The highest number in the log of each run."""
        wanted = [document_id(project, run_id) for run_id in run_ids]
        heads = self._heads.find({"_id": {"$in": wanted}}, {"last_sequence": 1})
        return {id_parts(head["_id"])[1]: int(head["last_sequence"]) async for head in heads}

    async def _commit_all(self, log_id: str) -> None:
        """Commit what waits for a log, group after group, until nothing does."""
        waiting = self._waiting[log_id]
        while waiting:
            group = [waiting.popleft()]
            while waiting and sum(len(records) for records, _ in group) < self._limits.append_group_max:
                group.append(waiting.popleft())
            await self._commit_group(log_id, group)
        del self._waiting[log_id]

    async def _commit_group(self, log_id: str, group: Sequence[Waiting]) -> None:
        try:
            with store_call():
                outcomes = await self._commit(log_id, [record for records, _ in group for record in records])
        except Exception as error:  # noqa: BLE001 (it is raised to those who wait)
            for _, done in group:
                if not done.done():
                    done.set_exception(error)
            return
        begin = 0
        for records, done in group:
            if not done.done():  # its caller may have hung up
                done.set_result(outcomes[begin : begin + len(records)])
            begin += len(records)

    async def _commit(self, log_id: str, records: Sequence[Record[Event]]) -> list[Outcome]:
        head = await self._heads.find_one({"_id": log_id})
        project, run_id = id_parts(log_id)
        if head is None or head.get("deleted") or self._is_past(head.get("expire_time")):
            return [RUN.missing(run_id) for _ in records]
        if await self._missions.gone(project, {head["mission_id"]}):  # and the log is not swept away yet
            return [RUN.missing(run_id) for _ in records]
        for _ in range(self._limits.change_attempts_max):
            outcomes, fresh = await self._sorted(records, head)
            if not fresh:
                return _complete(outcomes, records)
            try:
                await in_transaction(self._database, partial(self._insert, log_id, fresh))
            except DuplicateKeyError:
                continue  # somebody else has just used one of the ids: look again
            except Failure as failure:
                failed = {record.resource.event_id for record, _ in fresh}
                outcomes.update((id(record), failure) for record in records if record.resource.event_id in failed)
            return _complete(outcomes, records)
        raise store_unavailable()

    async def _sorted(
        self, records: Sequence[Record[Event]], head: Mapping[str, Any]
    ) -> tuple[dict[int, Outcome], list[tuple[Record[Event], Record[Event] | None]]]:
        """The outcomes that need no append, and the records that do, each with the one of a gone event in its place."""
        ids = [document_id(record.project, record.resource.event_id) for record in records]
        there = {each["_id"]: each async for each in self._events.find({"_id": {"$in": ids}})}
        outcomes: dict[int, Outcome] = {}
        fresh: dict[str, tuple[Record[Event], Record[Event] | None]] = {}
        for document_id_, record in zip(ids, records, strict=True):
            if record.resource.mission_id not in {"", head["mission_id"]}:
                outcomes[id(record)] = RUN.missing(record.resource.run_id)
                continue
            old = fresh[document_id_][0] if document_id_ in fresh else None
            stored = there.get(document_id_)
            try:
                old = old or (EVENTS.to_record(stored) if stored else None)
            except CorruptDocument:
                outcomes[id(record)] = EVENT.corrupt(record.resource.event_id)
                continue
            if old is None or old.is_gone(self._clock()):
                fresh[document_id_] = record, old
            else:
                same = old.content_digest == record.content_digest
                outcomes[id(record)] = old.resource if same else taken(record)
        return outcomes, list(fresh.values())

    async def _insert(
        self, log_id: str, fresh: Sequence[tuple[Record[Event], Record[Event] | None]], session: Session
    ) -> None:
        """Take numbers and insert. Raises Failure RUN_NOT_FOUND, RUN_CLOSED."""
        head = await self._advanced(log_id, len(fresh), session)
        first = head["last_sequence"] - len(fresh) + 1
        documents = []
        for sequence, (record, old) in enumerate(fresh, first):
            _place(record, sequence, head)
            if old is None:
                documents.append(EVENTS.to_document(record))
            else:
                document = EVENTS.to_document(created_over(record, old))
                where = {"_id": document["_id"], "revision": old.resource.revision}
                if not (await self._events.replace_one(where, document, session=session)).matched_count:
                    raise DuplicateKeyError("replaced meanwhile")
        if documents:
            await self._insert_new(documents, session)

    async def _insert_new(self, documents: Sequence[dict[str, Any]], session: Session) -> None:
        """Raises DuplicateKeyError."""
        try:
            await self._events.insert_many(documents, session=session)
        except BulkWriteError as error:
            if any(each["code"] == DUPLICATE_KEY for each in (error.details or {}).get("writeErrors", ())):
                raise DuplicateKeyError("inserted meanwhile") from error
            raise

    async def _advanced(self, log_id: str, count: int, session: Session) -> Mapping[str, Any]:
        """The head of the log after it has given out numbers."""
        now = DatetimeMS(self._clock())
        is_open = {"$or": [{"closes_at": None}, {"closes_at": {"$gt": now}}]}
        advance = {"$inc": {"last_sequence": Int64(count)}, "$max": {"last_time": now}}
        result = await self._heads.update_one(
            {"_id": log_id, "deleted": {"$ne": True}, **is_open}, advance, session=session
        )
        head = await self._heads.find_one({"_id": log_id}, session=session)
        run_id = id_parts(log_id)[1]
        if head is None or head.get("deleted"):
            raise RUN.missing(run_id)
        if not result.matched_count:
            raise RUN.failure(reasons.ERROR_REASON_RUN_CLOSED, run_id, "has ended and takes no more events")
        return head

    def _is_past(self, time: DatetimeMS | None) -> bool:
        return time is not None and int(time) <= self._clock()


def _place(record: Record[Event], sequence: int, head: Mapping[str, Any]) -> None:
    """Give an event its place in the log. Its time is not before those of the events in front of it."""
    event = record.resource
    event.sequence = sequence
    event.mission_id = head["mission_id"]
    event.create_time.CopyFrom(to_timestamp(int(head["last_time"])))
    event.update_time.CopyFrom(event.create_time)
    if "expire_time" in head and not record.expiry_fixed:
        record.expiry_fixed = True
        event.expire_time.CopyFrom(to_timestamp(int(head["expire_time"])))


def _complete(outcomes: Mapping[int, Outcome], records: Sequence[Record[Event]]) -> list[Outcome]:
    """An outcome for every record: those without one were inserted, or are repeated in the same group."""
    inserted = {record.resource.event_id: record.resource for record in records if id(record) not in outcomes}
    return [
        outcome
        if isinstance(outcome := outcomes.get(id(record), record.resource), Failure)
        else inserted.get(record.resource.event_id, outcome)
        for record in records
    ]


def taken(record: Record[Event]) -> Failure:
    """Why an event cannot be created: its id, or the key that it is derived from, has other content."""
    event = record.resource
    if event.idempotency_key:
        reason, what = (
            reasons.ERROR_REASON_IDEMPOTENCY_CONFLICT,
            "was created by its idempotency key with other content",
        )
        return EVENT.failure(reason, event.event_id, what)
    return EVENT.failure(reasons.ERROR_REASON_EVENT_ALREADY_EXISTS, event.event_id, "exists with other content")
