"""JSON objects to google.protobuf.Struct and back, whole numbers staying whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct, Value

from tidings_server.gateway.json_text import plain


def to_struct(content: Mapping[str, Any]) -> Struct:
    struct = Struct()
    struct.update(dict(content))
    return struct


def from_struct(struct: Struct) -> dict[str, Any]:
    content: dict[str, Any] = plain(json_format.MessageToDict(struct))
    return content


def from_values(values: Iterable[Value]) -> list[Any]:
    return [plain(json_format.MessageToDict(value)) for value in values]
