"""The asyncio client: the stubs and the connection's lifetime."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import grpc

from tidings import _calls
from tidings.async_watch import AsyncWatch
from tidings.errors import TidingsError
from tidings.v1.event_service_pb2 import WatchEventRequest, WatchEventResponse
from tidings.v1.event_service_pb2_grpc import EventServiceStub
from tidings.v1.mission_service_pb2_grpc import MissionServiceStub
from tidings.v1.run_service_pb2 import WatchRunRequest, WatchRunResponse
from tidings.v1.run_service_pb2_grpc import RunServiceStub
from tidings.v1.task_service_pb2_grpc import TaskServiceStub

if TYPE_CHECKING:  # they are only types
    from tidings.v1.event_service_pb2_grpc import EventServiceAsyncStub
    from tidings.v1.mission_service_pb2_grpc import MissionServiceAsyncStub
    from tidings.v1.run_service_pb2_grpc import RunServiceAsyncStub
    from tidings.v1.task_service_pb2_grpc import TaskServiceAsyncStub


class AsyncClient:
    """A connection to Tidings, of the event loop in which it was made.

    The stubs raise TidingsError, have a deadline of ten seconds if none is given, and repeat what the service cannot
    do at the moment: what changes something gets an id by which the service knows the repetition.
    """

    events: EventServiceAsyncStub
    tasks: TaskServiceAsyncStub
    missions: MissionServiceAsyncStub
    runs: RunServiceAsyncStub

    def __init__(
        self,
        target: str,
        *,
        key: str | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        insecure: bool = False,
    ) -> None:
        """Connect as `tidings.Client` does."""
        secured = _calls.channel_credentials(target, credentials, insecure=insecure)
        options = _calls.channel_options()
        interceptors = [_UnaryInterceptor(key), _StreamInterceptor(key)]
        self._channel = (
            grpc.aio.secure_channel(target, secured, options, interceptors=interceptors)
            if secured
            else grpc.aio.insecure_channel(target, options, interceptors=interceptors)
        )
        self.events = EventServiceStub(self._channel)
        self.tasks = TaskServiceStub(self._channel)
        self.missions = MissionServiceStub(self._channel)
        self.runs = RunServiceStub(self._channel)

    def watch(
        self, request: WatchEventRequest, *, give_up_after: float | None = None
    ) -> AsyncWatch[WatchEventResponse]:
        """Watch an event, or the events of a run, a mission or the project. See AsyncWatch."""
        return AsyncWatch(self.events.WatchEvent, request, give_up_after)

    def watch_run(
        self, request: WatchRunRequest, *, give_up_after: float | None = None
    ) -> AsyncWatch[WatchRunResponse]:
        """Watch a run with its plan. See AsyncWatch."""
        return AsyncWatch(self.runs.WatchRun, request, give_up_after)

    async def close(self) -> None:
        """End the connection, and what is under way on it."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


class _UnaryInterceptor(grpc.aio.UnaryUnaryClientInterceptor):
    """Adds to every call what `_calls` says, and raises TidingsError."""

    def __init__(self, key: str | None) -> None:
        self._key = key

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        timeout = _calls.deadline_seconds(request) if details.timeout is None else details.timeout
        call = await continuation(_authorized(details, timeout, self._key), _calls.safe_to_retry(request))
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            raise TidingsError.of(error) from None


class _StreamInterceptor(grpc.aio.UnaryStreamClientInterceptor):
    """Adds the key."""

    def __init__(self, key: str | None) -> None:
        self._key = key

    async def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        return await continuation(_authorized(details, details.timeout, self._key), request)


def _authorized(details: Any, timeout: float | None, key: str | None) -> grpc.aio.ClientCallDetails:
    metadata = grpc.aio.Metadata(*(details.metadata or ()), *_calls.authorization(key))
    return grpc.aio.ClientCallDetails(details.method, timeout, metadata, details.credentials, details.wait_for_ready)
