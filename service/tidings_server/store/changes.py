"""The order of all changes of the deployment, read from MongoDB's change stream."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from dataclasses import replace
from time import time
from typing import Any, Final, NamedTuple

import pymongo
from bson.timestamp import Timestamp as ClusterTime
from motor.motor_asyncio import AsyncIOMotorChangeStream
from pymongo.errors import PyMongoError

from tidings.v1.event_service_pb2 import (
    CHANGE_KIND_CREATED,
    CHANGE_KIND_DELETED,
    CHANGE_KIND_UPDATED,
    ChangeKind,
)
from tidings.v1.mission_pb2 import Mission
from tidings.v1.task_pb2 import TASK_STATE_UNSPECIFIED
from tidings_server.change import LAST_OF_ITS_TIME, Change, Checkpoint, HistoryLost, Position
from tidings_server.errors import store_unavailable
from tidings_server.event_record import EVENT
from tidings_server.lifecycle import state_before
from tidings_server.mission_record import MISSION
from tidings_server.record import Record
from tidings_server.run_record import RUN
from tidings_server.store import system
from tidings_server.store.connection import (
    EVENTS_COLLECTION,
    MISSIONS_COLLECTION,
    OPERATION_SECONDS,
    RUNS_COLLECTION,
    Database,
    is_history_lost,
    is_unavailable,
)
from tidings_server.store.documents import EVENTS, MISSIONS, RUNS
from tidings_server.store.fields import Codec, CorruptDocument, id_parts

AWAIT_MILLISECONDS: Final = 500
FORGOTTEN_AFTER_SECONDS: Final = 2.0
"""No store in use forgets what is younger."""
READ_AT_ONCE: Final = 100

_RECORDS: Final[Mapping[str, tuple[str, Codec[Any]]]] = {
    EVENTS_COLLECTION: (EVENT.noun, EVENTS),
    RUNS_COLLECTION: (RUN.noun, RUNS),
    MISSIONS_COLLECTION: (MISSION.noun, MISSIONS),
}

# What MongoDB purges is not news: a deletion is a replacement of the record, told when it was made.
_PIPELINE: Final = [
    {
        "$match": {
            "$or": [
                {
                    "ns.coll": {"$in": [*_RECORDS, system.COLLECTION]},
                    "operationType": {"$in": ["insert", "replace", "update"]},
                },
                {"ns.coll": {"$in": list(_RECORDS)}, "operationType": {"$in": ["drop", "rename"]}},
                {"operationType": {"$in": ["dropDatabase", "invalidate"]}},
            ]
        }
    }
]


_NOTHING: Final = [{"$match": {"operationType": "none"}}]


async def read_changes(database: Database, after: Checkpoint | Position | None = None) -> AsyncGenerator[Change | None]:
    """Yield every change after a place, in order, and None whenever there is none for a while. Never ends.

    Without a place it begins with what changes after the first answer, whatever that is. Only what a majority of the
    nodes has stored is told, so that nothing told is ever taken back.

    Raises HistoryLost if the store no longer has the changes after the place (begin anew), and Failure
    STORE_UNAVAILABLE if it does not answer (go on from the last change).
    """
    stream = database.watch(
        _PIPELINE,
        full_document="updateLookup",  # only for records that a person has edited: we replace whole documents
        max_await_time_ms=AWAIT_MILLISECONDS,
        **_start(after),
    )
    positions = _Positions(after)
    place = _Place(after.token, after.position.seconds) if isinstance(after, Checkpoint) else None
    try:
        while True:
            begin = time()
            documents = await _read(stream)
            if place is not None and _is_old(place.seconds):
                await _check_is_stored(database, place)
            place = _Place(stream.resume_token, documents[-1]["clusterTime"].time if documents else begin)
            if not documents:
                if not bool(stream.alive):  # Motor types this property as a method
                    raise HistoryLost
                yield None
            for document in documents:
                position = positions.next(document)
                if position > positions.given:
                    positions.given = position
                    yield replace(_change(document, position), checkpoint=Checkpoint(position, document["_id"]))
    except PyMongoError as error:
        if is_history_lost(error):
            raise HistoryLost from error
        if is_unavailable(error):
            raise store_unavailable() from error
        raise
    finally:
        await _close(stream)


def _start(after: Checkpoint | Position | None) -> dict[str, Any]:
    """Where to start, in the words of the driver."""
    if isinstance(after, Checkpoint):
        return {"start_after": after.token}
    if isinstance(after, Position):
        # The embedded store looks through all that it keeps for the place, with everybody else waiting.
        return {"start_at_operation_time": ClusterTime(after.seconds, after.increment)}
    return {}


class _Place(NamedTuple):
    """How far a stream has been read, and when that was the end of the history, in seconds since 1970."""

    token: Any
    seconds: float


def _is_old(seconds: float) -> bool:
    """Whether the store may already have forgotten what came at a time, in seconds since 1970."""
    return time() - seconds > FORGOTTEN_AFTER_SECONDS


async def _read(stream: AsyncIOMotorChangeStream[dict[str, Any]]) -> list[dict[str, Any]]:
    """The next change as soon as there is one; several if they are old. None come if there is nothing for a while."""
    documents: list[dict[str, Any]] = []
    while (document := await stream.try_next()) is not None:
        documents.append(document)
        if len(documents) == READ_AT_ONCE or not _is_old(document["clusterTime"].time):
            break
    return documents


async def _close(stream: AsyncIOMotorChangeStream[dict[str, Any]]) -> None:
    """Let go of a stream, within the time of one call, and without a word of what comes of it.

    A read that was cancelled still has its thread, and the driver is not made for two at one cursor: it has raised an
    AttributeError here, which hid from the reader of the stream that it was cancelled, and the server never ended.
    """
    with suppress(Exception), pymongo.timeout(OPERATION_SECONDS):
        await stream.close()


async def _check_is_stored(database: Database, place: _Place) -> None:
    """Raises the driver's error if the store no longer has everything after a place.

    The embedded store passes over what it has forgotten without a word, but where a stream begins.
    """
    stream = database.watch(_NOTHING, start_after=place.token, max_await_time_ms=1)
    try:
        await stream.try_next()
    finally:
        await _close(stream)


class _Positions:
    """The positions of a stream's changes.

    Those of one transaction have one cluster time, and are told apart by number, which is the same in every stream. A
    change that the driver gives again, when it takes up a broken stream by itself, has the position that it had.
    """

    def __init__(self, after: Checkpoint | Position | None) -> None:
        self.given = after.position if isinstance(after, Checkpoint) else after or Position(0, 0, 0)
        """The newest that was told."""
        self._time = (0, 0)
        self._numbers: dict[str, int] = {}
        self._next_number = 0
        # Where a change was it must still be: the embedded store begins after what it lost without a word.
        is_of_change = isinstance(after, Position) and after.ordinal != LAST_OF_ITS_TIME
        self._must_begin_at = self.given[:2] if is_of_change else None
        if isinstance(after, Checkpoint):
            self._time = self.given[:2]
            self._numbers[str(after.token)] = self.given.ordinal
            self._next_number = self.given.ordinal + 1

    def next(self, document: Mapping[str, Any]) -> Position:
        """The position of the next change. Raises HistoryLost if it is the first, and not where the stream begins."""
        made: ClusterTime = document["clusterTime"]
        if self._must_begin_at not in {None, (made.time, made.inc)}:
            raise HistoryLost
        self._must_begin_at = None
        if (made.time, made.inc) != self._time:
            self._time, self._numbers, self._next_number = (made.time, made.inc), {}, 0
        token = str(document["_id"])
        if token not in self._numbers:
            self._numbers[token] = self._next_number
            self._next_number += 1
        return Position(made.time, made.inc, self._numbers[token])


def _change(document: Mapping[str, Any], position: Position) -> Change:
    if document["operationType"] not in {"insert", "replace", "update"}:
        raise HistoryLost
    if document["ns"]["coll"] == system.COLLECTION:
        return Change(position, beat=(document["fullDocument"] or {}).get("beat", ""))
    stored = document.get("fullDocument")
    if stored is None or not isinstance(stored["_id"], str):  # edited by hand and purged before we looked; or no record
        return Change(position)
    noun, codec = _RECORDS[document["ns"]["coll"]]
    project, resource_id = id_parts(stored["_id"])
    try:
        record = codec.to_record(stored)
    except CorruptDocument:
        groups = {name: each for name in ("run_id", "mission_id") if isinstance(each := stored.get(name), str)}
        return Change(position, project=project, noun=noun, unreadable_id=resource_id, unreadable_in=groups)
    before = TASK_STATE_UNSPECIFIED if isinstance(record.resource, Mission) else state_before(record.resource)
    return Change(position, project, record.resource, _kind(record), before, noun=noun)


def _kind(record: Record[Any]) -> ChangeKind.ValueType:
    if record.deleted:
        return CHANGE_KIND_DELETED
    return CHANGE_KIND_CREATED if record.resource.revision == record.first_revision else CHANGE_KIND_UPDATED
