"""What every watch has in common: its tokens, its heartbeat, its end, and the messages it tells."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from math import inf
from time import monotonic
from typing import Final, TypeAlias

from google.protobuf.message import Message

from tidings.v1 import error_reason_pb2 as reasons
from tidings.v1.event_service_pb2 import (
    CLOSING_REASON_DRAINING,
    CLOSING_REASON_MAX_AGE,
    CLOSING_REASON_MAX_DURATION,
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
from tidings_server.change import Change
from tidings_server.clock import to_duration, to_millis
from tidings_server.errors import Failure
from tidings_server.limits import Limits
from tidings_server.watch.hub import Hub
from tidings_server.watch.token import NOWHERE, Place, Tokens

HEARTBEAT_SECONDS_DEFAULT: Final = 15.0
RECONNECT_MILLISECONDS: Final = 100

WatchRequest = WatchEventRequest | WatchRunRequest
Send: TypeAlias = Callable[[bytes], Awaitable[None]]
"""Sends an encoded message, and returns when the transport has taken it."""


class Stream:
    """One watch as its caller sees it: tells the messages, and knows when the next one is due."""

    def __init__(
        self,
        hub: Hub,
        tokens: Tokens,
        fingerprint: tuple[bytes, ...],
        request: WatchRequest,
        response: type[WatchEventResponse] | type[WatchRunResponse],
        send: Send,
        limits: Limits,
    ) -> None:
        """The messages are of the type `response`. Raises Failure RESUME_TOKEN_INVALID."""
        self._response = response
        self._send = send
        self._id_name = "event_id" if response is WatchEventResponse else "run_id"
        self._hub = hub
        self._tokens = tokens
        self._fingerprint = fingerprint
        self._heartbeat = _seconds(request, "heartbeat_interval") or HEARTBEAT_SECONDS_DEFAULT
        self._told_at = monotonic()
        self._end = monotonic() + (_seconds(request, "max_duration") or inf)
        # Spread, or all that came at once would come again at once.
        self._too_old = monotonic() + limits.watch_age_seconds * random.uniform(0.8, 1)  # noqa: S311
        self.resumed = tokens.read(request.resume_token, fingerprint) if request.resume_token else NOWHERE

    @property
    def due(self) -> float:
        """When, on the monotonic clock, something must be told or the stream must end."""
        return min(self._told_at + self._heartbeat, self._end, self._too_old)

    @property
    def is_over(self) -> bool:
        return monotonic() >= min(self._end, self._too_old)

    @property
    def needs_bookmark(self) -> bool:
        return monotonic() >= self._told_at + self._heartbeat

    def told(self, place: Place, change: Change) -> Awaitable[None]:
        """Tell a change as it was offered."""
        self._told_at = monotonic()
        # Two messages of protobuf in a row are one with the fields of both
        # (https://protobuf.dev/programming-guides/encoding/#last-one-wins).
        return self._send(change.encoded + self._tokens.field(place, self._fingerprint))

    def change(self, place: Place, change: EventChange | RunChange) -> Awaitable[None]:
        return self._message(place, change=change)

    def unreadable(self, place: Place, resource_id: str) -> Awaitable[None]:
        return self._message(place, unreadable=Unreadable(**{self._id_name: resource_id}))

    def synced(self, place: Place) -> Awaitable[None]:
        return self._message(place, synced=Synced())

    def bookmark(self, place: Place) -> Awaitable[None]:
        state = SOURCE_STATE_LIVE if self._hub.is_live else SOURCE_STATE_STALLED
        lag = to_duration(int(self._hub.lag_seconds * 1000))
        return self._message(place, bookmark=Bookmark(source_lag=lag, source_state=state))

    def reset(self) -> Awaitable[None]:
        return self._message(NOWHERE, reset=Reset(reason=RESET_REASON_HISTORY_LOST))

    def closing(self, place: Place, reason: ClosingReason.ValueType) -> Awaitable[None]:
        closing = Closing(reason=reason)
        if reason in {CLOSING_REASON_DRAINING, CLOSING_REASON_MAX_AGE}:
            # Spread, so that those who leave together do not arrive together.
            spread = RECONNECT_MILLISECONDS + self._hub.watchers
            closing.reconnect_after.CopyFrom(to_duration(random.randrange(RECONNECT_MILLISECONDS, 2 * spread)))  # noqa: S311
        return self._message(place, closing=closing)

    async def end(self, place: Place) -> None:
        """Tell that the stream is over. Raises Failure WATCH_MAX_AGE unless its caller asked for it."""
        if monotonic() >= self._end:
            await self.closing(place, CLOSING_REASON_MAX_DURATION)
        else:
            await self.closing(place, CLOSING_REASON_MAX_AGE)
            raise Failure(
                reasons.ERROR_REASON_WATCH_MAX_AGE, "the watch has been open for long: resume with the last token"
            )

    def _message(self, place: Place, **message: Message) -> Awaitable[None]:
        self._told_at = monotonic()
        encoded: bytes = self._response(**message).SerializeToString()  # type: ignore[arg-type]
        return self._send(encoded + self._tokens.field(place, self._fingerprint))


def draining() -> Failure:
    return Failure(reasons.ERROR_REASON_DRAINING, "the server shuts down: resume on another one")


def history_lost() -> Failure:
    return Failure(
        reasons.ERROR_REASON_HISTORY_LOST,
        "changes since the resume token are no longer stored: begin without one",
    )


def _seconds(request: WatchRequest, name: str) -> float:
    return to_millis(getattr(request, name)) / 1000
