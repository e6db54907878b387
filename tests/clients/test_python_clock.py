"""The synchronous watch in the time of a clock that the test moves, on the channel of grpcio-testing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from queue import Queue
from threading import Thread
from typing import Any

import grpc_testing
import pytest

from steps import BOOKMARK, SYNCED, TERMINAL, UNAVAILABLE, End, change, fail
from tidings import TidingsError, Watch
from tidings.v1 import event_service_pb2
from tidings.v1.event_service_pb2 import WatchEventRequest, WatchEventResponse
from tidings.v1.event_service_pb2_grpc import EventServiceStub
from wire import WITHIN_SECONDS

SERVICE = event_service_pb2.DESCRIPTOR.services_by_name["EventService"]
METHOD = SERVICE.methods_by_name["WatchEvent"]


@dataclass(eq=False)
class Alarm:
    """What is to be done at a time."""

    clock: FakeClock
    time: float
    behavior: Callable[[], object]

    def cancel(self) -> None:
        self.clock.alarms.discard(self)


class FakeClock:
    """A clock that stands still until it is put forward."""

    def __init__(self) -> None:
        self.now = 0.0
        self.alarms: set[Alarm] = set()
        self.set: Queue[float] = Queue()
        """For how long each alarm was set."""

    def time(self) -> float:
        return self.now

    def call_in(self, behavior: Callable[[], object], delay: float) -> Alarm:
        alarm = Alarm(self, self.now + delay, behavior)
        self.alarms.add(alarm)
        self.set.put(delay)
        return alarm

    def forward(self, seconds: float) -> None:
        self.now += seconds
        for alarm in [each for each in self.alarms if each.time <= self.now]:
            self.alarms.discard(alarm)
            alarm.behavior()

    def next_alarm(self) -> float:
        return self.set.get(timeout=WITHIN_SECONDS)


class Reading:
    """A call that tells when the watch waits for its next message."""

    def __init__(self, call: Any, waits: Queue[None]) -> None:
        self._call = call
        self._waits = waits
        self.cancel = call.cancel

    def __next__(self) -> WatchEventResponse:
        self._waits.put(None)
        message: WatchEventResponse = next(self._call)
        return message


class Play:
    """A watch that is asked on threads, and the server's side of it."""

    def __init__(self, give_up_after: float | None = None) -> None:
        self.clock = FakeClock()
        self._channel = grpc_testing.channel([SERVICE], grpc_testing.strict_fake_time(0))
        self._waits: Queue[None] = Queue()
        stub = EventServiceStub(self._channel)
        self.watch: Watch[WatchEventResponse] = Watch(
            lambda request: Reading(stub.WatchEvent(request), self._waits),
            WatchEventRequest(event_id="ev"),
            give_up_after,
            self.clock,
        )

    def ask(self) -> Future[WatchEventResponse]:
        """The caller asks for the next message."""
        future: Future[WatchEventResponse] = Future()
        Thread(target=self._next, args=(future,), daemon=True).start()
        return future

    def _next(self, future: Future[WatchEventResponse]) -> None:
        try:
            future.set_result(next(self.watch))
        except (StopIteration, TidingsError) as error:
            future.set_exception(error)

    def stream(self) -> tuple[Any, Any]:
        """The request and the server's side of the next stream, when the watch waits for its first message."""
        _, request, rpc = self._channel.take_unary_stream(METHOD)
        rpc.send_initial_metadata(())
        self.waits()
        return request, rpc

    def waits(self) -> None:
        self._waits.get(timeout=WITHIN_SECONDS)


@pytest.fixture
def play() -> Iterator[Callable[..., Play]]:
    plays: list[Play] = []

    def begin(**options: Any) -> Play:
        plays.append(Play(**options))
        return plays[-1]

    yield begin
    for each in plays:
        each.watch.close()


def end(rpc: Any, how: End) -> None:
    rpc.terminate((("grpc-status-details-bin", how.details),) if how.details else (), how.code, "scripted")


def told(future: Future[WatchEventResponse]) -> WatchEventResponse:
    return future.result(WITHIN_SECONDS)


def with_token(message: WatchEventResponse, token: str) -> WatchEventResponse:
    copy = WatchEventResponse()
    copy.CopyFrom(message)
    copy.resume_token = token
    return copy


def test_it_waits_as_long_as_the_service_says_and_resumes(play: Callable[..., Play]) -> None:
    playing = play()
    asked = playing.ask()
    _, rpc = playing.stream()
    assert playing.clock.next_alarm() == 35, "the watchdog"
    rpc.send_response(change("INITIAL", 1, "ev", token="first"))
    assert told(asked).change.event.revision == 1
    asked = playing.ask()
    playing.waits()
    end(rpc, fail("UNAVAILABLE", "DRAINING", 7))
    assert playing.clock.next_alarm() == 7
    playing.clock.forward(6.9)
    assert not asked.done()
    playing.clock.forward(0.1)
    request, rpc = playing.stream()
    assert request == WatchEventRequest(event_id="ev", resume_token="first")
    rpc.send_response(change("UPDATED", 2, "ev"))
    assert told(asked).change.event.revision == 2


def test_it_leaves_a_stream_that_is_silent_past_the_heartbeats(play: Callable[..., Play]) -> None:
    playing = play()
    asked = playing.ask()
    _, rpc = playing.stream()
    assert playing.clock.next_alarm() == 35
    playing.clock.forward(20)
    rpc.send_response(with_token(BOOKMARK, "bookmark"))
    playing.waits()
    playing.clock.forward(15)
    assert playing.clock.next_alarm() == 20, "the bookmark has put it off to 55"
    playing.clock.forward(20)
    rpc.cancelled()
    assert playing.clock.next_alarm() <= 0.1, "then it goes on as after any other failure"
    playing.clock.forward(0.1)
    request, rpc = playing.stream()
    assert request.resume_token == "bookmark"
    rpc.send_response(SYNCED)
    assert told(asked).HasField("synced")


def test_the_time_that_the_caller_takes_is_nobodys_silence(play: Callable[..., Play]) -> None:
    playing = play()
    asked = playing.ask()
    _, rpc = playing.stream()
    rpc.send_response(SYNCED)
    told(asked)
    playing.clock.next_alarm()
    playing.clock.forward(1000)
    asked = playing.ask()
    playing.waits()
    assert playing.clock.next_alarm() == 35, "from now on"
    rpc.send_response(change("UPDATED", 2, "ev"))
    assert told(asked).change.event.revision == 2


def test_it_gives_up_when_told_to(play: Callable[..., Play]) -> None:
    playing = play(give_up_after=30)
    asked = playing.ask()
    playing.stream()
    assert playing.clock.next_alarm() == 30
    playing.clock.forward(30)
    with pytest.raises(TidingsError, match="no message within 30 s"):
        told(asked)


def test_it_is_over_after_its_end_and_after_an_error(play: Callable[..., Play]) -> None:
    finished, failed = play(), play()
    asked = finished.ask()
    _, rpc = finished.stream()
    rpc.send_response(TERMINAL[0])
    end(rpc, TERMINAL[1])
    with pytest.raises(StopIteration):
        told(asked)
    asked = failed.ask()
    _, rpc = failed.stream()
    end(rpc, fail("NOT_FOUND", "EVENT_NOT_FOUND"))
    with pytest.raises(TidingsError):
        told(asked)
    for each in (finished, failed):
        with pytest.raises(StopIteration):
            told(each.ask())


def test_another_thread_can_close_it_while_it_waits_for_a_message(play: Callable[..., Play]) -> None:
    playing = play()
    asked = playing.ask()
    _, rpc = playing.stream()
    playing.watch.close()
    rpc.cancelled()
    with pytest.raises(StopIteration):
        told(asked)


def test_another_thread_can_close_it_while_it_waits_to_reconnect(play: Callable[..., Play]) -> None:
    playing = play()
    asked = playing.ask()
    _, rpc = playing.stream()
    playing.clock.next_alarm()
    end(rpc, UNAVAILABLE)
    playing.clock.next_alarm()
    playing.watch.close()
    with pytest.raises(StopIteration):
        told(asked)


def test_no_timer_is_left_when_it_is_closed(play: Callable[..., Play]) -> None:
    playing = play()
    asked = playing.ask()
    _, rpc = playing.stream()
    rpc.send_response(SYNCED)
    told(asked)
    playing.watch.close()
    assert not playing.clock.alarms
