"""Writes events straight into the store, so that what is measured is the watches and not the call that wrote."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import grpc
from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.write_concern import WriteConcern

from tidings.v1.event_pb2 import Event
from tidings.v1.event_service_pb2 import CreateEventRequest
from tidings.v1.event_service_pb2_grpc import EventServiceStub

EVENT = Event(type="bench.event", summary="an event with a summary of some words")


class Writer:
    """Writes copies of the record that the server has made of an event."""

    def __init__(self, database: AsyncDatabase[dict[str, Any]], record: dict[str, Any]) -> None:
        self.database = database
        self._events = database.get_collection("events", write_concern=WriteConcern(w="majority", j=True))
        self._record = record

    async def write(self, count: int = 1) -> float:
        """Write events, and return when that was acknowledged on the clock of time.monotonic."""
        project, _, _ = self._record["_id"].partition("/")
        await self._events.insert_many([{**self._record, "_id": f"{project}/{uuid.uuid4()}"} for _ in range(count)])
        return monotonic()


@asynccontextmanager
async def writing(store_uri: str, target: str, event: Event = EVENT) -> AsyncIterator[Writer]:
    async with grpc.aio.insecure_channel(target) as channel, AsyncMongoClient[dict[str, Any]](store_uri) as client:
        response = await EventServiceStub(channel).CreateEvent(CreateEventRequest(event=event))
        database = client["tidings"]
        record = await database["events"].find_one({"_id": {"$regex": f"/{response.event.event_id}$"}})
        assert record is not None
        yield Writer(database, record)
