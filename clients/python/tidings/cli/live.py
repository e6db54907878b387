"""The table that `tidings watch` shows on a terminal while changes come."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from time import time
from typing import Final

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tidings.cli.output import new_table, plain, progress_text, shortened
from tidings.cli.records import event_state
from tidings.v1.event_pb2 import Event
from tidings.v1.event_service_pb2 import CHANGE_KIND_DELETED, CHANGE_KIND_EXPIRED, EventChange
from tidings.v1.task_pb2 import TASK_STATE_PAUSED, TASK_STATE_RUNNING

COLUMNS: Final = ("EVENT", "STATE", "PROGRESS", "TYPE", "MESSAGE")
SOFT_COLUMNS: Final = frozenset({"PROGRESS", "TYPE", "MESSAGE"})
EVENTS_MAX: Final = 1000
BAR_WIDTH: Final = 20
FRAME_LINES: Final = 3
"""What the table needs besides its rows: the header, the line below, and the cursor's."""

_GONE: Final = frozenset({CHANGE_KIND_DELETED, CHANGE_KIND_EXPIRED})
_WORKING: Final = frozenset({TASK_STATE_RUNNING, TASK_STATE_PAUSED})


class EventTable:
    """The events that changed last, at most EVENTS_MAX, those at work first. Drawn by a thread of its own."""

    def __init__(self) -> None:
        self._events: OrderedDict[str, Event] = OrderedDict()
        self._lock = Lock()
        self.is_synced = False

    def apply(self, change: EventChange) -> None:
        with self._lock:
            self._events.pop(change.event.event_id, None)
            if change.kind not in _GONE:
                self._events[change.event.event_id] = change.event
            if len(self._events) > EVENTS_MAX:
                self._events.popitem(last=False)

    def clear(self) -> None:
        with self._lock:
            self._events.clear()
            self.is_synced = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        events = self._in_order()
        fit = max(1, (options.height or console.height) - FRAME_LINES)
        table = new_table(COLUMNS, SOFT_COLUMNS)
        for event in events[:fit]:
            table.add_row(*_row(event))
        yield table
        yield Text(self._footer(len(events), max(0, len(events) - fit)), style="dim")

    def _in_order(self) -> list[Event]:
        now = time()
        with self._lock:
            newest_first = [event for event in reversed(self._events.values()) if not _is_expired(event, now)]
        return sorted(newest_first, key=lambda event: event.status.state not in _WORKING)

    def _footer(self, count: int, hidden: int) -> str:
        more = f", {hidden} of them not shown" if hidden else ""
        return (
            f"{count} {'event' if count == 1 else 'events'}{more}; {'up to date' if self.is_synced else 'catching up'}"
        )


def _is_expired(event: Event, now: float) -> bool:
    """Whether it is gone. Only watches of one event are told; of a partial change nothing is known."""
    return event.HasField("expire_time") and event.expire_time.ToMilliseconds() / 1000 <= now


def _row(event: Event) -> tuple[RenderableType, ...]:
    progress = event.status.progress
    return (
        plain(event.event_id),
        event_state(event),
        _progress(event),
        shortened(event.type),
        shortened(plain(event.status.message or progress.message or event.summary)),
    )


def _progress(event: Event) -> RenderableType:
    """A bar for a task at work that has told how much there is to do."""
    progress, text = event.status.progress, shortened(progress_text(event.status.progress))
    if event.status.state not in _WORKING or not progress.total:
        return text
    grid = Table.grid(padding=(0, 1))
    bar = ProgressBar(total=progress.total, completed=min(progress.completed, progress.total), width=BAR_WIDTH)
    grid.add_row(bar, text)
    return grid
