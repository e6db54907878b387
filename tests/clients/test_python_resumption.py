"""The rules of going on, as the Python clients share them: what the conformance steps cannot wait for."""

from __future__ import annotations

import random

import grpc
import pytest

from steps import BOOKMARK, RESET, SYNCED, UNAVAILABLE, End, change, closing, fail
from tidings import TidingsError, _resumption
from tidings._resumption import Resumption
from tidings.v1.event_service_pb2 import CLOSING_REASON_DRAINING, WatchEventRequest, WatchEventResponse


def resumption(give_up_after: float | None = None, **fields: object) -> Resumption[WatchEventResponse]:
    request = WatchEventRequest(event_id="ev", **fields)  # type: ignore[arg-type]
    watch: Resumption[WatchEventResponse] = Resumption(request, give_up_after)
    watch.begin_waiting(0)
    watch.next_request(0)
    return watch


def error(end: End) -> TidingsError:
    trailers = grpc.aio.Metadata(("grpc-status-details-bin", end.details))
    return TidingsError(end.code, grpc.aio.Metadata(), trailers, "scripted")


@pytest.fixture
def longest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chance makes every wait as long as it may be."""
    monkeypatch.setattr(random, "uniform", lambda _, limit: limit)


@pytest.mark.usefixtures("longest")
def test_each_failure_in_a_row_may_wait_twice_as_long_up_to_ten_seconds() -> None:
    watch = resumption()
    delays = [watch.delay_after(error(UNAVAILABLE), 0) for _ in range(10)]
    assert delays == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10, 10])


@pytest.mark.usefixtures("longest")
def test_a_message_ends_the_row_of_failures() -> None:
    watch = resumption()
    for _ in range(5):
        watch.delay_after(error(UNAVAILABLE), 0)
    watch.receive(BOOKMARK, 0)
    assert watch.delay_after(error(UNAVAILABLE), 0) == pytest.approx(0.1)


def test_waits_are_spread_by_chance() -> None:
    delays = {resumption().delay_after(error(UNAVAILABLE), 0) for _ in range(20)}
    assert len(delays) == 20
    assert all(0 <= delay <= 0.1 for delay in delays)


def test_the_service_can_ask_for_a_minute_at_most() -> None:
    watch = resumption()
    assert watch.delay_after(error(fail("UNAVAILABLE", "DRAINING", 30)), 0) == 30
    assert watch.delay_after(error(fail("UNAVAILABLE", "DRAINING", 3600)), 0) == 60
    watch.receive(closing(CLOSING_REASON_DRAINING, 3600), 0)
    assert watch.delay_after(None, 0) == 60


def test_it_waits_no_longer_than_the_caller_wants_to_watch() -> None:
    watch = resumption(max_duration={"seconds": 10})
    assert watch.delay_after(error(fail("UNAVAILABLE", "DRAINING", 30)), 4) == 6
    watch.next_request(10)
    assert watch.is_over


def test_silence_is_two_heartbeats_and_five_seconds() -> None:
    assert resumption().deadline(100) == 135
    assert resumption(heartbeat_interval={"seconds": 60}).deadline(100) == 225


def test_it_gives_up_when_no_message_has_come_for_as_long_as_the_caller_said() -> None:
    watch = resumption(give_up_after=30)
    watch.receive(SYNCED, 10)
    assert watch.deadline(39) == 40, "not later, however long a heartbeat is"
    assert watch.delay_after(error(UNAVAILABLE), 39) < 1
    with pytest.raises(TidingsError, match="DEADLINE_EXCEEDED: no message within 30 s") as given_up:
        watch.delay_after(error(UNAVAILABLE), 40)
    assert isinstance(given_up.value.__cause__, TidingsError)
    assert watch.is_over


def test_what_the_caller_takes_for_a_message_is_not_silence() -> None:
    watch = resumption(give_up_after=30)
    watch.receive(SYNCED, 10)
    watch.begin_waiting(1000)
    assert watch.delay_after(error(UNAVAILABLE), 1020) < 1


def test_of_a_snapshot_nothing_is_forgotten_and_after_it_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_resumption, "_REMEMBERED_MAX", 3)
    watch = resumption()
    ids = [f"ev-{number}" for number in range(10)]
    assert [watch.receive(change("INITIAL", 1, each), 0) for each in ids] == [True] * 10
    assert [watch.receive(change("INITIAL", 1, each), 0) for each in ids] == [False] * 10
    watch.receive(SYNCED, 0)
    assert [watch.receive(change("UPDATED", 1, each), 0) for each in ids[-3:]] == [False] * 3
    watch.receive(change("UPDATED", 2, ids[-3]), 0)
    watch.receive(change("CREATED", 1, "new"), 0)
    kept = [ids[-3], ids[-1], "new"]
    assert not any(watch.receive(change("UPDATED", 1, each), 0) for each in kept)
    assert watch.receive(change("UPDATED", 1, ids[-2]), 0), "it changed longest ago"


def test_after_a_reset_a_snapshot_is_remembered_whole_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_resumption, "_REMEMBERED_MAX", 3)
    watch = resumption()
    watch.receive(SYNCED, 0)
    watch.receive(RESET, 0)
    for _ in range(2):
        news = [watch.receive(change("INITIAL", 1, f"ev-{number}"), 0) for number in range(10)]
    assert not any(news)


def test_the_callers_request_is_left_as_it_is() -> None:
    request = WatchEventRequest(event_id="ev", live_only=True)
    watch: Resumption[WatchEventResponse] = Resumption(request, None)
    watch.receive(change("CREATED", 1, "ev", token="t"), 0)
    assert watch.next_request(0) == WatchEventRequest(event_id="ev", resume_token="t")
    assert request == WatchEventRequest(event_id="ev", live_only=True)
