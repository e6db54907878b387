"""How a watch goes on: what both clients do between streams, without I/O and without a clock of its own.

Times are seconds of whatever monotonic clock the client uses.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from copy import deepcopy
from datetime import timedelta
from math import inf
from typing import Final, Generic, TypeVar

import grpc

from tidings.errors import TidingsError
from tidings.v1 import error_reason_pb2 as reasons
from tidings.v1.event_service_pb2 import (
    CHANGE_KIND_DELETED,
    CHANGE_KIND_EXPIRED,
    CLOSING_REASON_DRAINING,
    Closing,
    EventChange,
    WatchEventRequest,
    WatchEventResponse,
)
from tidings.v1.run_service_pb2 import RunChange, WatchRunRequest, WatchRunResponse

BACKOFF_BASE_SECONDS = 0.1
WATCHDOG_SLACK_SECONDS = 5.0
_BACKOFF_CAP_SECONDS: Final = 10.0
_TOLD_DELAY_CAP_SECONDS: Final = 60.0
"""The longest that the service may make a watch wait."""
_HEARTBEAT_DEFAULT_SECONDS: Final = 15.0
_LEAST_DURATION_SECONDS: Final = 1.0
_REMEMBERED_MAX: Final = 10_000

_ALWAYS_RETRIED: Final = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED}
)
_FROM_TRANSPORT: Final = frozenset({grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL})
"""Retried unless the service itself says so: else it is a proxy, or a connection that was reset."""
_RETRIED_REASONS: Final = frozenset(
    {reasons.ERROR_REASON_RATE_LIMITED, reasons.ERROR_REASON_WATCH_LIMIT, reasons.ERROR_REASON_WATCHER_STALLED}
)

WatchRequest = WatchEventRequest | WatchRunRequest
WatchResponse = TypeVar("WatchResponse", WatchEventResponse, WatchRunResponse)


class Resumption(Generic[WatchResponse]):
    """One watch across its streams. For each: `next_request`, `receive` per message, then `delay_after` its end."""

    def __init__(self, request: WatchRequest, give_up_after: float | None) -> None:
        self.resume_token: str = request.resume_token
        self.is_over = False
        self._request = deepcopy(request)
        self._give_up_after = inf if give_up_after is None else give_up_after
        self._delivered = _Delivered()
        self._failures = 0
        self._closing: Closing | None = None
        self._began_at: float | None = None
        self._waits_since = 0.0

    def begin_waiting(self, now: float) -> None:
        """The caller asks for a message; the time until now was spent on the one before, and is no silence."""
        self._waits_since = now

    def next_request(self, now: float) -> WatchRequest:
        """What to ask for in the next stream, unless the watch `is_over` now: its time is over."""
        request = deepcopy(self._request)
        self._closing = None
        if self.resume_token:
            request.resume_token = self.resume_token
        if self._began_at is None:
            self._began_at = now
        elif request.HasField("max_duration"):
            left = self._seconds_left(now)
            self.is_over = left <= 0
            request.max_duration.FromTimedelta(timedelta(seconds=max(left, _LEAST_DURATION_SECONDS)))
        return request

    def deadline(self, now: float) -> float:
        """Until when the next message must have come, or else the stream is broken."""
        heartbeat = _HEARTBEAT_DEFAULT_SECONDS
        if self._request.HasField("heartbeat_interval"):
            heartbeat = self._request.heartbeat_interval.ToTimedelta().total_seconds()
        return min(now + 2 * heartbeat + WATCHDOG_SLACK_SECONDS, self._waits_since + self._give_up_after)

    def receive(self, message: WatchResponse, now: float) -> bool:
        """Take note of a message, and say whether it is one for the caller."""
        self._failures = 0
        self._waits_since = now
        self.resume_token = message.resume_token or self.resume_token
        match message.WhichOneof("message"):
            case "change":
                return self._delivered.add(message.change)
            case "synced":
                self._delivered.end_snapshot()
                return True
            case "reset":
                self._delivered.begin_snapshot()
                return True
            case "unreadable":
                return True
            case "closing":
                self._closing = message.closing
        return False

    def delay_after(self, error: TidingsError | None, now: float) -> float:
        """How long to wait after a stream that ended, with an error or with OK, unless the watch `is_over`.

        Raises the error if the next stream would not fare better, or when it is time to give up.
        """
        if error is not None and not _is_retried(error):
            self.is_over = True
            raise error
        if error is None and self._closing is not None and self._closing.reason != CLOSING_REASON_DRAINING:
            self.is_over = True
            return 0.0
        delay = self._delay(error)
        if now + delay >= self._waits_since + self._give_up_after:
            self.is_over = True
            text = f"no message within {self._give_up_after:g} s"
            raise TidingsError.local(grpc.StatusCode.DEADLINE_EXCEEDED, text) from error
        return min(delay, max(self._seconds_left(now), 0.0))

    def _seconds_left(self, now: float) -> float:
        """Of the time that the caller wants to watch."""
        if not self._request.HasField("max_duration") or self._began_at is None:
            return inf
        return self._began_at + self._request.max_duration.ToTimedelta().total_seconds() - now

    def _delay(self, error: TidingsError | None) -> float:
        told = None
        if self._closing is not None and self._closing.HasField("reconnect_after"):
            told = self._closing.reconnect_after.ToTimedelta().total_seconds()
        elif error is not None:
            told = error.retry_delay_seconds
        # With full jitter, so that the watches of a server that went away do not come back all at once.
        limit = min(BACKOFF_BASE_SECONDS * 2 ** min(self._failures, 32), _BACKOFF_CAP_SECONDS)
        self._failures += 1
        return random.uniform(0, limit) if told is None else min(max(told, 0.0), _TOLD_DELAY_CAP_SECONDS)  # noqa: S311


def _is_retried(error: TidingsError) -> bool:
    code = error.code()
    if code in _FROM_TRANSPORT:
        return not error.info.reason
    return code in _ALWAYS_RETRIED or error.reason in _RETRIED_REASONS


class _Delivered:
    """What the caller has been told last of each event or run, so that a snapshot begun again repeats nothing.

    Bounded, but while a snapshot lasts: of that nothing may be forgotten.
    """

    def __init__(self) -> None:
        self._newest: OrderedDict[str, tuple[int, int, bool]] = OrderedDict()
        self._is_snapshot = True

    def begin_snapshot(self) -> None:
        self._newest.clear()
        self._is_snapshot = True

    def end_snapshot(self) -> None:
        self._is_snapshot = False
        self._forget_oldest()

    def add(self, change: EventChange | RunChange) -> bool:
        """Remember a change, unless it is not newer than what was told before; whether it is."""
        resource = change.event if isinstance(change, EventChange) else change.run
        resource_id = change.event.event_id if isinstance(change, EventChange) else change.run.run_id
        created = resource.create_time.ToNanoseconds()
        # What expires, or is found to be gone, ends at the revision that was told.
        is_end = change.kind in (CHANGE_KIND_DELETED, CHANGE_KIND_EXPIRED)
        if last := self._newest.get(resource_id):
            last_created, last_revision, was_end = last
            # A partial change has no time of creation: it is one of the resource that is known.
            created = created or last_created
            if (created, resource.revision, is_end) <= (last_created or created, last_revision, was_end):
                return False
        self._newest[resource_id] = (created, resource.revision, is_end)
        self._newest.move_to_end(resource_id)
        if not self._is_snapshot:
            self._forget_oldest()
        return True

    def _forget_oldest(self) -> None:
        while len(self._newest) > _REMEMBERED_MAX:
            self._newest.popitem(last=False)
