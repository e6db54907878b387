"""Records of one kind in MongoDB: created once, read, listed in pages, and changed by compare-and-set."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Generic

from bson.datetime_ms import DatetimeMS
from motor.motor_asyncio import AsyncIOMotorCollection
from pymongo.errors import DuplicateKeyError

from tidings_server.clock import Clock
from tidings_server.errors import Failure
from tidings_server.limits import Limits
from tidings_server.record import Kind, Mutation, R, Record, changed, created_over, deletion
from tidings_server.store.connection import store_call
from tidings_server.store.fields import Codec, CorruptDocument, document_id, id_parts

Filter = dict[str, Any]
Key = tuple[int | str, ...]
"""Where a resource stands in a list: its create_time in milliseconds, for an event its sequence, and its `_id`."""


@dataclass(frozen=True, slots=True)
class Page(Generic[R]):
    """Some resources in order, and where the next page begins: None after the last one."""

    items: list[R]
    unreadable: list[str]
    next: Key | None


class RecordStore(Generic[R]):
    """Records of one kind. Every method raises Failure STORE_UNAVAILABLE when the store does not answer."""

    ORDER: ClassVar[tuple[str, ...]] = ("create_time", "_id")
    """The columns that lists are ordered by."""

    def __init__(
        self,
        collection: AsyncIOMotorCollection[dict[str, Any]],
        kind: Kind[R],
        codec: Codec[R],
        clock: Clock,
        limits: Limits,
    ) -> None:
        self._collection = collection
        self._kind = kind
        self._codec = codec
        self._clock = clock
        self._limits = limits

    async def create(self, record: Record[R]) -> R:
        """Store a new record and return its resource, or the stored one if this creation is a retry.

        Raises Failure: ALREADY_EXISTS with the kind's reason if the id has other content.
        """
        with store_call():
            for _ in range(self._limits.change_attempts_max):
                try:
                    await self._insert(record)
                except DuplicateKeyError:
                    if resource := await self._create_again(record):
                        return resource
                else:
                    return record.resource
        raise self._taken(record)

    async def get(self, project: str, resource_id: str) -> R:
        """Raises Failure: NOT_FOUND with the kind's reason, CORRUPT_RECORD."""
        with store_call():
            record = await self._find(project, resource_id)
        self._check_is_there(record)
        return record.resource

    async def last(self, project: str, resource_id: str) -> Record[R]:
        """The record as it was last, also of what is gone. Raises Failure as `get`, if nothing is left of it."""
        with store_call():
            return await RecordStore._find(self, project, resource_id)

    async def change(self, project: str, resource_id: str, mutation: Mutation[R]) -> R:
        """Apply a mutation to the resource as it is, as one compare-and-set, and return the resource after it.

        Raises Failure: what `get` and the mutation raise; REVISION_MISMATCH also when others changed the resource at
        every attempt.
        """
        with store_call():
            for attempt in range(self._limits.change_attempts_max):
                record = await self._find(project, resource_id)
                before = record.resource.revision
                self._check_is_there(record, mutation)
                if not changed(self._kind, record, mutation, self._clock(), self._limits):
                    return record.resource
                if await self._replace(record, before):
                    return record.resource
                await asyncio.sleep(random.uniform(0, 0.002 * 2**attempt))  # noqa: S311 (spreads contenders)
        raise self._kind.moved_on(resource_id, before)

    async def sweep(self, project: str, resource_id: str) -> None:
        """Delete what belongs to something that was deleted: unseen already, and now told to its watchers."""
        mutation: Mutation[R] = Mutation(deletion, b"")
        with store_call():
            for _ in range(self._limits.change_attempts_max):
                record = await RecordStore._find(self, project, resource_id)
                before = record.resource.revision
                if record.deleted or not changed(self._kind, record, mutation, self._clock(), self._limits):
                    return
                if await RecordStore._replace(self, record, before):
                    return

    async def _insert(self, record: Record[R]) -> None:
        """Raises DuplicateKeyError if the id is taken."""
        await self._collection.insert_one(self._codec.to_document(record))

    async def _replace(self, record: Record[R], revision: int) -> bool:
        """Replace the record that is at a revision; False if there is none."""
        document = self._codec.to_document(record)
        # Not find_one_and_replace, which the embedded store answers with a scan of the collection.
        result = await self._collection.replace_one({"_id": document["_id"], "revision": revision}, document)
        return result.matched_count == 1

    async def _find(self, project: str, resource_id: str) -> Record[R]:
        document = await self._collection.find_one({"_id": document_id(project, resource_id)})
        if document is None:
            raise self._kind.missing(resource_id)
        return self._readable(document)

    def _check_is_there(self, record: Record[R], mutation: Mutation[R] | None = None) -> None:
        """Raise if the record is of something gone, unless it is so by the very mutation that is asked for again."""
        resource_id = self._kind.id_of(record.resource)
        if record.deleted:
            # Of what was deleted only the deletion may be repeated.
            if mutation is None or mutation.rule is not deletion or not record.remembers(mutation.request_id):
                raise self._kind.missing(resource_id)
        elif record.is_gone(self._clock()):
            raise self._kind.gone(resource_id)

    async def _create_again(self, record: Record[R]) -> R | None:
        """What a creation comes to when its id is there already; None if that went away meanwhile."""
        document_id_ = document_id(record.project, self._kind.id_of(record.resource))
        document = await self._collection.find_one({"_id": document_id_})
        if document is None:
            return None
        old = self._readable(document)
        if old.is_gone(self._clock()):
            return record.resource if await self._replace(created_over(record, old), old.resource.revision) else None
        if old.content_digest != record.content_digest:
            raise self._taken(record)
        return old.resource

    def _taken(self, record: Record[R]) -> Failure:
        resource_id = self._kind.id_of(record.resource)
        return self._kind.failure(self._kind.already_exists, resource_id, "exists with other content")

    def _readable(self, document: Mapping[str, Any]) -> Record[R]:
        try:
            return self._codec.to_record(document)
        except CorruptDocument as error:
            raise self._kind.corrupt(id_parts(document["_id"])[1]) from error

    async def _count(self, criteria: Sequence[Filter]) -> int:
        """How many resources meet all criteria."""
        with store_call():
            return await self._collection.count_documents({"$and": list(criteria)})

    async def _page(
        self, criteria: Sequence[Filter], *, newest_first: bool, after: Key | None, limit: int, skip: int
    ) -> Page[R]:
        """The next `limit` resources that meet all criteria, after a key and some to skip, within a response's size."""
        direction = -1 if newest_first else 1
        with store_call():
            beyond = [_beyond(self.ORDER, after, "$lt" if newest_first else "$gt")] if after else []
            cursor = self._collection.find({"$and": [*criteria, *beyond]})
            cursor = cursor.sort([(column, direction) for column in self.ORDER])
            return await self._fill(cursor.skip(skip).limit(limit + 1).batch_size(limit + 1), limit)

    async def _fill(self, documents: AsyncIterator[dict[str, Any]], limit: int) -> Page[R]:
        page: Page[R] = Page([], [], None)
        size, key = 0, None
        async for document in documents:
            if len(page.items) + len(page.unreadable) >= limit:
                return Page(page.items, page.unreadable, key)
            try:
                resource = self._codec.to_record(document).resource
                size += resource.ByteSize()
                if size > self._limits.response_bytes_max and page.items:
                    return Page(page.items, page.unreadable, key)
                page.items.append(resource)
            except CorruptDocument:
                page.unreadable.append(id_parts(document["_id"])[1])
            if all(column in document for column in self.ORDER):  # or there is no going on from here
                key = tuple(each if isinstance(each := document[column], str) else int(each) for column in self.ORDER)
        return page


def _beyond(order: Sequence[str], after: Key, past: str) -> Filter:
    """What comes after a key: is past it in the first column, or equal there and past it in the second, and so on."""
    values = [
        DatetimeMS(int(value)) if column == "create_time" else value for column, value in zip(order, after, strict=True)
    ]
    return {
        "$or": [
            {**dict(zip(order[:depth], values[:depth], strict=True)), order[depth]: {past: values[depth]}}
            for depth in range(len(order))
        ]
    }


NOT_DELETED: Final[Filter] = {"deleted": {"$ne": True}}
