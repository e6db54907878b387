"""HTTP clients of a running server's HTTP face."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from conftest import Start
from tidings_server.auth import SCOPES
from wire import WITHIN_SECONDS, Keyed, Wire


def http_of(wire: Wire, **headers: str) -> httpx.AsyncClient:
    """An HTTP client of a server, that sends these headers with every request."""
    base_url = f"http://127.0.0.1:{wire.server.http_port}"
    return httpx.AsyncClient(base_url=base_url, headers=headers, timeout=WITHIN_SECONDS)


@asynccontextmanager
async def keyed(start: Start, **settings: object) -> AsyncIterator[tuple[Keyed, str]]:
    """A server that asks for keys, by way of a gRPC client that has one, and that key."""
    async with start() as first:
        key = await first.server.api_keys.create("vendors", SCOPES)
        # One that knows from its start that there are keys.
        async with start(http_port=0, **settings) as wire, Keyed(wire.server, key) as client:
            yield client, key
