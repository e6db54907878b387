"""MemOS's dialect: what its SDK asks for, while a worker moves the tasks over gRPC."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Value

from bodies import HEADERS, UNFIT
from conftest import Start
from faces import http_of, keyed
from tidings.v1.event_service_pb2 import CHANGE_KIND_CREATED, GetEventRequest, ProjectScope
from tidings.v1.task_pb2 import (
    TASK_STATE_CANCELLED,
    TASK_STATE_FAILED,
    TASK_STATE_PAUSED,
    TASK_STATE_PENDING,
    TASK_STATE_RUNNING,
    TASK_STATE_SUCCEEDED,
    TaskError,
)
from tidings_server.gateway.structs import from_struct
from wire import SetClock, Wire, take_synced, take_until

ROOT = "/api/openmem/v1"
MESSAGES = [{"role": "user", "content": "I am going to Guangzhou."}]
VIEWS = {"added": 1, "updated": 0, "deleted": 0, "detail_factual": {"memory_ids": ["m1"]}}

INVALID, EMPTY, KEY_MISSING, KEY_INVALID, TOO_LARGE, NOT_FOUND = 40000, 40002, 40130, 40132, 40305, 50131


async def added(http: httpx.AsyncClient, **fields: Any) -> str:
    body = {"messages": MESSAGES, "user_id": "u", "conversation_id": None, "async_mode": True, **fields}
    answer = await http.post(f"{ROOT}/add/message", json=body)
    assert answer.status_code == 200, answer.text
    task_id: str = answer.json()["data"]["task_id"]
    assert answer.json() == {
        "code": 0,
        "message": "ok",
        "data": {"success": True, "task_id": task_id, "status": "running"},
    }
    return task_id


async def data_of(http: httpx.AsyncClient, task_id: str) -> Any:
    answer = await http.post(f"{ROOT}/get/status", json={"task_id": task_id})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body == {"code": 0, "message": "ok", "data": body["data"]}
    return body["data"]


def assert_refused(answer: httpx.Response, status: int, code: int) -> None:
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert body == {"code": code, "message": body["message"], "data": None}
    assert body["message"]


def value_of(value: Any) -> Value:
    return json_format.ParseDict(value, Value())


async def test_a_task_is_followed_to_its_views(http: httpx.AsyncClient, server: Wire) -> None:
    task_id = await added(http)
    assert await data_of(http, task_id) == {"task_id": task_id, "status": "running"}
    for state in (TASK_STATE_RUNNING, TASK_STATE_PAUSED):
        await server.update(task_id, state)
        assert await data_of(http, task_id) == {"task_id": task_id, "status": "running"}
    await server.update(task_id, TASK_STATE_SUCCEEDED, results=[value_of(VIEWS), value_of("more")])
    data = await data_of(http, task_id)
    completed = {"task_id": task_id, "status": "completed", "memory_views": VIEWS}
    assert json.dumps(data, sort_keys=True) == json.dumps(completed, sort_keys=True)  # 1 is not 1.0


async def test_views_are_an_object_of_a_completed_task(http: httpx.AsyncClient, server: Wire) -> None:
    task_id = await added(http)
    await server.update(task_id, TASK_STATE_RUNNING, results=[value_of(VIEWS)])
    assert "memory_views" not in await data_of(http, task_id)
    await server.update(task_id, TASK_STATE_SUCCEEDED, results=[value_of("a text")])
    assert await data_of(http, task_id) == {"task_id": task_id, "status": "completed"}


async def test_a_failed_task_says_why(http: httpx.AsyncClient, server: Wire) -> None:
    failed, cancelled = await added(http), await added(http)
    await server.update(failed, TASK_STATE_FAILED, error=TaskError(message="no embedding"))
    await server.update(cancelled, TASK_STATE_CANCELLED)
    assert await data_of(http, failed) == {"task_id": failed, "status": "failed", "error": "no embedding"}
    assert await data_of(http, cancelled) == {"task_id": cancelled, "status": "failed", "error": "cancelled"}


async def test_a_status_may_be_a_list_of_one(start: Start) -> None:
    async with start(http_port=0, memos_status_as_list=True) as wire, http_of(wire) as http:
        task = await wire.create_task()
        assert await data_of(http, task.event_id) == [{"task_id": task.event_id, "status": "running"}]


async def test_what_is_added_is_seen_over_grpc(http: httpx.AsyncClient, server: Wire) -> None:
    watch = server.watch(project=ProjectScope(), live_only=True)
    await take_synced(watch)
    task_id = await added(http, agent_id=["a", "b"], info={"turn": 3, "share": 0.5, "": None})
    told = (await take_until(watch, lambda message: message.change.event.event_id == task_id))[-1].change
    watch.cancel()
    assert told.kind == CHANGE_KIND_CREATED
    assert (told.event.type, told.event.status.state) == ("memory.add", TASK_STATE_PENDING)
    asked = {"messages": MESSAGES, "user_id": "u", "conversation_id": None, "async_mode": True, "agent_id": ["a", "b"]}
    assert from_struct(told.event.payload) == {**asked, "info": {"turn": 3, "share": 0.5, "": None}}


async def test_what_a_worker_creates_is_seen_over_http(http: httpx.AsyncClient, server: Wire, some_id: str) -> None:
    await server.create_task("any.type", event_id=some_id)
    assert await data_of(http, some_id) == {"task_id": some_id, "status": "running"}


async def test_every_message_is_a_task(http: httpx.AsyncClient) -> None:
    assert await added(http) != await added(http)


async def test_feedback_is_a_task(http: httpx.AsyncClient, server: Wire) -> None:
    feedback = {"user_id": "u", "feedback_content": "I prefer Ji Hotel.", "allow_public": False}
    answer = await http.post(f"{ROOT}/add/feedback", json=feedback)
    data = answer.json()["data"]
    assert (answer.json()["code"], data["success"], data["status"]) == (0, True, "running")
    event = (await server.events.GetEvent(GetEventRequest(event_id=data["task_id"]))).event
    assert (event.type, from_struct(event.payload)) == ("memory.feedback", feedback)


@pytest.mark.parametrize("task_id", ["unknown", "x" * 129, "a/b", "\0", "a b", "\ufffd"])
async def test_an_id_of_no_task_is_not_found(http: httpx.AsyncClient, task_id: str) -> None:
    assert_refused(await http.post(f"{ROOT}/get/status", json={"task_id": task_id}), 404, NOT_FOUND)


async def test_a_fact_is_no_task(http: httpx.AsyncClient, server: Wire) -> None:
    fact = await server.create("note")
    assert_refused(await http.post(f"{ROOT}/get/status", json={"task_id": fact.event_id}), 404, NOT_FOUND)


async def test_an_expired_task_is_not_found(start: Start) -> None:
    clock = SetClock()
    async with start(clock=clock, http_port=0) as wire, http_of(wire) as http:
        task = await wire.create_task(ttl=60)
        assert (await data_of(http, task.event_id))["status"] == "running"
        clock.forward(seconds=60)
        assert_refused(await http.post(f"{ROOT}/get/status", json={"task_id": task.event_id}), 404, NOT_FOUND)


async def test_every_route_wants_the_key(start: Start) -> None:
    async with keyed(start) as (client, key):
        task = await client.create_task()
        requests: list[tuple[str, Any]] = [
            ("get/status", {"task_id": task.event_id}),
            ("add/message", {"messages": MESSAGES, "user_id": "u"}),
            ("add/feedback", {"feedback_content": "x", "user_id": "u"}),
        ]
        wrong: list[tuple[int, dict[str, str]]] = [
            (KEY_MISSING, {}),
            (KEY_INVALID, {"authorization": "Token nobodys"}),
            (KEY_INVALID, {"authorization": "Token tdg_a_b"}),
        ]
        for code, headers in wrong:
            async with http_of(client, **headers) as stranger:
                for path, body in requests:
                    assert_refused(await stranger.post(f"{ROOT}/{path}", json=body), 401, code)
        for scheme in ("Token", "Bearer"):
            async with http_of(client, authorization=f"{scheme} {key}") as owner:
                for path, body in requests:
                    assert (await owner.post(f"{ROOT}/{path}", json=body)).status_code == 200


@pytest.mark.parametrize("path", ["get/status", "add/message", "add/feedback"])
@pytest.mark.parametrize("body", UNFIT.values(), ids=UNFIT.keys())
async def test_an_unfit_body_is_refused(http: httpx.AsyncClient, path: str, body: bytes) -> None:
    code = EMPTY if body in (b"", b"{}") else INVALID
    assert_refused(await http.post(f"{ROOT}/{path}", content=body, headers=HEADERS), 400, code)


@pytest.mark.parametrize(
    ("path", "code", "body"),
    [
        ("get/status", EMPTY, {"task_id": ""}),
        ("get/status", INVALID, {"task_id": 1}),
        ("get/status", INVALID, {"task_id": None}),
        ("add/message", EMPTY, {"user_id": "u"}),
        ("add/message", EMPTY, {"user_id": "u", "messages": []}),
        ("add/message", INVALID, {"user_id": "u", "messages": "text"}),
        ("add/message", INVALID, {"user_id": "u", "messages": ["text"]}),
        ("add/message", EMPTY, {"messages": MESSAGES}),
        ("add/message", EMPTY, {"messages": MESSAGES, "user_id": None, "agent_id": None}),
        ("add/message", EMPTY, {"messages": MESSAGES, "user_id": ""}),
        ("add/message", EMPTY, {"messages": MESSAGES, "user_id": []}),
        ("add/message", INVALID, {"messages": MESSAGES, "user_id": {}}),
        ("add/message", INVALID, {"messages": MESSAGES, "user_id": "u", "info": {"n": 2**53 + 1}}),
        ("add/message", INVALID, {"messages": [{"role": "user", "content": "\0"}], "user_id": "u"}),
        ("add/message", INVALID, {"messages": [{"role": "user", "content": "x" * 300_000}], "user_id": "u"}),
        ("add/feedback", EMPTY, {"user_id": "u"}),
        ("add/feedback", EMPTY, {"user_id": "u", "feedback_content": ""}),
        ("add/feedback", INVALID, {"user_id": ["u"], "feedback_content": "x"}),
    ],
)
async def test_unfit_fields_are_refused(http: httpx.AsyncClient, path: str, code: int, body: dict[str, Any]) -> None:
    assert_refused(await http.post(f"{ROOT}/{path}", json=body), 400, code)


async def test_too_large_a_body_is_refused(http: httpx.AsyncClient) -> None:
    body = {"messages": [{"role": "user", "content": "x" * 2**20}], "user_id": "u"}
    assert_refused(await http.post(f"{ROOT}/add/message", json=body), 413, TOO_LARGE)
