"""JSON as it comes in: only what can be stored and given back as it was."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, Final

WHOLE_MAX: Final = 2**53
"""Beyond it a double, which is all the numbers that a google.protobuf.Value has, misses whole numbers."""
LEVELS_MAX: Final = 30
"""Above what the service takes, which refuses deeper payloads with a reason, and below what Protobuf can carry: a
hundred messages within each other, three of them for each level of a Struct."""


class UnfitJson(ValueError):
    """A text is no JSON, or JSON that could not be given back as it is. The message says why."""


def parsed(body: bytes) -> Any:
    """The value of a JSON text. Raises UnfitJson."""
    try:
        value = json.loads(body, parse_constant=_refuse_constant, parse_int=_whole, parse_float=_finite)
    except UnicodeDecodeError as error:
        raise UnfitJson("is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise UnfitJson(f"is not JSON: {error.msg} at character {error.pos}") from error
    except RecursionError as error:
        raise UnfitJson(f"is more than {LEVELS_MAX} levels deep") from error
    for text, level in _texts(value, 1):
        if level > LEVELS_MAX:
            raise UnfitJson(f"is more than {LEVELS_MAX} levels deep")
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise UnfitJson("has half of a surrogate pair in a text")
    return value


def plain(value: Any) -> Any:
    """A value with whole numbers for the doubles that are whole: what was 1 is not given back as 1.0."""
    match value:
        case dict():
            return {name: plain(each) for name, each in value.items()}
        case list():
            return [plain(each) for each in value]
        case float() if value.is_integer() and abs(value) <= WHOLE_MAX:
            return int(value)
        case _:
            return value


def _texts(value: Any, level: int) -> Iterator[tuple[str, int]]:
    """Every text in a value, names too, and how deep it is; something for every level that has none."""
    stack = [(value, level)]
    while stack:
        value, level = stack.pop()
        match value:
            case str():
                yield value, level
            case dict():
                yield "", level
                for name, each in value.items():
                    yield name, level
                    stack.append((each, level + 1))
            case list():
                yield "", level
                stack += [(each, level + 1) for each in value]


def _refuse_constant(name: str) -> float:
    raise UnfitJson(f"has {name}, which is not JSON")


def _whole(digits: str) -> int:
    if len(digits) > 20 or abs(number := int(digits)) > WHOLE_MAX:
        raise UnfitJson(f"has a whole number beyond 2^53: send {digits[:20]} as a text")
    return number


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise UnfitJson(f"has the number {digits[:20]}, which is too large")
    return number
