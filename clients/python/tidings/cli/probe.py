"""Calls of a server that find out whether it is well. For `tidings doctor`."""

from __future__ import annotations

from types import TracebackType
from typing import Final, Self

import grpc
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from tidings._calls import authorization
from tidings.cli.connection import credentials
from tidings.cli.contexts import Server
from tidings.cli.network import TIMEOUT_SECONDS, Fault
from tidings.errors import TidingsError
from tidings.v1 import error_reason_pb2 as reasons
from tidings.v1.event_service_pb2 import (
    SOURCE_STATE_LIVE,
    Bookmark,
    EventFilter,
    GetEventRequest,
    ProjectScope,
    WatchEventRequest,
)
from tidings.v1.event_service_pb2_grpc import EventServiceStub

UNKNOWN_ID: Final = "tidings-doctor"
"""An event that nobody has: the answer NOT_FOUND comes from the store."""

_AWAY: Final = frozenset({reasons.ERROR_REASON_NOT_READY, reasons.ERROR_REASON_DRAINING})


class Probe:
    """A connection without retries: what is at fault shall be seen."""

    def __init__(self, server: Server) -> None:
        secured = credentials(server)
        self._channel = grpc.secure_channel(server.target, secured) if secured else grpc.insecure_channel(server.target)
        self._key = server.api_key
        self._events = EventServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._channel.close()

    def check_server(self) -> str:
        """Raises Fault."""
        try:
            health = HealthStub(self._channel).Check(HealthCheckRequest(), timeout=TIMEOUT_SECONDS)
        except grpc.RpcError as error:
            failure = TidingsError.of(error)
            raise Fault(
                f"it does not tell its health: {failure}", "look whether Tidings is what serves there"
            ) from error
        failure = self._failure()
        if failure.code() == grpc.StatusCode.UNIMPLEMENTED:
            raise Fault("what serves there is not Tidings", "look whether the port is right")
        if failure.reason in _AWAY:
            raise Fault(failure.details() or "", "wait a moment; the server's log says what it waits for")
        serving = health.status == HealthCheckResponse.SERVING
        return "serves" if serving else "answers, and will serve when it hears of its store"

    def check_store(self) -> str:
        """Raises Fault."""
        failure = self._failure()
        if failure.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}:
            raise Fault(
                f"the server's store does not answer: {failure.details()}",
                "look whether MongoDB runs, has a primary, and is reached by the server",
            )
        return "answers"

    def check_key(self) -> str:
        """Raises Fault."""
        failure = self._failure()
        if failure.code() == grpc.StatusCode.UNAUTHENTICATED:
            raise Fault(
                "the server does not know the key, or it was revoked" if self._key else "the server wants a key",
                "make one with `tidings-server keys create`, and add the context again with it",
            )
        if failure.code() == grpc.StatusCode.PERMISSION_DENIED:
            raise Fault("the key may not read", "make one with the scope `read`")
        if failure.code() != grpc.StatusCode.NOT_FOUND:
            raise Fault(str(failure), "the server's log may tell more")
        return "accepted" if self._key else "none, and the server wants none"

    def check_change_stream(self) -> str:
        """Raises Fault."""
        try:
            bookmark = self._bookmark()
        except grpc.RpcError as error:
            raise Fault(str(TidingsError.of(error)), "the server's log may tell more") from error
        lag = f"{bookmark.source_lag.ToTimedelta().total_seconds():.1f} s"
        if bookmark.source_state != SOURCE_STATE_LIVE:
            raise Fault(
                f"the server has heard nothing from its store for {lag}",
                "look whether the replica set has a primary and a majority, and whether its oplog moves",
            )
        return f"live, last heard of {lag} ago"

    def _failure(self) -> TidingsError:
        """How a call for an event that is not there fails."""
        try:
            self._events.GetEvent(
                GetEventRequest(event_id=UNKNOWN_ID), metadata=authorization(self._key), timeout=TIMEOUT_SECONDS
            )
        except grpc.RpcError as error:
            return TidingsError.of(error)
        return TidingsError(grpc.StatusCode.NOT_FOUND, grpc.aio.Metadata(), grpc.aio.Metadata())

    def _bookmark(self) -> Bookmark:
        """The first of a watch of events that nobody has."""
        request = WatchEventRequest(
            project=ProjectScope(),
            filter=EventFilter(types=[UNKNOWN_ID]),
            live_only=True,
            heartbeat_interval=Duration(seconds=1),
        )
        call = self._events.WatchEvent(request, metadata=authorization(self._key), timeout=TIMEOUT_SECONDS)
        return next(message.bookmark for message in call if message.HasField("bookmark"))
