"""From what a person types to the values of requests."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Final, TypeVar

import typer
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import Parse, ParseError
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from tidings.v1.task_pb2 import TaskProgress, TaskState

_UNITS: Final = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
_DURATION: Final = re.compile(r"(?:(?P<d>\d+)d)?(?:(?P<h>\d+)h)?(?:(?P<m>\d+)m)?(?:(?P<s>\d+(?:\.\d+)?)s)?")
_SPAN_MAX: Final = timedelta(seconds=315_360_000)
"""The longest that anything is kept."""
_PROGRESS: Final = re.compile(r"(?P<completed>\d+)(?:/(?P<total>\d+))?(?: +(?P<unit>.+))?")

_Json = TypeVar("_Json", Struct, Value)


class State(StrEnum):
    """A state that a task or a run can be in."""

    PENDING = "pending"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def number(self) -> TaskState.ValueType:
        return TaskState.Value(f"TASK_STATE_{self.name}")


def json_object(text: str) -> Struct:
    return _parsed(text, Struct(), "a JSON object")


def json_value(text: str) -> Value:
    return _parsed(text, Value(), "JSON")


def duration(text: str) -> Duration:
    """Such as `90s`, `10m` or `1d12h`."""
    message = Duration()
    message.FromTimedelta(_span(text))
    return message


def time(text: str) -> Timestamp:
    """A time in ISO 8601, in UTC if it does not say; or how long ago."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = datetime.now(UTC) - _span(text)
    message = Timestamp()
    message.FromDatetime(moment)
    return message


def progress(text: str) -> TaskProgress:
    """Such as `3`, `3/9` or `3/9 pages`."""
    match = _PROGRESS.fullmatch(text)
    if not match:
        raise typer.BadParameter(f"{text!r} is not progress such as 3, 3/9 or '3/9 pages'")
    return TaskProgress(completed=int(match["completed"]), total=int(match["total"] or 0), unit=match["unit"] or "")


def _parsed(text: str, message: _Json, wanted: str) -> _Json:
    """The JSON itself, that of a file if it is `@FILE`, or that of stdin if it is `-`."""
    try:
        return Parse(_read(text), message)
    except ParseError as error:
        raise typer.BadParameter(f"this is not {wanted}: {error}") from error


def _read(text: str) -> str:
    if text == "-":
        return sys.stdin.read()
    if not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise typer.BadParameter(f"{text[1:]} cannot be read: {error}") from error


def _span(text: str) -> timedelta:
    match = _DURATION.fullmatch(text)
    if not match or not text:
        raise typer.BadParameter(f"{text!r} is not a duration such as 90s, 10m or 1d12h")
    try:
        span = timedelta(**{_UNITS[unit]: float(number) for unit, number in match.groupdict("0").items()})
    except OverflowError:
        span = timedelta.max
    if span > _SPAN_MAX:
        raise typer.BadParameter(f"{text} is longer than ten years")
    return span
