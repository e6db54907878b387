"""What a deployment keeps about itself: its identity, its secret, and the canary."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from typing import Any, Final

from pymongo.errors import DuplicateKeyError

from tidings_server.store.connection import Database, store_call

COLLECTION: Final = "system"
DEPLOYMENT_ID: Final = "deployment"
CANARY_ID: Final = "canary"
SECRET_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Deployment:
    """The identity that all servers on one store share."""

    name: str
    secret: bytes

    def with_secret(self, secret: bytes) -> Deployment:
        """The same deployment with a secret that is not kept in its database."""
        return replace(self, secret=secret)


async def load_deployment(database: Database) -> Deployment:
    """The deployment of this store, made when a server first starts on it."""
    system = database[COLLECTION]
    fresh: dict[str, Any] = {
        "_id": DEPLOYMENT_ID,
        "name": secrets.token_hex(16),
        "secret": secrets.token_bytes(SECRET_BYTES),
    }
    with store_call():
        document = await system.find_one({"_id": DEPLOYMENT_ID})
        if document is None:
            try:
                await system.insert_one(fresh)
                document = fresh
            except DuplicateKeyError:  # another server was first
                document = await system.find_one({"_id": DEPLOYMENT_ID}) or fresh
    return Deployment(document["name"], bytes(document["secret"]))


async def write_canary(database: Database, beat: str) -> None:
    """Make a change that carries a name: who sees it has seen everything that was written before."""
    with store_call():
        try:
            await database[COLLECTION].replace_one({"_id": CANARY_ID}, {"beat": beat}, upsert=True)
        except DuplicateKeyError:  # two servers wrote the first one at once
            await database[COLLECTION].replace_one({"_id": CANARY_ID}, {"beat": beat})
