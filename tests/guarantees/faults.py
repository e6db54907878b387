"""What is done to a deployment while it is watched, and recorded, so that the checks know whom to excuse, and of what.

The words in a kind matter to them: a store that `loses history` says so of changes that it may have, one that is
`silent` says nothing, and a `fatal` error is one that nobody is told how to treat.
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from time import monotonic
from typing import Any, Final

from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError

from guarantees.deployment import Deployment, Node
from guarantees.entries import Fault
from guarantees.proxy import Proxy
from guarantees.recording import Recorder
from guarantees.truth import Observer

RESUMABLE: Final = (6, 7, 43, 63, 89, 91, 133, 150, 189, 234, 262, 9001, 10107, 11600, 11602, 13388, 13435, 13436)
"""The errors after which a change stream may go on, as the drivers' specification lists them."""
HISTORY: Final = (136, 260, 280, 286)
FATAL: Final = (2, 59, 8000, 14031)
READS, WRITES = ("find", "aggregate", "getMore"), ("insert", "update", "commitTransaction")
STOPPED_SECONDS: Final = 6.0
"""How long a server is stopped before history is turned over: no store that is in use keeps less."""
SILENT_PART: Final = 0.6
AT_ONCE_MAX: Final = 3
BACK_SECONDS: Final = 20.0

Inject = Callable[[], Coroutine[Any, Any, None]]


class Faults:
    """Injects one fault after another, of the kinds that it was given."""

    def __init__(
        self,
        deployment: Deployment,
        client: AsyncMongoClient[dict[str, Any]],
        observer: Observer,
        recorder: Recorder,
        chance: random.Random,
        *,
        history_max: int,
        silent_seconds: float,
    ) -> None:
        self._deployment = deployment
        self._client = client
        self._observer = observer
        self._recorder = recorder
        self._chance = chance
        self._history_max = history_max
        self._silent_seconds = silent_seconds
        self._nodes = [asyncio.Lock() for _ in deployment.nodes]
        self._store = asyncio.Lock()
        self.kinds: dict[str, Inject] = {
            "server killed": self._kill_server,
            "server stopped": self._stop_server,
            "server drained": self._drain_server,
            "server stopped, history turned over": self._stop_server_and_forget,
            "store killed": self._kill_store,
            "store stopped, silent": self._stop_store,
            "store fails reads": lambda: self._fail("store fails reads", READS, RESUMABLE),
            "store fails writes": lambda: self._fail("store fails writes", WRITES, RESUMABLE),
            "store fails, fatal": lambda: self._fail("store fails, fatal", (*READS, *WRITES), FATAL),
            "store loses history": lambda: self._fail("store loses history", ("aggregate", "getMore"), HISTORY),
            "store drops connections": self._drop_connections,
            "store slow": self._slow_store,
            "store slow to tell changes": self._slow_changes,
            "history turned over": self._forget,
        }
        for side in ("front", "back"):
            self._add_network(side)

    async def inject(self, kinds: list[str], over: asyncio.Event, pause_seconds: float) -> None:
        """Inject faults of these kinds, each once before any comes twice, until it is over. Leaves all healed."""
        waiting: list[str] = []
        under_way: dict[str, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            while kinds and not over.is_set():
                await _wait(over, self._chance.uniform(0.2, 2 * pause_seconds))
                under_way = {kind: task for kind, task in under_way.items() if not task.done()}
                waiting = waiting or self._chance.sample(kinds, len(kinds))
                if len(under_way) < AT_ONCE_MAX and waiting[-1] not in under_way:
                    kind = waiting.pop()
                    under_way[kind] = group.create_task(self.kinds[kind]())

    def _add_network(self, side: str) -> None:
        where, silent = ("to clients", "") if side == "front" else ("to store", ", silent")

        def proxy(node: Node) -> Proxy:
            chosen: Proxy = getattr(node, side)
            return chosen

        async def slow(node: Node) -> None:
            proxy(node).delay_seconds = self._chance.uniform(0.02, 0.4)
            await self._last(4)
            proxy(node).heal()

        async def swallow(node: Node) -> None:
            proxy(node).swallow()
            await self._last(self._silent_seconds, SILENT_PART)
            proxy(node).heal()

        async def cut(node: Node) -> None:
            proxy(node).cut()
            await self._last(1)

        async def reset(node: Node) -> None:
            proxy(node).reset()

        ways = {"slow": slow, "cut": cut, "reset": reset, f"black hole{silent}": swallow}
        for name, way in ways.items():
            kind = f"network {where} {name}"
            self.kinds[kind] = lambda kind=kind, way=way: self._at_a_server(kind, way)  # type: ignore[misc]

    async def _at_a_server(self, kind: str, what: Callable[[Node], Awaitable[None]]) -> None:
        server = self._chance.randrange(len(self._deployment.nodes))
        async with self._recorded(kind, server):
            await what(self._deployment.nodes[server])

    @asynccontextmanager
    async def _recorded(self, kind: str, server: int = -1) -> AsyncIterator[None]:
        """One fault at a time for each server, and for the store, which is server -1."""
        async with self._store if server < 0 else self._nodes[server]:
            begin = monotonic()
            yield
            self._record(kind, server, begin)

    @asynccontextmanager
    async def _alone(self, kind: str, server: int) -> AsyncIterator[None]:
        """History is turned over within seconds here, not hours: who is cut off for a moment only must not miss it."""
        async with AsyncExitStack() as locks:
            for lock in (*self._nodes, self._store):
                await locks.enter_async_context(lock)
            begin = monotonic()
            yield
            self._record(kind, server, begin)

    def _record(self, kind: str, server: int, begin: float) -> None:
        self._recorder.add(Fault(kind, server, begin, monotonic()))
        self._recorder.counts[f"fault: {kind}"] += 1

    async def _last(self, seconds: float, least: float = 0.2) -> None:
        """Wait for so long, or down to a part of it."""
        await asyncio.sleep(self._chance.uniform(least, 1) * seconds)

    # Servers

    async def _kill_server(self) -> None:
        async def kill(node: Node) -> None:
            await node.kill()
            await self._last(1)
            await node.start()

        await self._at_a_server("server killed", kill)

    async def _stop_server(self) -> None:
        async def stop(node: Node) -> None:
            node.process.send(signal.SIGSTOP)
            await self._last(4)
            node.process.send(signal.SIGCONT)

        await self._at_a_server("server stopped", stop)

    async def _drain_server(self) -> None:
        await self._at_a_server("server drained", lambda node: node.restart())

    async def _stop_server_and_forget(self) -> None:
        server = self._chance.randrange(len(self._deployment.nodes))
        async with self._alone("server stopped, history turned over", server):
            process = self._deployment.nodes[server].process
            process.send(signal.SIGSTOP)
            await asyncio.sleep(STOPPED_SECONDS)
            await self._observer.churn(int(1.2 * self._history_max))
            process.send(signal.SIGCONT)

    # The store

    async def _kill_store(self) -> None:
        async with self._recorded("store killed"):
            killed = self._deployment.store.pid
            self._deployment.signal_store(signal.SIGKILL)
            async with asyncio.timeout(BACK_SECONDS):
                while self._deployment.store.pid == killed or not await self._answers():  # noqa: ASYNC110 (as a client would)
                    await asyncio.sleep(0.05)

    async def _answers(self) -> bool:
        try:
            await self._client.admin.command("ping")
        except PyMongoError:
            return False
        return True

    async def _stop_store(self) -> None:
        async with self._recorded("store stopped, silent"):
            self._deployment.signal_store(signal.SIGSTOP)
            await self._last(self._silent_seconds, SILENT_PART)
            self._deployment.signal_store(signal.SIGCONT)

    async def _forget(self) -> None:
        async with self._alone("history turned over", -1):
            await self._observer.churn(int(1.2 * self._history_max))

    async def _fail(self, kind: str, commands: tuple[str, ...], codes: tuple[int, ...]) -> None:
        code = self._chance.choice(codes)
        labels = ["ResumableChangeStreamError", "RetryableWriteError"] if code in RESUMABLE else []
        await self._fail_commands(kind, commands, errorCode=code, errorLabels=labels)

    async def _drop_connections(self) -> None:
        await self._fail_commands("store drops connections", (*READS, *WRITES), closeConnection=True)

    async def _slow_store(self) -> None:
        milliseconds = self._chance.choice((100, 500, 2500))
        how = {"blockConnection": True, "blockTimeMS": milliseconds}
        await self._fail_commands("store slow", (*READS, *WRITES), **how)

    async def _slow_changes(self) -> None:
        """A snapshot is then newer than what has been heard."""
        milliseconds = self._chance.choice((300, 800))
        how = {"blockConnection": True, "blockTimeMS": milliseconds}
        await self._fail_commands("store slow to tell changes", ("getMore",), **how)

    async def _fail_commands(self, kind: str, commands: tuple[str, ...], **how: Any) -> None:
        """Of the servers, not of the observer."""
        chosen = self._chance.sample(commands, self._chance.randint(1, len(commands)))
        times = self._chance.choice((1, 3, 20))
        data = {"failCommands": chosen, "appName": "tidings", **how}
        async with self._recorded(kind):
            await self._client.admin.command("configureFailPoint", "failCommand", mode={"times": times}, data=data)
            await self._last(3)
            await self._client.admin.command("configureFailPoint", "failCommand", mode="off")


async def _wait(over: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await over.wait()
