"""What every watch has in common: its tokens, its heartbeat, its end, and the messages it is told in."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from time import monotonic
from typing import Any, Final, Generic, TypeVar

from tidings.v1 import error_reason_pb2 as reasons
from tidings.v1.event_service_pb2 import (
    CLOSING_REASON_DRAINING,
    RESET_REASON_HISTORY_LOST,
    SOURCE_STATE_LIVE,
    SOURCE_STATE_STALLED,
    Bookmark,
    Closing,
    ClosingReason,
    EventChange,
    Reset,
    Synced,
    Unreadable,
    WatchEventRequest,
    WatchEventResponse,
)
from tidings.v1.run_service_pb2 import RunChange, WatchRunRequest, WatchRunResponse
from tidings_server.change import Change, Position
from tidings_server.clock import to_duration, to_millis
from tidings_server.errors import Failure
from tidings_server.watch.hub import Hub
from tidings_server.watch.token import NOWHERE, Place, Tokens

HEARTBEAT_SECONDS_DEFAULT: Final = 15.0
RECONNECT_AFTER_MILLISECONDS: Final = 500

WatchRequest = WatchEventRequest | WatchRunRequest
M = TypeVar("M", bound=WatchEventResponse | WatchRunResponse)


class Stream(Generic[M]):
    """One watch as its caller sees it: makes the messages and knows when the next one is due."""

    def __init__(
        self, hub: Hub, tokens: Tokens, fingerprint: Sequence[bytes], request: WatchRequest, response: type[M]
    ) -> None:
        """The messages are of the type `response`."""
        self._response = response
        self._id_name = "event_id" if response is WatchEventResponse else "run_id"
        self._hub = hub
        self._tokens = tokens
        self._fingerprint = fingerprint
        self._heartbeat = _seconds(request, "heartbeat_interval") or HEARTBEAT_SECONDS_DEFAULT
        self._told_at = monotonic()
        duration = _seconds(request, "max_duration")
        self._end = monotonic() + duration if duration else float("inf")
        self.resumed = tokens.read(request.resume_token, fingerprint) if request.resume_token else NOWHERE

    @property
    def due(self) -> float:
        """When, on the monotonic clock, something must be told or the stream must end."""
        return min(self._told_at + self._heartbeat, self._end)

    @property
    def is_over(self) -> bool:
        return monotonic() >= self._end

    @property
    def needs_bookmark(self) -> bool:
        return monotonic() >= self._told_at + self._heartbeat

    def change(self, place: Place, change: EventChange | RunChange) -> M:
        return self._message(place, change=change)

    def unreadable(self, place: Place, resource_id: str) -> M:
        return self._message(place, unreadable=Unreadable(**{self._id_name: resource_id}))

    def synced(self, place: Place) -> M:
        return self._message(place, synced=Synced())

    def bookmark(self, place: Place) -> M:
        state = SOURCE_STATE_LIVE if self._hub.is_live else SOURCE_STATE_STALLED
        lag = to_duration(int(self._hub.lag_seconds * 1000))
        return self._message(place, bookmark=Bookmark(source_lag=lag, source_state=state))

    def reset(self) -> M:
        return self._message(NOWHERE, reset=Reset(reason=RESET_REASON_HISTORY_LOST))

    def closing(self, place: Place, reason: ClosingReason.ValueType) -> M:
        closing = Closing(reason=reason)
        if reason == CLOSING_REASON_DRAINING:
            closing.reconnect_after.CopyFrom(to_duration(RECONNECT_AFTER_MILLISECONDS))
        return self._message(place, closing=closing)

    def _message(
        self,
        place: Place,
        *,
        change: Any = None,  # an EventChange or a RunChange, as the response has
        synced: Synced | None = None,
        bookmark: Bookmark | None = None,
        reset: Reset | None = None,
        closing: Closing | None = None,
        unreadable: Unreadable | None = None,
    ) -> M:
        self._told_at = monotonic()
        return self._response(
            resume_token=self._tokens.write(place, self._fingerprint),
            change=change,
            synced=synced,
            bookmark=bookmark,
            reset=reset,
            closing=closing,
            unreadable=unreadable,
        )


def event_change(change: Change) -> EventChange:
    return EventChange(kind=change.kind, event=change.event, previous_state=change.previous_state)


def after(position: Position) -> Place:
    return Place(position=position)


def draining() -> Failure:
    return Failure(reasons.ERROR_REASON_DRAINING, "the server shuts down: resume on another one")


def history_lost() -> Failure:
    return Failure(
        reasons.ERROR_REASON_HISTORY_LOST,
        "changes since the resume token are no longer stored: begin without one",
    )


async def ended_when_stalled(messages: AsyncGenerator[M], stall_seconds: float) -> AsyncGenerator[M]:
    """The same messages, ended with WATCHER_STALLED when the reader took that long to take one."""
    async with aclosing(messages):
        async for message in messages:
            offered_at = monotonic()
            yield message
            if monotonic() - offered_at > stall_seconds:
                raise Failure(
                    reasons.ERROR_REASON_WATCHER_STALLED,
                    f"no message was taken for {stall_seconds:.0f} seconds: resume with the last token",
                )


def _seconds(request: WatchRequest, name: str) -> float:
    return to_millis(getattr(request, name)) / 1000
