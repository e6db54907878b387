"""The server with a guarantee broken on purpose: `sabotaged_server.py NAME ...`, and then its usual flags.

Only for tests: each way shows that the checks find what they are there to find. All of them patch the parts of the
server from outside; nothing in the server knows of this.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any, Final

from tidings_server import __main__, server
from tidings_server.change import LAST_OF_ITS_TIME, Position
from tidings_server.limits import Limits
from tidings_server.record import Record
from tidings_server.sealing import Seal
from tidings_server.store.events import EventStore
from tidings_server.store.records import RecordStore
from tidings_server.watch.hub import Hub
from tidings_server.watch.scope_watch import ScopeWatch
from tidings_server.watch.state_watch import StateWatch
from tidings_server.watch.stream import Stream
from tidings_server.watch.subscription import Lagged, Subscription

SABOTAGES: Final[dict[str, Callable[[], None]]] = {}


def sabotage(work: Callable[[], None]) -> Callable[[], None]:
    SABOTAGES[work.__name__.replace("_", "-")] = work
    return work


def _before(owner: Any, name: str, is_skipped: Callable[..., bool]) -> None:
    """Let a method do nothing when this says so of its arguments."""
    original = getattr(owner, name)

    def patched(*arguments: Any) -> Any:
        return None if is_skipped(*arguments) else original(*arguments)

    setattr(owner, name, patched)


def _limited(**limits: Any) -> None:
    server.Limits = partial(Limits, **limits)


@sabotage
def read_before_subscribe() -> None:
    """A watcher hears nothing for a moment after it has begun to read."""
    born: dict[int, float] = {}
    _before(Subscription, "offer", lambda self, _: monotonic() < born.setdefault(id(self), monotonic()) + 0.5)


@sabotage
def drop_on_full_queue() -> None:
    _limited(watch_queue_max=1)
    _before(Subscription, "interrupt", lambda _, trouble: isinstance(trouble, Lagged))


@sabotage
def update_skipped() -> None:
    _before(Subscription, "offer", lambda *_: random.random() < 0.02)


@sabotage
def told_out_of_order() -> None:
    """Every other change waits until the next one has been told."""
    original = Stream.told
    held: dict[Stream, tuple[Any, ...]] = {}

    async def swapped(self: Stream, *told: Any) -> None:
        before = held.pop(self, None)
        if before is None:
            held[self] = told
        else:
            await original(self, *told)
            await original(self, *before)

    Stream.told = swapped


@sabotage
def bookmark_past_the_queue() -> None:
    """Changes wait for two seconds where no bookmark sees them."""
    original = Subscription.offer

    def offer(self: Subscription, change: Any) -> None:
        asyncio.get_running_loop().call_later(2.0, original, self, change)

    Subscription.offer = offer


@sabotage
def bookmark_of_a_silent_store_is_live() -> None:
    Hub.lag_seconds = property(lambda _: 0.0)


@sabotage
def token_not_advanced_on_empty_batches() -> None:
    _limited(ring_changes_max=1)
    ScopeWatch._place = property(lambda self: self._after(self._tail._given))


@sabotage
def snapshot_without_barrier() -> None:
    async def barrier(self: Hub) -> Position:
        await asyncio.sleep(0)
        return self.position

    Hub.barrier = barrier


@sabotage
def repeats_after_resume() -> None:
    original = Hub.missed

    def missed(self: Hub, after: Position, *rest: Any) -> Any:
        return original(self, Position(after.seconds - 2, 0, LAST_OF_ITS_TIME), *rest)

    Hub.missed = missed


@sabotage
def ok_without_terminal() -> None:
    StateWatch._is_final = lambda _: True


@sabotage
def expired_event_told() -> None:
    Record.is_gone = lambda self, _: self.deleted


@sabotage
def foreign_token_accepted() -> None:
    seal, open_ = Seal.seal, Seal.open
    Seal.seal = lambda self, content, _: seal(self, content, [])
    Seal.open = lambda self, token, _: open_(self, token, [])


@sabotage
def acknowledged_and_not_written() -> None:
    original = RecordStore._replace

    async def _replace(self: Any, record: Any, revision: int) -> bool:
        return random.random() < 0.05 or await original(self, record, revision)

    RecordStore._replace = _replace


@sabotage
def project_forgotten() -> None:
    original = EventStore._criteria

    async def _criteria(self: EventStore, query: Any) -> Any:
        return (await original(self, query))[1:]

    EventStore._criteria = _criteria


@sabotage
def heartbeat_forgotten() -> None:
    Stream.needs_bookmark = property(lambda _: False)
    Stream.due = property(lambda self: self._told_at + 3600)


if __name__ == "__main__":
    names = [argument for argument in sys.argv[1:] if argument in SABOTAGES]
    for name in names:
        SABOTAGES[name]()
    __main__.main([argument for argument in sys.argv[1:] if argument not in SABOTAGES])
