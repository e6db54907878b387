"""JSON Schemas of messages, from their descriptors and the rules in the protos.

Of a message there may be two: what comes in must follow the rules and has no other fields; what goes out has followed
them, and a later server may add to it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from buf.validate.validate_pb2 import FieldRules
from tidings_server.gateway.json_text import WHOLE_MAX
from tidings_server.gateway.rest import rules
from tidings_server.gateway.rest.proto_json import FORMS
from tidings_server.gateway.rest.rules import NO_NUL, Schema

_INPUT: Final = "-Input"


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


_VALUE: Final = _ref("google.protobuf.Value-Input")
_GIVEN: Final[dict[str, Schema]] = {
    "google.protobuf.Any": {"type": "object", "required": ["@type"], "properties": {"@type": {"type": "string"}}},
    "google.protobuf.Struct": {"type": "object"},
    "google.protobuf.Struct-Input": {"type": "object", "propertyNames": NO_NUL, "additionalProperties": _VALUE},
    "google.protobuf.Value": {},
    "google.protobuf.Value-Input": {
        "anyOf": [
            {"type": ["null", "boolean"]},
            {"type": "number", "minimum": -WHOLE_MAX, "maximum": WHOLE_MAX},
            NO_NUL,
            {"type": "array", "items": _VALUE},
            {"type": "object", "propertyNames": NO_NUL, "additionalProperties": _VALUE},
        ]
    },
}
"""Those that descriptors do not tell."""


class Schemas:
    """Makes the schemas of messages, and gathers those that others refer to."""

    def __init__(self) -> None:
        self.components = dict(_GIVEN)

    def of_answer(self, message: Descriptor) -> Schema:
        return self._message(message, comes_in=False)

    def of_body(self, request: Descriptor, without: Collection[str]) -> Schema:
        """Of a request but for the fields that come from elsewhere."""
        return self._object((each for each in request.fields if each.json_name not in without), comes_in=True)

    def of_parameter(self, field: FieldDescriptor) -> Schema:
        return self._field(field, comes_in=True)

    def _object(self, fields: Iterable[FieldDescriptor], *, comes_in: bool) -> Schema:
        fields = list(fields)
        properties = {each.json_name: self._field(each, comes_in=comes_in) for each in fields}
        schema: Schema = {"type": "object", "properties": properties}
        if not comes_in:
            return schema
        needed = [each.json_name for each in fields if rules.is_required(rules.of(each))]
        return schema | {"additionalProperties": False} | ({"required": needed} if needed else {})

    def _field(self, field: FieldDescriptor, *, comes_in: bool) -> Schema:
        own = rules.of(field) if comes_in else FieldRules()
        if not field.is_repeated:
            return self._one(field, own, comes_in=comes_in)
        items = self._one(field, own.repeated.items, comes_in=comes_in)
        return {"type": "array", "items": items} | rules.for_list(own.repeated)

    def _one(self, field: FieldDescriptor, own: FieldRules, *, comes_in: bool) -> Schema:
        """The schema of a field, or of each of the values of a repeated one."""
        if field.message_type is not None:
            return self._message(field.message_type, comes_in=comes_in) | rules.for_message(own)
        if field.enum_type is not None:
            return {"type": "string", "enum": rules.names(field.enum_type, own.enum)}
        match field.cpp_type:
            case FieldDescriptor.CPPTYPE_BOOL:
                return {"type": "boolean"}
            case FieldDescriptor.CPPTYPE_INT32:
                return rules.for_int32(own.int32)
            case FieldDescriptor.CPPTYPE_INT64:
                return rules.for_int64(own.int64)
            case _:
                return rules.for_text(own) if comes_in else {"type": "string"}

    def _message(self, message: Descriptor, *, comes_in: bool) -> Schema:
        if form := FORMS.get(message.full_name):
            schema = {"type": "string", "pattern": f"^{form}$"}
            return schema | ({"format": "date-time"} if message.name == "Timestamp" else {})
        name = message.full_name + (_INPUT if comes_in else "")
        if name not in self.components:
            self.components[name] = {}  # a message may be within itself
            self.components[name] = self._object(message.fields, comes_in=comes_in)
        return _ref(name)
