"""The indexes that reads and retention rest on: made at start, checked, and repaired where that is safe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog
from pymongo.errors import OperationFailure

from tidings_server.store.connection import (
    EVENTS_COLLECTION,
    MISSIONS_COLLECTION,
    RUN_LOGS_COLLECTION,
    RUNS_COLLECTION,
    Database,
)
from tidings_server.store.events import EventStore
from tidings_server.store.records import RecordStore

log = structlog.get_logger()


class WrongIndex(Exception):
    """An index differs from ours in a way that only its owner can judge. The text says how to mend it."""


@dataclass(frozen=True, slots=True)
class Index:
    """An index: its collection, its name, its keys, and for one that purges, after how many seconds."""

    collection: str
    name: str
    keys: tuple[tuple[str, int], ...]
    expire_after_seconds: int | None = None


_ORDER: Final = tuple((column, 1) for column in RecordStore.ORDER)
_EVENT_ORDER: Final = tuple((column, 1) for column in EventStore.ORDER)
_EXPIRY: Final = (("expire_time", 1),)

INDEXES: Final = (
    Index(EVENTS_COLLECTION, "expiry", _EXPIRY, expire_after_seconds=0),
    Index(EVENTS_COLLECTION, "by_time", (("project", 1), *_EVENT_ORDER)),
    Index(EVENTS_COLLECTION, "by_type", (("project", 1), ("type", 1), *_EVENT_ORDER)),
    Index(EVENTS_COLLECTION, "by_log", (("project", 1), ("run_id", 1), ("sequence", 1))),
    Index(EVENTS_COLLECTION, "by_mission", (("project", 1), ("mission_id", 1), *_EVENT_ORDER)),
    Index(RUNS_COLLECTION, "expiry", _EXPIRY, expire_after_seconds=0),
    Index(RUNS_COLLECTION, "by_time", (("project", 1), *_ORDER)),
    Index(RUNS_COLLECTION, "by_mission", (("project", 1), ("mission_id", 1), *_ORDER)),
    Index(RUN_LOGS_COLLECTION, "expiry", _EXPIRY, expire_after_seconds=0),
    Index(MISSIONS_COLLECTION, "expiry", _EXPIRY, expire_after_seconds=0),
    Index(MISSIONS_COLLECTION, "by_time", (("project", 1), *_ORDER)),
    Index(MISSIONS_COLLECTION, "by_deletion", (("deleted", 1), ("project", 1))),
)


async def ensure_indexes(database: Database) -> None:
    """Make every index that is missing and set right a wrong expiry. Raises WrongIndex for any other difference."""
    existing = {name: await _existing(database, name) for name in {index.collection for index in INDEXES}}
    for index in INDEXES:
        found = existing[index.collection].get(index.name) or _same_keys(index, existing[index.collection])
        if found is None:
            options: dict[str, Any] = (
                {} if index.expire_after_seconds is None else {"expireAfterSeconds": index.expire_after_seconds}
            )
            await database[index.collection].create_index(list(index.keys), name=index.name, **options)
        else:
            await _check(database, index, found)


async def _existing(database: Database, collection: str) -> dict[str, Mapping[str, Any]]:
    try:
        return {each["name"]: each async for each in database[collection].list_indexes()}
    except OperationFailure as error:
        if error.code == 26:  # NamespaceNotFound: there is no collection yet
            return {}
        raise


def _same_keys(index: Index, existing: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any] | None:
    return next((each for each in existing.values() if _keys(each) == index.keys), None)


def _keys(found: Mapping[str, Any]) -> tuple[tuple[str, int], ...]:
    return tuple((name, int(direction)) for name, direction in found["key"].items())


async def _check(database: Database, index: Index, found: Mapping[str, Any]) -> None:
    narrowing = [option for option in ("unique", "sparse", "partialFilterExpression") if found.get(option)]
    if _keys(found) != index.keys or narrowing:
        drop = f"db.{index.collection}.dropIndex({found['name']!r})"
        raise WrongIndex(
            f'index "{found["name"]}" of collection "{index.collection}" is {dict(found)}, '
            f"but Tidings needs plain keys {dict(index.keys)}: drop it with {drop} and start again"
        )
    if found.get("expireAfterSeconds") != index.expire_after_seconds:
        await _set_expiry(database, index, found)


async def _set_expiry(database: Database, index: Index, found: Mapping[str, Any]) -> None:
    log.warning(
        "index has the wrong expiry, setting it right", index=found["name"], was=found.get("expireAfterSeconds")
    )
    if index.expire_after_seconds is None or found.get("expireAfterSeconds") is None:
        await database[index.collection].drop_index(found["name"])
        options: dict[str, Any] = (
            {} if index.expire_after_seconds is None else {"expireAfterSeconds": index.expire_after_seconds}
        )
        await database[index.collection].create_index(list(index.keys), name=index.name, **options)
        return
    change = {"name": found["name"], "expireAfterSeconds": index.expire_after_seconds}
    await database.command({"collMod": index.collection, "index": change})
