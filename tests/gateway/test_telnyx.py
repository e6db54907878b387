"""Telnyx's AI Missions API, as its SDK speaks it."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import httpx
import pytest
from google.protobuf import json_format
from pymongo import AsyncMongoClient

from conftest import Start
from faces import http_of, keyed
from tidings.v1.event_service_pb2 import CreateEventRequest, GetEventRequest
from tidings.v1.run_service_pb2 import GetPlanRequest, GetRunRequest, UpdateRunRequest
from tidings.v1.task_pb2 import TASK_STATE_PAUSED, TASK_STATE_SKIPPED, TaskError
from tidings_server.limits import Limits
from wire import Wire, take, take_synced

M = "/v2/ai/missions"
JSON = {"content-type": "application/json"}
PAYLOAD = {"whole": 1, "part": 1.5, "none": None, "empty": [{}, [], ""], "yes": True, "text": "ü\u2028"}
SAMPLES = [
    json.loads(file.read_text(encoding="utf-8"))
    for file in (files("tidings_server") / "demo" / "samples").iterdir()
    if file.name.startswith("telnyx_")
]


async def new_mission(http: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    return data_of(await http.post(M, json={"name": "test", **fields}), 201)


async def new_run(http: httpx.AsyncClient, mission_id: str = "", **fields: Any) -> str:
    """The path of a new run."""
    mission_id = mission_id or (await new_mission(http))["mission_id"]
    run_id = data_of(await http.post(f"{M}/{mission_id}/runs", json=fields), 201)["run_id"]
    return f"{M}/{mission_id}/runs/{run_id}"


async def log(http: httpx.AsyncClient, run: str, **fields: Any) -> dict[str, Any]:
    event = {"type": "custom", "summary": "It happened", **fields}
    return data_of(await http.post(f"{run}/events", json=event), 201)


def step(step_id: str, sequence: int = 1, **fields: Any) -> dict[str, Any]:
    return {"step_id": step_id, "sequence": sequence, "description": f"Do {step_id}", **fields}


def ids_of(run: str) -> tuple[str, str]:
    """The ids of the mission and the run in a run's path."""
    parts = run.split("/")
    return parts[-3], parts[-1]


def data_of(answer: httpx.Response, status: int = 200) -> Any:
    assert answer.status_code == status, answer.text
    return answer.json()["data"]


def code_of(answer: httpx.Response, status: int) -> str:
    """The code in Telnyx's form of an error."""
    assert answer.status_code == status, answer.text
    assert answer.json().keys() == {"errors"}
    (error,) = answer.json()["errors"]
    assert error.keys() == {"code", "title", "detail", "meta"}
    assert error["meta"]["url"].endswith(error["code"])
    assert ("false" if status == 409 else None) == answer.headers.get("x-should-retry")
    return str(error["code"])


def flaws_of(answer: httpx.Response) -> list[list[str | int]]:
    """Where a request is invalid."""
    assert answer.status_code == 422, answer.text
    assert answer.json().keys() == {"detail"}
    assert all(flaw.keys() == {"loc", "msg", "type"} for flaw in answer.json()["detail"])
    return [flaw["loc"] for flaw in answer.json()["detail"]]


async def test_a_mission_is_as_it_was_created(http: httpx.AsyncClient) -> None:
    given = {"name": "Find", "description": "d", "instructions": "i", "model": "m", "execution_mode": "managed"}
    mission = await new_mission(http, metadata=PAYLOAD, **given)
    assert mission.items() >= {**given, "metadata": PAYLOAD}.items()
    assert mission.keys() == given.keys() | {"metadata", "mission_id", "created_at", "updated_at"}
    assert data_of(await http.get(f"{M}/{mission['mission_id']}")) == mission


async def test_a_mission_has_no_field_that_was_not_given(http: httpx.AsyncClient) -> None:
    mission = await new_mission(http, description=None)
    assert mission.keys() == {"mission_id", "name", "execution_mode", "created_at", "updated_at"}
    assert mission["execution_mode"] == "external"


async def test_an_update_of_a_mission_leaves_what_it_does_not_give(http: httpx.AsyncClient) -> None:
    mission = await new_mission(http, description="d", metadata={"a": 1})
    path = f"{M}/{mission['mission_id']}"
    changed = data_of(await http.put(path, json={"name": "new", "metadata": {"b": 2}, "execution_mode": "managed"}))
    assert (changed["name"], changed["description"]) == ("new", "d")
    assert (changed["metadata"], changed["execution_mode"]) == ({"b": 2}, "managed")
    assert data_of(await http.put(path, json={})) == changed
    assert "description" not in data_of(await http.put(path, json={"description": ""}))


async def test_a_deleted_mission_is_gone_with_its_runs(http: httpx.AsyncClient) -> None:
    run = await new_run(http)
    mission = run.partition("/runs")[0]
    answer = await http.delete(mission, headers=JSON)
    assert (answer.status_code, answer.content) == (204, b"")
    for path in (mission, run, f"{run}/events"):
        assert code_of(await http.get(path), 404) == "10005"


async def test_a_clone_is_another_mission_of_the_same_content(http: httpx.AsyncClient) -> None:
    mission = await new_mission(http, description="d", metadata=PAYLOAD)
    clone = data_of(await http.post(f"{M}/{mission['mission_id']}/clone", headers=JSON), 201)
    own = {"mission_id", "created_at", "updated_at"}
    assert clone["mission_id"] != mission["mission_id"]
    assert {name: clone[name] for name in clone.keys() - own} == {name: mission[name] for name in mission.keys() - own}
    assert data_of(await http.get(f"{M}/{clone['mission_id']}")) == clone


async def test_missions_are_listed_newest_first_in_numbered_pages(http: httpx.AsyncClient) -> None:
    made = [(await new_mission(http))["mission_id"] for _ in range(3)]
    pages = [(await http.get(M, params={"page[number]": number, "page[size]": 2})).json() for number in (1, 2)]
    listed = [mission["mission_id"] for page in pages for mission in page["data"]]
    assert listed[:3] == made[::-1]
    total = pages[0]["meta"]["total_results"]
    assert pages[1]["meta"] == {
        "page_number": 2, "page_size": 2, "total_pages": -(-total // 2), "total_results": total,
    }  # fmt: skip
    beyond = (await http.get(M, params={"page[number]": 2**31 - 1, "page[size]": 1000})).json()
    assert (beyond["data"], beyond["meta"]["page_number"]) == ([], 2**31 - 1)


@pytest.mark.parametrize("page", [("number", "0"), ("number", "x"), ("size", "0"), ("size", "1001")])
async def test_a_page_outside_its_limits_is_refused(http: httpx.AsyncClient, page: tuple[str, str]) -> None:
    for path in (M, f"{M}/runs", f"{M}/events"):
        answer = await http.get(path, params={f"page[{page[0]}]": page[1]})
        assert flaws_of(answer) == [["query", f"page[{page[0]}]"]]


async def test_a_page_larger_than_a_response_of_the_service_is_whole(start: Start) -> None:
    async with start(http_port=0, limits=Limits(response_bytes_max=1)) as wire, http_of(wire) as http:
        run = await new_run(http)
        logged = [await log(http, run, summary=str(number)) for number in range(5)]
        page = (await http.get(f"{run}/events", params={"page[number]": 2, "page[size]": 3})).json()
        assert page["data"] == logged[3:]
        page = (await http.get(f"{run}/events", params={"page[size]": 3})).json()
        assert page["data"] == logged[:3]
        assert page["meta"] == {"page_number": 1, "page_size": 3, "total_pages": 2, "total_results": 5}


async def test_an_event_that_cannot_be_read_leaves_the_pages_as_they_are(
    start: Start, mongo: AsyncMongoClient[dict[str, Any]], database: str
) -> None:
    async with start(http_port=0) as wire, http_of(wire) as http:
        run = await new_run(http)
        logged = [await log(http, run, summary=str(number)) for number in range(3)]
        broken = {"_id": f"default/{logged[1]['event_id']}"}
        await mongo[database].events.update_one(broken, {"$set": {"summary": 17}})
        for number, expected in ((1, logged[:1]), (2, logged[2:])):
            page = await http.get(f"{run}/events", params={"page[number]": number, "page[size]": 2})
            assert data_of(page) == expected


async def test_a_run_begins_pending(http: httpx.AsyncClient) -> None:
    run = await new_run(http, input=PAYLOAD, metadata={})
    view = data_of(await http.get(run))
    mission_id, run_id = ids_of(run)
    assert view.keys() == {"run_id", "mission_id", "status", "started_at", "updated_at", "input", "metadata"}
    assert (view["mission_id"], view["run_id"], view["status"]) == (mission_id, run_id, "pending")
    assert (view["input"], view["metadata"]) == (PAYLOAD, {})


async def test_a_run_may_be_created_without_a_body(http: httpx.AsyncClient) -> None:
    mission = await new_mission(http)
    view = data_of(await http.post(f"{M}/{mission['mission_id']}/runs", headers=JSON), 201)
    assert view["status"] == "pending"


async def test_a_run_is_moved_by_empty_requests(http: httpx.AsyncClient) -> None:
    run = await new_run(http)
    created_at = data_of(await http.get(run))["started_at"]
    begun = data_of(await http.patch(run, json={"status": "running"}))
    assert begun["status"] == "running"
    assert begun["started_at"] >= created_at
    for verb, status in (("pause", "paused"), ("pause", "paused"), ("resume", "running"), ("cancel", "cancelled")):
        assert data_of(await http.post(f"{run}/{verb}", headers=JSON))["status"] == status
    ended = data_of(await http.get(run))
    assert ended["started_at"] == begun["started_at"]
    assert ended["finished_at"] == ended["updated_at"]


async def test_an_update_of_a_run_leaves_what_it_does_not_give(http: httpx.AsyncClient, server: Wire) -> None:
    run = await new_run(http, metadata={"a": 1})
    change = {"status": "failed", "error": "No answer", "result_summary": "None", "result_payload": PAYLOAD}
    ended = data_of(await http.patch(run, json=change))
    assert ended.items() >= {**change, "metadata": {"a": 1}}.items()
    assert data_of(await http.patch(run, json={"error": None})) == ended
    assert data_of(await http.patch(run, json={"metadata": {"b": 2}}))["result_payload"] == PAYLOAD
    stored = (await server.runs.GetRun(GetRunRequest(run_id=ids_of(run)[1]))).run
    assert stored.error == TaskError(message="No answer")


async def test_a_run_that_others_move_is_seen_as_it_is(http: httpx.AsyncClient, server: Wire) -> None:
    run = await new_run(http)
    await http.patch(run, json={"status": "running"})
    await server.runs.UpdateRun(UpdateRunRequest(run_id=ids_of(run)[1], state=TASK_STATE_PAUSED))
    assert data_of(await http.get(run))["status"] == "paused"


@pytest.mark.parametrize("verb", ["pause", "resume"])
async def test_a_run_that_is_not_running_is_not_paused_or_resumed(http: httpx.AsyncClient, verb: str) -> None:
    run = await new_run(http)
    assert code_of(await http.post(f"{run}/{verb}", headers=JSON), 409) == "10015"


async def test_a_run_that_has_ended_does_not_move(http: httpx.AsyncClient) -> None:
    run = await new_run(http)
    data_of(await http.patch(run, json={"status": "succeeded"}))
    assert code_of(await http.patch(run, json={"status": "running"}), 409) == "10015"
    assert code_of(await http.post(f"{run}/cancel", headers=JSON), 409) == "10015"


async def test_runs_are_listed_newest_first_and_by_status(http: httpx.AsyncClient) -> None:
    mission_id = (await new_mission(http))["mission_id"]
    runs = [await new_run(http, mission_id) for _ in range(3)]
    views = [data_of(await http.patch(run, json={"status": "running"})) for run in runs[:2]]
    views.append(data_of(await http.get(runs[2])))
    path = f"{M}/{mission_id}/runs"
    assert data_of(await http.get(path)) == views[::-1]
    assert data_of(await http.get(path, params={"status": "running", "page[size]": 1, "page[number]": 2})) == views[:1]
    assert data_of(await http.get(path, params={"status": "paused"})) == []
    assert data_of(await http.get(path, params={"status": "no such"})) == []
    assert data_of(await http.get(f"{M}/runs", params={"page[size]": 3})) == views[::-1]
    assert data_of(await http.get(f"{M}/runs", params={"status": "running", "page[size]": 2})) == views[1::-1]
    assert (await http.get(f"{M}/runs", params={"status": "no such"})).json()["meta"]["total_results"] == 0


async def test_a_plan_is_in_the_order_of_its_sequence(http: httpx.AsyncClient) -> None:
    run = await new_run(http)
    assert data_of(await http.get(f"{run}/plan")) == []
    steps = [step("c", 3, parent_step_id="a"), step("a", 1, metadata=PAYLOAD)]
    made = data_of(await http.post(f"{run}/plan", json={"steps": steps}), 201)
    expected = [{**each, "run_id": ids_of(run)[1], "status": "pending"} for each in steps[::-1]]
    assert made == expected
    added = data_of(await http.post(f"{run}/plan/steps", json={"steps": [step("b", 2)]}), 201)
    assert [each["step_id"] for each in added] == ["b"]
    assert data_of(await http.get(f"{run}/plan")) == [expected[0], *added, expected[1]]
    assert data_of(await http.get(f"{run}/plan/steps/a")) == expected[0]


async def test_a_plan_is_given_once(http: httpx.AsyncClient) -> None:
    run = await new_run(http)
    plan = {"steps": [step("a")]}
    made = data_of(await http.post(f"{run}/plan", json=plan), 201)
    assert code_of(await http.post(f"{run}/plan", json=plan), 409) == "10012"
    retry = {"x-stainless-retry-count": "1"}
    assert data_of(await http.post(f"{run}/plan", json=plan, headers=retry), 201) == made
    assert code_of(await http.post(f"{run}/plan", json={"steps": [step("b")]}, headers=retry), 409) == "10012"


async def test_a_step_is_added_once(http: httpx.AsyncClient) -> None:
    run = await new_run(http)
    await http.post(f"{run}/plan", json={"steps": [step("a")]})
    assert code_of(await http.post(f"{run}/plan/steps", json={"steps": [step("b"), step("a")]}), 409) == "10012"
    assert len(data_of(await http.get(f"{run}/plan"))) == 1
    retry = {"x-stainless-retry-count": "2"}
    same = await http.post(f"{run}/plan/steps", json={"steps": [step("a")]}, headers=retry)
    assert [each["step_id"] for each in data_of(same, 201)] == ["a"]
    assert code_of(await http.post(f"{run}/plan/steps", json={"steps": [step("a", 2)]}, headers=retry), 409) == "10012"


async def test_a_step_is_stamped_as_it_moves(http: httpx.AsyncClient, server: Wire) -> None:
    run = await new_run(http)
    await http.post(f"{run}/plan", json={"steps": [step("a"), step("b", 2)]})
    begun = data_of(await http.patch(f"{run}/plan/steps/a", json={"status": "in_progress"}))
    assert begun.keys() == {"step_id", "run_id", "sequence", "description", "status", "started_at"}
    done = data_of(await http.patch(f"{run}/plan/steps/a", json={"status": "completed", "metadata": {"n": 1}}))
    assert done.items() >= {"status": "completed", "started_at": begun["started_at"], "metadata": {"n": 1}}.items()
    assert done["completed_at"] >= done["started_at"]
    assert code_of(await http.patch(f"{run}/plan/steps/a", json={"status": "in_progress"}), 409) == "10015"
    assert data_of(await http.patch(f"{run}/plan/steps/b", json={"status": "skipped"}))["status"] == "skipped"
    plan = await server.runs.GetPlan(GetPlanRequest(run_id=ids_of(run)[1]))
    assert plan.steps[1].state == TASK_STATE_SKIPPED


async def test_an_event_is_as_it_was_logged(http: httpx.AsyncClient) -> None:
    run = await new_run(http)
    given = {"type": "tool_call", "summary": "s", "step_id": "a", "agent_id": "g", "idempotency_key": "k"}
    event = await log(http, run, payload=PAYLOAD, **given)
    assert event.items() >= {**given, "payload": PAYLOAD, "run_id": ids_of(run)[1]}.items()
    assert event.keys() == given.keys() | {"payload", "run_id", "event_id", "timestamp"}
    assert data_of(await http.get(f"{run}/events/{event['event_id']}")) == event
    bare = await log(http, run)
    assert bare.keys() == {"event_id", "run_id", "type", "summary", "timestamp"}


async def test_the_log_of_a_run_is_listed_oldest_first_and_by_filters(http: httpx.AsyncClient) -> None:
    run = await new_run(http)
    events = [
        await log(http, run, type="message", step_id="a"),
        await log(http, run, type="error", step_id="a", agent_id="g"),
        await log(http, run, type="error", step_id="b", agent_id="g"),
    ]
    page = (await http.get(f"{run}/events")).json()
    assert page == {
        "data": events,
        "meta": {"page_number": 1, "page_size": 50, "total_pages": 1, "total_results": 3},
    }
    for filters, expected in (
        ({"type": "error"}, events[1:]),
        ({"step_id": "a"}, events[:2]),
        ({"agent_id": "g", "step_id": "b"}, events[2:]),
        ({"type": "no such"}, []),
    ):
        assert data_of(await http.get(f"{run}/events", params=filters)) == expected


async def test_the_events_of_all_missions_are_listed_newest_first(
    http: httpx.AsyncClient, server: Wire, some_id: str
) -> None:
    events = [await log(http, await new_run(http), type=type_) for type_ in ("message", "error", "message")]
    await server.create_task("ADD", event_id=some_id)  # another dialect's
    assert data_of(await http.get(f"{M}/events", params={"page[size]": 3})) == events[::-1]
    assert data_of(await http.get(f"{M}/events", params={"type": "error", "page[size]": 1})) == events[1:2]
    assert data_of(await http.get(f"{M}/events", params={"type": "no such"})) == []


async def test_an_idempotency_key_gives_the_first_event(http: httpx.AsyncClient) -> None:
    run = await new_run(http)
    first = await log(http, run, idempotency_key="k")
    assert await log(http, run, idempotency_key="k") == first
    assert data_of(await http.get(f"{run}/events")) == [first]
    other = {"type": "custom", "summary": "Another", "idempotency_key": "k"}
    assert code_of(await http.post(f"{run}/events", json=other), 409) == "10012"
    assert (await log(http, await new_run(http), idempotency_key="k"))["event_id"] != first["event_id"]


async def test_the_end_of_a_run_is_logged_after_it(http: httpx.AsyncClient) -> None:
    run = await new_run(http)
    await http.patch(run, json={"status": "succeeded"})
    late = await log(http, run, type="status_change")
    assert data_of(await http.get(f"{run}/events")) == [late]


async def test_a_run_that_another_client_closed_takes_no_more_events(http: httpx.AsyncClient, server: Wire) -> None:
    made = await server.create_run()
    run = f"{M}/{made.mission_id}/runs/{made.run_id}"
    data_of(await http.post(f"{run}/cancel", headers=JSON))
    assert code_of(await http.post(f"{run}/events", json={"type": "error", "summary": "Late"}), 409) == "10015"


async def test_events_of_either_side_are_seen_on_the_other(http: httpx.AsyncClient, server: Wire, some_id: str) -> None:
    run = await new_run(http)
    run_id = ids_of(run)[1]
    watch = server.watch(run_id=run_id)
    await take_synced(watch)
    logged = await log(http, run, type="tool_result", payload=PAYLOAD)
    told = (await take(watch)).change.event
    assert (told.event_id, told.type, told.summary) == (logged["event_id"], "tool_result", "It happened")
    assert json_format.MessageToDict(told.payload) == PAYLOAD
    stored = (await server.events.GetEvent(GetEventRequest(event_id=logged["event_id"]))).event
    assert stored == told

    task = await server.create_task("render", event_id=some_id, run_id=run_id, mission_id=ids_of(run)[0], summary="s")
    assert (await take(watch)).change.event == task
    expected = {
        "event_id": some_id,
        "run_id": run_id,
        "type": "render",
        "summary": "s",
        "timestamp": task.event_time.ToJsonString(),
    }
    assert data_of(await http.get(f"{run}/events")) == [logged, expected]
    assert data_of(await http.get(f"{run}/events/{some_id}")) == expected
    watch.cancel()


async def test_samples_are_answered_as_telnyx_prints_them(start: Start) -> None:
    async with start(http_port=0) as wire, http_of(wire) as http:  # their ids are taken elsewhere
        for sample in SAMPLES:
            request, expected = json_format.ParseDict(sample["request"], CreateEventRequest()), sample["document"]
            await wire.ensure(request.event.run_id, request.event.mission_id)
            event_id = (await wire.events.CreateEvent(request)).event.event_id
            expected["data"].setdefault("event_id", event_id)
            path = f"{M}/{request.event.mission_id}/runs/{request.event.run_id}/events/{event_id}"
            answer = (await http.get(path)).json()
            assert json.dumps(answer, sort_keys=True) == json.dumps(expected, sort_keys=True)


async def test_what_is_in_a_path_belongs_together(http: httpx.AsyncClient) -> None:
    run = await new_run(http)
    sibling = await new_run(http, ids_of(run)[0])
    await http.post(f"{run}/plan", json={"steps": [step("a")]})
    event_id = (await log(http, run))["event_id"]
    assert code_of(await http.get(f"{sibling}/events/{event_id}"), 404) == "10005"
    stranger = f"{M}/{(await new_mission(http))['mission_id']}/runs/{ids_of(run)[1]}"
    for path in ("", "/events", f"/events/{event_id}", "/plan", "/plan/steps/a"):
        data_of(await http.get(run + path))
        assert code_of(await http.get(stranger + path), 404) == "10005"
    for method, path, body in (
        ("PATCH", "", {}),
        ("POST", "/pause", None),
        ("POST", "/resume", None),
        ("POST", "/cancel", None),
        ("POST", "/events", {"type": "custom", "summary": "s"}),
        ("POST", "/plan", {"steps": [step("b")]}),
        ("POST", "/plan/steps", {"steps": [step("b")]}),
        ("PATCH", "/plan/steps/a", {}),
    ):
        assert code_of(await http.request(method, stranger + path, json=body), 404) == "10005"


@pytest.mark.parametrize("unknown", ["0190a6f5-0000-7000-8000-000000000000", "not-a-uuid", "a%20b", "%E4%B8%80"])
async def test_an_unknown_id_of_any_form_is_not_found(http: httpx.AsyncClient, unknown: str) -> None:
    run = await new_run(http)
    mission = run.partition("/runs")[0]
    for path in (f"{M}/{unknown}", f"{M}/{unknown}/runs", f"{mission}/runs/{unknown}", f"{run}/events/{unknown}"):
        assert code_of(await http.get(path), 404) == "10005"
    assert code_of(await http.get(f"{run}/plan/steps/{unknown}"), 404) == "10005"
    assert code_of(await http.post(f"{M}/{unknown}/runs", json={}), 404) == "10005"
    assert code_of(await http.post(f"{M}/{unknown}/clone"), 404) == "10005"
    assert code_of(await http.delete(f"{M}/{unknown}"), 404) == "10005"


async def test_what_the_service_refuses_is_named_where_the_caller_gave_it(http: httpx.AsyncClient) -> None:
    run, long = await new_run(http), "x" * 129
    mission = run.partition("/runs")[0]
    event = {"type": "custom", "summary": "s" * 5000, "step_id": "a b", "agent_id": "a/b", "payload": {"k": "\0"}}
    assert flaws_of(await http.post(f"{run}/events", json=event)) == [
        ["body", "summary"], ["body", "step_id"], ["body", "agent_id"], ["body", "payload", "k"],
    ]  # fmt: skip
    for method, path, body, place in (
        ("GET", f"{M}/{long}", None, ["path", "mission_id"]),
        ("GET", f"{mission}/runs/{long}", None, ["path", "run_id"]),
        ("GET", f"{run}/events/{long}", None, ["path", "event_id"]),
        ("GET", f"{M}/a%00b", None, ["path", "mission_id"]),
        ("GET", f"{run}/events?type={long}", None, ["query", "type"]),
        ("POST", M, {"name": ""}, ["body", "name"]),
        ("PUT", mission, {"name": ""}, ["body", "name"]),
        ("PATCH", run, {"error": "x" * 9000}, ["body", "error"]),
        ("POST", f"{mission}/runs", {"input": {"k": ["\0"]}}, ["body", "input", "k", 0]),
        ("POST", f"{run}/plan", {"steps": [step("a"), step("b c")]}, ["body", "steps", 1, "step_id"]),
    ):
        assert flaws_of(await http.request(method, path, json=body)) == [place]


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b"", ["body"]),
        (b"{", ["body"]),
        (b"[]", ["body"]),
        (b"null", ["body"]),
        (b"{}", ["body", "name"]),
        (b'{"name": 1}', ["body", "name"]),
        (b'{"name": "n", "execution_mode": "x"}', ["body", "execution_mode"]),
        (b'{"name": "n", "metadata": []}', ["body", "metadata"]),
        (b'{"name": "n", "metadata": {"a": 1e999}}', ["body"]),
        (b'{"name": "\\ud800"}', ["body"]),
        (b'{"name": "n", "metadata": ' + b'{"a":' * 28 + b"1" + b"}" * 29, ["body"]),
        (b'{"name": "n", "metadata": ' + b'{"a":' * 99 + b"1" + b"}" * 100, ["body"]),
    ],
)
async def test_a_body_that_is_no_mission_is_refused(
    http: httpx.AsyncClient, body: bytes, place: list[str | int]
) -> None:
    (flaw,) = flaws_of(await http.post(M, content=body, headers=JSON))
    assert flaw[: len(place)] == place


async def test_only_telnyxs_types_and_states_are_taken(http: httpx.AsyncClient) -> None:
    run = await new_run(http)
    await http.post(f"{run}/plan", json={"steps": [step("a")]})
    assert flaws_of(await http.post(f"{run}/events", json={"type": "x", "summary": "s"})) == [["body", "type"]]
    assert flaws_of(await http.patch(run, json={"status": "completed"})) == [["body", "status"]]
    assert flaws_of(await http.patch(f"{run}/plan/steps/a", json={"status": "running"})) == [["body", "status"]]


async def test_a_caller_without_a_key_is_refused_in_telnyxs_words(start: Start) -> None:
    async with keyed(start) as (wire, key):
        async with http_of(wire, authorization=f"Bearer {key}") as http:
            run = await new_run(http)
        for headers in ({}, {"authorization": "Bearer wrong"}):
            async with http_of(wire, **headers) as http:
                for path in (M, run, f"{M}/runs?status=x", f"{M}/events?type=x"):
                    assert code_of(await http.get(path), 401) == "10009"


async def test_a_caller_who_may_only_read_is_refused_in_telnyxs_words(start: Start) -> None:
    async with keyed(start) as (wire, _):
        key = await wire.server.api_keys.create("vendors", frozenset({"read"}))
        async with http_of(wire, authorization=f"Bearer {key}") as http:
            assert code_of(await http.post(M, json={"name": "n"}), 403) == "10010"
