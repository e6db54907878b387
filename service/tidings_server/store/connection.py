"""The connection to MongoDB: how strictly it writes and reads, how long it waits, and what its failures mean."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

# Motor reads this when it is imported. A cancelled call keeps its thread until the driver's own timeout, and the
# change stream keeps one for good: with fewer threads than connections a store that hangs would block every call.
os.environ.setdefault("MOTOR_MAX_WORKERS", "96")

import pymongo
import structlog
from bson.codec_options import CodecOptions, DatetimeConversion
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorDatabase
from pymongo.errors import BulkWriteError, ConnectionFailure, OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from tidings_server.errors import store_unavailable

log = structlog.get_logger()

Database = AsyncIOMotorDatabase[dict[str, Any]]

OPERATION_SECONDS: Final = 1.3
"""How long one call of the store may take in all, so that a dead store is told within two seconds.

The driver looks for a server in steps of half a second, and so may take that much longer.
"""
INDEX_BUILD_SECONDS: Final = 3600.0
POOL_SIZE_MAX: Final = 48

_UNAVAILABLE_CODES: Final = frozenset(
    {1, 6, 7, 43, 50, 64, 89, 91, 100, 112, 133, 134, 189, 202, 237, 246, 251, 262, 317}
)
_UNAVAILABLE_CODES_FROM: Final = 9001
"""MongoDB numbers what a node says of itself (not primary, shutting down, socket closed) from here on."""

HISTORY_LOST_CODES: Final = frozenset({136, 260, 280, 286})
"""CappedPositionLost, InvalidResumeToken, ChangeStreamFatalError, ChangeStreamHistoryLost."""


def connect(uri: str) -> AsyncIOMotorClient[dict[str, Any]]:
    """A client that connects when it is first used."""
    return AsyncIOMotorClient(
        uri,
        appname="tidings",
        timeoutMS=int(OPERATION_SECONDS * 1000),
        connectTimeoutMS=int(OPERATION_SECONDS * 1000),
        # timeoutMS bounds our calls, but not the close of the client, which says goodbye to a dead store too.
        serverSelectionTimeoutMS=int(OPERATION_SECONDS * 1000),
        heartbeatFrequencyMS=1000,
        maxPoolSize=POOL_SIZE_MAX,
    )


def open_database(client: AsyncIOMotorClient[dict[str, Any]], name: str) -> Database:
    return client.get_database(
        name,
        codec_options=CodecOptions(datetime_conversion=DatetimeConversion.DATETIME_MS),
        write_concern=WriteConcern(w="majority", j=True),
        read_concern=ReadConcern("majority"),
    )


def is_history_lost(error: PyMongoError) -> bool:
    return isinstance(error, OperationFailure) and error.code in HISTORY_LOST_CODES


def is_unavailable(error: PyMongoError) -> bool:
    if isinstance(error, ConnectionFailure | BulkWriteError) or error.timeout:
        return True
    if error.has_error_label("RetryableWriteError") or error.has_error_label("TransientTransactionError"):
        return True
    code = error.code if isinstance(error, OperationFailure) else None
    return code is not None and (code in _UNAVAILABLE_CODES or code >= _UNAVAILABLE_CODES_FROM)


@contextmanager
def store_call(seconds: float = OPERATION_SECONDS) -> Iterator[None]:
    """Bound what is done inside in time, and raise Failure STORE_UNAVAILABLE where the store is at fault."""
    try:
        with pymongo.timeout(seconds):
            yield
    except PyMongoError as error:
        if not is_unavailable(error):
            raise
        log.warning("the store does not answer", error=str(error)[:300])
        raise store_unavailable() from error
