"""What is tested: one store, server processes with a proxy on either side, two projects, and their keys."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import grpc

from guarantees.proxy import Proxy
from process import ServerProcess, server_process
from tidings_server.embedded import EmbeddedStore

PROJECTS: Final = ("north", "south")
"""Both use the same ids, so that one's events show in the other's watches if anything leaks."""
CHANNEL: Final = (
    ("grpc.use_local_subchannel_pool", 1),  # a connection for every channel, as separate clients have
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 500),
)
START_ATTEMPTS: Final = 5
NARROW: Final = ("grpc.http2.bdp_probe", 0)
"""The transport then holds kilobytes for a reader that has stopped, not megabytes."""


class Node:
    """One server: a process, which may be replaced, behind a proxy; and a proxy between it and the store."""

    def __init__(self, store: EmbeddedStore, database: str, program: Sequence[str]) -> None:
        self.front = Proxy(lambda: self._port)
        self.back = Proxy(lambda: int(store.uri.partition("/?")[0].rpartition(":")[2]))
        self._database = database
        self._program = program
        self._port = 0
        self.entries: list[dict[str, Any]] = []
        """What the processes that are gone have logged."""

    async def start(self) -> None:
        """Start, and again if the store fails just then in a way that ends the process, as an operator would."""
        for attempts_left in reversed(range(START_ATTEMPTS)):
            try:
                await self._start()
            except AssertionError:
                await self.gone()
                if not attempts_left:
                    raise
            else:
                return

    async def _start(self) -> None:
        self._running = AsyncExitStack()
        uri = f"mongodb://127.0.0.1:{self.back.port}/?directConnection=true"
        arguments = ["--mongodb-uri", uri, "--mongodb-database", self._database, "--drain-seconds", "3"]
        self.process: ServerProcess = await self._running.enter_async_context(
            server_process(*arguments, program=self._program)
        )
        self._port = (await self.process.logged("serving"))["port"]

    async def kill(self) -> None:
        """End the process, which may be stopped, as the kernel does when memory is short."""
        self.process.send(signal.SIGKILL)
        await self.gone()

    async def gone(self) -> None:
        """Return when the process has ended."""
        await self.process.exit_code()
        self.entries += self.process.unread()
        await self._running.aclose()

    async def restart(self) -> None:
        """As an operator does: it drains, ends and starts again."""
        self.process.send(signal.SIGTERM)
        await self.gone()
        await self.start()


class Deployment:
    def __init__(self, store: EmbeddedStore, nodes: list[Node], keys: dict[str, str]) -> None:
        self.store = store
        self.nodes = nodes
        self._keys = keys

    def credential(self, project: str) -> tuple[tuple[str, str], ...]:
        return (("x-api-key", self._keys[project]),)

    def channel(self, server: int, *more: tuple[str, int]) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(f"127.0.0.1:{self.nodes[server].front.port}", options=[*CHANNEL, *more])

    def signal_store(self, number: signal.Signals) -> None:
        os.kill(self.store.pid, number)


@asynccontextmanager
async def deployed(
    store: EmbeddedStore, database: str, *, servers: int = 2, program: Sequence[str] = ("-m", "tidings_server")
) -> AsyncIterator[Deployment]:
    async with AsyncExitStack() as stack:
        keys = {project: await _key(store.uri, database, project) for project in PROJECTS}
        nodes = [Node(store, database, program) for _ in range(servers)]
        for node in nodes:
            await stack.enter_async_context(node.front)
            await stack.enter_async_context(node.back)
            await node.start()
            stack.push_async_callback(node.kill)
        yield Deployment(store, nodes, keys)


@asynccontextmanager
async def restarted(store: EmbeddedStore) -> AsyncIterator[None]:
    """Inside, the store is started again whenever it is killed; that it is silent is no reason to kill it."""

    async def probe() -> None:
        return

    supervision = asyncio.create_task(store.supervise(probe))
    try:
        yield
    finally:
        supervision.cancel()
        await asyncio.wait([supervision])


async def _key(uri: str, database: str, project: str) -> str:
    arguments = ["keys", "create", "--project", project, "--mongodb-uri", uri, "--mongodb-database", database]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tidings_server", *arguments, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output.decode().strip()
