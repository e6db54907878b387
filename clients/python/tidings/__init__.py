"""Python client of Tidings, for asyncio and without; the generated messages and stubs are in `tidings.v1`."""

from tidings.async_client import AsyncClient
from tidings.async_watch import AsyncWatch
from tidings.client import Client
from tidings.errors import TidingsError
from tidings.watch import Watch

__all__ = ["AsyncClient", "AsyncWatch", "Client", "TidingsError", "Watch"]
