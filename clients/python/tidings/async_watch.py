"""The asyncio watch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from time import monotonic
from types import TracebackType
from typing import Any, Generic, Self

import grpc

from tidings._resumption import Resumption, WatchRequest, WatchResponse
from tidings.errors import TidingsError


class AsyncWatch(AsyncIterator[WatchResponse], Generic[WatchResponse]):
    """The messages of a watch, in order and none twice, whatever becomes of the connection: it reconnects and resumes.

    Of the service's messages `change`, `synced`, `reset` and `unreadable` are for the caller; the others it acts on
    itself. It ends when there is nothing more to tell, and raises TidingsError only for what no retry can mend, or
    after `give_up_after` seconds without a message. Any task may close it.
    """

    def __init__(self, method: Callable[[Any], Any], request: WatchRequest, give_up_after: float | None = None) -> None:
        self._method = method
        self._resumption: Resumption[WatchResponse] = Resumption(request, give_up_after)
        self._call: Any = None
        self._closed = asyncio.Event()

    @property
    def resume_token(self) -> str:
        """With which another watch goes on after the newest message of this one; also after an error."""
        return self._resumption.resume_token

    async def __anext__(self) -> WatchResponse:
        self._resumption.begin_waiting(monotonic())
        while self._has_stream():
            try:
                message = await self._read()
            except grpc.aio.AioRpcError as error:
                await self._reconnect_after(TidingsError.of(error))
            else:
                if message is None:
                    await self._reconnect_after(None)
                elif self._resumption.receive(message, monotonic()):
                    return message
        raise StopAsyncIteration

    async def close(self) -> None:
        """End the watch: who iterates over it gets no more messages."""
        self._closed.set()
        if self._call is not None:
            self._call.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def _has_stream(self) -> bool:
        """Open a stream if there is none; False when the watch is at its end."""
        if self._call is None and not (self._closed.is_set() or self._resumption.is_over):
            request = self._resumption.next_request(monotonic())
            if not self._resumption.is_over:
                self._call = self._method(request)
        return not (self._closed.is_set() or self._resumption.is_over)

    async def _read(self) -> WatchResponse | None:
        """The next message of the stream, or None at its end."""
        now = monotonic()
        try:
            async with asyncio.timeout(self._resumption.deadline(now) - now):
                message = await self._call.read()
        except TimeoutError:
            raise TidingsError.local(grpc.StatusCode.CANCELLED, "the stream was silent for too long") from None
        except asyncio.CancelledError:
            self._call = None  # gRPC has ended it: who asks again, as after a wait with a timeout, gets another stream
            task = asyncio.current_task()
            if not self._closed.is_set() or (task is not None and task.cancelling()):
                raise
            return None
        return None if message is grpc.aio.EOF else message

    async def _reconnect_after(self, error: TidingsError | None) -> None:
        self._call = None
        if self._closed.is_set():
            return
        delay = self._resumption.delay_after(error, monotonic())
        with suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._closed.wait()
