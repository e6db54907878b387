"""Sweeping away the runs and events of deleted missions, in bounded steps that any server can go on with."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import structlog
from bson.datetime_ms import DatetimeMS

from tidings.v1 import error_reason_pb2 as reasons
from tidings_server.clock import Clock
from tidings_server.errors import Failure
from tidings_server.store.connection import (
    EVENTS_COLLECTION,
    MISSIONS_COLLECTION,
    RUNS_COLLECTION,
    Database,
    store_call,
)
from tidings_server.store.events import EventStore
from tidings_server.store.fields import document_id, id_parts
from tidings_server.store.records import NOT_DELETED, RecordStore
from tidings_server.store.run_log import RunLog
from tidings_server.store.runs import RunStore

log = structlog.get_logger()

PATROL_SECONDS: Final = 60.0
"""How often missions are looked for whose sweeping was interrupted."""
STEP_SIZE: Final = 100


class Sweeper:
    """Deletes the runs and events of deleted missions, and at last the missions' records."""

    def __init__(self, database: Database, runs: RunStore, events: EventStore, run_log: RunLog, clock: Clock) -> None:
        self._database = database
        self._runs = runs
        self._events = events
        self._run_log = run_log
        self._clock = clock
        self._wanted = asyncio.Event()
        self._wanted.set()

    def wake(self) -> None:
        """A mission has just been deleted: begin at once."""
        self._wanted.set()

    async def run(self) -> None:
        """Sweep whenever there is something to, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(PATROL_SECONDS):
                    await self._wanted.wait()
            except TimeoutError:
                pass
            self._wanted.clear()
            try:
                await self._sweep_all()
            except Failure:
                log.warning("sweeping deleted missions was interrupted, going on later")
                await asyncio.sleep(1)
                self._wanted.set()
            except Exception:
                log.exception("sweeping deleted missions failed, going on later")

    async def _sweep_all(self) -> None:
        while True:
            with store_call():
                mission = await self._database[MISSIONS_COLLECTION].find_one({"deleted": True, "expire_time": None})
            if mission is None:
                return
            await self._sweep(*id_parts(mission["_id"]))
            with store_call():
                purge = {"$set": {"expire_time": DatetimeMS(self._clock())}}
                await self._database[MISSIONS_COLLECTION].update_one({"_id": mission["_id"]}, purge)

    async def _sweep(self, project: str, mission_id: str) -> None:
        # The logs first: no event can be added behind our back.
        while runs := await self._some(RUNS_COLLECTION, project, mission_id):
            for run_id in runs:
                with store_call():
                    await self._run_log.drop(project, run_id)
                await self._delete(self._runs, RUNS_COLLECTION, project, run_id)
        while events := await self._some(EVENTS_COLLECTION, project, mission_id):
            deletions = (self._delete(self._events, EVENTS_COLLECTION, project, event_id) for event_id in events)
            await asyncio.gather(*deletions)

    async def _some(self, collection: str, project: str, mission_id: str) -> list[str]:
        criteria = {"project": project, "mission_id": mission_id, **NOT_DELETED}
        with store_call():
            found = self._database[collection].find(criteria, {"_id": 1}).limit(STEP_SIZE)
            return [id_parts(document["_id"])[1] async for document in found]

    async def _delete(self, store: RecordStore[Any], collection: str, project: str, resource_id: str) -> None:
        try:
            await store.sweep(project, resource_id)
        except Failure as failure:
            if failure.reason != reasons.ERROR_REASON_CORRUPT_RECORD:
                raise
            with store_call():  # there is nothing in it that could be told
                await self._database[collection].delete_one({"_id": document_id(project, resource_id)})
