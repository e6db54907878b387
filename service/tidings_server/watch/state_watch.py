"""The watch of one event, or of one run with its plan: from what it is, through every change of its state, to its end.

The record carries its transitions, so this watch needs no history of the store: whatever it missed, it reads the
record again and tells the transitions since.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from math import inf
from time import monotonic
from typing import Generic, TypeVar, cast

from tidings.v1 import error_reason_pb2 as reasons
from tidings.v1.event_pb2 import Event, StateTransition
from tidings.v1.event_service_pb2 import (
    CHANGE_KIND_DELETED,
    CHANGE_KIND_EXPIRED,
    CHANGE_KIND_INITIAL,
    CHANGE_KIND_UPDATED,
    CLOSING_REASON_DRAINING,
    CLOSING_REASON_TERMINAL,
    HISTORY_LOSS_POLICY_FAIL,
    ChangeKind,
    EventChange,
    WatchEventRequest,
)
from tidings.v1.run_pb2 import Run
from tidings.v1.run_service_pb2 import RunChange
from tidings.v1.task_pb2 import TASK_STATE_UNSPECIFIED, TaskState
from tidings_server.change import Change, HistoryLost
from tidings_server.clock import Clock, to_millis
from tidings_server.errors import Failure
from tidings_server.lifecycle import state_before
from tidings_server.limits import Limits
from tidings_server.record import Record
from tidings_server.watch.stream import Stream, WatchRequest, draining, history_lost
from tidings_server.watch.subscription import Draining, Lagged, Subscription
from tidings_server.watch.token import Place

S = TypeVar("S", bound=Event | Run)

_GONE = frozenset(
    {reasons.ERROR_REASON_EVENT_NOT_FOUND, reasons.ERROR_REASON_EVENT_EXPIRED, reasons.ERROR_REASON_RUN_NOT_FOUND}
)


@dataclass(frozen=True, slots=True)
class Followed(Generic[S]):
    """What is particular about following an event or a run."""

    read: Callable[[], Awaitable[S]]
    """Reads it as it is. Raises Failure NOT_FOUND when it is gone."""
    last: Callable[[], Awaitable[Record[S]]]
    """Reads its record as it was last, also when it is gone. Raises Failure NOT_FOUND when nothing is left of it."""
    is_final: Callable[[S], bool]
    """Whether nothing more is to be expected of it."""
    message: Callable[..., EventChange | RunChange]
    """Makes a change of a kind, a resource, a previous state, and perhaps partial."""
    at: Callable[[S, StateTransition], S]
    """What is known of it at a transition."""


class StateWatch(Generic[S]):
    """Follows one event or one run. `run` may be called once."""

    def __init__(
        self,
        followed: Followed[S],
        request: WatchRequest,
        stream: Stream,
        subscription: Subscription,
        clock: Clock,
        limits: Limits,
    ) -> None:
        self._followed = followed
        self._request = request
        self._stream = stream
        self._subscription = subscription
        self._clock = clock
        self._limits = limits
        self._seen = stream.resumed.revision or 0
        self._created = stream.resumed.create_time
        self._now: S | None = None
        """What was told last."""
        self._gone = False

    async def run(self) -> None:
        """Tell until the end. Raises Failure as `Followed.read`, and HISTORY_LOST, DRAINING, WATCH_MAX_AGE."""
        if isinstance(self._request, WatchEventRequest) and self._request.live_only:
            now = await self._followed.read()
            self._seen, self._created = now.revision, to_millis(now.create_time)
        await self._read()
        await self._stream.synced(self._place)
        while not self._is_final():
            try:
                await self._tell_next()
            except Draining:
                await self._stream.closing(self._place, CLOSING_REASON_DRAINING)
                raise draining() from None
            if self._stream.is_over:
                await self._stream.end(self._place)
                return
            if self._stream.needs_bookmark:
                await self._stream.bookmark(self._place)
        await self._stream.closing(self._place, CLOSING_REASON_TERMINAL)

    async def _tell_next(self) -> None:
        """Tell the next change, or what the event has become if none was heard."""
        heard = True
        change = None
        try:
            change = await self._subscription.next(min(self._stream.due, self._expiry()))
        except Lagged as lagged:
            self._subscription.begin_again(self._subscription.start)
            change = lagged.newest
        except HistoryLost:
            self._subscription.begin_again(self._subscription.start)
            heard = False
        if change is not None:
            await self._tell(change)
        elif not heard or self._expiry() <= monotonic():
            await self._read()

    @property
    def _place(self) -> Place:
        return Place(revision=self._seen, create_time=self._created)

    def _is_final(self) -> bool:
        assert self._now is not None
        return self._gone or (self._followed.is_final(self._now) and not self._request.stay_open)

    def _expiry(self) -> float:
        """When the resource expires, on the monotonic clock."""
        assert self._now is not None
        if not self._now.HasField("expire_time"):
            return inf
        return monotonic() + (to_millis(self._now.expire_time) - self._clock()) / 1000

    async def _read(self) -> None:
        """Tell what it has become while its changes were not heard."""
        try:
            resource = await self._followed.read()
        except Failure as gone:
            # A watch that begins has missed nothing.
            if not self._seen or gone.reason not in _GONE:
                raise
            await self._tell_missed_end(gone)
        else:
            await self._tell_up_to(resource, CHANGE_KIND_UPDATED)

    async def _tell_missed_end(self, gone: Failure) -> None:
        """Tell the end that came while nothing was heard, and what led to it. Raises `gone` if nothing is left."""
        try:
            record = await self._followed.last()
        except Failure as failure:
            if failure.reason not in _GONE:
                raise
            if self._now is None:
                raise gone from None
            await self._tell_end(CHANGE_KIND_EXPIRED if self._expiry() <= monotonic() else CHANGE_KIND_DELETED)
            return
        await self._tell_up_to(record.resource, CHANGE_KIND_DELETED if record.deleted else CHANGE_KIND_UPDATED)
        self._gone = True
        if not record.deleted:
            await self._tell_end(CHANGE_KIND_EXPIRED if record.is_gone(self._clock()) else CHANGE_KIND_DELETED)

    async def _tell(self, change: Change) -> None:
        """Tell a change from the hub, unless it was told already."""
        if change.resource is None:
            await self._stream.unreadable(self._place, change.unreadable_id)
        elif self._is_next(change):
            self._gone = change.kind == CHANGE_KIND_DELETED
            self._now, self._seen = cast("S", change.resource), change.resource.revision
            await self._stream.told(self._place, change)
        elif change.resource.revision > self._seen:
            self._gone = change.kind == CHANGE_KIND_DELETED
            await self._tell_up_to(cast("S", change.resource), change.kind)

    def _is_next(self, change: Change) -> bool:
        """Whether a change of the resource comes right after what was told last."""
        resource = cast("S", change.resource)
        return resource.revision == self._seen + 1 and to_millis(resource.create_time) == self._created

    async def _tell_up_to(self, resource: S, kind: ChangeKind.ValueType) -> None:
        """Tell what the resource has become, and before that the changes of its state since the revision told last."""
        if self._seen and self._is_history_lost(resource):
            if self._request.on_history_loss == HISTORY_LOSS_POLICY_FAIL:
                raise history_lost()
            await self._stream.reset()
            self._seen = 0
        self._now, self._created = resource, to_millis(resource.create_time)
        if not self._seen and kind != CHANGE_KIND_DELETED:
            await self._tell_as(CHANGE_KIND_INITIAL, resource)
        elif resource.revision > self._seen:
            for transition in resource.transitions:
                if self._seen and self._seen < transition.revision < resource.revision:
                    before: TaskState.ValueType = getattr(transition, "from")
                    then = self._followed.at(resource, transition)
                    await self._tell_as(CHANGE_KIND_UPDATED, then, before, partial=True)
            await self._tell_as(kind, resource, state_before(resource))

    def _tell_as(
        self,
        kind: ChangeKind.ValueType,
        resource: S,
        before: TaskState.ValueType = TASK_STATE_UNSPECIFIED,
        *,
        partial: bool = False,
    ) -> Awaitable[None]:
        self._seen = resource.revision
        change = self._followed.message(kind, resource, previous_state=before, partial=partial)
        return self._stream.change(self._place, change)

    def _tell_end(self, kind: ChangeKind.ValueType) -> Awaitable[None]:
        self._gone = True
        assert self._now is not None
        return self._stream.change(self._place, self._followed.message(kind, self._now))

    def _is_history_lost(self, resource: S) -> bool:
        """Whether transitions since the revision told last may have been dropped from the record.

        A record that is older than what was told was restored from a copy; one that was created at another time is
        of another resource with the id.
        """
        transitions = resource.transitions
        dropped = len(transitions) >= self._limits.transitions_max and transitions[0].revision > self._seen + 1
        return dropped or resource.revision < self._seen or to_millis(resource.create_time) != self._created
