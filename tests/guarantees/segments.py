"""Streams joined where one resumed the other: what a watcher was told from one beginning on."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from guarantees.entries import Opened, Told
from guarantees.recording import Connection, Recording
from guarantees.truth import Selection, Stored, Truth


class Step(NamedTuple):
    """A message, the stream that it came on, and the change in the store that it tells, if there is one."""

    told: Told
    connection: Connection
    change: Stored | None


@dataclass
class Segment:
    """From a snapshot, or from a live start, over all streams that resumed it, up to the next beginning."""

    opened: Opened
    is_live: bool
    steps: list[Step] = field(default_factory=list)

    @property
    def selection(self) -> Selection:
        return Selection.of(self.opened)

    @property
    def is_of_event(self) -> bool:
        return self.opened.scope == "event_id"

    @property
    def news(self) -> Iterator[tuple[int, Step, Stored]]:
        """The changes told, each with its place among the steps and what it is in the store."""
        for index, step in enumerate(self.steps):
            if step.told.is_news and step.change is not None and not self._is_found_deletion(step, step.change):
                yield index, step, step.change

    @property
    def first_sync(self) -> int:
        """The place of the first `synced`; beyond the end if there is none."""
        return next((index for index, step in enumerate(self.steps) if step.told.kind == "synced"), len(self.steps))

    @staticmethod
    def _is_found_deletion(step: Step, change: Stored) -> bool:
        # A deletion that was not heard is told with the event as it was last.
        return step.told.kind == "DELETED" and change.kind != "DELETED"


def segments(recording: Recording, truth: Truth) -> Iterator[Segment]:
    for connections in recording.watchers.values():
        yield from _of_watcher([each for each in connections if each.opened.start != "foreign"], truth)


def _of_watcher(connections: list[Connection], truth: Truth) -> list[Segment]:
    joined: list[Segment] = []
    for connection in connections:
        opened = connection.opened
        if not joined or opened.start != "resumed":
            joined.append(Segment(opened, opened.start == "live"))
        for told in connection.told:
            if told.kind == "reset":
                joined.append(Segment(opened, is_live=False))
            change = truth.by_key.get((opened.project, told.event_id, told.revision, told.updated))
            joined[-1].steps.append(Step(told, connection, change))
    return joined


class Acknowledged:
    """Which changes of a selection writers had been told of at a time."""

    def __init__(self, recording: Recording, truth: Truth) -> None:
        self._truth = truth
        self.at: dict[int, float] = {}
        """When each change was first acknowledged, by its position."""
        self._by_selection: dict[Selection, tuple[list[float], list[int]]] = {}
        positions: dict[tuple[str, str, int], int] = {}
        for change in truth.changes:
            positions.setdefault((change.project, change.event_id, change.revision), change.position)
        for attempt in recording.attempts:
            position = positions.get((attempt.project, attempt.event_id, attempt.revision))
            if attempt.outcome == "acknowledged" and position is not None:
                self.at[position] = min(attempt.answered, self.at.get(position, attempt.answered))

    def up_to(self, selection: Selection, time: float) -> int:
        """The last position of the changes told of a selection that were acknowledged before a time; 0 without any."""
        times, highest = self._of(selection)
        before = bisect_left(times, time)
        return highest[before - 1] if before else 0

    def _of(self, selection: Selection) -> tuple[list[float], list[int]]:
        if selection not in self._by_selection:
            told = self._truth.told(selection)
            pairs = sorted((self.at[each.position], each.position) for each in told if each.position in self.at)
            highest: list[int] = []
            for _, position in pairs:
                highest.append(max(position, highest[-1] if highest else 0))
            self._by_selection[selection] = [time for time, _ in pairs], highest
        return self._by_selection[selection]


@dataclass
class Start:
    """Where the live part of a segment of many events begins: its picture is the store's at this position."""

    position: int
    differing: dict[str, tuple[Stored | None, Stored | None]]
    """The events that are otherwise in the store than in the picture, if there is no such position."""


def start_of(segment: Segment, truth: Truth, recording: Recording, acknowledged: Acknowledged) -> Start:
    """The last position at which the store equals the picture at `synced`; a live start has no picture."""
    sync = segment.first_sync
    at_sync = segment.steps[sync] if sync < len(segment.steps) else None
    first_live = min(
        (change.position for index, _, change in segment.news if index > sync), default=len(truth.changes) + 1
    )
    if segment.is_live or at_sync is None:
        return Start(first_live - 1, {})
    selection = segment.selection
    picture: dict[str, Stored] = {}
    lowest = acknowledged.up_to(selection, at_sync.connection.opened.time)
    for index, _, change in segment.news:
        if index < sync:
            picture[change.event_id] = change
            lowest = max(lowest, change.position)
    picture = {event_id: change for event_id, change in picture.items() if selection.has(change)}
    return _sweep(truth.told(selection), selection, picture, lowest, first_live, recording.wall(at_sync.told.time))


def _sweep(
    told: list[Stored], selection: Selection, picture: dict[str, Stored], lowest: int, first_live: int, now: float
) -> Start:
    """Let the store go on from the lowest possible position, and see where it equals the picture."""
    begin = bisect_left(told, lowest + 1, key=lambda change: change.position)
    store: dict[str, Stored] = {}
    for change in told[:begin]:
        _apply(change, selection, store)
    differing = {
        event_id
        for event_id in store.keys() | picture.keys()
        if _differ(store.get(event_id), picture.get(event_id), now)
    }
    at_lowest = {event_id: (store.get(event_id), picture.get(event_id)) for event_id in differing}
    found = None if differing else lowest
    for change in told[begin:]:
        if change.position >= first_live:
            break
        _apply(change, selection, store)
        event_id = change.event_id
        (differing.add if _differ(store.get(event_id), picture.get(event_id), now) else differing.discard)(event_id)
        if not differing:
            found = change.position
    return Start(lowest, at_lowest) if found is None else Start(found, {})


def _apply(change: Stored, selection: Selection, store: dict[str, Stored]) -> None:
    if selection.has(change):
        store[change.event_id] = change
    else:
        store.pop(change.event_id, None)


def _differ(stored: Stored | None, pictured: Stored | None, now: float) -> bool:
    """What has expired may be in the picture or not, for it was read a little earlier."""
    if pictured is None:
        return stored is not None and stored.expires > now
    return stored is None or stored.position != pictured.position
