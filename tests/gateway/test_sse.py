"""Watches as server-sent events: what is told, resuming, the end, and readers that go away or stand still."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct

from conftest import Start
from faces import http_of
from tidings.v1.event_service_pb2 import DeleteEventRequest, WatchEventResponse
from tidings.v1.mission_service_pb2 import DeleteMissionRequest
from tidings.v1.run_service_pb2 import CancelRunRequest
from tidings.v1.task_pb2 import TASK_STATE_RUNNING, TASK_STATE_SUCCEEDED
from tidings_server.limits import Limits
from wire import WITHIN_SECONDS, Wire, take_all

ROOT = "/tidings/v1"


@dataclass
class Told:
    """One event of a stream."""

    id: str = ""
    event: str = ""
    data: Any = None
    retry: str = ""

    @property
    def change(self) -> Any:
        return self.data["change"]


class Reader:
    """Reads events as a browser does."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self._lines = answer.aiter_lines()

    async def take(self) -> Told | None:
        """The next event, or None at the end of the stream."""
        told = Told()
        async with asyncio.timeout(WITHIN_SECONDS):
            async for line in self._lines:
                if not line:
                    return told
                name, _, value = line.partition(": ")
                setattr(told, name, json.loads(value) if name == "data" else value)
        return None

    async def take_until(self, event: str) -> list[Told]:
        told: list[Told] = []
        while not told or told[-1].event != event:
            taken = await self.take()
            assert taken is not None, told
            told.append(taken)
        return told

    async def take_all(self) -> list[Told]:
        told: list[Told] = []
        while taken := await self.take():
            told.append(taken)
        return told


@asynccontextmanager
async def watching(http: httpx.AsyncClient, path: str, last_id: str = "", **query: Any) -> AsyncIterator[Reader]:
    headers = {"last-event-id": last_id} if last_id else {}
    async with http.stream("GET", f"{ROOT}{path}", params=query, headers=headers) as answer:
        assert answer.status_code == 200, await answer.aread()
        reader = Reader(answer)
        assert await reader.take() == Told(retry="1000")
        yield reader


async def becomes(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN_SECONDS):
        while not condition():  # noqa: ASYNC110 (nothing says when a call has ended)
            await asyncio.sleep(0.01)


def events(told: list[Told]) -> list[Any]:
    return [each.change["event"] for each in told if each.event == "change"]


def names(told: list[Told]) -> list[str]:
    return [each.event for each in told]


async def test_a_task_is_told_to_its_end(http: httpx.AsyncClient, server: Wire, some_id: str) -> None:
    await server.create_task(event_id=some_id)
    async with watching(http, f"/events/{some_id}:watch") as reader:
        told = await reader.take_until("synced")
        await server.update(some_id, TASK_STATE_RUNNING)
        told += await reader.take_until("change")
        await server.update(some_id, TASK_STATE_SUCCEEDED)
        told += await reader.take_all()
    assert names(told) == ["change", "synced", "change", "change", "closing"]
    assert [each.change["kind"] for each in told if each.event == "change"] == [
        "CHANGE_KIND_INITIAL",
        "CHANGE_KIND_UPDATED",
        "CHANGE_KIND_UPDATED",
    ]
    assert told[-1].data == {"closing": {"reason": "CLOSING_REASON_TERMINAL"}}


async def test_the_messages_are_those_of_grpc(http: httpx.AsyncClient, server: Wire, some_id: str) -> None:
    await server.create(event_id=some_id, summary="two\nlines\u2028more")
    async with watching(http, f"/events/{some_id}:watch") as reader:
        told = await reader.take_all()
    messages = await take_all(server.watch(event_id=some_id))
    for each, message in zip(told, messages, strict=True):
        assert re.fullmatch(r"[!-~]+", each.id)
        expected = WatchEventResponse(resume_token=each.id.removesuffix(".end"))
        assert json_format.ParseDict(each.data, expected) == message
        assert each.event == message.WhichOneof("message")


async def test_the_stream_is_kept_by_nobody(http: httpx.AsyncClient) -> None:
    async with watching(http, "/events:watch", liveOnly="true") as reader:
        headers = reader.answer.headers
    assert headers["content-type"].startswith("text/event-stream")
    assert (headers["cache-control"], headers["x-accel-buffering"]) == ("no-store", "no")


async def test_a_watch_goes_on_after_any_id(http: httpx.AsyncClient, server: Wire, some_id: str) -> None:
    for number in range(3):
        await server.create(event_id=f"{some_id}-{number}", run_id=some_id)
    path = f"/runs/{some_id}/events:watch"
    async with watching(http, path) as reader:
        whole = await reader.take_until("synced")
        await server.create(event_id=f"{some_id}-3", run_id=some_id)
        whole += await reader.take_until("change")
    assert len(events(whole)) == 4
    for place, each in enumerate(whole):
        for given in ({"last_id": each.id}, {"resumeToken": each.id}, {"last_id": each.id, "resumeToken": whole[0].id}):
            async with watching(http, path, **given) as reader:
                again = await reader.take_until("synced")
            assert events(again) == events(whole[place + 1 :])


async def test_a_browser_that_asked_for_live_changes_misses_none(
    http: httpx.AsyncClient, server: Wire, some_id: str
) -> None:
    await server.ensure(run_id=some_id)
    path = f"/runs/{some_id}/events:watch"
    async with watching(http, path, liveOnly="true") as reader:
        synced = (await reader.take_until("synced"))[-1]
    await server.create(event_id=some_id, run_id=some_id)
    async with watching(http, path, last_id=synced.id, liveOnly="true") as reader:
        assert (await reader.take_until("synced"))[0].change["event"]["eventId"] == some_id


async def test_after_the_end_a_browser_is_sent_away(http: httpx.AsyncClient, server: Wire, some_id: str) -> None:
    await server.create(event_id=some_id)
    path = f"/events/{some_id}:watch"
    async with watching(http, path) as reader:
        *_, synced, closing = await reader.take_all()
    # Cut off before the end it is told the end, and then no more.
    async with watching(http, path, last_id=synced.id) as reader:
        again = await reader.take_all()
    assert names(again) == ["synced", "closing"]
    assert again[-1].id == closing.id
    for given in ({"headers": {"last-event-id": closing.id}}, {"params": {"resumeToken": closing.id}}):
        answer = await http.get(f"{ROOT}{path}", **given)  # type: ignore[arg-type]
        assert (answer.status_code, answer.content) == (204, b"")
    async with watching(http, path, last_id=closing.id, stayOpen="true") as reader:
        assert names(await reader.take_until("synced")) == ["synced"]


async def test_what_is_gone_with_its_mission_is_not_asked_for_again(
    http: httpx.AsyncClient, server: Wire, some_id: str
) -> None:
    await server.ensure(mission_id=some_id)
    path = f"/missions/{some_id}/events:watch"
    async with watching(http, path) as reader:
        await reader.take_until("synced")
        await server.missions.DeleteMission(DeleteMissionRequest(mission_id=some_id))
        closing = (await reader.take_all())[-1]
    assert closing.data == {"closing": {"reason": "CLOSING_REASON_SCOPE_GONE"}}
    answer = await http.get(f"{ROOT}{path}", headers={"last-event-id": closing.id})
    assert answer.status_code == 204


async def test_a_watch_whose_time_is_up_may_go_on(http: httpx.AsyncClient, server: Wire, some_id: str) -> None:
    await server.create_task(event_id=some_id)
    path = f"/events/{some_id}:watch"
    async with watching(http, path, maxDuration="1s") as reader:
        closing = (await reader.take_all())[-1]
    assert closing.data == {"closing": {"reason": "CLOSING_REASON_MAX_DURATION"}}
    await server.update(some_id, TASK_STATE_RUNNING)
    async with watching(http, path, last_id=closing.id) as reader:
        assert (await reader.take_until("change"))[-1].change["event"]["status"]["state"] == "TASK_STATE_RUNNING"


async def test_a_quiet_watch_is_heard(http: httpx.AsyncClient, server: Wire, some_id: str) -> None:
    await server.create_task(event_id=some_id)
    async with watching(http, f"/events/{some_id}:watch", heartbeatInterval="1s") as reader:
        told = await reader.take_until("bookmark")
    assert told[-1].data["bookmark"]["sourceState"] == "SOURCE_STATE_LIVE"


async def test_a_watch_of_many_can_be_narrowed(http: httpx.AsyncClient, server: Wire, some_id: str) -> None:
    await server.create_task(some_id, event_id=f"{some_id}-pending", mission_id=some_id)
    await server.create_task(f"{some_id}.other", mission_id=some_id)
    running = await server.create_task(some_id, event_id=f"{some_id}-running", mission_id=some_id)
    await server.update(running.event_id, TASK_STATE_RUNNING)
    query = {"filter.types": some_id, "filter.states": "TASK_STATE_RUNNING"}
    for path in ("/events:watch", f"/missions/{some_id}/events:watch"):
        async with watching(http, path, **query) as reader:
            changes = [each.change for each in (await reader.take_until("synced"))[:-1]]
        assert [each["event"]["eventId"] for each in changes] == [running.event_id]


async def test_a_run_is_told_with_its_plan(http: httpx.AsyncClient, server: Wire, some_id: str) -> None:
    await server.ensure(run_id=some_id)
    async with watching(http, f"/runs/{some_id}:watch") as reader:
        assert (await reader.take_until("synced"))[0].change["run"]["runId"] == some_id
        await server.runs.CancelRun(CancelRunRequest(run_id=some_id))
        told = await reader.take_all()
    assert names(told) == ["change", "closing"]
    assert told[0].change["run"]["state"] == "TASK_STATE_CANCELLED"
    answer = await http.get(f"{ROOT}/runs/{some_id}:watch", headers={"last-event-id": told[-1].id})
    assert answer.status_code == 204


async def test_what_fails_at_once_has_a_status(http: httpx.AsyncClient, server: Wire, some_id: str) -> None:
    async def refusal(path: str, **query: Any) -> tuple[int, str]:
        answer = await http.get(f"{ROOT}{path}", params=query)
        assert answer.headers["content-type"] == "application/json"
        return answer.status_code, answer.json()["error"]["reason"]

    assert await refusal(f"/events/{some_id}:watch") == (404, "EVENT_NOT_FOUND")
    assert await refusal(f"/runs/{some_id}:watch") == (404, "RUN_NOT_FOUND")
    assert await refusal(f"/runs/{some_id}/events:watch") == (404, "RUN_NOT_FOUND")
    await server.create_task(event_id=some_id)
    path = f"/events/{some_id}:watch"
    assert await refusal(path, resumeToken="nonsense") == (400, "RESUME_TOKEN_INVALID")
    assert await refusal(path, resumeToken="nonsense.end", stayOpen="true") == (400, "RESUME_TOKEN_INVALID")
    assert await refusal(path, resumeToken="x", liveOnly="true") == (400, "INVALID_FIELD")
    assert await refusal(path, heartbeatInterval="61s") == (400, "INVALID_FIELD")
    assert await refusal(path, **{"filter.types": "a"}) == (400, "INVALID_FIELD")
    assert await refusal("/events:watch", eventId="a") == (400, "INVALID_FIELD")


async def test_a_watch_that_tells_nothing_for_long_begins_anyway(
    http: httpx.AsyncClient, server: Wire, some_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidings_server.gateway.rest.sse.HEAD_SECONDS", 0)
    await server.create(event_id=some_id)
    async with watching(http, f"/events/{some_id}:watch") as reader:
        assert names(await reader.take_all()) == ["change", "synced", "closing"]
    async with watching(http, f"/events/{some_id}-other:watch") as reader:
        (error,) = await reader.take_all()
    assert (error.event, error.data["error"]["reason"]) == ("error", "EVENT_NOT_FOUND")


async def test_lost_history_is_gone(http: httpx.AsyncClient, server: Wire, some_id: str) -> None:
    await server.create_task(event_id=some_id)
    async with watching(http, f"/events/{some_id}:watch") as reader:
        token = (await reader.take_until("synced"))[-1].id
    await server.events.DeleteEvent(DeleteEventRequest(event_id=some_id))
    await server.create_task(event_id=some_id)
    query = {"resumeToken": token, "onHistoryLoss": "HISTORY_LOSS_POLICY_FAIL"}
    answer = await http.get(f"{ROOT}/events/{some_id}:watch", params=query)
    assert (answer.status_code, answer.json()["error"]["reason"]) == (410, "HISTORY_LOST")
    async with watching(http, f"/events/{some_id}:watch", resumeToken=token) as reader:
        assert names(await reader.take_until("synced")) == ["reset", "change", "synced"]


async def test_what_fails_later_is_told_as_an_error(start: Start) -> None:
    async with start(http_port=0) as wire, http_of(wire) as http, watching(http, "/events:watch") as reader:
        await reader.take_until("synced")
        wire.server.hub.drain()
        closing, error = await reader.take_all()
    assert closing.data["closing"]["reason"] == "CLOSING_REASON_DRAINING"
    assert int(closing.retry) == round(float(closing.data["closing"]["reconnectAfter"].rstrip("s")) * 1000)
    assert (error.event, error.id) == ("error", "")
    told = error.data["error"]
    assert (told["code"], told["status"], told["reason"]) == (503, "UNAVAILABLE", "DRAINING")


async def test_the_server_stops_with_watches_open(start: Start) -> None:
    async with start(http_port=0) as wire, http_of(wire) as http, watching(http, "/events:watch") as reader:
        await reader.take_until("synced")
        async with asyncio.timeout(WITHIN_SECONDS):
            await wire.server.drain()
            assert names(await reader.take_all()) == ["closing", "error"]


async def test_a_reader_that_goes_away_is_forgotten(start: Start) -> None:
    async with start(http_port=0) as wire, http_of(wire) as http:
        async with watching(http, "/events:watch", heartbeatInterval="60s") as reader:
            await reader.take_until("synced")
            assert wire.server.hub.watchers == 1
        await becomes(lambda: wire.server.hub.watchers == 0)


async def standing_still(port: int) -> socket.socket:
    """A reader that asks for the project's events, and takes nothing of the answer."""
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(reader, ("127.0.0.1", port))
    await loop.sock_sendall(reader, f"GET {ROOT}/events:watch HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
    return reader


async def test_a_reader_that_stands_still_holds_up_nobody(start: Start, some_id: str) -> None:
    payload = Struct()
    payload.update({"text": "x" * 200_000})
    limits = Limits(watch_stall_seconds=2)
    async with start(http_port=0, limits=limits) as wire, http_of(wire) as http:
        assert wire.server.http_port
        still = await standing_still(wire.server.http_port)
        async with watching(http, "/events:watch") as reader:
            await reader.take_until("synced")
            await becomes(lambda: wire.server.hub.watchers == 2)
            sent = 0
            while wire.server.hub.watchers == 2:
                assert sent < 500
                await wire.create(event_id=f"{some_id}-{sent}", payload=payload)
                told = (await reader.take_until("change"))[-1]
                assert told.change["event"]["eventId"] == f"{some_id}-{sent}"
                sent += 1
        still.close()
