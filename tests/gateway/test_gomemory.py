"""GoMemory's dialect: what its SDK asks for, while a worker moves the jobs over gRPC."""

from __future__ import annotations

import asyncio
import base64
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from bodies import HEADERS, UNFIT
from conftest import Start
from faces import http_of, keyed
from tidings import AsyncClient
from tidings.v1.event_pb2 import Event
from tidings.v1.event_service_pb2 import (
    CHANGE_KIND_CREATED,
    CHANGE_KIND_DELETED,
    GetEventRequest,
    ListEventsRequest,
    ProjectScope,
)
from tidings.v1.task_pb2 import (
    TASK_STATE_CANCELLED,
    TASK_STATE_FAILED,
    TASK_STATE_PAUSED,
    TASK_STATE_PENDING,
    TASK_STATE_RUNNING,
    TASK_STATE_SUCCEEDED,
    TaskError,
)
from tidings_server.auth import SCOPES
from tidings_server.config import HttpConfig
from tidings_server.gateway.app import create_app
from tidings_server.gateway.structs import from_struct
from wire import SetClock, Wire, take_synced, take_until

QUEUED = "Memory Insertion Job has been queued for insertion!"
QUEUED_BEFORE = "Memory Insertion Job is already queued or processed successfully!"
TROUBLE = "We are experiencing some techincal issues right now. Please try again after some time!"
MESSAGES = [{"role": "user", "content": "My son is Todd. "}, {"role": "model", "content": "Noted."}]


async def added(http: httpx.AsyncClient, user_id: str) -> dict[str, str]:
    answer = await http.post("/add_memory", json={"userId": user_id, "messages": MESSAGES})
    assert answer.status_code == 200, answer.text
    queued: dict[str, str] = answer.json()
    return queued


async def status_of(http: httpx.AsyncClient, req_id: str) -> dict[str, str]:
    answer = await http.get(f"/get_status/{req_id}")
    assert answer.status_code == 200, answer.text
    status: dict[str, str] = answer.json()
    return status


async def jobs_of(wire: Wire, user_id: str) -> list[Event]:
    events = (await wire.events.ListEvents(ListEventsRequest(types=["memory.add"], page_size=1000))).events
    return [event for event in events if from_struct(event.payload).get("userId") == user_id]


def assert_refused(answer: httpx.Response, status: int, message: str = "") -> None:
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert body == {"Error": body["Error"], "Status": status, "Message": body["Error"]}
    assert body["Error"] == message if message else body["Error"]


async def test_health_needs_no_key(start: Start) -> None:
    async with keyed(start) as (client, _), http_of(client) as http:
        answer = await http.get("/health")
        assert (answer.status_code, answer.json()) == (200, {"message": "Server is healthy!"})


async def test_a_job_is_followed_to_its_success(http: httpx.AsyncClient, server: Wire, some_id: str) -> None:
    queued = await added(http, some_id)
    req_id = str(uuid.uuid5(uuid.NAMESPACE_OID, "My son is Todd. Noted." + some_id))
    assert queued == {"ReqId": req_id, "Msg": QUEUED}
    pending = await status_of(http, req_id)
    assert pending.keys() == {"status", "createdAt"}
    assert datetime.fromisoformat(pending["createdAt"]).tzinfo

    event = (await server.events.GetEvent(GetEventRequest(event_id=req_id))).event
    assert event.expire_time.ToMilliseconds() - event.create_time.ToMilliseconds() == 24 * 60 * 60 * 1000
    words = [pending["status"]]
    for state in (TASK_STATE_RUNNING, TASK_STATE_PAUSED, TASK_STATE_SUCCEEDED):
        await server.update(req_id, state)
        words.append((await status_of(http, req_id))["status"])
        assert await added(http, some_id) == {"ReqId": req_id, "Msg": QUEUED_BEFORE}
    assert words == ["pending", "processing", "processing", "success"]
    assert await status_of(http, req_id) == {**pending, "status": "success"}


async def test_a_failed_job_is_queued_again(http: httpx.AsyncClient, server: Wire, some_id: str) -> None:
    req_id = (await added(http, some_id))["ReqId"]
    await server.update(req_id, TASK_STATE_FAILED, error=TaskError(message="Vector database timeout"))
    failed = await status_of(http, req_id)
    assert (failed["status"], failed["error"]) == ("failure", "Vector database timeout")

    assert await added(http, some_id) == {"ReqId": req_id, "Msg": QUEUED}
    assert await added(http, some_id) == {"ReqId": req_id, "Msg": QUEUED_BEFORE}
    pending = await status_of(http, req_id)
    assert pending.keys() == {"status", "createdAt"}
    assert pending["status"] == "pending"

    await server.update(req_id, TASK_STATE_CANCELLED)
    assert (await status_of(http, req_id))["error"] == "cancelled"
    assert (await added(http, some_id))["Msg"] == QUEUED


async def test_many_who_queue_a_failed_job_again_get_one(start: Start, some_id: str) -> None:
    async with start(http_port=0) as wire, http_of(wire) as http:
        for _ in range(5):
            req_id = (await added(http, some_id))["ReqId"]
            await wire.update(req_id, TASK_STATE_FAILED)
            answers = await asyncio.gather(*(added(http, some_id) for _ in range(12)))
            assert {answer["ReqId"] for answer in answers} == {req_id}
            assert {QUEUED} <= {answer["Msg"] for answer in answers} <= {QUEUED, QUEUED_BEFORE}
            (job,) = await jobs_of(wire, some_id)
            assert (job.event_id, job.status.state) == (req_id, TASK_STATE_PENDING)
            await wire.update(req_id, TASK_STATE_RUNNING)
            assert (await added(http, some_id))["Msg"] == QUEUED_BEFORE
            await wire.update(req_id, TASK_STATE_FAILED)


async def test_who_is_late_does_not_queue_again_what_is_at_work(
    http: httpx.AsyncClient, server: Wire, some_id: str
) -> None:
    req_id = (await added(http, some_id))["ReqId"]
    await server.update(req_id, TASK_STATE_FAILED)
    async with late_reader(server) as (late, has_read, go_on):
        answer = asyncio.create_task(added(late, some_id))
        await has_read.wait()
        assert (await added(http, some_id))["Msg"] == QUEUED
        await server.update(req_id, TASK_STATE_RUNNING)
        go_on.set()
        assert (await answer)["Msg"] == QUEUED_BEFORE
    assert (await status_of(http, req_id))["status"] == "processing"


@asynccontextmanager
async def late_reader(server: Wire) -> AsyncIterator[tuple[httpx.AsyncClient, asyncio.Event, asyncio.Event]]:
    """A client of a gateway that holds the first event that it has read until it may go on."""
    has_read, go_on = asyncio.Event(), asyncio.Event()
    async with AsyncClient(server.target) as tidings:
        read = tidings.events.GetEvent

        async def read_and_hold(*args: Any, **kwargs: Any) -> Any:
            answer = await read(*args, **kwargs)
            has_read.set()
            await go_on.wait()
            return answer

        tidings.events.GetEvent = read_and_hold
        transport = httpx.ASGITransport(create_app(tidings, HttpConfig()))
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as late:
            yield late, has_read, go_on


async def test_many_who_queue_a_new_job_get_one(http: httpx.AsyncClient, server: Wire, some_id: str) -> None:
    answers = await asyncio.gather(*(added(http, some_id) for _ in range(12)))
    assert len({answer["ReqId"] for answer in answers}) == 1
    assert len(await jobs_of(server, some_id)) == 1


async def test_messages_with_the_same_text_are_the_same_job(http: httpx.AsyncClient, some_id: str) -> None:
    req_id = (await added(http, some_id))["ReqId"]
    joined = {"userId": some_id, "messages": [{"role": "user", "content": "My son is Todd. Noted."}]}
    answer = await http.post("/add_memory", json=joined)
    assert answer.json() == {"ReqId": req_id, "Msg": QUEUED_BEFORE}


async def test_what_is_queued_is_seen_over_grpc(http: httpx.AsyncClient, server: Wire, some_id: str) -> None:
    watch = server.watch(project=ProjectScope(), live_only=True)
    await take_synced(watch)
    req_id = (await added(http, some_id))["ReqId"]
    await server.update(req_id, TASK_STATE_FAILED)
    await added(http, some_id)
    kinds: list[Any] = []
    while kinds.count(CHANGE_KIND_CREATED) < 2:
        message = (await take_until(watch, lambda message: message.change.event.event_id == req_id))[-1]
        kinds.append(message.change.kind)
        event = message.change.event
    watch.cancel()
    assert CHANGE_KIND_DELETED in kinds
    assert (event.type, event.status.state) == ("memory.add", TASK_STATE_PENDING)
    assert from_struct(event.payload) == {"userId": some_id, "messages": MESSAGES}


async def test_what_a_worker_creates_is_seen_over_http(http: httpx.AsyncClient, server: Wire) -> None:
    task = await server.create_task("memory.add")
    for path in (task.event_id, f'"{task.event_id}"', f"%20{task.event_id}%20", f"{task.event_id}/"):
        assert (await status_of(http, path))["status"] == "pending"


async def test_a_status_lives_for_a_day(start: Start, some_id: str) -> None:
    clock = SetClock()
    async with start(clock=clock, http_port=0) as wire, http_of(wire) as http:
        req_id = (await added(http, some_id))["ReqId"]
        clock.forward(seconds=24 * 60 * 60 - 1)
        await wire.update(req_id, TASK_STATE_SUCCEEDED)
        assert (await status_of(http, req_id))["status"] == "success"
        clock.forward(seconds=1)
        assert_refused(await http.get(f"/get_status/{req_id}"), 500, TROUBLE)
        assert await added(http, some_id) == {"ReqId": req_id, "Msg": QUEUED}


@pytest.mark.parametrize("req_id", [str(uuid.uuid4()), "unknown", "%F0%9F%98%80"])
async def test_an_unknown_id_is_a_500_as_with_the_vendor(http: httpx.AsyncClient, req_id: str) -> None:
    assert_refused(await http.get(f"/get_status/{req_id}"), 500, TROUBLE)


async def test_a_fact_is_no_job(http: httpx.AsyncClient, server: Wire) -> None:
    fact = await server.create("note")
    assert_refused(await http.get(f"/get_status/{fact.event_id}"), 500, TROUBLE)


@pytest.mark.parametrize("path", ["", "/", "/%20", '/""', "/%22%20%22", "/a/b%20c", "/a%2Fb", "/%00", "/" + "x" * 129])
async def test_no_id_is_a_bad_request(http: httpx.AsyncClient, path: str) -> None:
    assert_refused(await http.get(f"/get_status{path}"), 400, "Bad Request")


async def test_a_new_user_is_recorded(http: httpx.AsyncClient, server: Wire) -> None:
    users = [(await http.post("/create/user")).json() for _ in range(2)]
    assert users[0].keys() == {"userId"}
    assert len({uuid.UUID(user["userId"]) for user in users}) == 2
    listing = ListEventsRequest(types=["gomemory.user.created"])
    events = (await server.events.ListEvents(listing)).events
    assert [from_struct(event.payload) for event in events if from_struct(event.payload) in users] == users[::-1]
    assert not any(event.HasField("status") for event in events)


async def test_every_other_route_wants_the_key(start: Start, some_id: str) -> None:
    async with keyed(start) as (client, key):
        task = await client.create_task()
        body = {"userId": some_id, "messages": MESSAGES}
        requests: list[tuple[str, str, Any]] = [
            ("POST", "/create/user", None),
            ("POST", "/add_memory", body),
            ("GET", f"/get_status/{task.event_id}", None),
        ]
        wrong: list[dict[str, str]] = [{}, {"authorization": basic("nobodys")}, {"authorization": "Basic x"}]
        for headers in wrong:
            async with http_of(client, **headers) as stranger:
                for method, path, content in requests:
                    assert_refused(await stranger.request(method, path, json=content), 401)
        async with http_of(client, authorization=basic(key)) as owner:
            for method, path, content in requests:
                assert (await owner.request(method, path, json=content)).status_code == 200


def basic(key: str) -> str:
    return f"Basic {base64.b64encode(f'gm:{key}'.encode()).decode()}"


async def test_who_sends_no_key_has_the_one_that_is_set(start: Start, some_id: str) -> None:
    async with AsyncExitStack() as entered:
        first = await entered.enter_async_context(start())
        keys = [await first.server.api_keys.create(project, SCOPES) for project in ("set", "other")]
        wire = await entered.enter_async_context(start(http_port=0, gomemory_key=SecretStr(keys[0])))
        http = await entered.enter_async_context(http_of(wire))
        other = await entered.enter_async_context(http_of(wire, authorization=basic(keys[1])))

        req_id = (await added(http, some_id))["ReqId"]
        assert (await status_of(http, req_id))["status"] == "pending"
        assert_refused(await other.get(f"/get_status/{req_id}"), 500, TROUBLE)
        assert_refused(await http.get(f"/get_status/{req_id}", headers={"x-api-key": "wrong"}), 401)
        assert (await http.get("/v1/ping/")).status_code == 401  # it is for this dialect only


async def test_no_messages_have_their_own_refusal(http: httpx.AsyncClient) -> None:
    answer = await http.post("/add_memory", json={"userId": "u", "messages": []})
    assert_refused(answer, 400, "No messages provided")


@pytest.mark.parametrize(
    "body",
    [
        *(pytest.param(body, id=name) for name, body in UNFIT.items()),
        b'{"userId": "u"}',
        b'{"userId": "", "messages": [{"role": "user", "content": "x"}]}',
        b'{"userId": 1, "messages": [{"role": "user", "content": "x"}]}',
        b'{"userId": "u", "messages": "x"}',
        b'{"userId": "u", "messages": null}',
        b'{"userId": "u", "messages": [1]}',
        b'{"userId": "u", "messages": [{"role": "user"}]}',
        b'{"userId": "u", "messages": [{"role": "user", "content": 1}]}',
        b'{"messages": [{"role": "user", "content": "x"}]}',
    ],
)
async def test_an_unfit_job_is_refused(http: httpx.AsyncClient, body: bytes) -> None:
    assert_refused(await http.post("/add_memory", content=body, headers=HEADERS), 400, "Request format is wrong")


@pytest.mark.parametrize(("content", "status"), [("\0", 400), ("x" * 300_000, 400), ("x" * 2**20, 413)])
async def test_what_cannot_be_kept_is_refused(http: httpx.AsyncClient, content: str, status: int) -> None:
    body = {"userId": "u", "messages": [{"role": "user", "content": content}]}
    assert_refused(await http.post("/add_memory", json=body), status)
