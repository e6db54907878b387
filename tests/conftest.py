"""The real thing for every test: one embedded store for the session, and servers on free ports.

With TIDINGS_TEST_MONGODB_URI the same tests run against that MongoDB instead.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from pymongo import AsyncMongoClient

from tidings_server.clock import system_clock
from tidings_server.config import Config
from tidings_server.embedded import EmbeddedStore
from tidings_server.limits import Limits
from tidings_server.server import serve
from wire import WITHIN_SECONDS, Wire

Start = Callable[..., AbstractAsyncContextManager[Wire]]


@pytest.fixture(scope="session")
async def mongodb_uri() -> AsyncIterator[str]:
    if uri := os.environ.get("TIDINGS_TEST_MONGODB_URI"):
        yield uri
        return
    async with EmbeddedStore(None, arguments=["--enable-test-commands"]) as store:
        yield store.uri


@pytest.fixture(scope="session")
async def mongo(mongodb_uri: str) -> AsyncIterator[AsyncMongoClient[dict[str, Any]]]:
    """A client of the store itself, for tests that look behind the server or break things."""
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(mongodb_uri)
    yield client
    await client.close()


@pytest.fixture
async def database(mongo: AsyncMongoClient[dict[str, Any]]) -> AsyncIterator[str]:
    """A database of this test's own, dropped after it: the embedded store is the slower the more it looks after."""
    name = f"test_{uuid.uuid4().hex}"
    yield name
    await mongo.drop_database(name)


@pytest.fixture
def start(mongodb_uri: str, database: str) -> Start:
    """Starts servers on this test's database."""

    @asynccontextmanager
    async def started(clock: Any = system_clock, limits: Limits | None = None, **settings: Any) -> AsyncIterator[Wire]:
        settings = {"listen": "127.0.0.1:0", "http_port": "off", "mongodb_uri": SecretStr(mongodb_uri), **settings}
        config = Config(mongodb_database=database, **settings)
        async with serve(config, clock=clock, limits=limits) as server, Wire(server) as wire:
            yield wire

    return started


@pytest.fixture(scope="session")
async def server(mongodb_uri: str) -> AsyncIterator[Wire]:
    """One server for all tests that need nothing special. They share its project: use ids of your own."""
    name = f"test_{uuid.uuid4().hex}"
    config = Config(listen="127.0.0.1:0", http_port=0, mongodb_uri=SecretStr(mongodb_uri), mongodb_database=name)
    async with serve(config) as running, Wire(running) as wire:
        yield wire


@pytest.fixture
async def http(server: Wire) -> AsyncIterator[httpx.AsyncClient]:
    """A client of that server's HTTP face."""
    base_url = f"http://127.0.0.1:{server.server.http_port}"
    async with httpx.AsyncClient(base_url=base_url, timeout=WITHIN_SECONDS) as client:
        yield client


@pytest.fixture
def some_id() -> str:
    return uuid.uuid4().hex
