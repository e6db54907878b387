"""mem0's dialect: what its SDK and its command line ask for, while a worker moves the tasks over gRPC."""

from __future__ import annotations

import json
from datetime import datetime
from itertools import chain
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
    TaskStatus,
)
from tidings_server.gateway.structs import from_struct, to_struct
from wire import SetClock, Wire, take_synced, take_until

UNKNOWN = "Event not found or you don't have permission to access it."
MESSAGES = [{"role": "user", "content": "I moved to Lisbon."}]


async def added(http: httpx.AsyncClient, **fields: Any) -> str:
    answer = await http.post("/v3/memories/add/", json={"messages": MESSAGES, "user_id": "alice", **fields})
    assert answer.status_code == 200, answer.text
    event_id: str = answer.json()["event_id"]
    return event_id


async def shown(http: httpx.AsyncClient, event_id: str) -> dict[str, Any]:
    answer = await http.get(f"/v1/event/{event_id}/")
    assert answer.status_code == 200, answer.text
    event: dict[str, Any] = answer.json()
    return event


async def listed(http: httpx.AsyncClient, **query: Any) -> dict[str, Any]:
    answer = await http.get("/v1/events/", params=query)
    assert answer.status_code == 200, answer.text
    page: dict[str, Any] = answer.json()
    return page


def assert_refused(answer: httpx.Response, status: int) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert body.keys() == {"detail", "error"}
    assert body["detail"] == body["error"] != ""


async def test_ping_has_what_the_sdk_insists_on(http: httpx.AsyncClient) -> None:
    answer = await http.get("/v1/ping/")
    assert answer.status_code == 200
    ids = {"org_id": "tidings", "project_id": "tidings"}
    assert answer.json() == {"status": "ok", "user_email": None, **ids}


@pytest.mark.parametrize("path", ["/v1/ping", "/v1/ping/", "//v1/ping/", "/v1/events", "/v1/events/"])
async def test_no_path_is_redirected(http: httpx.AsyncClient, path: str) -> None:
    assert (await http.get(f"{http.base_url}{path}")).status_code == 200


async def test_every_route_wants_the_key(start: Start) -> None:
    async with keyed(start) as (client, key):
        task = await client.create_task()
        body = {"messages": MESSAGES, "user_id": "alice"}
        requests: list[tuple[str, str, Any]] = [
            ("GET", "/v1/ping/", None),
            ("GET", "/v1/events/", None),
            ("GET", f"/v1/event/{task.event_id}/", None),
            ("POST", "/v3/memories/add/", body),
            ("POST", "/v1/memories/", body),
        ]
        for headers in ({}, {"authorization": "Token nobodys"}):
            async with http_of(client, **headers) as stranger:
                for method, path, content in requests:
                    assert_refused(await stranger.request(method, path, json=content), 401)
        async with http_of(client, authorization=f"Token {key}") as owner:
            for method, path, content in requests:
                assert (await owner.request(method, path, json=content)).status_code == 200


async def test_a_task_is_followed_to_its_results(http: httpx.AsyncClient, server: Wire) -> None:
    event_id = await added(http)
    pending = await shown(http, event_id)
    assert (pending["event_type"], pending["status"]) == ("ADD", "PENDING")
    assert pending["payload"] == {"messages": MESSAGES, "user_id": "alice"}
    unknown_yet = dict.fromkeys(("metadata", "started_at", "completed_at", "latency"))
    assert pending.items() >= {**unknown_yet, "results": []}.items()
    assert "error" not in pending

    await server.update(event_id, TASK_STATE_RUNNING)
    running = await shown(http, event_id)
    assert (running["status"], running["completed_at"]) == ("RUNNING", None)

    result = {"id": "m1", "event": "ADD", "user_id": "alice", "data": {"memory": "Lives in Lisbon", "score": 1}}
    await server.update(event_id, TASK_STATE_SUCCEEDED, results=[json_format.ParseDict(result, Value())])
    done = await shown(http, event_id)
    assert (done["status"], done["results"]) == ("SUCCEEDED", [result])
    times = [datetime.fromisoformat(done[name]) for name in ("created_at", "started_at", "completed_at")]
    assert times == sorted(times)
    assert all(time.tzinfo for time in times)
    assert done["updated_at"] == done["completed_at"]
    assert done["latency"] == round((times[2] - times[1]).total_seconds() * 1000)
    assert "error" not in done


async def test_a_failed_task_says_why(http: httpx.AsyncClient, server: Wire) -> None:
    event_id = await added(http)
    await server.update(event_id, TASK_STATE_FAILED, error=TaskError(message="no embedding"))
    event = await shown(http, event_id)
    assert (event["status"], event["error"]) == ("FAILED", "no embedding")


async def test_states_without_a_word_get_the_nearest(http: httpx.AsyncClient, server: Wire) -> None:
    event_id = await added(http)
    await server.update(event_id, TASK_STATE_RUNNING)
    await server.update(event_id, TASK_STATE_PAUSED)
    assert (await shown(http, event_id))["status"] == "RUNNING"
    await server.update(event_id, TASK_STATE_CANCELLED)
    event = await shown(http, event_id)
    assert (event["status"], event["error"]) == ("FAILED", "cancelled")


async def test_what_is_added_is_seen_over_grpc(http: httpx.AsyncClient, server: Wire) -> None:
    watch = server.watch(project=ProjectScope(), live_only=True)
    await take_synced(watch)
    event_id = await added(http, metadata={"turn": 3, "confidence": 0.75})
    told = (await take_until(watch, lambda message: message.change.event.event_id == event_id))[-1].change
    watch.cancel()
    assert told.kind == CHANGE_KIND_CREATED
    assert (told.event.type, told.event.status.state) == ("ADD", TASK_STATE_PENDING)
    assert from_struct(told.event.payload)["metadata"] == {"turn": 3, "confidence": 0.75}


async def test_what_a_worker_creates_is_seen_over_http(http: httpx.AsyncClient, server: Wire) -> None:
    payload = {"whole": 1, "part": 0.5, "zero": 0, "large": 2**53, "list": [1, None, True, {"": "a.b"}]}
    made = await server.create_task("SEARCH", payload=to_struct(payload), metadata=to_struct({"turn": 1}))
    for path in ("event", "events"):
        answer = await http.get(f"/v1/{path}/{made.event_id}/")
        event = answer.json()
        assert (event["id"], event["event_type"]) == (made.event_id, "SEARCH")
        assert json.dumps(event["payload"], sort_keys=True) == json.dumps(payload, sort_keys=True)  # 1 is not 1.0
        assert event["metadata"] == {"turn": 1}


@pytest.mark.parametrize("event_id", ["unknown", "x" * 129, "a%2Fb", "a/b", "%00", "%FF", "a%20b", "%F0%9F%98%80"])
async def test_an_id_of_no_task_is_not_found(http: httpx.AsyncClient, event_id: str) -> None:
    for path in ("event", "events"):
        answer = await http.get(f"/v1/{path}/{event_id}/")
        assert_refused(answer, 404)
        assert answer.json()["detail"] == UNKNOWN


async def test_a_fact_is_no_event_of_mem0s(http: httpx.AsyncClient, server: Wire) -> None:
    fact = await server.create("note")
    assert_refused(await http.get(f"/v1/event/{fact.event_id}/"), 404)


async def test_an_expired_task_is_not_found(start: Start) -> None:
    clock = SetClock()
    async with start(clock=clock, http_port=0) as wire, http_of(wire) as http:
        task = await wire.create_task(ttl=60)
        assert (await shown(http, task.event_id))["status"] == "PENDING"
        clock.forward(seconds=60)
        assert_refused(await http.get(f"/v1/event/{task.event_id}/"), 404)


async def test_lists_are_pages_of_tasks_newest_first(start: Start) -> None:
    clock = SetClock()
    async with start(clock=clock, http_port=0) as wire, http_of(wire) as http:
        for number in range(7):
            clock.forward(seconds=1)
            await wire.create_task("ADD" if number % 2 else "SEARCH", event_id=f"task-{number}")
        await wire.create("note")
        whole = await listed(http)
        assert [event["id"] for event in whole["results"]] == [f"task-{number}" for number in range(6, -1, -1)]
        assert (whole["count"], whole["next"], whole["previous"]) == (7, None, None)
        assert whole["results"][0] == await shown(http, "task-6")

        page = await listed(http, page_size=3, event_type="")
        assert page["next"].startswith(f"{http.base_url}/v1/events/?")
        assert page["previous"] is None
        seen = [page]
        while page["next"]:
            page = (await http.get(page["next"])).json()
            seen.append(page)
        assert [event["id"] for page in seen for event in page["results"]] == [
            event["id"] for event in whole["results"]
        ]
        assert [len(page["results"]) for page in seen] == [3, 3, 1]
        assert (await http.get(page["previous"])).json() == seen[1]

        assert (await listed(http, event_type="SEARCH"))["count"] == 4
        filtered = await listed(http, event_type="SEARCH", page_size=2)
        assert (await http.get(filtered["next"])).json()["results"][-1]["id"] == "task-0"
        assert await listed(http, page=9) == {**seen[2], "count": 7, "results": [], "previous": whole_page(http, 8)}


def whole_page(http: httpx.AsyncClient, page: int) -> str:
    return f"{http.base_url}/v1/events/?page={page}"


async def test_lists_are_filtered_by_word(start: Start) -> None:
    async with start(http_port=0) as wire, http_of(wire) as http:
        states = {
            "PENDING": [TASK_STATE_PENDING],
            "RUNNING": [TASK_STATE_PAUSED, TASK_STATE_RUNNING],
            "SUCCEEDED": [TASK_STATE_SUCCEEDED],
            "FAILED": [TASK_STATE_CANCELLED, TASK_STATE_FAILED],
        }
        for state in chain(*states.values()):
            await wire.create_task(event_id=f"task-{state}", status=TaskStatus(state=state))
        for word, of_word in states.items():
            page = await listed(http, status=word)
            assert {event["status"] for event in page["results"]} == {word}
            assert {event["id"] for event in page["results"]} == {f"task-{state}" for state in of_word}
            assert page["count"] == len(of_word)
        assert (await listed(http))["count"] == 6


async def test_a_page_is_whole_however_large_its_events_are(start: Start) -> None:
    async with start(http_port=0) as wire, http_of(wire) as http:
        large = to_struct({"text": "x" * 200_000})
        for _ in range(40):
            await wire.create_task(payload=large)
        first, second = await listed(http, page_size=35), await listed(http, page_size=35, page=2)
        assert (len(first["results"]), len(second["results"])) == (35, 5)
        assert len({event["id"] for page in (first, second) for event in page["results"]}) == 40


@pytest.mark.parametrize(
    "query",
    [
        {"page": 0}, {"page": -1}, {"page": "x"}, {"page": 1.5}, {"page": 10**30}, {"page": ""},
        {"page_size": 0}, {"page_size": 101}, {"page_size": "x"},
        {"status": "DONE"}, {"status": "pending"}, {"status": ""},
        {"event_type": "x" * 129}, {"event_type": "\0"},
    ],
)  # fmt: skip
async def test_an_unfit_query_is_refused(http: httpx.AsyncClient, query: dict[str, Any]) -> None:
    assert_refused(await http.get("/v1/events/", params=query), 400)


async def test_the_sdk_before_2_reads_the_id_in_a_list(http: httpx.AsyncClient, server: Wire) -> None:
    answer = await http.post("/v1/memories/", json={"messages": "I moved.", "agent_id": "a", "async_mode": True})
    (queued,) = answer.json()["results"]
    assert queued["status"] == "PENDING"
    assert queued["message"]
    event = (await server.events.GetEvent(GetEventRequest(event_id=queued["event_id"]))).event
    assert from_struct(event.payload) == {"messages": "I moved.", "agent_id": "a", "async_mode": True}


@pytest.mark.parametrize("owner", [{"app_id": "a"}, {"run_id": "r"}, {"filters": {"user_id": "alice"}}])
async def test_any_entity_will_do(http: httpx.AsyncClient, owner: dict[str, Any]) -> None:
    event_id = await added(http, user_id=None, **owner)
    assert (await shown(http, event_id))["payload"] == {"messages": MESSAGES, "user_id": None, **owner}


@pytest.mark.parametrize("path", ["/v3/memories/add/", "/v1/memories/"])
@pytest.mark.parametrize(
    "body",
    [
        *(pytest.param(body, id=name) for name, body in UNFIT.items()),
        b'{"user_id": "alice"}',
        b'{"user_id": "alice", "messages": []}',
        b'{"user_id": "alice", "messages": ""}',
        b'{"user_id": "alice", "messages": null}',
        b'{"user_id": "alice", "messages": 1}',
        b'{"user_id": "alice", "messages": ["text"]}',
        b'{"messages": "text"}',
        b'{"messages": "text", "user_id": ""}',
        b'{"messages": "text", "user_id": null, "filters": {}}',
        b'{"messages": "text", "user_id": 1}',
        b'{"messages": "text", "user_id": "alice", "filters": []}',
        rb'{"messages": "\u0000", "user_id": "alice"}',
        b'{"messages": "text", "user_id": "alice", "n": 9007199254740993}',
        b'{"messages": "text", "user_id": "alice", "deep": ' + b"[" * 17 + b"]" * 17 + b"}",
        b'{"messages": "text", "user_id": "alice", "deep": ' + b"[" * 60 + b"]" * 60 + b"}",
        b'{"messages": "' + b"x" * 300_000 + b'", "user_id": "alice"}',
    ],
)
async def test_unfit_memories_are_refused(http: httpx.AsyncClient, path: str, body: bytes) -> None:
    assert_refused(await http.post(path, content=body, headers=HEADERS), 400)


async def test_too_large_a_body_is_refused(http: httpx.AsyncClient) -> None:
    body = {"messages": "x" * 2**20, "user_id": "alice"}
    assert_refused(await http.post("/v3/memories/add/", json=body), 413)
