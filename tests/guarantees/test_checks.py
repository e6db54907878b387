"""The checker is checked: a faultless run is clean, and each way of spoiling one is found by the right check."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from guarantees.checks import CHECKS, violations
from guarantees.entries import Attempt, Ended, Fault, Opened, Paused, Read, Told
from guarantees.ideal import EXPIRING, FOLLOWED, HERE, THERE, Run, ideal, told_of

Spoil = Callable[[Run, random.Random], None]
SPOILT: Final[list[tuple[str, Spoil]]] = []
LIVE = ("CREATED", "UPDATED", "DELETED")


def breaks(guarantee: str) -> Callable[[Spoil], Spoil]:
    def register(spoil: Spoil) -> Spoil:
        SPOILT.append((guarantee, spoil))
        return spoil

    return register


@breaks("Complete or loud")
def a_change_is_dropped(run: Run, chance: random.Random) -> None:
    del run.entries[chance.choice(run.places(chance.choice(["all", "run", "running"]), *LIVE)[:-1])]


@breaks("Complete or loud")
def a_transition_is_dropped(run: Run, chance: random.Random) -> None:
    moves = [place for place in run.places("one", "UPDATED") if run.told(place).previous]
    del run.entries[moves[0]]


@breaks("Complete or loud")
def a_watcher_starves(run: Run, chance: random.Random) -> None:
    for place in reversed(run.places(chance.choice(["all", "run", "running"]), *LIVE)[-5:]):
        del run.entries[place]


@breaks("Complete or loud")
def a_watch_of_an_event_never_ends(run: Run, chance: random.Random) -> None:
    run.put(replace(run.ended("one", 2), status="LEFT"))


@breaks("Complete or loud")
def what_was_not_asked_for_is_told(run: Run, chance: random.Random) -> None:
    outside = next(change for change in run.changes if change.project == HERE and not change.run_id)
    place = run.places("run", *LIVE)[-1]
    opened = run.opened("run", 2)
    run.entries.insert(place, told_of(outside, opened, outside.kind, run.told(place).time))


@breaks("Unique")
def a_change_is_repeated(run: Run, chance: random.Random) -> None:
    place = chance.choice(run.places(chance.choice(["all", "run", "one"]), *LIVE))
    run.entries.insert(place, run.entries[place])


@breaks("Unique")
def the_last_change_is_repeated_after_a_resume(run: Run, chance: random.Random) -> None:
    watcher = chance.choice(["all", "run", "one"])
    end = run.place_of(Ended, watcher, 1)
    last = max(place for place in run.places(watcher, "INITIAL", *LIVE) if place < end)
    run.entries.insert(run.place_of(Opened, watcher, 2) + 1, replace(run.told(last), number=2))


@breaks("Ordered")
def two_revisions_are_swapped(run: Run, chance: random.Random) -> None:
    watcher = chance.choice(["all", "one"])
    places = run.places(watcher, *LIVE)
    first, second = chance.choice(
        [
            (first, second)
            for index, first in enumerate(places)
            for second in places[index + 1 :]
            if run.told(first).event_id == run.told(second).event_id
        ]
    )
    run.entries[first], run.entries[second] = run.entries[second], run.entries[first]


@breaks("Ordered")
def two_events_of_a_run_are_swapped(run: Run, chance: random.Random) -> None:
    first, second = run.places("run", "INITIAL", "CREATED")[-2:]
    run.entries[first], run.entries[second] = run.entries[second], run.entries[first]


@breaks("Ordered")
def a_number_is_left_out_of_a_log(run: Run, chance: random.Random) -> None:
    place = chance.choice([index for index, change in enumerate(run.changes) if change.sequence])
    run.changes[place] = replace(run.changes[place], sequence=100)


@breaks("Exact start")
def synced_is_early(run: Run, chance: random.Random) -> None:
    place = run.places("all", "synced")[0]
    run.entries[place - 1], run.entries[place] = run.entries[place], run.entries[place - 1]


@breaks("Exact start")
def an_event_is_missing_from_the_snapshot(run: Run, chance: random.Random) -> None:
    del run.entries[chance.choice(run.places("all", "INITIAL"))]


@breaks("Exact start")
def synced_is_early_after_a_resume(run: Run, chance: random.Random) -> None:
    """The last of what was missed comes after it."""
    opened, synced = run.place_of(Opened, "all", 2), run.places("all", "synced")[1]
    # The acknowledgement of a deletion does not say which revision it is of: only other changes are known to be missed.
    assume(any(isinstance(each, Told) and each.kind != "DELETED" for each in run.entries[opened:synced]))
    run.entries.insert(opened + 1, run.entries.pop(synced))


@breaks("Exact start")
def the_snapshot_is_older_than_what_was_acknowledged(run: Run, chance: random.Random) -> None:
    late = [change.position for change in run.changes if change.event_id == FOLLOWED and change.project == HERE][1]
    run.put(replace(run.opened("one", 1), time=late + 0.3))


@breaks("Resumable")
def its_own_token_is_refused(run: Run, chance: random.Random) -> None:
    run.put(replace(run.ended(chance.choice(["all", "run"]), 2), status="INVALID_ARGUMENT RESUME_TOKEN_INVALID"))


@breaks("Resumable")
def the_token_of_another_watch_is_taken(run: Run, chance: random.Random) -> None:
    run.entries.insert(run.place_of(Opened, "run", 3) + 1, Told(5.0, "run", 3, "synced"))


@breaks("Resumable")
def a_watch_is_reset_for_no_reason(run: Run, chance: random.Random) -> None:
    watcher = chance.choice(["all", "run", "running", "one"])
    run.entries.insert(run.place_of(Opened, watcher, 2) + 1, Told(1000.0, watcher, 2, "reset"))


@breaks("Resumable")
def a_watch_ends_with_an_error_of_ours(run: Run, chance: random.Random) -> None:
    run.put(replace(run.ended("all", 1), status="INTERNAL INTERNAL"))


@breaks("Bookmarks are true")
def a_change_comes_after_a_bookmark_that_was_past_it(run: Run, chance: random.Random) -> None:
    places = run.places("all", *LIVE)
    bookmark = run.places("all", "bookmark")[0]
    early = [place for place in places if place < bookmark]
    run.entries.insert(bookmark, run.entries.pop(early[-2]))


@breaks("Bookmarks are true")
def a_bookmark_is_past_what_was_not_told(run: Run, chance: random.Random) -> None:
    missed = [place for place in run.places("all", *LIVE) if place > run.place_of(Opened, "all", 2)]
    del run.entries[missed[0]]


@breaks("Bookmarks are true")
def a_silent_store_is_called_live(run: Run, chance: random.Random) -> None:
    place = run.places("all", "bookmark")[0]
    time = run.told(place).time
    run.entries.append(Fault("store stopped, silent", -1, time - 20, time + 1))
    run.entries[place] = replace(run.told(place), lag=20.0)


@breaks("Bookmarks are true")
def a_bookmark_hides_how_long_the_store_has_been_silent(run: Run, chance: random.Random) -> None:
    place = run.places("all", "bookmark")[0]
    time = run.told(place).time
    run.entries.append(Fault("store stopped, silent", -1, time - 20, time + 1))
    run.entries[place] = replace(run.told(place), detail="STALLED")


@breaks("Fair and bounded")
def a_watcher_hears_nothing(run: Run, chance: random.Random) -> None:
    watcher = chance.choice(["all", "run", "running"])
    for number in (1, 2):
        run.put(replace(run.opened(watcher, number), heartbeat=1.0))
    run.put(replace(run.ended(watcher, 2), time=run.ended(watcher, 2).time + 60))


@breaks("Fair and bounded")
def a_reader_is_ended_too_soon(run: Run, chance: random.Random) -> None:
    ended = run.ended("all", 1)
    run.put(replace(ended, status="RESOURCE_EXHAUSTED WATCHER_STALLED"))
    run.entries.append(Paused("all", ended.time - 5, ended.time))


@breaks("OK means complete")
def a_watch_ends_with_ok_before_its_event_does(run: Run, chance: random.Random) -> None:
    del run.entries[run.places("one", "UPDATED")[-1]]


@breaks("OK means complete")
def a_watch_ends_with_ok_and_does_not_say_why(run: Run, chance: random.Random) -> None:
    del run.entries[run.places("one", "closing")[0]]


@breaks("OK means complete")
def a_project_ends_with_ok(run: Run, chance: random.Random) -> None:
    run.put(replace(run.ended("all", 1), status="OK"))


@breaks("OK means complete")
def something_follows_closing(run: Run, chance: random.Random) -> None:
    place = run.places("one", "closing")[0]
    run.entries[place - 1], run.entries[place] = run.entries[place], run.entries[place - 1]


@breaks("Expiry")
def an_expiry_is_early(run: Run, chance: random.Random) -> None:
    place = run.places("expiring", "EXPIRED")[0]
    run.entries[place] = replace(run.told(place), time=run.told(place).time - 10)


@breaks("Expiry")
def an_expiry_is_late(run: Run, chance: random.Random) -> None:
    for kind in ("EXPIRED", "closing"):
        place = run.places("expiring", kind)[0]
        run.entries[place] = replace(run.told(place), time=run.told(place).time + 100)
    run.put(replace(run.ended("expiring", 1), time=run.ended("expiring", 1).time + 100))


@breaks("Expiry")
def an_expired_event_is_read(run: Run, chance: random.Random) -> None:
    expires = next(change.expires for change in run.changes if change.event_id == EXPIRING)
    run.entries.append(Read(HERE, EXPIRING, expires / 1000 + 0.001, "OK", "", 1, expires))


@breaks("Expiry")
def an_expired_event_is_in_a_snapshot(run: Run, chance: random.Random) -> None:
    place = run.places("all", "INITIAL")[0]
    run.entries[place] = replace(run.told(place), expires=1)


@breaks("Durable")
def an_acknowledged_write_is_not_stored(run: Run, chance: random.Random) -> None:
    run.entries.append(Attempt("author", HERE, "call", FOLLOWED, 50.0, 51.0, "acknowledged", "OK", 6))


@breaks("Durable")
def a_stored_change_is_lost(run: Run, chance: random.Random) -> None:
    place = chance.choice([place for place, change in enumerate(run.changes) if change.revision == 3])
    del run.changes[place]


@breaks("Durable")
def a_change_is_told_that_was_never_stored(run: Run, chance: random.Random) -> None:
    place = chance.choice(run.places("all", *LIVE))
    run.entries[place] = replace(run.told(place), updated=7)


@breaks("Durable")
def a_change_is_told_as_another_kind(run: Run, chance: random.Random) -> None:
    place = chance.choice(run.places("all", *LIVE))
    told = run.told(place)
    run.entries[place] = replace(told, kind="UPDATED" if told.kind == "CREATED" else "CREATED")


@breaks("Durable")
def a_change_is_told_in_another_state(run: Run, chance: random.Random) -> None:
    place = chance.choice(run.places("all", "INITIAL", *LIVE))
    run.entries[place] = replace(run.told(place), state="PAUSED")


@breaks("Isolated")
def an_event_of_another_project_is_told(run: Run, chance: random.Random) -> None:
    place = chance.choice(run.places("all", *LIVE))
    run.entries[place] = replace(run.told(place), agent=THERE)


@breaks("Isolated")
def what_is_not_there_is_answered_in_two_ways(run: Run, chance: random.Random) -> None:
    run.entries.append(Read(HERE, "other", 7.0, "NOT_FOUND EVENT_NOT_FOUND", 'event "other" is not yours'))


@breaks("Isolated")
def an_event_of_another_project_is_read(run: Run, chance: random.Random) -> None:
    run.entries.append(Read(THERE, EXPIRING, 7.0, "OK", "", 1, 10**15))


chances = st.integers(0, 2**32).map(random.Random)


@settings(max_examples=50, deadline=None)
@given(chances)
def test_a_faultless_run_is_clean(chance: random.Random) -> None:
    run = ideal(chance)
    assert violations(run.recording, run.truth) == []


@settings(max_examples=20, deadline=None)
@given(chance=chances)
def test_a_place_is_as_old_as_its_bookmark_says(chance: random.Random) -> None:
    run = ideal(chance)
    run.written = [990.0] * 1000
    stalled = Told(1000.0, "all", 1, "bookmark", detail="STALLED", lag=15.0)
    place = run.place_of(Ended, "all", 1)
    run.entries[place:place] = [stalled, Told(1000.5, "all", 1, "reset")]
    assert not list(CHECKS["Resumable"](run.recording, run.truth))
    run.entries[place] = replace(stalled, lag=0.5)
    assert list(CHECKS["Resumable"](run.recording, run.truth))


@settings(max_examples=20, deadline=None)
@given(chance=chances)
def test_a_bookmark_in_a_snapshot_says_nothing_of_the_age_of_its_place(chance: random.Random) -> None:
    run = ideal(chance)
    run.written = [990.0] * 1000
    place = run.place_of(Opened, "all", 1) + 1
    run.entries[place:place] = [
        Told(1000.0, "all", 1, "bookmark", detail="LIVE", lag=0.5),
        Told(1000.5, "all", 1, "reset"),
    ]
    assert not list(CHECKS["Resumable"](run.recording, run.truth))


@pytest.mark.parametrize(("guarantee", "spoil"), SPOILT, ids=[spoil.__name__ for _, spoil in SPOILT])
@settings(max_examples=20, deadline=None)
@given(chance=chances)
def test_a_run_that_is_spoilt_is_found_out(guarantee: str, spoil: Spoil, chance: random.Random) -> None:
    run = ideal(chance)
    assume(run.places("all", "INITIAL"))  # or there is nothing in the snapshot that could be spoilt
    spoil(run, chance)
    assert list(CHECKS[guarantee](run.recording, run.truth))


def test_every_guarantee_is_spoilt_in_some_way() -> None:
    assert {guarantee for guarantee, _ in SPOILT} == set(CHECKS)
