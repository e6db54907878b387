"""A small run with a service that keeps every promise: what the checks must find nothing in, until it is spoilt."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import Final

from guarantees.entries import Attempt, Begun, Ended, Entry, Opened, Read, Survivor, Told
from guarantees.recording import Recording
from guarantees.truth import Selection, Stored, Truth

HERE, THERE = "north", "south"
RUN: Final = "run-1"
FAR: Final = 10_000_000_000_000
LIFE: Final = (("PENDING", ""), ("PENDING", ""), ("RUNNING", "PENDING"), ("RUNNING", ""), ("SUCCEEDED", "RUNNING"))
"""The state and the state before, at each revision of a task."""
EXPIRING: Final = "expiring"
FOLLOWED: Final = "task-0"
MARKER_ID: Final = "marker"


@dataclass
class Run:
    """The entries of a recording, and the truth. Change number n is made at second n, by both clocks."""

    entries: list[Entry]
    changes: list[Stored]
    written: list[float] = field(default_factory=list)

    @property
    def recording(self) -> Recording:
        return Recording(self.entries)

    @property
    def truth(self) -> Truth:
        final = {(change.project, change.event_id): change for change in self.changes}
        return Truth(self.changes, final.values(), self.written)

    def places(self, watcher: str, *kinds: str) -> list[int]:
        """Where in the recording a watcher is told something of these kinds."""
        return [
            place
            for place, entry in enumerate(self.entries)
            if isinstance(entry, Told) and entry.watcher == watcher and entry.kind in kinds
        ]

    def told(self, place: int) -> Told:
        entry = self.entries[place]
        assert isinstance(entry, Told)
        return entry

    def place_of(self, kind: type[Opened] | type[Ended], watcher: str, number: int) -> int:
        return next(
            place
            for place, entry in enumerate(self.entries)
            if isinstance(entry, kind) and (entry.watcher, entry.number) == (watcher, number)
        )

    def opened(self, watcher: str, number: int) -> Opened:
        entry = self.entries[self.place_of(Opened, watcher, number)]
        assert isinstance(entry, Opened)
        return entry

    def ended(self, watcher: str, number: int) -> Ended:
        entry = self.entries[self.place_of(Ended, watcher, number)]
        assert isinstance(entry, Ended)
        return entry

    def put(self, entry: Opened | Ended) -> None:
        """In place of the one that was there."""
        self.entries[self.place_of(type(entry), entry.watcher, entry.number)] = entry


def ideal(chance: random.Random) -> Run:
    """Two projects with tasks of the same ids; watchers of a project, of a run, of states, of events."""
    changes = _changes(chance)
    entries: list[Entry] = [Begun(0.0, history_max=1000)]
    for change in changes:
        sent, answered = change.position - 0.2, change.position + 0.1
        revision = 0 if change.kind == "DELETED" else change.revision
        entries.append(
            Attempt("author", change.project, "call", change.event_id, sent, answered, "acknowledged", "OK", revision)
        )
    begin = chance.randint(3, len(changes) // 3)
    leave = chance.randint(len(changes) // 2, len(changes) - 12)
    entries += _many(changes, Opened(begin + 0.5, "all", 1, 0, HERE, "project", heartbeat=60.0), leave)
    entries += _many(changes, Opened(begin + 0.5, "run", 1, 0, HERE, "run_id", RUN, heartbeat=60.0), leave)
    running = Opened(begin + 0.5, "running", 1, 1, HERE, "project", states=("RUNNING",), heartbeat=60.0)
    entries += _many(changes, running, leave)
    entries += _one(changes, Opened(0.0, "one", 1, 0, HERE, "event_id", FOLLOWED, heartbeat=60.0))
    entries += _expired(changes, Opened(0.0, "expiring", 1, 0, HERE, "event_id", EXPIRING, heartbeat=60.0))
    foreign = Opened(5.0, "run", 3, 0, HERE, "run_id", RUN, start="foreign")
    entries += [foreign, Ended(5.1, "run", 3, "INVALID_ARGUMENT RESUME_TOKEN_INVALID")]
    entries += [Survivor(name) for name in ("all", "run", "running", "one", "expiring")]
    entries.append(Read(HERE, FOLLOWED, 1e6, "OK", "", 5, FAR))
    entries += [_missing(HERE, "nobody"), _missing(THERE, "somebody")]
    return Run(entries, changes)


def _missing(project: str, event_id: str) -> Read:
    return Read(project, event_id, 7.0, "NOT_FOUND EVENT_NOT_FOUND", f'event "{event_id}" not found')


def _changes(chance: random.Random) -> list[Stored]:
    """The lives of some tasks, interleaved; half of them in a run; then the marker's."""
    lives = [_life(HERE, f"task-{number}", in_run=number % 2 == 1) for number in range(6)]
    lives += [_life(THERE, f"task-{number}", in_run=False) for number in range(2)]
    lives.append([replace(_life(HERE, EXPIRING, in_run=False)[0], expires=0)])
    lives[3].append(replace(lives[3][-1], revision=6, kind="DELETED", previous=""))
    changes: list[Stored] = []
    while any(lives):
        changes.append(chance.choice([life for life in lives if life]).pop(0))
    changes += _life(HERE, MARKER_ID, in_run=True)
    sequence = 0
    placed = []
    for position, change in enumerate(changes, start=1):
        sequence += change.kind == "CREATED" and change.run_id != ""
        number = sequence if change.kind == "CREATED" and change.run_id else 0
        expires = 1000 * (position + 1000) if change.event_id == EXPIRING else FAR
        placed.append(
            replace(change, position=position, updated=1000 * position, sequence=number, created=1, expires=expires)
        )
    return placed


def _life(project: str, event_id: str, *, in_run: bool) -> list[Stored]:
    return [
        Stored(
            0,
            project,
            event_id,
            revision,
            0,
            0,
            FAR,
            "UPDATED" if revision > 1 else "CREATED",
            state,
            previous,
            "red",
            RUN if in_run else "",
        )
        for revision, (state, previous) in enumerate(LIFE, start=1)
    ]


def told_of(change: Stored, opened: Opened, kind: str, time: float) -> Told:
    return Told(
        time,
        opened.watcher,
        opened.number,
        kind,
        change.event_id,
        change.revision,
        change.updated,
        change.state,
        "" if kind in {"INITIAL", "EXPIRED"} else change.previous,
        change.project,
        change.sequence,
        expires=change.expires,
        is_marker=change.event_id == MARKER_ID,
    )


def _many(changes: list[Stored], opened: Opened, leave: int) -> list[Entry]:
    """A snapshot, then every change; with a break in the middle, at a bookmark."""
    selection = Selection.of(opened)
    start = int(opened.time)
    picture: dict[str, Stored] = {}
    for change in changes[:start]:
        if selection.tells(change):
            picture[change.event_id] = change
    present = sorted((each for each in picture.values() if selection.has(each)), key=lambda each: each.sequence)
    entries: list[Entry] = [opened]
    entries += [told_of(change, opened, "INITIAL", opened.time) for change in present]
    entries.append(Told(opened.time, opened.watcher, 1, "synced"))
    live = [change for change in changes[start:] if selection.tells(change)]
    entries += [told_of(each, opened, each.kind, each.position) for each in live if each.position <= leave]
    entries.append(Told(leave + 0.2, opened.watcher, 1, "bookmark", detail="LIVE"))
    entries.append(Ended(leave + 0.3, opened.watcher, 1, "LEFT"))
    second = replace(opened, time=leave + 5.5, number=2, start="resumed")
    entries.append(second)
    missed = [each for each in live if leave < each.position <= second.time]
    entries += [told_of(each, second, each.kind, second.time) for each in missed]
    entries.append(Told(second.time, opened.watcher, 2, "synced"))
    entries += [told_of(each, second, each.kind, each.position) for each in live if each.position > second.time]
    return [*entries, Ended(len(changes) + 1.0, opened.watcher, 2, "LEFT")]


def _one(changes: list[Stored], opened: Opened) -> list[Entry]:
    """A watch of a task through its life, with a break in the middle."""
    mine = [change for change in changes if (change.project, change.event_id) == (opened.project, opened.scope_id)]
    opened = replace(opened, time=mine[0].position + 0.5)
    second = replace(opened, time=mine[2].position + 0.5, number=2, start="resumed")
    end = mine[-1].position + 0.1
    return [
        opened,
        told_of(mine[0], opened, "INITIAL", opened.time),
        Told(opened.time, opened.watcher, 1, "synced"),
        *(told_of(each, opened, "UPDATED", each.position) for each in mine[1:3]),
        Ended(second.time - 0.1, opened.watcher, 1, "UNAVAILABLE"),
        second,
        Told(second.time, opened.watcher, 2, "synced"),
        *(told_of(each, second, "UPDATED", each.position) for each in mine[3:]),
        Told(end, opened.watcher, 2, "closing", detail="TERMINAL"),
        Ended(end, opened.watcher, 2, "OK"),
    ]


def _expired(changes: list[Stored], opened: Opened) -> list[Entry]:
    """A watch of an event until it expires, when everything else is over."""
    (mine,) = (change for change in changes if change.event_id == opened.scope_id)
    opened = replace(opened, time=mine.position + 0.5, heartbeat=2000.0)
    end = mine.expires / 1000 + 0.3
    return [
        opened,
        told_of(mine, opened, "INITIAL", opened.time),
        Told(opened.time, opened.watcher, 1, "synced"),
        told_of(mine, opened, "EXPIRED", end),
        Told(end, opened.watcher, 1, "closing", detail="TERMINAL"),
        Ended(end, opened.watcher, 1, "OK"),
    ]
