"""How the parts that several kinds of records share look in a MongoDB document.

Everything that an index, a filter or a person at `mongosh` needs is a typed column. Structs and the like are
serialized bytes in one binary field each: any key and any number comes back as it was, and they are read and
written an order of magnitude faster than as nested documents.

`_id` is `project/id`: unique without an index that a sharded cluster could not enforce, and enough to know what a
change was about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, cast

from bson.datetime_ms import DatetimeMS
from bson.int64 import Int64
from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp

from tidings.v1 import task_pb2
from tidings.v1.event_pb2 import StateTransition
from tidings.v1.task_pb2 import TaskError, TaskState
from tidings_server.clock import to_millis, to_timestamp
from tidings_server.lifecycle import state_name
from tidings_server.record import R, Record, RememberedRequest

Document = dict[str, Any]


class CorruptDocument(Exception):
    """The document is not one that this service writes."""


def document_id(project: str, resource_id: str) -> str:
    return f"{project}/{resource_id}"


def id_parts(document_id: str) -> tuple[str, str]:
    """The project and the resource's id in a document's `_id`."""
    project, _, resource_id = document_id.partition("/")
    return project, resource_id


@dataclass(frozen=True, slots=True)
class Codec(Generic[R]):
    """Records of one kind as documents, and back: the memory as for all kinds, the resource by its own functions."""

    id_of: Callable[[R], str]
    write: Callable[[R], Document]
    read: Callable[[str, Mapping[str, Any]], R]
    """The resource with an id, from its document."""

    def to_document(self, record: Record[R]) -> Document:
        resource = record.resource
        document: Document = {
            "_id": document_id(record.project, self.id_of(resource)),
            "project": record.project,
            "revision": Int64(resource.revision),
            "first_revision": Int64(record.first_revision),
            "content_digest": record.content_digest,
            **self.write(resource),
        }
        if record.requests:
            document["requests"] = [{"id": each.request_id, "digest": each.digest} for each in record.requests]
        document.update({name: True for name in ("expiry_fixed", "deleted") if getattr(record, name)})
        return document

    def to_record(self, document: Mapping[str, Any]) -> Record[R]:
        """Raises CorruptDocument if the document cannot be read."""
        try:
            project, resource_id = id_parts(document["_id"])
            resource = self.read(resource_id, document)
            resource.revision = document["revision"]
            return Record(
                project=project,
                resource=resource,
                content_digest=document["content_digest"],
                first_revision=document["first_revision"],
                expiry_fixed=document.get("expiry_fixed", False),
                deleted=document.get("deleted", False),
                requests=[RememberedRequest(each["id"], each["digest"]) for each in document.get("requests", ())],
            )
        except (KeyError, TypeError, ValueError, AttributeError, DecodeError) as error:
            raise CorruptDocument(str(document.get("_id"))) from error


def write_texts(message: Message, names: Iterable[str]) -> Document:
    return {name: text for name in names if (text := getattr(message, name))}


def read_texts(message: Message, document: Mapping[str, Any], names: Iterable[str]) -> None:
    for name in names:
        if name in document:
            setattr(message, name, document[name])


def write_times(message: Message, names: Iterable[str]) -> Document:
    return {name: date(getattr(message, name)) for name in names if message.HasField(name)}


def read_times(message: Message, document: Mapping[str, Any], names: Iterable[str]) -> None:
    for name in names:
        getattr(message, name).CopyFrom(timestamp(document[name]))


def read_optional_times(message: Message, document: Mapping[str, Any], names: Iterable[str]) -> None:
    read_times(message, document, (name for name in names if name in document))


def write_structs(message: Message, names: Iterable[str]) -> Document:
    return {name: getattr(message, name).SerializeToString() for name in names if message.HasField(name)}


def read_structs(message: Message, document: Mapping[str, Any], names: Iterable[str]) -> None:
    for name in names:
        if name in document:
            getattr(message, name).ParseFromString(document[name])
            getattr(message, name).SetInParent()


def write_error(error: TaskError) -> Document:
    texts = {"code": error.code, "message": error.message, "retryable": error.retryable}
    return {**texts, **write_structs(error, ["details"])}


def read_error(error: TaskError, document: Mapping[str, Any]) -> None:
    error.SetInParent()
    read_texts(error, document, ("code", "message", "retryable"))
    read_structs(error, document, ["details"])


def write_transitions(transitions: Iterable[StateTransition]) -> list[Document]:
    return [
        {
            "revision": Int64(transition.revision),
            "from": state_name(getattr(transition, "from")),
            "to": state_name(transition.to),
            "time": date(transition.time),
            "message": transition.message,
        }
        for transition in transitions
    ]


def read_transitions(documents: Iterable[Mapping[str, Any]]) -> list[StateTransition]:
    return [
        StateTransition(
            revision=document["revision"],
            to=read_state(document["to"]),
            time=timestamp(document["time"]),
            message=document["message"],
            **{"from": read_state(document["from"])},
        )
        for document in documents
    ]


def read_state(name: str) -> TaskState.ValueType:
    return task_pb2.TaskState.Value(f"TASK_STATE_{name}")


def date(time: Timestamp) -> DatetimeMS:
    return DatetimeMS(to_millis(time))


def timestamp(date: DatetimeMS) -> Timestamp:
    return to_timestamp(int(cast("Any", date)))
