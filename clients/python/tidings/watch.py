"""The synchronous watch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event as Signal
from threading import Lock, Timer
from time import monotonic
from types import TracebackType
from typing import Any, Generic, Protocol, Self

import grpc

from tidings._resumption import Resumption, WatchRequest, WatchResponse
from tidings.errors import TidingsError


class Watch(Iterator[WatchResponse], Generic[WatchResponse]):
    """The messages of a watch, in order and none twice, whatever becomes of the connection: it reconnects and resumes.

    Of the service's messages `change`, `synced`, `reset` and `unreadable` are for the caller; the others it acts on
    itself. It ends when there is nothing more to tell, and raises TidingsError only for what no retry can mend, or
    after `give_up_after` seconds without a message. Any thread may close it.
    """

    def __init__(
        self,
        method: Callable[[Any], Any],
        request: WatchRequest,
        give_up_after: float | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._method = method
        self._clock = clock or _SystemClock()
        self._resumption: Resumption[WatchResponse] = Resumption(request, give_up_after)
        self._watchdog = _Watchdog(self._clock)
        self._call: Any = None
        self._woken = Signal()
        self._is_closed = False

    @property
    def resume_token(self) -> str:
        """With which another watch goes on after the newest message of this one; also after an error."""
        return self._resumption.resume_token

    def __next__(self) -> WatchResponse:
        self._resumption.begin_waiting(self._clock.time())
        while self._has_stream():
            try:
                with self._watchdog.watching(self._call, self._resumption.deadline(self._clock.time())):
                    message: WatchResponse = next(self._call)
            except grpc.RpcError as error:
                self._reconnect_after(TidingsError.of(error))
            except StopIteration:
                self._reconnect_after(None)
            else:
                if self._resumption.receive(message, self._clock.time()):
                    return message
        self.close()
        raise StopIteration

    def close(self) -> None:
        """End the watch: who iterates over it gets no more messages."""
        self._is_closed = True
        self._woken.set()
        self._watchdog.stop()
        if (call := self._call) is not None:
            call.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _has_stream(self) -> bool:
        """Open a stream if there is none; False when the watch is at its end."""
        if self._call is None and not (self._is_closed or self._resumption.is_over):
            request = self._resumption.next_request(self._clock.time())
            if not self._resumption.is_over:
                self._call = self._method(request)
        return not (self._is_closed or self._resumption.is_over)

    def _reconnect_after(self, error: TidingsError | None) -> None:
        self._call = None
        if self._is_closed:
            return
        delay = self._resumption.delay_after(error, self._clock.time())
        if delay > 0:
            self._woken.clear()
            waking = self._clock.call_in(self._woken.set, delay)
            if not self._is_closed:  # by another thread, whose signal may just have been cleared
                self._woken.wait()
            waking.cancel()


class _Cancellable(Protocol):
    def cancel(self) -> object: ...


class Clock(Protocol):
    """Seconds that only grow, and calls at a time to come, on a thread of the clock's."""

    def time(self) -> float: ...

    def call_in(self, behavior: Callable[[], object], delay: float) -> _Cancellable: ...


class _SystemClock:
    def time(self) -> float:
        return monotonic()

    def call_in(self, behavior: Callable[[], object], delay: float) -> Timer:
        timer = Timer(delay, behavior)
        timer.daemon = True
        timer.start()
        return timer


class _Watchdog:
    """Cancels a call that is silent for too long. A timer is a thread, so there is one per silence, not per message."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = Lock()
        self._watched: tuple[_Cancellable, float] | None = None
        self._timer: _Cancellable | None = None

    @contextmanager
    def watching(self, call: _Cancellable, deadline: float) -> Iterator[None]:
        with self._lock:
            self._watched = (call, deadline)
            if self._timer is None:
                self._arm(deadline)
        try:
            yield
        finally:
            with self._lock:
                self._watched = None

    def stop(self) -> None:
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _arm(self, deadline: float) -> None:
        self._timer = self._clock.call_in(self._check, max(deadline - self._clock.time(), 0.001))

    def _check(self) -> None:
        with self._lock:
            self._timer = None
            if self._watched is None:  # the caller is busy with a message
                return
            call, deadline = self._watched
            if deadline > self._clock.time():
                self._arm(deadline)
            else:
                call.cancel()
