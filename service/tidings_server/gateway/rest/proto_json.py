"""Messages from JSON and to JSON (https://protobuf.dev/programming-guides/json).

What comes in is taken more strictly than Protobuf's own parser does: fields by their JSON names, enum values by name,
and everything of the type that the OpenAPI document says, so that what a caller got wrong is not taken for something
else. What goes out has its whole numbers as numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from tidings_server.gateway.json_text import plain
from tidings_server.gateway.refusal import Flaw, Refusal

JSON: Final = "application/json"
FORMS: Final[Mapping[str, str]] = {
    "google.protobuf.Timestamp": r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?"
    r"(Z|[+-][0-9]{2}:[0-9]{2})",
    "google.protobuf.Duration": r"-?[0-9]{1,12}(\.[0-9]{1,9})?s",
    "google.protobuf.FieldMask": r"([A-Za-z0-9.]+(,[A-Za-z0-9.]+)*)?",
}
"""The messages that are texts in JSON, and how they look."""
INT64_FORM: Final = "-?[0-9]{1,19}"
INTEGERS: Final = frozenset({FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64})
_FLAWS_MAX = 100

Found = Iterator[tuple[str, str]]
"""Where in a message something is wrong, and what."""


def to_json(message: Message) -> dict[str, Any]:
    content: dict[str, Any] = plain(json_format.MessageToDict(message, unquote_int64_if_possible=True))
    return content


def to_message(content: dict[str, Any], message: Message) -> None:
    """Fill a message from JSON that was checked. Raises Refusal for what only Protobuf's parser sees."""
    try:
        json_format.ParseDict(content, message)
    except json_format.ParseError as error:
        raise Refusal(400, f"invalid request: {error}", "INVALID_FIELD") from error


def check(content: object, message: Descriptor) -> None:
    """Refuse a body that is no JSON of a message. Raises Refusal."""
    refuse_for(Flaw(("body", at), text) for at, text in _flaws(message, content, ""))


def refuse_for(found: Iterable[Flaw]) -> None:
    """Raises Refusal if there is any flaw."""
    if flaws := tuple(islice(found, _FLAWS_MAX)):
        named = "; ".join(f"{flaw.location[1] or flaw.location[0]} {flaw.message}" for flaw in flaws)
        raise Refusal(400, f"invalid request: {named}", "INVALID_FIELD", flaws)


def json_path(message: Descriptor, path: str) -> str:
    """The path of a field with the names that it has in JSON; keys of payloads stay as they are."""
    parts: list[str] = []
    within: Descriptor | None = message
    for part in path.split("."):
        name, bracket, rest = part.partition("[")
        field = within.fields_by_name.get(name) if within and within.file.package == message.file.package else None
        parts.append((field.json_name if field else name) + bracket + rest)
        within = field.message_type if field else None
    return ".".join(parts)


def _flaws(message: Descriptor, content: object, path: str) -> Found:
    if not isinstance(content, dict):
        yield path, "must be an object"
        return
    fields = {field.json_name: field for field in message.fields}
    for name, value in content.items():
        at = f"{path}.{name}" if path else name
        field = fields.get(name)
        if field is None:
            yield at, "is not a field"
        elif not field.is_repeated:
            yield from flaws_of(field, value, at)
        elif isinstance(value, list):
            for index, each in enumerate(value):
                yield from flaws_of(field, each, f"{at}[{index}]")
        else:
            yield at, "must be an array"


def flaws_of(field: FieldDescriptor, value: object, at: str) -> Found:
    """What is wrong with a value of a field, or with one of the values of a repeated one."""
    if field.message_type is not None:
        yield from _message_flaws(field.message_type, value, at)
    elif field.enum_type is not None:
        if not isinstance(value, str) or value not in field.enum_type.values_by_name:
            yield at, f"must be one of {', '.join(field.enum_type.values_by_name)}"
    elif field.cpp_type in INTEGERS:
        if not _is_whole(value, field):
            yield at, "must be a whole number"
    elif field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        if not isinstance(value, bool):
            yield at, "must be true or false"
    elif not isinstance(value, str):
        yield at, "must be a text"


def _message_flaws(message: Descriptor, value: object, at: str) -> Found:
    if message.full_name == "google.protobuf.Struct":
        if not isinstance(value, dict):
            yield at, "must be an object"
    elif message.full_name in FORMS:
        if not isinstance(value, str) or not _is_readable(message, value):
            yield at, f"must be a {message.name} such as {_EXAMPLES[message.full_name]}"
    elif message.full_name != "google.protobuf.Value":
        yield from _flaws(message, value, at)


def _is_readable(message: Descriptor, text: str) -> bool:
    if not re.fullmatch(FORMS[message.full_name], text):
        return False
    parsed: Any = GetMessageClass(message)()
    try:
        parsed.FromJsonString(text)
    except (ValueError, OverflowError):
        return False
    return True


def _is_whole(value: object, field: FieldDescriptor) -> bool:
    """As Protobuf's JSON has it: one of 64 bits may be a text, for parsers that cannot read so many."""
    if isinstance(value, str):
        return field.cpp_type == FieldDescriptor.CPPTYPE_INT64 and re.fullmatch(INT64_FORM, value) is not None
    return isinstance(value, int | float) and not isinstance(value, bool) and float(value).is_integer()


_EXAMPLES: Final = {
    "google.protobuf.Timestamp": "2026-11-22T18:56:25Z",
    "google.protobuf.Duration": "1.5s",
    "google.protobuf.FieldMask": "name,executionMode",
}
