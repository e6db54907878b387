"""One deployment's data: opened, prepared, and its parts."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pymongo
from pymongo.errors import ConfigurationError, InvalidURI, OperationFailure

from tidings_server.change import LAST_OF_ITS_TIME, Change, Checkpoint, Position
from tidings_server.clock import Clock
from tidings_server.limits import Limits
from tidings_server.store.changes import read_changes
from tidings_server.store.connection import INDEX_BUILD_SECONDS, OPERATION_SECONDS, connect, open_database, store_call
from tidings_server.store.events import EventStore
from tidings_server.store.indexes import WrongIndex, ensure_indexes
from tidings_server.store.keys import KeyStore
from tidings_server.store.missions import MissionStore
from tidings_server.store.run_log import RunLog
from tidings_server.store.runs import RunStore
from tidings_server.store.sweep import Sweeper
from tidings_server.store.system import Deployment, load_deployment, read_checkpoint, write_canary


class StoreRefused(Exception):
    """The MongoDB cannot be used as it is. The text says how to mend it."""


class Store:
    """Everything that is stored, behind methods that speak of events, keys and changes."""

    def __init__(self, uri: str, database: str, clock: Clock, limits: Limits) -> None:
        """Raises StoreRefused if the URI is not one. Connects when it is first used."""
        try:
            self._client = connect(uri)
        except (ConfigurationError, InvalidURI, ValueError) as error:
            raise StoreRefused(f"the MongoDB URI cannot be used: {error}") from error
        self._database = open_database(self._client, database)
        self.missions = MissionStore(self._database, clock, limits)
        run_log = RunLog(self._database, self.missions, clock, limits)
        self.runs = RunStore(self._database, self.missions, run_log, clock, limits)
        self.events = EventStore(self._database, self.missions, run_log, clock, limits)
        self.sweeper = Sweeper(self._database, self.runs, self.events, run_log, clock)
        self.keys = KeyStore(self._database)

    async def prepare(self) -> Deployment:
        """Check the server, make what is missing, and return the identity of the deployment.

        Raises StoreRefused if the server cannot do what Tidings needs, Failure STORE_UNAVAILABLE if it does
        not answer.
        """
        try:
            return await self._prepared()
        except (WrongIndex, OperationFailure) as error:
            raise StoreRefused(str(error)) from error

    async def _prepared(self) -> Deployment:
        with store_call():
            hello = await self._database.command("hello")
        if "setName" not in hello and hello.get("msg") != "isdbgrid":
            raise StoreRefused(
                "this MongoDB is a standalone server, which has no change streams: start it with "
                "`mongod --replSet rs0` and run `rs.initiate()` once in mongosh; one member is enough"
            )
        with store_call(INDEX_BUILD_SECONDS):
            await ensure_indexes(self._database)
        return await load_deployment(self._database)

    async def ping(self) -> None:
        """Read something real. Raises Failure STORE_UNAVAILABLE."""
        await self.keys.exist()

    async def now(self) -> Position:
        """A position at or after every change acknowledged so far."""
        with store_call():
            reply = await self._database.command("ping")
        time = reply["operationTime"]
        return Position(time.time, time.inc, LAST_OF_ITS_TIME)

    async def beat(self, name: str, checkpoint: Checkpoint | None) -> None:
        """Make a change without an event that carries a name, and keep a checkpoint with it."""
        await write_canary(self._database, name, checkpoint)

    async def checkpoint(self) -> Checkpoint | None:
        """The checkpoint that was kept last, by whatever server."""
        return await read_checkpoint(self._database)

    def changes(self, after: Checkpoint | Position | None = None) -> AsyncGenerator[Change | None]:
        """See `read_changes`."""
        return read_changes(self._database, after)

    def close(self) -> None:
        with pymongo.timeout(OPERATION_SECONDS):  # the driver says goodbye, also to a store that does not listen
            self._client.close()
