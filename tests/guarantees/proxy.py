"""A TCP proxy that can be told to misbehave: to be slow, to cut in the middle of a frame, to swallow, to reset."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Self

CHUNK_BYTES: Final = 64 * 1024
RESET_AT_CLOSE: Final = struct.pack("ii", 1, 0)


class Proxy:
    """Forwards connections on `port` to wherever `upstream` says at the time, while entered."""

    def __init__(self, upstream: Callable[[], int]) -> None:
        self._upstream = upstream
        self._pairs: set[_Pair] = set()
        self.delay_seconds = 0.0
        self._passing = asyncio.Event()
        self._passing.set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=CHUNK_BYTES)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.reset()
        await asyncio.gather(*(pair.done for pair in self._pairs), return_exceptions=True)

    def reset(self) -> None:
        """End every connection with a reset, without a word."""
        for pair in list(self._pairs):
            pair.reset()

    def cut(self) -> None:
        """End every connection after the first half of what it carries next."""
        for pair in self._pairs:
            pair.is_cut = True

    def swallow(self) -> None:
        """Take and give nothing, on old connections and new ones, until `heal`."""
        self._passing.clear()

    def heal(self) -> None:
        """Behave. Connections that were swallowed are dead, as they are after a network has come back."""
        self.delay_seconds = 0.0
        if not self._passing.is_set():
            self.reset()
        self._passing.set()

    async def pass_on(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        if self.delay_seconds:
            await asyncio.sleep(self.delay_seconds)
        await self._passing.wait()
        writer.write(data)
        await writer.drain()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._passing.wait()
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._upstream(), limit=CHUNK_BYTES)
        except OSError:
            _reset(writer)
            return
        pair = _Pair(self, [(reader, up_writer), (up_reader, writer)])
        self._pairs.add(pair)
        try:
            await pair.done
        finally:
            self._pairs.discard(pair)


class _Pair:
    """The two ways of one connection; when one ends both do."""

    def __init__(self, proxy: Proxy, ways: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]) -> None:
        self._proxy = proxy
        self._writers = [writer for _, writer in ways]
        self._tasks = [asyncio.create_task(self._forward(*way)) for way in ways]
        self.is_cut = False
        self.done = asyncio.create_task(self._end())

    def reset(self) -> None:
        for writer in self._writers:
            _reset(writer)
        for task in self._tasks:
            task.cancel()

    async def _end(self) -> None:
        await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                if self.is_cut:
                    writer.write(data[: len(data) // 2])
                    return
                await self._proxy.pass_on(data, writer)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close so that the other side sees a reset."""
    connection = writer.get_extra_info("socket")
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
    writer.transport.abort()
