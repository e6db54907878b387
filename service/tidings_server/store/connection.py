"""The connection to MongoDB: how strictly it writes and reads, how long it waits, and what its failures mean."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import Context
from typing import Any, Final, TypeVar

# Motor reads this when it is imported. A cancelled call keeps its thread until the driver's own timeout, and the
# change stream keeps one for good: with fewer threads than connections a store that hangs would block every call.
os.environ.setdefault("MOTOR_MAX_WORKERS", "96")

import pymongo
import structlog
from bson.codec_options import CodecOptions, DatetimeConversion
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorClientSession, AsyncIOMotorDatabase
from pymongo.errors import BulkWriteError, ConnectionFailure, OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from tidings_server.errors import store_unavailable

log = structlog.get_logger()

Database = AsyncIOMotorDatabase[dict[str, Any]]
Session = AsyncIOMotorClientSession
T = TypeVar("T")

OPERATION_SECONDS: Final = 1.3
"""How long one call of the store may take in all, so that a dead store is told within two seconds.

The driver looks for a server in steps of half a second, and so may take that much longer.
"""
INDEX_BUILD_SECONDS: Final = 3600.0
POOL_SIZE_MAX: Final = 48
TRANSACTION_ATTEMPTS: Final = 25
COMMIT_ATTEMPTS: Final = 6
"""How often a commit is repeated that the store may not have heard of."""
LET_GO_SECONDS: Final = 0.2

EVENTS_COLLECTION: Final = "events"
RUNS_COLLECTION: Final = "runs"
RUN_LOGS_COLLECTION: Final = "run_logs"
MISSIONS_COLLECTION: Final = "missions"

_UNAVAILABLE_CODES: Final = frozenset(
    {1, 6, 7, 43, 50, 64, 89, 91, 100, 112, 133, 134, 189, 202, 237, 246, 251, 262, 317}
)
_UNAVAILABLE_CODES_FROM: Final = 9001
"""MongoDB numbers what a node says of itself (not primary, shutting down, socket closed) from here on."""

DUPLICATE_KEY: Final = 11000
HISTORY_LOST_CODES: Final = frozenset({136, 260, 280, 286})
"""CappedPositionLost, InvalidResumeToken, ChangeStreamFatalError, ChangeStreamHistoryLost."""


def connect(uri: str) -> AsyncIOMotorClient[dict[str, Any]]:
    """A client that connects when it is first used."""
    return AsyncIOMotorClient(
        uri,
        appname="tidings",
        timeoutMS=int(OPERATION_SECONDS * 1000),
        connectTimeoutMS=int(OPERATION_SECONDS * 1000),
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


async def in_transaction(database: Database, work: Callable[[Session], Awaitable[T]]) -> T:
    """Do work in a transaction, all of it or none, and again while others are in its way.

    Raises what the work raises, after which nothing is done, and Failure STORE_UNAVAILABLE if others were in the way
    each time.
    """
    for attempt in range(TRANSACTION_ATTEMPTS):
        session = await database.client.start_session()
        is_in_doubt = False
        try:
            session.start_transaction(
                read_concern=ReadConcern("snapshot"), write_concern=WriteConcern(w="majority", j=True)
            )
            done = await work(session)
            is_in_doubt = True
            await session.commit_transaction()
            await session.end_session()
        except BaseException as error:
            is_undone = isinstance(error, PyMongoError) and error.has_error_label("TransientTransactionError")
            await _let_go(session, commit=is_in_doubt and not is_undone)
            if not is_undone:
                raise
        else:
            return done
        await asyncio.sleep(random.uniform(0, min(0.05, 0.002 * 2**attempt)))  # noqa: S311 (spreads contenders)
    raise store_unavailable()


_letting_go: Final[set[asyncio.Task[None]]] = set()


async def _let_go(session: Session, *, commit: bool) -> None:
    """Leave no transaction open after an error: it would keep others out for as long as a minute.

    One whose commit has failed can no longer be aborted, for it may have been made: it is committed again.
    """
    # In a context of its own, for there may be no time left in this one; and the caller does not wait for all of it.
    task = asyncio.get_running_loop().create_task(_finish(session, commit=commit), context=Context())
    _letting_go.add(task)
    task.add_done_callback(_letting_go.discard)
    await asyncio.wait([task], timeout=LET_GO_SECONDS)


async def _finish(session: Session, *, commit: bool) -> None:
    try:
        for attempt in range(COMMIT_ATTEMPTS if commit else 0):
            await asyncio.sleep(0.05 * 2**attempt)
            try:
                await session.commit_transaction()
            except PyMongoError as error:
                if error.has_error_label("TransientTransactionError"):
                    break
            else:
                break
    finally:
        await session.end_session()  # which aborts what is not committed
