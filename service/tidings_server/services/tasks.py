"""TaskService: the live part of the events that have one. Requests come here checked, and from a known caller."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any, Final

import grpc

from tidings.v1 import error_reason_pb2 as reasons
from tidings.v1.event_pb2 import Event
from tidings.v1.task_service_pb2 import (
    CancelTaskRequest,
    CancelTaskResponse,
    GetTaskStatusRequest,
    GetTaskStatusResponse,
    UpdateTaskStatusRequest,
    UpdateTaskStatusResponse,
    WaitTaskStatusRequest,
    WaitTaskStatusResponse,
)
from tidings.v1.task_service_pb2_grpc import TaskServiceServicer
from tidings_server.auth import CALLER
from tidings_server.clock import to_millis
from tidings_server.errors import Failure
from tidings_server.lifecycle import TERMINAL, apply_cancel, apply_update
from tidings_server.record import Mutation, Record, digest_of
from tidings_server.store import EventStore
from tidings_server.watch.watches import Watches

Context = grpc.aio.ServicerContext[Any, Any]

WAIT_SECONDS_DEFAULT: Final = 30.0
ANSWER_SECONDS: Final = 0.2
"""How long before its deadline a waiting call is answered."""


class TaskService(TaskServiceServicer):
    """Reads, moves, cancels and waits for tasks in the caller's project."""

    def __init__(self, events: EventStore, watches: Watches) -> None:
        self._events = events
        self._watches = watches

    async def GetTaskStatus(self, request: GetTaskStatusRequest, context: Context) -> GetTaskStatusResponse:
        event = await self._events.get(CALLER.get().project, request.task_id)
        return GetTaskStatusResponse(status=_task(event).status)

    async def UpdateTaskStatus(self, request: UpdateTaskStatusRequest, context: Context) -> UpdateTaskStatusResponse:
        event = await self._change(request, lambda event, now: apply_update(event, request, now))
        return UpdateTaskStatusResponse(status=event.status)

    async def CancelTask(self, request: CancelTaskRequest, context: Context) -> CancelTaskResponse:
        event = await self._change(request, lambda event, now: apply_cancel(event, request, now))
        return CancelTaskResponse(status=event.status)

    async def WaitTaskStatus(self, request: WaitTaskStatusRequest, context: Context) -> WaitTaskStatusResponse:
        timeout = to_millis(request.timeout) / 1000 if request.HasField("timeout") else WAIT_SECONDS_DEFAULT
        remaining = context.time_remaining()
        if remaining is not None:
            timeout = min(timeout, remaining - ANSWER_SECONDS)

        def satisfied(event: Event) -> bool:
            status = _task(event).status
            return status.state in TERMINAL or 0 < request.after_revision < event.revision

        project = CALLER.get().project
        event, satisfies = await self._watches.wait(project, request.task_id, satisfied, monotonic() + timeout)
        return WaitTaskStatusResponse(status=event.status, satisfied=satisfies)

    async def _change(
        self, request: UpdateTaskStatusRequest | CancelTaskRequest, rule: Callable[[Event, int], bool]
    ) -> Event:
        def of_task(record: Record[Event], now: int) -> bool:
            return rule(_task(record.resource), now)

        mutation = Mutation(of_task, digest_of(request), request.expected_revision, request.request_id)
        return await self._events.change(CALLER.get().project, request.task_id, mutation)


def _task(event: Event) -> Event:
    """The event, if it is a task. Raises Failure TASK_NOT_FOUND."""
    if not event.HasField("status"):
        raise Failure(
            reasons.ERROR_REASON_TASK_NOT_FOUND,
            f'task "{event.event_id}" not found: the event with this id is a fact',
            metadata={"event_id": event.event_id},
        )
    return event
