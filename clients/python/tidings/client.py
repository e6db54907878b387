"""The synchronous client: the stubs and the connection's lifetime."""

from __future__ import annotations

from types import TracebackType
from typing import Any, NamedTuple, Self

import grpc

from tidings import _calls
from tidings.errors import TidingsError
from tidings.v1.event_service_pb2 import WatchEventRequest, WatchEventResponse
from tidings.v1.event_service_pb2_grpc import EventServiceStub
from tidings.v1.mission_service_pb2_grpc import MissionServiceStub
from tidings.v1.run_service_pb2 import WatchRunRequest, WatchRunResponse
from tidings.v1.run_service_pb2_grpc import RunServiceStub
from tidings.v1.task_service_pb2_grpc import TaskServiceStub
from tidings.watch import Watch


class Client:
    """A connection to Tidings. Threads may share it.

    The stubs raise TidingsError, have a deadline of ten seconds if none is given, and repeat what the service cannot
    do at the moment: what changes something gets an id by which the service knows the repetition.
    """

    events: EventServiceStub
    tasks: TaskServiceStub
    missions: MissionServiceStub
    runs: RunServiceStub

    def __init__(
        self,
        target: str,
        *,
        key: str | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        insecure: bool = False,
    ) -> None:
        """Connect to a gRPC target such as `tidings.example:443`, with an API key if the service wants one.

        The connection is encrypted, and the server's certificate checked against the system's authorities or as
        `credentials` (`grpc.ssl_channel_credentials`) say. Only loopback addresses are spoken to in plaintext, and
        others with `insecure`: a key can then be read on the way.
        """
        secured = _calls.channel_credentials(target, credentials, insecure=insecure)
        options = _calls.channel_options()
        self._channel = (
            grpc.secure_channel(target, secured, options) if secured else grpc.insecure_channel(target, options)
        )
        channel = grpc.intercept_channel(self._channel, Interceptor(key))
        self.events = EventServiceStub(channel)
        self.tasks = TaskServiceStub(channel)
        self.missions = MissionServiceStub(channel)
        self.runs = RunServiceStub(channel)

    def watch(self, request: WatchEventRequest, *, give_up_after: float | None = None) -> Watch[WatchEventResponse]:
        """Watch an event, or the events of a run, a mission or the project. See Watch."""
        return Watch(self.events.WatchEvent, request, give_up_after)

    def watch_run(self, request: WatchRunRequest, *, give_up_after: float | None = None) -> Watch[WatchRunResponse]:
        """Watch a run with its plan. See Watch."""
        return Watch(self.runs.WatchRun, request, give_up_after)

    def close(self) -> None:
        """End the connection, and what is under way on it."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Interceptor(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """Adds to every call what `_calls` says, and raises TidingsError."""

    def __init__(self, key: str | None) -> None:
        self._metadata = _calls.authorization(key)

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        timeout = _calls.deadline_seconds(request) if details.timeout is None else details.timeout
        outcome = continuation(self._authorized(details, timeout), _calls.safe_to_retry(request))
        # A future that the caller asked for is handed out before it is done.
        if outcome.done() and (error := outcome.exception()) is not None:
            raise TidingsError.of(error) from None
        return outcome

    def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        return continuation(self._authorized(details, details.timeout), request)

    def _authorized(self, details: Any, timeout: float | None) -> _Details:
        metadata = (*(details.metadata or ()), *self._metadata)
        return _Details(details.method, timeout, metadata, details.credentials, details.wait_for_ready)


class _Details(NamedTuple):
    """As grpc.ClientCallDetails, of which gRPC has no public implementation."""

    method: str
    timeout: float | None
    metadata: tuple[tuple[str, str | bytes], ...]
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
