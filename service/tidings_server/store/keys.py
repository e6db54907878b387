"""API keys in MongoDB: everything about them but their secrets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from bson.datetime_ms import DatetimeMS

from tidings_server.store.connection import Database, store_call

COLLECTION: Final = "api_keys"


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key as it is stored. Times in milliseconds since 1970."""

    key_id: str
    project: str
    scopes: frozenset[str]
    secret_hash: bytes
    create_time: int
    revoke_time: int | None = None


class KeyStore:
    """The keys of all projects. Every method raises Failure STORE_UNAVAILABLE when the store does not answer."""

    def __init__(self, database: Database) -> None:
        self._keys = database[COLLECTION]

    async def add(self, key: StoredKey) -> None:
        with store_call():
            await self._keys.insert_one(_document(key))

    async def find(self, key_id: str) -> StoredKey | None:
        with store_call():
            document = await self._keys.find_one({"_id": key_id})
        return None if document is None else _key(document)

    async def exist(self) -> bool:
        """Whether any key was ever created, revoked ones included."""
        with store_call():
            return await self._keys.find_one({}, {"_id": 1}) is not None

    async def list(self) -> list[StoredKey]:
        """All keys, oldest first."""
        with store_call():
            return [_key(document) async for document in self._keys.find().sort([("create_time", 1), ("_id", 1)])]

    async def revoke(self, key_id: str, now: int) -> bool:
        """Revoke a key, for good; False if there is none with this id."""
        key = await self.find(key_id)
        if key is None:
            return False
        with store_call():
            change = {"$set": {"revoke_time": DatetimeMS(now)}}
            await self._keys.update_one({"_id": key_id, "revoke_time": None}, change)
        return True


def _document(key: StoredKey) -> dict[str, Any]:
    return {
        "_id": key.key_id,
        "project": key.project,
        "scopes": sorted(key.scopes),
        "secret_hash": key.secret_hash,
        "create_time": DatetimeMS(key.create_time),
    }


def _key(document: dict[str, Any]) -> StoredKey:
    revoked = document.get("revoke_time")
    return StoredKey(
        key_id=document["_id"],
        project=document["project"],
        scopes=frozenset(document["scopes"]),
        secret_hash=bytes(document["secret_hash"]),
        create_time=int(document["create_time"]),
        revoke_time=None if revoked is None else int(revoked),
    )
