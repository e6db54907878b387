"""Records as MongoDB documents, and back.

Everything that an index, a filter or a person at `mongosh` needs is a typed column. Payload, metadata,
results and error details are serialized bytes in one binary field each: any key and any number comes back
as it was, and they are read and written an order of magnitude faster than as nested documents.

`_id` is `project/event_id`: unique without an index that a sharded cluster could not enforce, and enough
to know which event a deletion was about.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from bson.datetime_ms import DatetimeMS
from bson.int64 import Int64
from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import ListValue
from google.protobuf.timestamp_pb2 import Timestamp

from tidings.v1 import task_pb2
from tidings.v1.event_pb2 import Event, StateTransition
from tidings.v1.task_pb2 import TaskState, TaskStatus
from tidings_server.clock import to_millis, to_timestamp
from tidings_server.lifecycle import stamp_latency, state_name
from tidings_server.record import Record, RememberedRequest

Document = dict[str, Any]

_TEXTS: Final = ("type", "summary", "mission_id", "run_id", "step_id", "agent_id", "idempotency_key")
_STRUCTS: Final = ("payload", "metadata")
_EVENT_TIMES: Final = ("event_time", "create_time", "update_time", "expire_time")
_STATUS_TIMES: Final = ("create_time", "start_time", "end_time", "update_time")


class CorruptDocument(Exception):
    """The document is not one that this service writes."""


def document_id(project: str, event_id: str) -> str:
    return f"{project}/{event_id}"


def id_parts(document_id: str) -> tuple[str, str]:
    """The project and the event id in a document's `_id`."""
    project, _, event_id = document_id.partition("/")
    return project, event_id


def to_document(record: Record) -> Document:
    event = record.event
    document: Document = {
        "_id": document_id(record.project, event.event_id),
        "project": record.project,
        "revision": Int64(event.revision),
        "first_revision": Int64(record.first_revision),
        "content_digest": record.content_digest,
    }
    document.update({name: text for name in _TEXTS if (text := getattr(event, name))})
    document.update({name: _date(getattr(event, name)) for name in _EVENT_TIMES})
    for name in _STRUCTS:
        if event.HasField(name):
            document[name] = getattr(event, name).SerializeToString()
    if event.results:
        document["results"] = ListValue(values=event.results).SerializeToString()
    if record.is_task:
        document["status"] = _status_document(event.status)
        document["transitions"] = [_transition_document(transition) for transition in event.transitions]
    if record.requests:
        document["requests"] = [{"id": each.request_id, "digest": each.digest} for each in record.requests]
    document.update({name: True for name in ("expiry_fixed", "deleted") if getattr(record, name)})
    return document


def to_record(document: Mapping[str, Any]) -> Record:
    """Raises CorruptDocument if the document cannot be read."""
    try:
        return _to_record(document)
    except (KeyError, TypeError, ValueError, AttributeError, DecodeError) as error:
        raise CorruptDocument(str(document.get("_id"))) from error


def _to_record(document: Mapping[str, Any]) -> Record:
    project, event_id = id_parts(document["_id"])
    event = Event(event_id=event_id, revision=document["revision"])
    for name in _TEXTS:
        if name in document:
            setattr(event, name, document[name])
    for name in _EVENT_TIMES:
        getattr(event, name).CopyFrom(_timestamp(document[name]))
    for name in _STRUCTS:
        if name in document:
            getattr(event, name).ParseFromString(document[name])
    if "results" in document:
        event.results.extend(ListValue.FromString(document["results"]).values)
    if "status" in document:
        _read_status(event.status, document["status"])
        event.status.task_id = event_id
        event.status.revision = event.revision
        event.transitions.extend(_transition(each) for each in document["transitions"])
    return Record(
        project=project,
        event=event,
        content_digest=document["content_digest"],
        first_revision=document["first_revision"],
        expiry_fixed=document.get("expiry_fixed", False),
        deleted=document.get("deleted", False),
        requests=[RememberedRequest(each["id"], each["digest"]) for each in document.get("requests", ())],
    )


def _status_document(status: TaskStatus) -> Document:
    document: Document = {"state": state_name(status.state)}
    document.update({name: _date(getattr(status, name)) for name in _STATUS_TIMES if status.HasField(name)})
    if status.message:
        document["message"] = status.message
    if status.cancel_requested:
        document["cancel_requested"] = True
    if status.HasField("progress"):
        progress = status.progress
        document["progress"] = {
            "completed": Int64(progress.completed),
            "total": Int64(progress.total),
            "unit": progress.unit,
            "message": progress.message,
        }
    if status.HasField("error"):
        error = status.error
        document["error"] = {"code": error.code, "message": error.message, "retryable": error.retryable}
        if error.HasField("details"):
            document["error"]["details"] = error.details.SerializeToString()
    return document


def _read_status(status: TaskStatus, document: Mapping[str, Any]) -> None:
    status.state = _state(document["state"])
    status.message = document.get("message", "")
    status.cancel_requested = document.get("cancel_requested", False)
    for name in _STATUS_TIMES:
        if name in document:
            getattr(status, name).CopyFrom(_timestamp(document[name]))
    stamp_latency(status)
    if "progress" in document:
        status.progress.CopyFrom(task_pb2.TaskProgress(**document["progress"]))
    if "error" in document:
        error = dict(document["error"])
        details = error.pop("details", None)
        status.error.CopyFrom(task_pb2.TaskError(**error))
        if details is not None:
            status.error.details.ParseFromString(details)


def _transition_document(transition: StateTransition) -> Document:
    before: TaskState.ValueType = getattr(transition, "from")
    return {
        "revision": Int64(transition.revision),
        "from": state_name(before),
        "to": state_name(transition.to),
        "time": _date(transition.time),
        "message": transition.message,
    }


def _transition(document: Mapping[str, Any]) -> StateTransition:
    return StateTransition(
        revision=document["revision"],
        to=_state(document["to"]),
        time=_timestamp(document["time"]),
        message=document["message"],
        **{"from": _state(document["from"])},
    )


def _state(name: str) -> TaskState.ValueType:
    return task_pb2.TaskState.Value(f"TASK_STATE_{name}")


def _date(time: Timestamp) -> DatetimeMS:
    return DatetimeMS(to_millis(time))


def _timestamp(date: DatetimeMS) -> Timestamp:
    return to_timestamp(int(cast("Any", date)))
