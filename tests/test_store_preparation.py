"""What a server makes, checks and refuses in its store before it serves."""

from __future__ import annotations

from typing import Any

import pytest
from motor.motor_asyncio import AsyncIOMotorClient
from pydantic import SecretStr

from conftest import Start
from tidings_server.embedded import EmbeddedStore
from tidings_server.store import StoreRefused
from tidings_server.store.indexes import INDEXES

Mongo = AsyncIOMotorClient[dict[str, Any]]

ADMINISTRATION = {"_id_"}


async def indexes(mongo: Mongo, database: str) -> dict[str, tuple[list[tuple[str, int]], int | None]]:
    """The indexes on the events: keys and expiry by name."""
    found = await mongo[database].events.index_information()
    return {
        name: (list(index["key"]), index.get("expireAfterSeconds"))
        for name, index in found.items()
        if name not in ADMINISTRATION
    }


EXPECTED = {index.name: (list(index.keys), index.expire_after_seconds) for index in INDEXES}


async def test_a_fresh_store_gets_every_index(start: Start, mongo: Mongo, database: str) -> None:
    async with start():
        assert await indexes(mongo, database) == EXPECTED


async def test_records_expire_by_one_index_at_their_own_time() -> None:
    assert [
        (index.keys, index.expire_after_seconds) for index in INDEXES if index.expire_after_seconds is not None
    ] == [((("expire_time", 1),), 0)]


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
        assert (await indexes(mongo, database))["expiry"] == ([("expire_time", 1)], 0)


async def test_an_index_with_our_name_and_other_keys_is_refused_with_the_remedy(
    start: Start, mongo: Mongo, database: str
) -> None:
    await mongo[database].events.create_index([("type", 1)], name="by_run")
    with pytest.raises(StoreRefused, match=r"db\.events\.dropIndex\('by_run'\)"):
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
        events = wire.server.store.events._events
        assert events.write_concern.document == {"w": "majority", "j": True}
        assert events.read_concern.document == {"level": "majority"}
