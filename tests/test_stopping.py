"""Stopping: the first signal drains, the second does not wait, and nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pymongo import AsyncMongoClient

from process import ServerProcess, is_running, server_process
from tidings.v1.event_service_pb2 import CLOSING_REASON_DRAINING, GetEventRequest, ProjectScope
from tidings.v1.task_service_pb2 import WaitTaskStatusRequest
from tidings_server.embedded import EmbeddedStore
from wire import WITHIN_SECONDS, Failed, Wire, ended, failure, take_synced

SIGNALS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])


@pytest.fixture(scope="module")
async def slow_store() -> AsyncIterator[EmbeddedStore]:
    """A store of this module's own, since it is made slow."""
    async with EmbeddedStore(None, arguments=["--enable-test-commands"]) as store:
        yield store


@asynccontextmanager
async def connected(process: ServerProcess) -> AsyncIterator[Wire]:
    port = (await process.logged("serving"))["port"]
    async with Wire(f"127.0.0.1:{port}") as wire:
        yield wire


@asynccontextmanager
async def slow_reads(store: EmbeddedStore, milliseconds: int) -> AsyncIterator[AsyncMongoClient[dict[str, Any]]]:
    """While this lasts, every find of the store takes a while longer."""
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(store.uri)
    data = {"failCommands": ["find"], "blockConnection": True, "blockTimeMS": milliseconds}
    await client.admin.command({"configureFailPoint": "failCommand", "mode": "alwaysOn", "data": data})
    try:
        yield client
    finally:
        await client.admin.command({"configureFailPoint": "failCommand", "mode": "off"})
        await client.close()


async def served_so_far(wire: Wire) -> None:
    """Return when the server has begun with the calls made before: it takes those of a connection in order."""
    for _ in range(2):
        await health_pb2_grpc.HealthStub(wire.channel).Check(health_pb2.HealthCheckRequest())


@SIGNALS
async def test_the_first_signal_ends_watches_finishes_calls_and_exits_with_0(
    slow_store: EmbeddedStore, number: signal.Signals
) -> None:
    async with server_process("--mongodb-uri", slow_store.uri) as process, connected(process) as wire:
        task = await wire.create_task()
        watch, waiting = (
            wire.watch(project=ProjectScope()),
            wire.tasks.WaitTaskStatus(WaitTaskStatusRequest(task_id=task.event_id)),
        )
        await take_synced(watch)
        health = health_pb2_grpc.HealthStub(wire.channel).Watch(health_pb2.HealthCheckRequest())
        assert (await health.read()).status == health_pb2.HealthCheckResponse.SERVING
        async with slow_reads(slow_store, 1000):
            slow_call = wire.events.GetEvent(GetEventRequest(event_id=task.event_id))
            await served_so_far(wire)
            process.send(number)

            messages, error = await ended(watch)
            assert messages[-1].closing.reason == CLOSING_REASON_DRAINING
            assert messages[-1].resume_token
            assert messages[-1].closing.reconnect_after.ToMilliseconds() > 0
            assert (error.code(), Failed(error).reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
            assert (await failure(waiting)).reason == "DRAINING"
            assert (await health.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            assert (await slow_call).event.event_id == task.event_id
        assert await process.exit_code() == 0


async def test_a_second_signal_does_not_wait_for_calls(slow_store: EmbeddedStore) -> None:
    async with server_process("--mongodb-uri", slow_store.uri) as process, connected(process) as wire:
        task = await wire.create_task()
        async with slow_reads(slow_store, 1400):
            slow_call = wire.events.GetEvent(GetEventRequest(event_id=task.event_id))
            await served_so_far(wire)
            process.send(signal.SIGTERM)
            await process.logged("draining")
            process.send(signal.SIGTERM)
            assert await process.exit_code() == 130
            assert (await failure(slow_call)).code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}


async def test_a_signal_while_waiting_for_the_store_stops_the_start() -> None:
    async with server_process("--mongodb-uri", "mongodb://127.0.0.1:1/?replicaSet=none") as process:
        await process.logged("waiting for the store")
        process.send(signal.SIGTERM)
        assert await process.exit_code() == 0


async def test_a_store_that_has_just_fallen_silent_does_not_hold_the_server_up() -> None:
    async with EmbeddedStore(None) as store, server_process("--mongodb-uri", store.uri) as process:
        await process.logged("serving")
        os.kill(store.pid, signal.SIGSTOP)
        try:
            process.send(signal.SIGTERM)  # while the change stream is being read, as it is nearly always
            assert await process.exit_code() == 0
        finally:
            os.kill(store.pid, signal.SIGCONT)


@SIGNALS
async def test_nothing_is_left_of_the_embedded_store(tmp_path: Path, number: signal.Signals) -> None:
    async with server_process("--data-dir", str(tmp_path / "data")) as process:
        await process.logged("serving")
        (store,) = process.children()
        process.send(number)
        assert await process.exit_code() == 0
        assert not is_running(store)


async def test_a_killed_server_takes_its_embedded_store_with_it(tmp_path: Path) -> None:
    async with server_process("--data-dir", str(tmp_path / "data")) as process:
        await process.logged("serving")
        (store,) = process.children()
        process.send(signal.SIGKILL)
        await process.exit_code()
        async with asyncio.timeout(WITHIN_SECONDS):
            while is_running(store):  # noqa: ASYNC110 (a process tells nobody but its parent that it ends)
                await asyncio.sleep(0.01)
