"""Messages from the queries of URLs."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from tidings_server.gateway.refusal import Flaw, Refusal
from tidings_server.gateway.rest.proto_json import FORMS, INT64_FORM, INTEGERS, flaws_of, refuse_for

Fields = Mapping[str, FieldDescriptor]


def query_fields(message: Descriptor, without: Collection[str], within: str = "") -> Fields:
    """The fields that a query can give, by name: scalars, texts and lists of them, also of messages within."""
    found: dict[str, FieldDescriptor] = {}
    for field in message.fields:
        name = within + field.json_name
        if name in without:
            continue
        if field.message_type is None or field.message_type.full_name in FORMS:
            found[name] = field
        elif not field.is_repeated:
            found |= query_fields(field.message_type, without, f"{name}.")
    return found


def query_content(query: bytes, fields: Fields) -> dict[str, Any]:
    """What a query says, as JSON of the message that the fields are of. Raises Refusal."""
    given = _given(query)
    refuse_for(_flaws(given, fields))
    content: dict[str, Any] = {}
    for name, texts in given.items():
        values = [_value(fields[name], text) for text in texts]
        _put(content, name, values if fields[name].is_repeated else values[0])
    return content


def _put(content: dict[str, Any], path: str, value: object) -> None:
    """Set a field, perhaps of a message within."""
    *within, name = path.split(".")
    for each in within:
        content = content.setdefault(each, {})
    content[name] = value


def _given(query: bytes) -> Mapping[str, Sequence[str]]:
    given: defaultdict[str, list[str]] = defaultdict(list)
    try:
        for name, text in parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict"):
            given[name].append(text)
    except UnicodeDecodeError as error:
        raise Refusal(400, "the query is not UTF-8", "INVALID_FIELD") from error
    return given


def _flaws(given: Mapping[str, Sequence[str]], fields: Fields) -> Iterator[Flaw]:
    for name, texts in given.items():
        field = fields.get(name)
        if field is None:
            yield Flaw(("query", name), "is not a parameter")
        elif len(texts) > 1 and not field.is_repeated:
            yield Flaw(("query", name), "must be given once")
        else:
            for text in texts:
                yield from (Flaw(("query", at), flaw) for at, flaw in flaws_of(field, _value(field, text), name))


def _value(field: FieldDescriptor, text: str) -> Any:
    """The value that a text stands for, or the text if it stands for none."""
    if field.cpp_type in INTEGERS and re.fullmatch(INT64_FORM, text):
        return int(text)
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return {"true": True, "false": False}.get(text, text)
    return text
