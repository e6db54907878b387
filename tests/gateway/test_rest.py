"""Tidings' own face over HTTP: every RPC as JSON, taken strictly, and its failures."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Mapping
from time import monotonic
from typing import Any

import httpx
import pytest
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct

from conftest import Start
from faces import http_of, keyed
from tidings.v1.event_pb2 import Event
from tidings.v1.event_service_pb2 import GetEventRequest, ListEventsResponse
from tidings.v1.task_pb2 import TASK_STATE_RUNNING, TASK_STATE_SUCCEEDED
from tidings_server.gateway.rest.proto_json import to_json
from tidings_server.gateway.rest.route import SERVICES
from tidings_server.gateway.rest.routes import ROUTES
from tidings_server.limits import Limits
from wire import Wire

ROOT = "/tidings/v1"
JSON = {"content-type": "application/json"}


def ok(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    return answer.json()


def refused(answer: httpx.Response, status: int, reason: str = "") -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    error: dict[str, Any] = answer.json()["error"]
    assert (error["code"], error["reason"]) == (status, reason)
    assert error["message"]
    return error


def fields(error: Mapping[str, Any]) -> set[str]:
    return {violation["field"] for violation in error["violations"]}


def test_every_rpc_has_a_route() -> None:
    rpcs = {f"{client}.{rpc.name}" for client, service in SERVICES.items() for rpc in service.methods}
    assert {route.rpc for route in ROUTES} == rpcs
    assert len({(route.method, route.path) for route in ROUTES}) == len(ROUTES)


async def test_an_event_is_stored_read_listed_and_deleted(http: httpx.AsyncClient, server: Wire, some_id: str) -> None:
    content = {"eventId": some_id, "type": some_id, "payload": {"turn": 1, "share": 0.5, "snake_case": None, "": []}}
    created = ok(await http.post(f"{ROOT}/events", json={"event": content, "ttl": "3600s"}))["event"]
    stored = (await server.events.GetEvent(GetEventRequest(event_id=some_id))).event
    assert json_format.ParseDict(created, Event()) == stored
    assert json.dumps(created["payload"], sort_keys=True) == json.dumps(content["payload"], sort_keys=True)
    assert created["revision"] == 1
    assert ok(await http.get(f"{ROOT}/events/{some_id}")) == {"event": created}
    assert ok(await http.get(f"{ROOT}/events", params={"types": [some_id, f"{some_id}-too"]})) == {"events": [created]}
    assert ok(await http.delete(f"{ROOT}/events/{some_id}", params={"expectedRevision": 1})) == {}
    refused(await http.get(f"{ROOT}/events/{some_id}"), 404, "EVENT_NOT_FOUND")


async def test_a_batch_answers_for_each(http: httpx.AsyncClient, some_id: str) -> None:
    good = {"event": {"eventId": some_id, "type": "t"}}
    other = {"event": {"eventId": some_id, "type": "u"}}
    results = ok(await http.post(f"{ROOT}/events:batchCreate", json={"requests": [good, other]}))["results"]
    assert results[0]["event"]["eventId"] == some_id
    assert results[1]["error"]["details"][0]["reason"] == "EVENT_ALREADY_EXISTS"
    got = ok(await http.post(f"{ROOT}/events:batchGet", json={"eventIds": ["none-such", some_id]}))["results"]
    assert got[0]["error"]["code"] == 5
    assert got[1] == results[0]


async def test_a_task_is_moved_waited_for_and_cancelled(http: httpx.AsyncClient, server: Wire, some_id: str) -> None:
    await server.create_task(event_id=some_id)
    task = f"{ROOT}/tasks/{some_id}"
    change = {"state": "TASK_STATE_RUNNING", "progress": {"completed": "3", "total": 4}, "expectedRevision": 1}
    moved = ok(await http.patch(task, json=change))["status"]
    assert moved["progress"] == {"completed": 3, "total": 4}
    assert ok(await http.get(task)) == {"status": moved}
    assert "satisfied" not in ok(await http.get(f"{task}:wait", params={"afterRevision": 2, "timeout": "0.1s"}))
    waiting = asyncio.create_task(http.get(f"{task}:wait", params={"afterRevision": 2, "timeout": "20s"}))
    assert ok(await http.post(f"{task}:cancel", json={"message": "enough"}))["status"]["cancelRequested"] is True
    assert ok(await waiting)["satisfied"] is True


async def test_a_mission_is_changed_by_a_mask(http: httpx.AsyncClient, some_id: str) -> None:
    mission = f"{ROOT}/missions/{some_id}"
    created = ok(await http.post(f"{ROOT}/missions", json={"mission": {"missionId": some_id, "name": "n"}}))["mission"]
    assert created["executionMode"] == "EXECUTION_MODE_EXTERNAL"
    change = {"name": "m", "model": "left out", "executionMode": "EXECUTION_MODE_MANAGED"}
    changed = ok(await http.patch(mission, json={"mission": change, "updateMask": "name,executionMode"}))["mission"]
    assert (changed["name"], changed["executionMode"]) == ("m", "EXECUTION_MODE_MANAGED")
    assert "model" not in changed
    # What was read may be sent back whole, but not to another place.
    again = {"mission": changed, "updateMask": "name"}
    assert ok(await http.patch(mission, json=again))["mission"]["missionId"] == some_id
    refusal = refused(await http.patch(f"{mission}-other", json=again), 400, "INVALID_FIELD")
    assert fields(refusal) == {"mission.missionId"}
    assert changed in ok(await http.get(f"{ROOT}/missions", params={"pageSize": 1000}))["missions"]
    assert ok(await http.get(mission)) == {"mission": changed}
    assert ok(await http.delete(mission)) == {}


async def test_a_run_is_moved_and_planned(http: httpx.AsyncClient, server: Wire, some_id: str) -> None:
    await server.create_mission(mission_id=some_id)
    run = f"{ROOT}/runs/{some_id}"
    created = {"run": {"runId": some_id, "missionId": some_id, "state": "TASK_STATE_RUNNING"}}
    assert ok(await http.post(f"{ROOT}/runs", json=created))["run"]["revision"] == 1
    planned = ok(await http.post(f"{run}/plan", json={"steps": [{"stepId": "a"}]}))["run"]
    assert planned["progress"] == {"total": 1, "pending": 1}
    await http.post(f"{run}/plan/steps", json={"steps": [{"stepId": "b", "sequence": 2}]})
    step = ok(await http.patch(f"{run}/plan/steps/b", json={"state": "TASK_STATE_RUNNING"}))["step"]
    assert step["state"] == "TASK_STATE_RUNNING"
    assert [each["stepId"] for each in ok(await http.get(f"{run}/plan"))["steps"]] == ["a", "b"]
    for verb, state in (("pause", "PAUSED"), ("resume", "RUNNING"), ("cancel", "CANCELLED")):
        assert ok(await http.post(f"{run}:{verb}", json={}))["run"]["state"] == f"TASK_STATE_{state}"
    changed = ok(await http.patch(run, json={"resultSummary": "none"}))["run"]
    assert ok(await http.get(run, params={"missionId": some_id})) == {"run": changed}
    listed = ok(await http.get(f"{ROOT}/runs", params={"missionId": some_id, "states": "TASK_STATE_CANCELLED"}))
    assert [each["runId"] for each in listed["runs"]] == [some_id]


async def test_a_query_gives_fields_within_others(http: httpx.AsyncClient, server: Wire, some_id: str) -> None:
    await server.create(event_id=some_id, run_id=some_id)
    assert ok(await http.get(f"{ROOT}/events/{some_id}", params={"parent.runId": some_id}))
    refused(await http.get(f"{ROOT}/events/{some_id}", params={"parent.runId": "other"}), 404, "EVENT_NOT_FOUND")


async def test_times_filter_a_list(http: httpx.AsyncClient, server: Wire, some_id: str) -> None:
    event = await server.create(some_id, event_id=some_id)
    at = event.create_time.ToJsonString()
    found = ok(await http.get(f"{ROOT}/events", params={"types": some_id, "createdFrom": at}))
    assert [each["eventId"] for each in found["events"]] == [some_id]
    assert ok(await http.get(f"{ROOT}/events", params={"types": some_id, "createdBefore": at})) == {}


@pytest.mark.parametrize("event_id", ["a:watch:b", ":watch", "a:cancel", "x:watch", "über", "a%b", "a?b#c", "."])
async def test_an_id_may_be_anything_visible(http: httpx.AsyncClient, some_id: str, event_id: str) -> None:
    event_id = f"{some_id}{event_id}"
    escaped = "".join(f"%{byte:02x}" for byte in event_id.encode())
    ok(await http.post(f"{ROOT}/events", json={"event": {"eventId": event_id, "type": "t", "status": {}}}))
    assert ok(await http.get(f"{ROOT}/events/{escaped}"))["event"]["eventId"] == event_id
    assert ok(await http.post(f"{ROOT}/tasks/{escaped}:cancel", json={}))["status"]["taskId"] == event_id


async def test_a_verb_within_an_id_is_part_of_it(http: httpx.AsyncClient, server: Wire, some_id: str) -> None:
    await server.create_task(event_id=f"{some_id}:wait:b")
    assert ok(await http.get(f"{ROOT}/tasks/{some_id}:wait:b"))
    assert ok(await http.get(f"{ROOT}/tasks/{some_id}:wait:b:wait", params={"timeout": "0s"}))
    refused(await http.get(f"{ROOT}/tasks/{some_id}:wait:b:cancel"), 405)


async def test_doubled_slashes_count_once(http: httpx.AsyncClient, server: Wire, some_id: str) -> None:
    await server.create(event_id=some_id)
    assert ok(await http.get(f"{http.base_url}//tidings/v1//events///{some_id}/"))


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ({"event": {"event_id": "a", "type": "t"}, "Ttl": "1s"}, {"event.event_id", "Ttl"}),
        ({"event": {"type": 1, "payload": [], "results": {}, "status": []}}, {"type", "payload", "results", "status"}),
        ({"event": {"type": "t", "status": {"state": 2}}}, {"event.status.state"}),
        (
            {"event": {"type": "t", "status": {"state": "RUNNING", "cancelRequested": "yes"}}},
            {"state", "cancelRequested"},
        ),
        ({"event": {"type": "t", "eventTime": "2026-02-30T00:00:00Z"}, "ttl": 5}, {"event.eventTime", "ttl"}),
        ({"event": {"type": "t", "eventTime": "2026-2-3T0:0:0Z"}, "ttl": "1_0s"}, {"event.eventTime", "ttl"}),
        ({"event": {"type": "t", "revision": True, "sequence": "1.0"}}, {"event.revision", "event.sequence"}),
        ({"event": None}, {"event"}),
        ({"event": {"type": "t", "summary": None}}, {"event.summary"}),
        ({"event": {"eventId": "a b", "type": "t", "stepId": "/"}}, {"event.eventId", "event.stepId"}),
        ({"event": {"type": "t", "payload": {"a_b": {"c_d": "\0"}}}}, {"event.payload.a_b.c_d"}),
    ],
)
async def test_what_is_wrong_with_a_body_is_named(http: httpx.AsyncClient, body: object, wrong: set[str]) -> None:
    named = fields(refused(await http.post(f"{ROOT}/events", json=body), 400, "INVALID_FIELD"))
    assert {name.rpartition(".")[2] for name in named} == {name.rpartition(".")[2] for name in wrong}
    assert {name for name in wrong if "." in name} <= named


@pytest.mark.parametrize(
    ("query", "wrong"),
    [
        ("page_size=1&other=2", {"page_size", "other"}),
        ("pageSize=1&pageSize=2", {"pageSize"}),
        ("pageSize=x&countTotal=1&order=newest&createdFrom=now", {"pageSize", "countTotal", "order", "createdFrom"}),
        ("states=TASK_STATE_PENDING&states=2", {"states"}),
        ("pageSize=1001&skip=-1", {"pageSize", "skip"}),
        ("runId=%00", {"runId"}),
    ],
)
async def test_what_is_wrong_with_a_query_is_named(http: httpx.AsyncClient, query: str, wrong: set[str]) -> None:
    assert fields(refused(await http.get(f"{ROOT}/events?{query}"), 400, "INVALID_FIELD")) == wrong


async def test_what_no_utf8_can_be_is_refused(http: httpx.AsyncClient) -> None:
    refused(await http.get(f"{ROOT}/events?runId=%ff"), 400, "INVALID_FIELD")
    refused(await http.get(f"{ROOT}/events/%ff"), 400, "MALFORMED_REQUEST")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"event": {"type": "t", "payload": {"a": NaN}}}',
        b'{"event": {"type": "t", "payload": {"a": 1e999}}}',
        b'{"event": {"type": "t", "payload": {"a": 9007199254740993}}}',
        b'{"event": {"type": "t", "payload": {"a": ' + b"[" * 100 + b"]" * 100 + b"}}}",
        rb'{"event": {"type": "t", "payload": {"a": "\ud800"}}}',
        b'{"event": {"type": "\xff"}}',
    ],
)
async def test_what_could_not_be_given_back_is_refused(http: httpx.AsyncClient, body: bytes) -> None:
    refused(await http.post(f"{ROOT}/events", content=body, headers=JSON), 400, "MALFORMED_REQUEST")


async def test_a_body_is_an_object(http: httpx.AsyncClient) -> None:
    for body in ([], None, "text", 1):
        refused(await http.post(f"{ROOT}/events", content=json.dumps(body), headers=JSON), 400, "INVALID_FIELD")


async def test_too_much_is_refused(http: httpx.AsyncClient) -> None:
    texts = {"event": {"type": "t", "results": ["x" * 2**21]}}
    refused(await http.post(f"{ROOT}/events", json=texts), 413, "PAYLOAD_TOO_LARGE")
    # In JSON it is small enough, and as a message larger than gRPC takes.
    numbers = {"event": {"type": "t", "results": [[1] * 300_000]}}
    refused(await http.post(f"{ROOT}/events", json=numbers), 413, "PAYLOAD_TOO_LARGE")


async def test_the_body_says_that_it_is_json(http: httpx.AsyncClient, server: Wire, some_id: str) -> None:
    """Else any page could have its readers' browsers change what a server on their machine has."""
    await server.create_task(event_id=some_id)
    for headers in ({}, {"content-type": "text/plain"}, {"content-type": "application/x-www-form-urlencoded"}):
        refused(await http.post(f"{ROOT}/tasks/{some_id}:cancel", content=b"{}", headers=headers), 415)
        refused(await http.patch(f"{ROOT}/tasks/{some_id}", content=b"{}", headers=headers), 415)
    odd = {"content-type": "Application/JSON ; charset=utf-8"}
    ok(await http.post(f"{ROOT}/tasks/{some_id}:cancel", content=b"{}", headers=odd))


async def test_no_other_site_is_let_in(http: httpx.AsyncClient) -> None:
    asked = {"origin": "https://other.example", "access-control-request-method": "POST"}
    for answer in (
        await http.options(f"{ROOT}/events", headers=asked),
        await http.get(f"{ROOT}/events", headers=asked),
    ):
        assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_other_methods_are_named(http: httpx.AsyncClient) -> None:
    for method, path, allowed in (
        ("PUT", "/events", "GET, POST"),
        ("OPTIONS", "/tasks/a", "GET, PATCH"),
        ("GET", "/tasks/a:cancel", "POST"),
        ("TRACE", "/runs/a/plan/steps/b", "PATCH"),
    ):
        answer = await http.request(method, f"{ROOT}{path}")
        assert refused(answer, 405)["status"] == "UNIMPLEMENTED"
        assert answer.headers["allow"] == allowed
    head = await http.head(f"{ROOT}/events")
    assert (head.status_code, head.headers["allow"], head.content) == (405, "GET, POST", b"")
    for path in ("", "/", "/event", "/events/a/b", "/runs/a/plan/steps"):
        answer = await http.get(f"{ROOT}{path}")
        assert answer.status_code == (405 if path.endswith("steps") else 404)
        assert answer.json()["error"]["code"] == answer.status_code


async def test_a_failure_tells_what_the_service_told(http: httpx.AsyncClient, server: Wire, some_id: str) -> None:
    await server.create_task(event_id=some_id)
    await server.update(some_id, TASK_STATE_RUNNING)
    task = f"{ROOT}/tasks/{some_id}"
    stale = refused(await http.patch(task, json={"message": "m", "expectedRevision": 1}), 409, "REVISION_MISMATCH")
    assert stale["status"] == "ABORTED"
    assert stale["metadata"] == {"event_id": some_id, "current_revision": "2"}
    await server.update(some_id, TASK_STATE_SUCCEEDED)
    ended = refused(await http.patch(task, json={"state": "TASK_STATE_RUNNING"}), 409, "TASK_TERMINAL")
    assert ended["status"] == "FAILED_PRECONDITION"
    taken = refused(
        await http.post(f"{ROOT}/events", json={"event": {"eventId": some_id, "type": "u"}}),
        409,
        "EVENT_ALREADY_EXISTS",
    )
    assert taken["status"] == "ALREADY_EXISTS"


async def test_who_has_no_key_or_right_is_told_so(start: Start) -> None:
    async with keyed(start) as (wire, key):
        reading = await wire.server.api_keys.create("vendors", ["read"])
        event = {"event": {"type": "t"}}
        async with http_of(wire) as http:
            answer = await http.get(f"{ROOT}/events")
            assert refused(answer, 401, "UNAUTHENTICATED")["status"] == "UNAUTHENTICATED"
            assert answer.headers["www-authenticate"] == "Bearer"
            assert (await http.get("/openapi.json")).status_code == 200
            ok(await http.post(f"{ROOT}/events", json=event, headers={"authorization": f"Bearer {key}"}))
            refusal = await http.post(f"{ROOT}/events", json=event, headers={"x-api-key": reading})
            assert refused(refusal, 403, "PERMISSION_DENIED")["metadata"] == {"scope": "write"}


async def test_who_comes_too_often_is_told_when_to_come_again(start: Start) -> None:
    async with start(http_port=0, limits=Limits(calls_per_project_max=0)) as wire, http_of(wire) as http:
        answer = await http.get(f"{ROOT}/events")
        assert refused(answer, 429, "RATE_LIMITED")["status"] == "RESOURCE_EXHAUSTED"
        assert int(answer.headers["retry-after"]) >= 1


async def test_a_server_that_drains_says_so(start: Start) -> None:
    async with start(http_port=0) as wire, http_of(wire) as http:
        wire.server.gate.drain()
        answer = await http.get(f"{ROOT}/events")
        assert refused(answer, 503, "DRAINING")["status"] == "UNAVAILABLE"
        assert "retry-after" in answer.headers


async def longest_turn(work: Awaitable[object]) -> float:
    """How long others had to wait at most while something was done."""
    longest = 0.0

    async def take_turns() -> None:
        nonlocal longest
        while True:
            began = monotonic()
            await asyncio.sleep(0.001)
            longest = max(longest, monotonic() - began)

    turns = asyncio.create_task(take_turns())
    await work
    turns.cancel()
    return longest


async def test_a_large_page_delays_nobody(http: httpx.AsyncClient, server: Wire, some_id: str) -> None:
    payload = Struct()
    payload.update({"numbers": list(range(20_000))})
    events = [await server.create(some_id, event_id=f"{some_id}-{number}", payload=payload) for number in range(12)]
    began = monotonic()
    to_json(ListEventsResponse(events=events))
    whole = monotonic() - began
    pages = [await longest_turn(http.get(f"{ROOT}/events", params={"types": some_id})) for _ in range(3)]
    assert min(pages) < whole / 2
