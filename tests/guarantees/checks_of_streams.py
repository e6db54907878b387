"""The checks of how streams go on, keep alive and end, and of who is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from guarantees.entries import Fault, Told
from guarantees.recording import Connection, Recording
from guarantees.segments import Acknowledged, Segment, segments, start_of
from guarantees.truth import Truth

LATE_SECONDS: Final = 5.0
"""How late a thing may be on a busy machine before it counts as not happening."""
SILENT_SECONDS: Final = 12.0
"""When a store has said nothing for as long as this, no bookmark may call it live."""
STALL_SECONDS: Final = 60.0
TOKEN_SECONDS: Final = 3.0
"""How much older than its message a token may be: the canary moves it every two seconds."""
SYNC_SECONDS: Final = 10.0
"""What a watch may take to be synced when nothing is wrong."""
CLOCK_MILLISECONDS: Final = 2
TRANSITIONS_KEPT: Final = 64

TRANSPORT: Final = frozenset({"", "LEFT", "UNAVAILABLE", "CANCELLED", "DEADLINE_EXCEEDED"})
"""How a stream may end whatever was asked."""


def resumable(recording: Recording, truth: Truth) -> Iterator[str]:
    """A token is taken by every server as long as the store has the changes since, and by no other watch."""
    for connections in recording.watchers.values():
        last: Told | None = None
        fresh = 0.0
        for connection in connections:
            opened, code = connection.opened, connection.status.partition(" ")[0]
            if opened.start == "foreign":
                yield from _taken_foreign(recording, connection, code)
                continue
            if code == "INVALID_ARGUMENT":
                yield f"{connection}: its own token was refused with {connection.status}"
            if code in {"INTERNAL", "UNKNOWN", "DATA_LOSS"} and not _may_fail(recording, connection):
                yield f"{connection}: ended with {connection.status}"
            # What is told before `synced` is as old as the token that was resumed from, or as the snapshot's beginning.
            is_fresh = opened.start == "live"
            fresh = fresh if opened.start == "resumed" else opened.time
            for told in connection.told:
                if told.kind == "reset" and not _may_be_lost(recording, truth, connection, last, fresh, told.time):
                    yield f"{connection}: was reset, though the store still had the changes since its token"
                # Until it is synced again it may be told of the same loss again.
                is_fresh = told.kind != "reset" and (is_fresh or told.kind == "synced")
                # A server that was stopped itself calls its place stale in the first thing that it tells again.
                last, fresh = told, told.time - told.lag if is_fresh and told.kind != "closing" else fresh
            ended_at = connection.ended.time if connection.ended else fresh
            if code == "OUT_OF_RANGE" and not _may_be_lost(recording, truth, connection, last, fresh, ended_at):
                yield f"{connection}: lost history that the store still had"


def _taken_foreign(recording: Recording, connection: Connection, code: str) -> Iterator[str]:
    if connection.told:
        yield f"{connection}: took the token of another watch, and told {connection.told[0].kind}"
    elif code in TRANSPORT or (code == "INTERNAL" and _may_fail(recording, connection)):
        return
    elif connection.status != "INVALID_ARGUMENT RESUME_TOKEN_INVALID":
        yield f"{connection}: the token of another watch was refused with {connection.status}"


def _may_fail(recording: Recording, connection: Connection) -> bool:
    """Whether the store gave errors that the service cannot know, or that make no sense where they were given."""
    end = connection.ended.time if connection.ended else connection.opened.time
    faults = recording.faults_between(connection.opened.time - LATE_SECONDS, end, connection.opened.server)
    return any("fatal" in fault.kind or "loses history" in fault.kind for fault in faults)


def _may_be_lost(
    recording: Recording, truth: Truth, connection: Connection, last_told: Told | None, since: float, until: float
) -> bool:
    """Whether the store may have dropped changes between what a watcher, or its server, had and a time."""
    opened = connection.opened
    if opened.scope == "event_id":
        return _may_have_lost_transitions(truth, connection, last_told)
    pauses = [each for each in recording.pauses.get(opened.watcher, ()) if each.end > since - STALL_SECONDS]
    begin = min([since - TOKEN_SECONDS, *(pause.begin for pause in pauses)])
    faults = recording.faults_between(begin, until, opened.server)
    if any("loses history" in fault.kind for fault in faults):
        return True
    begin = min([begin, *(fault.begin for fault in faults)])
    history_max = recording.begun.history_max
    return history_max > 0 and truth.entries_between(begin, until) >= history_max / 2


def _may_have_lost_transitions(truth: Truth, connection: Connection, last_told: Told | None) -> bool:
    opened = connection.opened
    known = None
    if last_told is not None:
        known = truth.by_key.get((opened.project, last_told.event_id, last_told.revision, last_told.updated))
    changes = truth.of_event.get((opened.project, opened.scope_id), [])
    if known is None:
        return len({change.created for change in changes}) > 1 or len(changes) >= TRANSITIONS_KEPT
    since = changes[changes.index(known) + 1 :]
    return any(change.created != known.created for change in since) or len(since) >= TRANSITIONS_KEPT - 1


def bookmarks_are_true(recording: Recording, truth: Truth) -> Iterator[str]:
    """Nothing at or before a bookmark comes after it, and none calls a silent store live."""
    acknowledged = Acknowledged(recording, truth)
    for segment in segments(recording, truth):
        yield from _late_changes(segment)
        if not segment.is_of_event:
            start = start_of(segment, truth, recording, acknowledged)
            yield from _skipped_by_bookmarks(segment, truth, start.position)
    silences = [fault for fault in recording.faults if "silent" in fault.kind]
    for connection in recording.connections:
        for told in connection.told:
            if told.kind == "bookmark":
                yield from _false_claims(recording, connection, told, silences)


def _late_changes(segment: Segment) -> Iterator[str]:
    """Changes that came after a bookmark, and are older than what was told before it."""
    bookmarks = [
        index
        for index, step in enumerate(segment.steps)
        if step.told.kind == "bookmark" and index > segment.first_sync  # before it only says that the stream is alive
    ]
    newest, claimed, place = 0, 0, 0
    for index, step, change in segment.news:
        while place < len(bookmarks) and bookmarks[place] < index:
            claimed, place = newest, place + 1
        if change.position < claimed:
            yield f"{step.connection}: {change} came after a bookmark that was past it"
        newest = max(newest, change.position)


def _skipped_by_bookmarks(segment: Segment, truth: Truth, start: int) -> Iterator[str]:
    """What a watcher that resumed from a bookmark was not told, though it came later than what was told before."""
    told = {change.position for _, _, change in segment.news}
    newest, bookmark = start, None
    for index, (before, step) in enumerate(zip([None, *segment.steps], segment.steps, strict=False)):
        if before is not None and before.connection is not step.connection:
            bookmark = before if before.told.kind == "bookmark" and index > segment.first_sync + 1 else None
        if step.change is None or not step.told.is_news:
            continue
        if bookmark is not None:
            for change in truth.told(segment.selection):
                if newest < change.position < step.change.position and change.position not in told:
                    yield f"{bookmark.connection}: its last bookmark was past {change}, which was never told"
                    break
        newest, bookmark = max(newest, step.change.position), None


def _false_claims(recording: Recording, connection: Connection, told: Told, silences: list[Fault]) -> Iterator[str]:
    for silence in silences:
        if silence.server not in {-1, connection.opened.server} or not silence.begin < told.time < silence.end:
            continue
        if recording.paused_between(connection.opened.watcher, told.time - LATE_SECONDS, told.time):
            continue
        silent_for = told.time - silence.begin
        if told.lag < silent_for - LATE_SECONDS:
            yield f"{connection}: a bookmark claims a lag of {told.lag:.1f} s after a silence of {silent_for:.1f} s"
        if told.detail == "LIVE" and silent_for > SILENT_SECONDS:
            yield f"{connection}: a bookmark calls a store live that was silent for {silent_for:.1f} s"


def fair_and_bounded(recording: Recording, truth: Truth) -> Iterator[str]:
    """Nobody who reads is kept waiting or sent away; who does not read is, after 60 seconds."""
    del truth
    for connection in recording.connections:
        opened, ended = connection.opened, connection.ended
        if ended is not None and connection.status == "RESOURCE_EXHAUSTED WATCHER_STALLED":
            faults = recording.faults_between(opened.time, ended.time, opened.server)
            hindered = recording.paused_between(opened.watcher, opened.time, ended.time)
            hindered += sum(fault.end - fault.begin for fault in faults)
            if hindered < STALL_SECONDS - 1:
                yield f"{connection}: was ended as stalled, though it had not read for {hindered:.0f} s only"
        yield from _silences(recording, connection)


def _silences(recording: Recording, connection: Connection) -> Iterator[str]:
    opened = connection.opened
    times = [told.time for told in connection.told if told.kind != "closing"]
    if not any(told.kind == "synced" for told in connection.told):
        yield from _never_synced(recording, connection)
        return
    if connection.ended is not None:
        times.append(connection.ended.time)
    for before, after in pairwise(times):
        if after - before <= opened.heartbeat + LATE_SECONDS:
            continue
        disturbed = recording.faults_between(before - LATE_SECONDS, after, opened.server)
        if not disturbed and not recording.paused_between(opened.watcher, before - LATE_SECONDS, after):
            yield f"{connection}: nothing came for {after - before:.1f} s, with a heartbeat of {opened.heartbeat:.0f} s"


def _never_synced(recording: Recording, connection: Connection) -> Iterator[str]:
    opened, ended = connection.opened, connection.ended
    if ended is None or ended.time < opened.time + SYNC_SECONDS or opened.start == "foreign":
        return
    disturbed = recording.faults_between(opened.time - SYNC_SECONDS, ended.time, opened.server)
    if not disturbed and not recording.paused_between(opened.watcher, opened.time, ended.time):
        yield f"{connection}: was not synced in {ended.time - opened.time:.1f} s"


def ok_means_complete(recording: Recording, truth: Truth) -> Iterator[str]:
    """A stream ends with OK only after a final change, or at the caller's own max_duration."""
    for connections in recording.watchers.values():
        last: Told | None = None
        for connection in connections:
            if connection.opened.start in {"snapshot", "live"}:  # it knows nothing of what was told before
                last = None
            for told, following in zip(connection.told, [*connection.told[1:], None], strict=False):
                last = told if told.is_change else last
                if told.kind == "closing" and following is not None:
                    yield f"{connection}: {following.kind} was told after closing"
            if connection.status == "OK" and (reason := _not_complete(connection, last, truth)):
                yield f"{connection}: ended with OK, {reason}"


def _not_complete(connection: Connection, last: Told | None, truth: Truth) -> str:
    opened, closing = connection.opened, connection.told[-1] if connection.told else None
    if closing is None or closing.kind != "closing":
        return "and no closing said why"
    if closing.detail == "MAX_DURATION":
        is_due = opened.max_duration and closing.time - opened.time >= opened.max_duration - LATE_SECONDS / 10
        return "" if is_due else "before its max_duration"
    if closing.detail != "TERMINAL" or opened.scope != "event_id":
        return f"for {closing.detail}"
    if last is None:  # a live watch of what was final already
        changes = truth.of_event.get((opened.project, opened.scope_id), ())
        return "" if any(change.is_final for change in changes) else "though its event is not final"
    change = truth.by_key.get((opened.project, last.event_id, last.revision, last.updated))
    is_final = change is not None and change.is_final and not opened.stay_open
    return "" if last.kind in {"DELETED", "EXPIRED"} or is_final else f"after {last.kind} {last.revision} {last.state}"


def expiry(recording: Recording, truth: Truth) -> Iterator[str]:
    """Nothing is read at or after its expire_time, and a watch of one event is told within a second of it."""
    for read in recording.reads:
        if read.status == "OK" and read.expires <= recording.wall(read.sent):
            yield f"{read.event_id} was read {recording.wall(read.sent) - read.expires:.0f} ms after its expire_time"
    for connection in recording.connections:
        for told in connection.told:
            yield from _told_against_expiry(recording, truth, connection, told)
        if connection.opened.scope == "event_id":
            yield from _late_expiry(recording, truth, connection)


def _told_against_expiry(recording: Recording, truth: Truth, connection: Connection, told: Told) -> Iterator[str]:
    if told.kind == "INITIAL" and told.expires <= recording.wall(connection.opened.time):
        yield f"{connection}: {told.event_id} was in the snapshot after its expire_time"
    if told.kind != "EXPIRED":
        return
    if connection.opened.scope != "event_id":
        yield f"{connection}: EXPIRED is for watches of one event"
    changes = truth.of_event.get((connection.opened.project, told.event_id), [])
    if not any(change.revision == told.revision and change.expires == told.expires for change in changes):
        yield f"{connection}: {told.event_id} was told to expire at another time than is stored"
    elif recording.wall(told.time) < told.expires - CLOCK_MILLISECONDS:
        yield f"{connection}: {told.event_id} was told to have expired before its expire_time"


def _late_expiry(recording: Recording, truth: Truth, connection: Connection) -> Iterator[str]:
    opened, ended = connection.opened, connection.ended
    synced = next((told.time for told in connection.told if told.kind == "synced"), None)
    changes = truth.of_event.get((opened.project, opened.scope_id), [])
    if synced is None or ended is None or not changes or changes[-1].kind == "DELETED":
        return
    if changes[-1].is_final and not opened.stay_open:
        return
    expires = changes[-1].expires / 1000 - recording.begun.wall_ahead
    until = expires + 1 + LATE_SECONDS
    if not synced < expires or ended.time < until:
        return
    if recording.faults_between(expires - LATE_SECONDS, until, opened.server):
        return
    if recording.paused_between(opened.watcher, expires - LATE_SECONDS, until):
        return
    if not any(told.kind == "EXPIRED" and told.time <= until for told in connection.told):
        yield f"{connection}: was not told that {opened.scope_id} had expired"


def isolated(recording: Recording, truth: Truth) -> Iterator[str]:
    """Nothing tells one project about another."""
    for connection in recording.connections:
        for told in connection.told:
            if told.is_change and told.agent != connection.opened.project:
                yield f"{connection}: {told.event_id} of project {told.agent} was told in {connection.opened.project}"
    answers: Counter[tuple[str, str]] = Counter()
    for read in recording.reads:
        if read.status == "OK" and (read.project, read.event_id) not in truth.of_event:
            yield f"{read.event_id} was read in project {read.project}, which has no such event"
        if read.status == "NOT_FOUND EVENT_NOT_FOUND":
            answers[read.status, read.text.replace(read.event_id, "…")] += 1
    if len(answers) > 1:
        yield f"what is not there is answered in several ways: {sorted(text for _, text in answers)}"
