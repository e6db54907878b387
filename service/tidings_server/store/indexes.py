"""The indexes that reads and retention rest on: made at start, checked, and repaired where that is safe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog
from pymongo.errors import OperationFailure

from tidings_server.store import events
from tidings_server.store.connection import Database

log = structlog.get_logger()


class WrongIndex(Exception):
    """An index differs from ours in a way that only its owner can judge. The text says how to mend it."""


@dataclass(frozen=True, slots=True)
class Index:
    """An index on the events: its name, its keys, and for the one that purges, after how many seconds."""

    name: str
    keys: tuple[tuple[str, int], ...]
    expire_after_seconds: int | None = None


INDEXES: Final = (
    Index("expiry", (("expire_time", 1),), expire_after_seconds=0),
    Index("by_time", (("project", 1), ("create_time", 1), ("_id", 1))),
    Index("by_type", (("project", 1), ("type", 1), ("create_time", 1), ("_id", 1))),
    Index("by_run", (("project", 1), ("run_id", 1), ("create_time", 1), ("_id", 1))),
    Index("by_mission", (("project", 1), ("mission_id", 1), ("create_time", 1), ("_id", 1))),
)


async def ensure_indexes(database: Database) -> None:
    """Make every index that is missing and set right a wrong expiry. Raises WrongIndex for any other difference."""
    collection = database[events.COLLECTION]
    existing = await _existing(database)
    for index in INDEXES:
        found = existing.get(index.name) or _same_keys(index, existing)
        if found is None:
            options: dict[str, Any] = (
                {} if index.expire_after_seconds is None else {"expireAfterSeconds": index.expire_after_seconds}
            )
            await collection.create_index(list(index.keys), name=index.name, **options)
        else:
            await _check(database, index, found)


async def _existing(database: Database) -> dict[str, Mapping[str, Any]]:
    try:
        return {each["name"]: each async for each in database[events.COLLECTION].list_indexes()}
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
        drop = f"db.{events.COLLECTION}.dropIndex({found['name']!r})"
        raise WrongIndex(
            f'index "{found["name"]}" of collection "{events.COLLECTION}" is {dict(found)}, '
            f"but Tidings needs plain keys {dict(index.keys)}: drop it with {drop} and start again"
        )
    if found.get("expireAfterSeconds") != index.expire_after_seconds:
        await _set_expiry(database, index, found)


async def _set_expiry(database: Database, index: Index, found: Mapping[str, Any]) -> None:
    log.warning(
        "index has the wrong expiry, setting it right", index=found["name"], was=found.get("expireAfterSeconds")
    )
    if index.expire_after_seconds is None or found.get("expireAfterSeconds") is None:
        await database[events.COLLECTION].drop_index(found["name"])
        options: dict[str, Any] = (
            {} if index.expire_after_seconds is None else {"expireAfterSeconds": index.expire_after_seconds}
        )
        await database[events.COLLECTION].create_index(list(index.keys), name=index.name, **options)
        return
    change = {"name": found["name"], "expireAfterSeconds": index.expire_after_seconds}
    await database.command({"collMod": events.COLLECTION, "index": change})
