"""The Python clients with the real service."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from socket import socket
from typing import Any

import grpc
import pytest
import trustme
from google.protobuf.duration_pb2 import Duration

from conftest import Start
from drivers import free_port
from tidings import AsyncClient, Client, TidingsError
from tidings._resumption import Resumption
from tidings.v1.error_reason_pb2 import ERROR_REASON_EVENT_NOT_FOUND, ERROR_REASON_INVALID_FIELD
from tidings.v1.event_pb2 import Event
from tidings.v1.event_service_pb2 import CreateEventRequest, GetEventRequest, WatchEventRequest
from tidings.v1.run_service_pb2 import UpdateRunRequest, WatchRunRequest
from tidings.v1.task_pb2 import (
    TASK_STATE_CANCELLED,
    TASK_STATE_PENDING,
    TASK_STATE_RUNNING,
    TASK_STATE_SUCCEEDED,
    TaskState,
)
from wire import WITHIN_SECONDS, Wire


class Threaded:
    """A synchronous watch, each message of which is waited for on a thread."""

    def __init__(self, watch: Any) -> None:
        self._watch = watch

    def __aiter__(self) -> Threaded:
        return self

    async def __anext__(self) -> Any:
        message = await asyncio.to_thread(next, self._watch, None)
        if message is None:
            raise StopAsyncIteration
        return message

    @property
    def resume_token(self) -> str:
        return str(self._watch.resume_token)


Watching = Callable[..., AbstractAsyncContextManager[Any]]


@pytest.fixture(params=["asyncio", "synchronous"])
def watching(request: pytest.FixtureRequest) -> Watching:
    """Opens a watch with each client."""

    @asynccontextmanager
    async def opened(target: str, asked: WatchEventRequest | WatchRunRequest, **options: Any) -> AsyncIterator[Any]:
        is_event = isinstance(asked, WatchEventRequest)
        if request.param == "asyncio":
            async with AsyncClient(target, **options) as client:
                begin: Any = client.watch if is_event else client.watch_run
                async with begin(asked) as watch:
                    yield watch
        else:
            with Client(target, **options) as synchronous:
                begin = synchronous.watch if is_event else synchronous.watch_run
                with begin(asked) as watch:
                    yield Threaded(watch)

    return opened


async def synced(watch: Any) -> None:
    async with asyncio.timeout(WITHIN_SECONDS):
        async for message in watch:
            if message.HasField("synced"):
                return
    raise AssertionError("the watch ended")


async def states(watch: Any) -> list[TaskState.ValueType]:
    """Of the changes up to the end of the watch."""
    told = []
    async with asyncio.timeout(WITHIN_SECONDS):
        async for message in watch:
            if message.HasField("change"):
                change = message.change
                told.append(change.event.status.state if hasattr(change, "event") else change.run.state)
    return told


async def test_a_task_is_watched_to_its_end(server: Wire, watching: Watching) -> None:
    task_id = (await server.create_task()).event_id
    async with watching(server.target, WatchEventRequest(event_id=task_id)) as watch:
        await synced(watch)
        await server.update(task_id, TASK_STATE_RUNNING)
        await server.update(task_id, TASK_STATE_SUCCEEDED)
        assert await states(watch) == [TASK_STATE_RUNNING, TASK_STATE_SUCCEEDED]


async def test_a_run_is_watched_to_its_end(server: Wire, watching: Watching) -> None:
    run_id = (await server.create_run()).run_id
    async with watching(server.target, WatchRunRequest(run_id=run_id)) as watch:
        await synced(watch)
        for state in (TASK_STATE_RUNNING, TASK_STATE_CANCELLED):
            await server.runs.UpdateRun(UpdateRunRequest(run_id=run_id, state=state))
        assert await states(watch) == [TASK_STATE_RUNNING, TASK_STATE_CANCELLED]


async def test_another_watch_goes_on_where_one_was_left(server: Wire, watching: Watching) -> None:
    task_id = (await server.create_task()).event_id
    async with watching(server.target, WatchEventRequest(event_id=task_id)) as watch:
        await synced(watch)
        token = watch.resume_token
    await server.update(task_id, TASK_STATE_RUNNING)
    await server.update(task_id, TASK_STATE_SUCCEEDED)
    async with watching(server.target, WatchEventRequest(event_id=task_id, resume_token=token)) as watch:
        assert await states(watch) == [TASK_STATE_RUNNING, TASK_STATE_SUCCEEDED]


async def test_a_watch_outlives_a_server_that_is_stopped_for_another(start: Start, watching: Watching) -> None:
    async with AsyncExitStack() as watches:
        target = f"127.0.0.1:{free_port()}"
        async with start(listen=target) as first:
            task_id = (await first.create_task()).event_id
            watch = await watches.enter_async_context(watching(target, WatchEventRequest(event_id=task_id)))
            await synced(watch)
            await first.update(task_id, TASK_STATE_RUNNING)
        async with start(listen=target) as second:
            await second.update(task_id, TASK_STATE_SUCCEEDED)
            assert await states(watch) == [TASK_STATE_RUNNING, TASK_STATE_SUCCEEDED]


async def test_a_failure_is_raised_with_its_reason(server: Wire, watching: Watching, some_id: str) -> None:
    async with watching(server.target, WatchEventRequest(event_id=some_id)) as watch:
        with pytest.raises(TidingsError) as failure:
            await synced(watch)
    assert failure.value.reason == ERROR_REASON_EVENT_NOT_FOUND
    assert failure.value.metadata == {"event_id": some_id}


async def test_a_failure_names_what_is_wrong_with_each_field(server: Wire) -> None:
    async with AsyncClient(server.target) as client:
        with pytest.raises(TidingsError) as failure:
            await client.events.CreateEvent(CreateEventRequest(event=Event(event_id="a/b", type="no type")))
    assert failure.value.reason == ERROR_REASON_INVALID_FIELD
    assert set(failure.value.violations) == {"event.event_id", "event.type"}


async def test_a_watch_is_encrypted_and_carries_the_key(start: Start, watching: Watching, tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    certificate.private_key_pem.write_to_path(str(tmp_path / "server.key"))
    certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "server.pem"))
    credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    async with start() as server:
        key = await server.server.api_keys.create("alpha", frozenset({"read", "write"}))
    async with start(tls_cert=tmp_path / "server.pem", tls_key=tmp_path / "server.key") as server:
        target = f"localhost:{server.server.port}"
        async with AsyncClient(target, key=key, credentials=credentials) as client:
            created = await client.events.CreateEvent(CreateEventRequest(event=Event(type="test.fact")))
        request = WatchEventRequest(event_id=created.event.event_id)
        async with watching(target, request, key=key, credentials=credentials) as watch:
            await synced(watch)
        async with watching(target, request, credentials=credentials) as watch:
            with pytest.raises(TidingsError) as failure:
                await synced(watch)
        assert failure.value.code() == grpc.StatusCode.UNAUTHENTICATED


async def test_another_task_can_close_a_watch_that_waits(server: Wire) -> None:
    task_id = (await server.create_task()).event_id
    async with AsyncClient(server.target) as client:
        # No bookmark comes in time to end the wait.
        watch = client.watch(WatchEventRequest(event_id=task_id, heartbeat_interval=Duration(seconds=60)))
        await synced(watch)
        waiting = asyncio.create_task(states(watch))
        await asyncio.sleep(0)  # it has begun to wait
        await watch.close()
        assert await waiting == []


async def test_another_task_can_close_a_watch_that_waits_to_reconnect(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = asyncio.Event()

    def long_delay(*_: object) -> float:
        waits.set()
        return 1000

    monkeypatch.setattr(Resumption, "delay_after", long_delay)
    with socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        async with AsyncClient(f"127.0.0.1:{nobody.getsockname()[1]}") as client:
            watch = client.watch(WatchEventRequest(event_id="ev"))
            waiting = asyncio.create_task(states(watch))
            await waits.wait()
            await watch.close()
            assert await waiting == []


async def test_a_task_that_is_cancelled_while_it_watches_is_cancelled(server: Wire) -> None:
    task_id = (await server.create_task()).event_id
    async with AsyncClient(server.target) as client:
        watch = client.watch(WatchEventRequest(event_id=task_id))
        await synced(watch)
        waiting = asyncio.create_task(states(watch))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await server.update(task_id, TASK_STATE_RUNNING)
        await server.update(task_id, TASK_STATE_SUCCEEDED)
        resumed = client.watch(WatchEventRequest(event_id=task_id, resume_token=watch.resume_token))
        assert await states(resumed) == [TASK_STATE_RUNNING, TASK_STATE_SUCCEEDED]


async def test_a_watch_goes_on_after_a_wait_that_ran_out(server: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> float:
        raise AssertionError("no stream broke: there is nothing to wait for")

    monkeypatch.setattr(Resumption, "delay_after", broken)
    task_id = (await server.create_task()).event_id
    async with AsyncClient(server.target) as client:
        watch = client.watch(WatchEventRequest(event_id=task_id))
        await synced(watch)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(watch), 0.05)
        await server.update(task_id, TASK_STATE_RUNNING)
        async with asyncio.timeout(WITHIN_SECONDS):
            assert (await anext(watch)).change.event.status.state == TASK_STATE_RUNNING


async def test_a_watch_can_be_left_in_the_middle(server: Wire) -> None:
    task_id = (await server.create_task()).event_id
    async with AsyncClient(server.target) as client:
        async for message in client.watch(WatchEventRequest(event_id=task_id)):
            assert message.change.event.status.state == TASK_STATE_PENDING
            break
        gc.collect()
        assert (await client.events.GetEvent(GetEventRequest(event_id=task_id))).event.event_id == task_id
