"""The vendors' JSON views of a stored event: what each vendor's own API would answer for it.

One pure function per vendor, so that a test can store a vendor's sample and compare what comes back with what the
vendor's page prints. Nothing here calls the service.
"""

from typing import Any

from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from tidings.v1.event_pb2 import Event
from tidings.v1.task_pb2 import (
    TASK_STATE_CANCELLED,
    TASK_STATE_FAILED,
    TASK_STATE_PAUSED,
    TASK_STATE_PENDING,
    TASK_STATE_RUNNING,
    TASK_STATE_SUCCEEDED,
)

WHOLE_MAX = 2**53  # beyond it a double no longer holds every whole number

# No vendor but Telnyx has a word for PAUSED or CANCELLED: the nearest one stands in.
MEM0_STATUS = {
    TASK_STATE_PENDING: "PENDING",
    TASK_STATE_RUNNING: "RUNNING",
    TASK_STATE_PAUSED: "RUNNING",
    TASK_STATE_SUCCEEDED: "SUCCEEDED",
    TASK_STATE_FAILED: "FAILED",
    TASK_STATE_CANCELLED: "FAILED",
}
GOMEMORY_STATUS = {
    TASK_STATE_PENDING: "pending",
    TASK_STATE_RUNNING: "processing",
    TASK_STATE_PAUSED: "processing",
    TASK_STATE_SUCCEEDED: "success",
    TASK_STATE_FAILED: "failure",
    TASK_STATE_CANCELLED: "failure",
}
MEMOS_STATUS = {
    TASK_STATE_PENDING: "running",
    TASK_STATE_RUNNING: "running",
    TASK_STATE_PAUSED: "running",
    TASK_STATE_SUCCEEDED: "completed",
    TASK_STATE_FAILED: "failed",
    TASK_STATE_CANCELLED: "failed",
}


def mem0(event: Event) -> dict[str, Any]:
    """Give the answer of mem0's `GET /v1/event/{event_id}/`; what is not known yet is null."""
    status = event.status
    return {
        "id": event.event_id,
        "event_type": event.type,
        "status": MEM0_STATUS[status.state],
        "payload": _object(event.payload),
        "metadata": _object(event.metadata) if event.HasField("metadata") else None,
        "results": [_value(result) for result in event.results],
        "created_at": _time(status.create_time),
        "updated_at": _time(status.update_time),
        "started_at": _time(status.start_time) if status.HasField("start_time") else None,
        "completed_at": _time(status.end_time) if status.HasField("end_time") else None,
        "latency": status.latency.ToMilliseconds() if status.HasField("latency") else None,
    }


def gomemory(event: Event) -> dict[str, Any]:
    """Give the answer of GoMemory's `GET /get_status/{reqid}`; `error` is left out unless the job failed."""
    job = {"status": GOMEMORY_STATUS[event.status.state], "createdAt": _time(event.status.create_time)}
    if event.status.HasField("error"):
        job["error"] = event.status.error.message
    return job


def exa(event: Event) -> dict[str, Any]:
    """Give the answer of Exa's `GET /websets/v0/events/{id}`."""
    return {
        "id": event.event_id,
        "object": "event",
        "type": event.type,
        "data": _object(event.payload),
        "createdAt": _time(event.event_time),
    }


def telnyx(event: Event) -> dict[str, Any]:
    """Give the answer of Telnyx's `GET /ai/missions/{mission_id}/runs/{run_id}/events/{event_id}`; no field is null.

    An event that was stored under Telnyx's own id has its idempotency key in the metadata, since an event is created
    either with an id or with a key.
    """
    optional = {
        "step_id": event.step_id or None,
        "agent_id": event.agent_id or None,
        "payload": _object(event.payload) if event.HasField("payload") else None,
        "idempotency_key": event.idempotency_key or _object(event.metadata).get("idempotency_key"),
    }
    required = {
        "event_id": event.event_id,
        "run_id": event.run_id,
        "type": event.type,
        "summary": event.summary,
        "timestamp": _time(event.event_time),
    }
    return {"data": required | {name: value for name, value in optional.items() if value is not None}}


def memos(event: Event) -> dict[str, Any]:
    """Give the answer of MemOS's `POST /get/status`; the first result of a completed task is its `memory_views`."""
    data = {"task_id": event.status.task_id, "status": MEMOS_STATUS[event.status.state]}
    if event.results:
        data["memory_views"] = _value(event.results[0])
    return {"code": 0, "message": "ok", "data": data}


def _time(time: Timestamp) -> str:
    return time.ToJsonString()  # as many fractional digits as there are, in threes: none for a whole second


def _object(struct: Struct) -> dict[str, Any]:
    return {name: _value(value) for name, value in struct.fields.items()}


def _value(value: Value) -> Any:
    match value.WhichOneof("kind"):
        case "struct_value":
            return _object(value.struct_value)
        case "list_value":
            return [_value(item) for item in value.list_value.values]
        case "number_value":
            return _number(value.number_value)
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case _:
            return None


def _number(number: float) -> int | float:
    return int(number) if number.is_integer() and abs(number) <= WHOLE_MAX else number
