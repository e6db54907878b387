"""The order of all changes of the deployment, read from MongoDB's change stream."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from typing import Any, Final

from bson.timestamp import Timestamp as ClusterTime
from pymongo.errors import PyMongoError

from tidings.v1.event_service_pb2 import (
    CHANGE_KIND_CREATED,
    CHANGE_KIND_DELETED,
    CHANGE_KIND_UPDATED,
    ChangeKind,
)
from tidings.v1.mission_pb2 import Mission
from tidings.v1.task_pb2 import TASK_STATE_UNSPECIFIED
from tidings_server.change import LAST_OF_ITS_TIME, Change, HistoryLost, Position
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
    RUNS_COLLECTION,
    Database,
    is_history_lost,
    is_unavailable,
)
from tidings_server.store.documents import EVENTS, MISSIONS, RUNS
from tidings_server.store.fields import Codec, CorruptDocument, id_parts

AWAIT_MILLISECONDS: Final = 500

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


async def read_changes(database: Database, after: Position) -> AsyncGenerator[Change | None]:
    """Yield every change after a position, in order, and None whenever there is none for a while. Never ends.

    Only what a majority of the nodes has stored is told, so that nothing told is ever taken back.

    Raises HistoryLost if the store no longer has the changes after the position (begin anew), and Failure
    STORE_UNAVAILABLE if it does not answer (go on from the last position).
    """
    start = ClusterTime(after.seconds, after.increment)
    stream = database.watch(
        _PIPELINE,
        full_document="updateLookup",  # only for records that a person has edited: we replace whole documents
        start_at_operation_time=start,
        max_await_time_ms=AWAIT_MILLISECONDS,
    )
    position = Position(start.time, start.inc, -1)
    must_begin_there = after.ordinal != LAST_OF_ITS_TIME
    try:
        while True:
            document = await stream.try_next()
            if document is None:
                if not bool(stream.alive):  # Motor types this property as a method
                    raise HistoryLost
                yield None
                continue
            position = _following(position, document["clusterTime"])
            # Where a change was it must still be: the embedded store begins after what it lost without a word.
            if must_begin_there and position[:2] != after[:2]:
                raise HistoryLost
            must_begin_there = False
            if position > after:
                yield _change(document, position)
    except PyMongoError as error:
        if is_history_lost(error):
            raise HistoryLost from error
        if is_unavailable(error):
            raise store_unavailable() from error
        raise
    finally:
        with suppress(PyMongoError):
            await stream.close()


def _following(last: Position, time: ClusterTime) -> Position:
    """The position of the next change. Those of one transaction have one cluster time and are told apart by number.

    A stream that starts at a cluster time gives all changes of that time, so the numbers are the same for everyone.
    """
    if (time.time, time.inc) == (last.seconds, last.increment):
        return last._replace(ordinal=last.ordinal + 1)
    return Position(time.time, time.inc, 0)


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
