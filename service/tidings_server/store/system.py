"""What a deployment keeps about itself: its identity, its secret, and the canary."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from pymongo.errors import DuplicateKeyError

from tidings_server.change import Checkpoint, Position
from tidings_server.store.connection import Database, store_call

COLLECTION: Final = "system"
DEPLOYMENT_ID: Final = "deployment"
CANARY_ID: Final = "canary"
SECRET_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Deployment:
    """The identity that all servers on one store share."""

    name: str
    secrets: Sequence[bytes]
    """What keys are hashed and tokens sealed with: the first for new ones, every one for those that come back."""

    def with_secrets(self, given: Sequence[bytes]) -> Deployment:
        """The same deployment, if any are given with secrets that are not kept in its database."""
        return replace(self, secrets=given) if given else self


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
    return Deployment(document["name"], [bytes(document["secret"])])


async def write_canary(database: Database, beat: str, checkpoint: Checkpoint | None) -> None:
    """Make a change that carries a name: who sees it has seen everything that was written before.

    It keeps a checkpoint for the next server that starts.
    """
    canary: dict[str, Any] = {"beat": beat}
    if checkpoint is not None:
        canary |= {"position": list(checkpoint.position), "token": checkpoint.token}
    with store_call():
        try:
            await database[COLLECTION].replace_one({"_id": CANARY_ID}, canary, upsert=True)
        except DuplicateKeyError:  # two servers wrote the first one at once
            await database[COLLECTION].replace_one({"_id": CANARY_ID}, canary)


async def read_checkpoint(database: Database) -> Checkpoint | None:
    """The checkpoint that was written with the canary last, if there is one."""
    with store_call():
        canary = await database[COLLECTION].find_one({"_id": CANARY_ID})
    if canary is None or "token" not in canary:
        return None
    return Checkpoint(Position(*canary["position"]), canary["token"])
