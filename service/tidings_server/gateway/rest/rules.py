"""The rules in the protos (https://protovalidate.com) as keywords of JSON Schema, where it has them."""

from __future__ import annotations

import re
from typing import Any, Final

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor

from buf.validate import validate_pb2
from buf.validate.validate_pb2 import EnumRules, FieldRules, Int32Rules, Int64Rules, RepeatedRules
from tidings_server.gateway.json_text import WHOLE_MAX
from tidings_server.gateway.rest.proto_json import INT64_FORM

Schema = dict[str, Any]

NO_NUL: Final[Schema] = {"type": "string", "pattern": r"^[^\u0000]*$"}
_INT32_MAX: Final = 2**31 - 1
_MATCHES: Final = re.compile(r"this\.matches\('(.*)'\)")
_SIZE: Final = re.compile(r"size\(this\) <= (\d+)")


def of(field: FieldDescriptor) -> FieldRules:
    rules: FieldRules = field.GetOptions().Extensions[validate_pb2.field]
    return rules


def is_required(rules: FieldRules) -> bool:
    """Whether leaving a field out, which leaves it empty, breaks its rules."""
    breaks_own = bool(rules.cel) and rules.ignore != validate_pb2.IGNORE_IF_ZERO_VALUE
    return rules.required or breaks_own or rules.repeated.min_items > 0


def for_text(rules: FieldRules) -> Schema:
    schema: Schema = {**NO_NUL, "minLength": 1} if rules.required else {**NO_NUL}
    if rules.string.HasField("min_len"):
        schema["minLength"] = rules.string.min_len
    if rules.string.HasField("max_len"):
        schema["maxLength"] = rules.string.max_len
    for expression in (rule.expression.replace("\\\\", "\\") for rule in rules.cel):
        if matches := _MATCHES.search(expression):
            may_be_empty = rules.ignore == validate_pb2.IGNORE_IF_ZERO_VALUE
            schema["pattern"] = f"^$|{matches[1]}" if may_be_empty else matches[1]
        if size := _SIZE.search(expression):
            schema["maxLength"] = int(size[1])
    return schema


def for_int32(rules: Int32Rules) -> Schema:
    return {"type": "integer", "format": "int32", **_range(rules, _INT32_MAX)}


def for_int64(rules: Int64Rules) -> Schema:
    """A text is for parsers that cannot read so many digits as a number."""
    bounds = _range(rules, WHOLE_MAX)
    digits = INT64_FORM if bounds["minimum"] < 0 else INT64_FORM.removeprefix("-?")
    return {"type": ["integer", "string"], "format": "int64", "pattern": f"^{digits}$", **bounds}


def for_list(rules: RepeatedRules) -> Schema:
    bounds = {"minItems": rules.min_items, "maxItems": rules.max_items}
    return {keyword: bound for keyword, bound in bounds.items() if bound}


def for_message(rules: FieldRules) -> Schema:
    if rules.HasField("duration"):  # none may be negative
        least, most = rules.duration.gte.seconds, rules.duration.lte.seconds
        form = rf"^[0-9]{{1,{len(str(most))}}}(\.[0-9]{{1,9}})?s$"
        return {"pattern": form, "description": f"From {least}s to {most}s."}
    if paths := [_json_name(path) for path in getattr(rules.field_mask, "in")]:
        one = f"({'|'.join(paths)})"
        return {"pattern": f"^{one}(,{one})*$"}
    return {}


def names(enum: EnumDescriptor, rules: EnumRules) -> list[str]:
    """The values that are allowed."""
    allowed = set(getattr(rules, "in") or (each.number for each in enum.values)) - set(rules.not_in)
    return [each.name for each in enum.values if each.number in allowed]


def _range(rules: Int32Rules | Int64Rules, largest: int) -> dict[str, int]:
    return {
        "minimum": rules.gte if rules.HasField("gte") else -largest,
        "maximum": rules.lte if rules.HasField("lte") else largest,
    }


def _json_name(name: str) -> str:
    return re.sub("_(.)", lambda found: found[1].upper(), name)
