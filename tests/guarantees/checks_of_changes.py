"""The checks of what is told: ordered, unique, complete, exact from the start, and durable."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

from guarantees.entries import Told
from guarantees.recording import Connection, Recording
from guarantees.segments import Acknowledged, Segment, Start, segments, start_of
from guarantees.truth import Stored, Truth

SHOWN_MAX: Final = 3
"""Of what is missing in one place, as much as this is told."""
PURGE_MILLISECONDS: Final = 5000


def ordered(recording: Recording, truth: Truth) -> Iterator[str]:
    """Changes of one event arrive in revision order, events of one run in sequence order."""
    for segment in segments(recording, truth):
        newest: dict[str, int] = {}
        sequences: dict[str, int] = {}
        for _, step, change in segment.news:
            if change.position < newest.get(change.event_id, 0):
                yield f"{step.connection}: {change} was told after a later revision"
            newest[change.event_id] = max(change.position, newest.get(change.event_id, 0))
            if step.told.kind in {"INITIAL", "CREATED"} and change.run_id:
                if change.sequence < sequences.get(change.run_id, 0):
                    last = sequences[change.run_id]
                    yield f"{step.connection}: number {change.sequence} of run {change.run_id} was told after {last}"
                sequences[change.run_id] = max(change.sequence, sequences.get(change.run_id, 0))
    yield from _broken_logs(truth)


def _broken_logs(truth: Truth) -> Iterator[str]:
    logs: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for change in truth.changes:
        if change.kind == "CREATED" and change.run_id:
            logs[change.project, change.run_id].append(change.sequence)
    for (_, run_id), numbers in logs.items():
        for before, after in zip([0, *numbers], numbers, strict=False):
            if after != before + 1:
                yield f"in the log of run {run_id} number {after} follows {before}"


def unique(recording: Recording, truth: Truth) -> Iterator[str]:
    """No revision of an event is told twice on a stream, nor again after a resume."""
    for segment in segments(recording, truth):
        seen: set[tuple[str, str, int, int]] = set()
        for _, step, change in segment.news:
            if change.key in seen:
                yield f"{step.connection}: {change} was told again, as {step.told.kind}"
            seen.add(change.key)


def complete_or_loud(recording: Recording, truth: Truth) -> Iterator[str]:
    """Every matching change is told, and nothing else; of one event every change of its state."""
    acknowledged = Acknowledged(recording, truth)
    for segment in segments(recording, truth):
        if segment.is_of_event:
            missing: Iterable[Stored] = _missing_of_event(segment, truth)
        else:
            start = start_of(segment, truth, recording, acknowledged)
            missing = _missing(segment, truth, start, recording)
            yield from _unasked(segment)
        for change in islice(missing, SHOWN_MAX):
            yield f"{segment.opened.watcher}: {change} ({change.kind}) was never told{_around(segment, change)}"
    for watcher in recording.survivors:
        yield from _unfinished(recording, truth, watcher)


def _missing(segment: Segment, truth: Truth, start: Start, recording: Recording) -> Iterator[Stored]:
    told = {change.position for _, _, change in segment.news}
    end = max(told, default=0)
    for change in truth.told(segment.selection):
        if start.position < change.position < end and change.position not in told:
            yield change
    if segment.is_live and segment.first_sync < len(segment.steps):
        yield from _missing_after_live_start(segment, truth, recording, min(told, default=len(truth.changes) + 1))


def _missing_after_live_start(segment: Segment, truth: Truth, recording: Recording, first: int) -> Iterator[Stored]:
    """What was done after `synced`, and before the first change that was told."""
    synced_at = recording.wall(segment.steps[segment.first_sync].told.time)
    for change in truth.told(segment.selection):
        if change.position >= first or first > len(truth.changes):
            return
        if change.updated > synced_at:
            yield change


def _missing_of_event(segment: Segment, truth: Truth) -> Iterator[Stored]:
    told = {change.position for _, _, change in segment.news}
    first, last = min(told, default=0), max(told, default=0)
    for change in truth.of_event.get((segment.opened.project, segment.opened.scope_id), ()):
        is_wanted = change.previous or change.kind != "UPDATED"
        if is_wanted and first < change.position < last and change.position not in told:
            yield change


def _unasked(segment: Segment) -> Iterator[str]:
    selection = segment.selection
    for _, step, change in segment.news:
        if not selection.tells(change) or (step.told.kind == "INITIAL" and not selection.has(change)):
            yield f"{step.connection}: {change} was told as {step.told.kind}, which was not asked for"


def _unfinished(recording: Recording, truth: Truth, watcher: str) -> Iterator[str]:
    """A watch of one event ends when that is final, or finds it gone; any other is told of a marker."""
    connections = recording.watchers[watcher]
    opened, status = connections[-1].opened, connections[-1].status
    if opened.scope != "event_id":
        if not any(told.is_marker for connection in connections for told in connection.told):
            yield f"{watcher}: was never told of the end marker"
        return
    changes = truth.of_event.get((opened.project, opened.scope_id), [])
    is_gone = not changes or changes[-1].kind == "DELETED" or changes[-1].expires <= recording.wall(opened.time)
    if status != "OK" and not (status.startswith("NOT_FOUND") and is_gone):
        yield f"{watcher}: the watch of its event came to no end, but to {status or 'nothing'}"


def _around(segment: Segment, change: Stored) -> str:
    """Between which messages a change is missing."""
    before = after = None
    for _, step, told in segment.news:
        if told.position < change.position:
            before = step
        elif after is None:
            after = step
    parts = [f"{step.connection} told {step.told.event_id} at {step.told.time:.3f}" for step in (before, after) if step]
    return f"; {' and then '.join(parts)}" if parts else ""


def exact_start(recording: Recording, truth: Truth) -> Iterator[str]:
    """At `synced` the picture equals the store, at a position after all that was acknowledged before the stream."""
    acknowledged = Acknowledged(recording, truth)
    for segment in segments(recording, truth):
        if segment.is_of_event:
            yield from _inexact_event(segment, acknowledged)
            continue
        start = start_of(segment, truth, recording, acknowledged)
        for event_id, (stored, pictured) in islice(start.differing.items(), SHOWN_MAX):
            at = segment.steps[segment.first_sync].connection
            yield f"{at}: at synced {event_id} was {_revision(pictured)}, but in the store {_revision(stored)}"
        yield from _late_initial(segment)
        yield from _unready_syncs(segment, truth, start, acknowledged)


def _inexact_event(segment: Segment, acknowledged: Acknowledged) -> Iterator[str]:
    newest = 0
    for step in segment.steps:
        if step.change is not None:
            newest = max(newest, step.change.position)
        if step.told.kind == "synced" and newest:
            wanted = acknowledged.up_to(segment.selection, step.connection.opened.time)
            if newest < wanted:
                yield f"{step.connection}: at synced the event was older than what was acknowledged before"


def _late_initial(segment: Segment) -> Iterator[str]:
    for index, step, change in segment.news:
        if step.told.kind == "INITIAL" and index > segment.first_sync:
            yield f"{step.connection}: {change} was told as INITIAL after synced"


def _unready_syncs(segment: Segment, truth: Truth, start: Start, acknowledged: Acknowledged) -> Iterator[str]:
    """Resumed streams that said `synced` before they had told what had been acknowledged when they were opened."""
    syncs = [
        (index, step.connection)
        for index, step in enumerate(segment.steps)
        if step.told.kind == "synced" and index > segment.first_sync
    ]
    if not syncs:
        return
    told_at = {change.position: index for index, _, change in segment.news}
    expected = sorted(
        (
            (acknowledged.at[change.position], told_at.get(change.position, len(segment.steps)), change)
            for change in truth.told(segment.selection)
            if change.position > start.position and change.position in acknowledged.at
        ),
        key=lambda each: each[0],
    )
    latest, place = None, 0
    for index, connection in syncs:
        while place < len(expected) and expected[place][0] < connection.opened.time:
            if latest is None or expected[place][1] > latest[1]:
                latest = expected[place]
            place += 1
        if latest is not None and latest[1] > index:
            yield f"{connection}: said synced, and {latest[2]}, acknowledged before it was opened, was not told"


def durable(recording: Recording, truth: Truth) -> Iterator[str]:
    """What was acknowledged is stored, and only what is stored is told, as it is."""
    yield from truth.defects()
    revisions = {(change.project, change.event_id, change.revision) for change in truth.changes}
    deleted = {(change.project, change.event_id) for change in truth.changes if change.kind == "DELETED"}
    for attempt in recording.attempts:
        if attempt.outcome != "acknowledged":
            continue
        key = (attempt.project, attempt.event_id)
        if (*key, attempt.revision) not in revisions if attempt.revision else key not in deleted:
            yield f"{attempt.call} of {attempt.event_id}, acknowledged at revision {attempt.revision}, is not stored"
    for segment in segments(recording, truth):
        for step in segment.steps:
            if step.told.is_change or step.told.kind == "unreadable":
                yield from _not_as_stored(step.told, step.change, step.connection)
    yield from _lost(recording, truth)


def _not_as_stored(told: Told, change: Stored | None, connection: Connection) -> Iterator[str]:
    what = f"{told.event_id} at revision {told.revision}"
    if change is None:
        yield f"{connection}: {told.kind} of {what} was told, which is not stored"
    elif told.kind in {"CREATED", "UPDATED"} and told.kind != change.kind:
        yield f"{connection}: {what} was told as {told.kind}, and is {change.kind}"
    elif told.state != change.state:
        yield f"{connection}: {what} was told as {told.state}, and is {change.state}"
    elif told.kind in {"CREATED", "UPDATED"} and told.previous != change.previous:
        yield f"{connection}: {what} was told to come from {told.previous or 'nothing'}, not {change.previous}"


def _lost(recording: Recording, truth: Truth) -> Iterator[str]:
    end = recording.wall(max((each.ended.time for each in recording.connections if each.ended), default=0.0))
    for key, changes in truth.of_event.items():
        if key not in truth.final and changes[-1].kind != "DELETED" and changes[-1].expires > end + PURGE_MILLISECONDS:
            yield f"{changes[-1]} is gone from the store"


def _revision(change: Stored | None) -> str:
    return f"at revision {change.revision}" if change else "absent"
