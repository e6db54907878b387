"""What a server makes, checks and refuses in its store before it serves."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import SecretStr
from pymongo import AsyncMongoClient

from conftest import Start
from tidings_server.embedded import EmbeddedStore
from tidings_server.store import StoreRefused
from tidings_server.store.indexes import INDEXES

Mongo = AsyncMongoClient[dict[str, Any]]

ADMINISTRATION = {"_id_"}


Found = dict[tuple[str, str], tuple[list[tuple[str, int]], int | None]]

EXPECTED: Found = {(index.collection, index.name): (list(index.keys), index.expire_after_seconds) for index in INDEXES}


async def indexes(mongo: Mongo, database: str) -> Found:
    """Keys and expiry of the indexes, by collection and name."""
    return {
        (collection, name): (list(index["key"]), index.get("expireAfterSeconds"))
        for collection in {index.collection for index in INDEXES}
        for name, index in (await mongo[database][collection].index_information()).items()
        if name not in ADMINISTRATION
    }


async def test_a_fresh_store_gets_every_index(start: Start, mongo: Mongo, database: str) -> None:
    async with start():
        assert await indexes(mongo, database) == EXPECTED


def test_records_of_each_kind_expire_by_one_index_at_their_own_time() -> None:
    purging = [index for index in INDEXES if index.expire_after_seconds is not None]
    assert sorted(index.collection for index in purging) == sorted({index.collection for index in INDEXES})
    assert {(index.keys, index.expire_after_seconds) for index in purging} == {((("expire_time", 1),), 0)}


async def test_a_missing_index_is_made_again(start: Start, mongo: Mongo, database: str) -> None:
    async with start():
        await mongo[database].events.drop_index("by_type")
    async with start():
        assert await indexes(mongo, database) == EXPECTED


@pytest.mark.parametrize("seconds", [3600, None])
async def test_a_wrong_expiry_is_set_right(start: Start, mongo: Mongo, database: str, seconds: int | None) -> None:
    options = {} if seconds is None else {"expireAfterSeconds": seconds}
    await mongo[database].events.create_index("expire_time", name="expiry", **options)
    async with start():
        assert (await indexes(mongo, database))["events", "expiry"] == ([("expire_time", 1)], 0)


async def test_an_index_with_our_name_and_other_keys_is_refused_with_the_remedy(
    start: Start, mongo: Mongo, database: str
) -> None:
    await mongo[database].events.create_index([("type", 1)], name="by_log")
    with pytest.raises(StoreRefused, match=r"db\.events\.dropIndex\('by_log'\)"):
        async with start():
            pass


async def test_a_unique_index_on_our_keys_is_refused(start: Start, mongo: Mongo, database: str) -> None:
    await mongo[database].events.create_index("expire_time", name="mine", unique=True)
    with pytest.raises(StoreRefused, match="plain keys"):
        async with start():
            pass


async def test_a_standalone_server_is_refused_with_the_way_to_make_it_a_replica_set(start: Start) -> None:
    async with EmbeddedStore(None, arguments=["--standalone"]) as store:
        uri = SecretStr(store.uri.replace("replicaSet=secantus", "directConnection=true"))
        with pytest.raises(StoreRefused, match=r"mongod --replSet rs0.*rs\.initiate\(\)"):
            async with start(mongodb_uri=uri):
                pass


async def test_an_impossible_uri_is_refused_without_its_password(start: Start) -> None:
    with pytest.raises(StoreRefused) as refused:
        async with start(mongodb_uri=SecretStr("mongodb://user:hush@[nowhere")):
            pass
    assert "hush" not in str(refused.value)


async def test_all_servers_of_a_store_are_one_deployment(start: Start) -> None:
    async with start() as one, start() as other:
        assert await one.server.store.prepare() == await other.server.store.prepare()


async def test_writes_are_journaled_on_a_majority_and_reads_are_of_one(start: Start) -> None:
    async with start() as wire:
        events = wire.server.store.events._collection
        assert events.write_concern.document == {"w": "majority", "j": True}
        assert events.read_concern.document == {"level": "majority"}
