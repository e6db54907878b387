"""Fields of protobuf as JSON, and back: objects, whose whole numbers stay whole, and times."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from google.protobuf import json_format
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import WithJsonSchema

from tidings_server.gateway.json_text import plain

Time = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]


def to_struct(content: Mapping[str, Any]) -> Struct:
    struct = Struct()
    struct.update(dict(content))
    return struct


def from_struct(struct: Struct) -> dict[str, Any]:
    content: dict[str, Any] = plain(json_format.MessageToDict(struct))
    return content


def from_values(values: Iterable[Value]) -> list[Any]:
    return [plain(json_format.MessageToDict(value)) for value in values]


def object_of(message: Message, field: str) -> dict[str, Any] | None:
    """A Struct of a message, or None where it is not set."""
    return from_struct(getattr(message, field)) if message.HasField(field) else None


def time_of(message: Message, field: str) -> str | None:
    """A Timestamp of a message as RFC 3339 has it, or None where it is not set."""
    time: Timestamp = getattr(message, field)
    return time.ToJsonString() if message.HasField(field) else None
