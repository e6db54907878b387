"""How results are printed: proto3 JSON for programs, text for people, tab-separated lines for other commands.

Whatever comes from the service goes through `plain` before it reaches a terminal: others wrote it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Container, Iterable, Sequence
from enum import StrEnum
from typing import Annotated, Any, Final, TypeVar

import typer
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from tidings.v1.task_pb2 import TaskProgress, TaskState

PIPE_WIDTH: Final = 10_000
"""Nothing is wrapped or cut off for a screen that is not there."""

results: Final = Console(
    highlight=False, markup=False, emoji=False, soft_wrap=True, width=None if sys.stdout.isatty() else PIPE_WIDTH
)
"""stdout, with colours if it is a terminal and NO_COLOR is not set."""

WHOLE_MAX: Final = 2**53
"""Up to this a double is exact."""

NAME_WIDTH: Final = 13

STATE_STYLES: Final = {
    "RUNNING": "cyan",
    "PAUSED": "yellow",
    "SUCCEEDED": "green",
    "FAILED": "red",
    "CANCELLED": "magenta",
    "SKIPPED": "dim",
}


_Record = TypeVar("_Record", bound=Message)


class Output(StrEnum):
    TEXT = "text"
    JSON = "json"


OutputOption = Annotated[
    Output,
    typer.Option("--output", "-o", help="`json` prints proto3 JSON: one record indented, several one to a line."),
]


def plain(text: str) -> str:
    """One line that a terminal shows and does not obey."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def state_name(state: TaskState.ValueType) -> str:
    """A state as people write it; the number of one that is newer than this client."""
    name = TaskState.Name(state) if state in TaskState.values() else str(state)
    return name.removeprefix("TASK_STATE_")


def state_text(state: TaskState.ValueType) -> Text:
    name = state_name(state)
    return Text(name, style=STATE_STYLES.get(name, ""))


def time_text(time: Timestamp) -> str:
    """A time in UTC, to the second; empty if it is not set."""
    return f"{time.ToDatetime():%Y-%m-%dT%H:%M:%SZ}" if time.ByteSize() else ""


def progress_text(progress: TaskProgress) -> str:
    """Such as `3/9 pages`; empty if nothing was reported."""
    total = f"/{progress.total}" if progress.total else ""
    return plain(f"{progress.completed}{total} {progress.unit}".strip()) if progress.ByteSize() else ""


def to_json(message: Message, *, indent: int | None = None) -> str:
    return json.dumps(json_data(message), indent=indent)


def json_data(message: Message) -> Any:
    """What proto3 JSON has for a message, with whole numbers as such."""
    return _whole(MessageToDict(message))


def _whole(value: Any) -> Any:
    match value:
        case dict():
            return {name: _whole(each) for name, each in value.items()}
        case list():
            return [_whole(each) for each in value]
        case float() if value.is_integer() and abs(value) <= WHOLE_MAX:
            return int(value)
    return value


def say(sentence: str) -> None:
    """Tell a person something, on stderr. Not through a Console, which repeats itself when Ctrl-C interrupts it."""
    typer.echo(sentence, err=True)


def print_fields(fields: Iterable[tuple[str, str | Text]]) -> None:
    """What is known of one record, a line for each that is not empty."""
    for name, value in fields:
        if value:
            results.print(Text.assemble((f"{name:<{NAME_WIDTH}}", "bold"), value))


def print_rows(columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> None:
    """A table on a terminal; elsewhere a line for each row, without a header, its cells separated by tabs."""
    if not results.is_terminal:
        for row in rows:
            typer.echo("\t".join(str(cell) for cell in row))
        return
    table = new_table(columns, {columns[-1]})
    for row in rows:
        table.add_row(*row[:-1], shortened(row[-1]))
    results.print(table, soft_wrap=False)


def new_table(columns: Iterable[str], soft: Container[str]) -> Table:
    """A table of which some columns give way where the screen is narrow."""
    made = (Column(name, no_wrap=name not in soft) for name in columns)
    return Table(*made, box=None, header_style="bold", pad_edge=False, collapse_padding=True)


def shortened(cell: str | Text) -> Text:
    """What fits on one line."""
    return Text(str(cell), no_wrap=True, overflow="ellipsis")


def print_record(
    record: _Record, output: Output, fields: Callable[[_Record], Iterable[tuple[str, str | Text]]]
) -> None:
    if output is Output.JSON:
        typer.echo(to_json(record, indent=2))
    else:
        print_fields(fields(record))


def print_records(
    records: Iterable[_Record],
    output: Output,
    columns: Sequence[str],
    row: Callable[[_Record], Sequence[str | Text]],
) -> None:
    if output is Output.JSON:
        for record in records:
            typer.echo(to_json(record))
    else:
        print_rows(columns, map(row, records))


def print_created(record: Message, output: Output, record_id: str) -> None:
    """The id alone, for the next command; or the whole record."""
    if output is Output.JSON:
        typer.echo(to_json(record, indent=2))
    else:
        typer.echo(plain(record_id))
