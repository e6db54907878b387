"""What the dialects that are about single tasks ask of the gRPC port."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grpc

from tidings import TidingsError
from tidings.v1.event_pb2 import Event
from tidings.v1.event_service_pb2 import CreateEventRequest, GetEventRequest
from tidings.v1.task_pb2 import TASK_STATE_CANCELLED, TaskStatus
from tidings_server.gateway.caller import Caller
from tidings_server.gateway.structs import to_struct


async def find_task(tidings: Caller, task_id: str) -> Event | None:
    """The event of a task; None if no task has this id, or none can have it. Raises TidingsError."""
    try:
        answer = await tidings.call(tidings.client.events.GetEvent, GetEventRequest(event_id=task_id))
    except TidingsError as error:
        if error.code() in {grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT}:
            return None
        raise
    return answer.event if answer.event.HasField("status") else None


async def create_task(tidings: Caller, type_: str, payload: Mapping[str, Any]) -> Event:
    """Create a task for a worker to find. Raises TidingsError."""
    event = Event(type=type_, payload=to_struct(payload), status=TaskStatus())
    return (await tidings.call(tidings.client.events.CreateEvent, CreateEventRequest(event=event))).event


def failure_text(status: TaskStatus) -> str:
    """Why a task ended without doing what was asked; empty if it did not end so, or if nobody said why."""
    return "cancelled" if status.state == TASK_STATE_CANCELLED else status.error.message
