"""Telnyx's own SDK, unmodified, against a running server: the whole flow that its documentation describes.

TIDINGS_HTTP is the server's root URL and TIDINGS_KEY an API key. Needs the package `telnyx`.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable

import httpx
import telnyx
from telnyx import Telnyx
from telnyx.resources.ai.missions import MissionsResource

ROOT = os.environ["TIDINGS_HTTP"].rstrip("/") + "/v2"
KEY = os.environ["TIDINGS_KEY"]

EVENT_TYPES = (
    "status_change",
    "step_started",
    "step_completed",
    "step_failed",
    "tool_call",
    "tool_result",
    "message",
    "error",
    "custom",
)
PAYLOAD = {"whole": 1, "part": 1.5, "none": None, "list": [1, [], {}], "text": "ü", "yes": True, "deep": {"er": {}}}


def main() -> None:
    for name in ("TELNYX_CLIENT_ID", "TELNYX_CLIENT_SECRET"):  # with them the SDK asks Telnyx for a token
        os.environ.pop(name, None)
    sent: list[httpx.Request] = []
    http = httpx.Client(event_hooks={"request": [sent.append]})
    client = Telnyx(api_key=KEY, base_url=ROOT, http_client=http, _strict_response_validation=True)
    missions = client.ai.missions
    mission_id = of_a_mission(missions)
    run_id = of_a_run(missions, mission_id)
    of_a_plan(missions, mission_id, run_id)
    of_a_log(missions, mission_id, run_id)
    of_states(missions, mission_id, run_id, sent)
    of_what_is_not_there(missions, mission_id, run_id)
    missions.delete_mission(mission_id)
    refused(telnyx.NotFoundError, lambda: missions.retrieve(mission_id))
    refused(telnyx.NotFoundError, lambda: missions.runs.retrieve(run_id, mission_id=mission_id))
    of_a_wrong_key(mission_id)
    print("ok")


def of_a_mission(missions: MissionsResource) -> str:
    mission = missions.create(
        name="Find a clinic", description="Nearby", instructions="Call", model="m-1", metadata=PAYLOAD
    ).data
    assert (mission.name, mission.execution_mode, mission.metadata) == ("Find a clinic", "external", PAYLOAD)
    assert missions.retrieve(mission.mission_id).data == mission
    changed = missions.update_mission(mission.mission_id, description="Far away", execution_mode="managed").data
    assert (changed.name, changed.description, changed.execution_mode) == ("Find a clinic", "Far away", "managed")
    assert changed.metadata == PAYLOAD
    assert changed.updated_at >= mission.updated_at
    clone = missions.clone_mission(mission.mission_id)
    clone_id = clone["data"]["mission_id"]
    assert clone_id != mission.mission_id
    assert [each.mission_id for each in missions.list(page_size=2).data] == [clone_id, mission.mission_id]
    listed = [each.mission_id for each in missions.list(page_size=1)]  # every page, one by one
    assert {clone_id, mission.mission_id} <= set(listed)
    assert len(listed) == len(set(listed))
    assert missions.list(page_number=1_000_000).data == []
    assert missions.delete_mission(clone_id) is None
    return mission.mission_id


def of_a_run(missions: MissionsResource, mission_id: str) -> str:
    first = missions.runs.create(mission_id).data
    second = missions.runs.create(mission_id, input={"city": "Ulm"}, metadata={"n": 1}).data
    assert (second.mission_id, second.status, second.input, second.metadata) == (
        mission_id,
        "pending",
        {"city": "Ulm"},
        {"n": 1},
    )
    assert second.started_at is not None
    assert second.finished_at is None
    assert missions.runs.retrieve(second.run_id, mission_id=mission_id).data == second
    assert [run.run_id for run in missions.runs.list(mission_id, page_size=1)] == [second.run_id, first.run_id]
    assert [run.run_id for run in missions.runs.list_runs(page_size=2).data] == [second.run_id, first.run_id]
    assert missions.runs.list(mission_id, status="running").data == []
    assert missions.runs.list(mission_id, status="no such status").data == []
    assert len(missions.runs.list(mission_id, status="pending").data) == 2
    return second.run_id


def of_a_plan(missions: MissionsResource, mission_id: str, run_id: str) -> None:
    plan = missions.runs.plan
    assert plan.retrieve(run_id, mission_id=mission_id).data == []
    steps = plan.create(
        run_id,
        mission_id=mission_id,
        steps=[
            {"step_id": "call", "sequence": 2, "description": "Call them", "parent_step_id": "find"},
            {"step_id": "find", "sequence": 1, "description": "Find some", "metadata": {"max": 3}},
        ],
    ).data
    assert {step.step_id for step in steps} == {"find", "call"}
    more = [{"step_id": "book", "sequence": 3, "description": "Book one"}]
    added = plan.add_steps_to_plan(run_id, mission_id=mission_id, steps=more).data
    assert [step.step_id for step in added] == ["book"]
    whole = plan.retrieve(run_id, mission_id=mission_id).data
    assert [(step.step_id, step.sequence, step.status) for step in whole] == [
        ("find", 1, "pending"),
        ("call", 2, "pending"),
        ("book", 3, "pending"),
    ]
    assert (whole[0].metadata, whole[1].parent_step_id, whole[1].run_id) == ({"max": 3}, "find", run_id)
    begun = plan.update_step("find", mission_id=mission_id, run_id=run_id, status="in_progress").data
    assert (begun.status, begun.completed_at) == ("in_progress", None)
    assert begun.started_at is not None
    done = plan.update_step("find", mission_id=mission_id, run_id=run_id, status="completed", metadata={"n": 2}).data
    assert (done.status, done.metadata) == ("completed", {"n": 2})
    assert done.completed_at is not None
    assert plan.update_step("book", mission_id=mission_id, run_id=run_id, status="skipped").data.status == "skipped"
    assert plan.get_step_details("find", mission_id=mission_id, run_id=run_id).data == done


def of_a_log(missions: MissionsResource, mission_id: str, run_id: str) -> None:
    events = missions.runs.events
    logged = [
        events.log(run_id, mission_id=mission_id, type=type_, summary=f"It was {type_}").data for type_ in EVENT_TYPES
    ]
    keyed = {"type": "tool_call", "summary": "Dial", "step_id": "call", "agent_id": "a-1", "idempotency_key": "k-1"}
    once = events.log(run_id, mission_id=mission_id, payload=PAYLOAD, **keyed).data
    assert events.log(run_id, mission_id=mission_id, payload=PAYLOAD, **keyed).data == once
    assert (once.run_id, once.payload, once.idempotency_key) == (run_id, PAYLOAD, "k-1")
    assert events.get_event_details(once.event_id, mission_id=mission_id, run_id=run_id).data == once
    assert list(events.list(run_id, mission_id=mission_id, page_size=3)) == [*logged, once]
    assert list(events.list(run_id, mission_id=mission_id, type="tool_call")) == [logged[4], once]
    assert list(events.list(run_id, mission_id=mission_id, step_id="call", agent_id="a-1")) == [once]
    assert events.list(run_id, mission_id=mission_id, type="no_such_type").data == []
    assert missions.list_events(page_size=2).data == [once, logged[-1]]
    assert missions.list_events(type="error", page_size=1).data == [logged[7]]


def of_states(missions: MissionsResource, mission_id: str, run_id: str, sent: list[httpx.Request]) -> None:
    runs = missions.runs
    refused(telnyx.ConflictError, lambda: runs.pause_run(run_id, mission_id=mission_id))
    begun = runs.update(run_id, mission_id=mission_id, status="running").data
    assert begun.status == "running"
    assert runs.pause_run(run_id, mission_id=mission_id).data.status == "paused"
    assert runs.resume_run(run_id, mission_id=mission_id).data.status == "running"
    ended = runs.update(
        run_id, mission_id=mission_id, status="failed", error="No one answers", result_summary="None", result_payload={}
    ).data
    assert (ended.status, ended.error, ended.result_summary, ended.result_payload) == (
        "failed",
        "No one answers",
        "None",
        {},
    )
    assert ended.finished_at is not None
    before = len(sent)
    refused(telnyx.ConflictError, lambda: runs.resume_run(run_id, mission_id=mission_id))
    steps = [{"step_id": "other", "sequence": 1, "description": "Another plan"}]
    refused(telnyx.ConflictError, lambda: runs.plan.create(run_id, mission_id=mission_id, steps=steps))
    assert len(sent) == before + 2  # it does not repeat what is in conflict
    other = runs.create(mission_id).data
    assert runs.cancel_run(other.run_id, mission_id=mission_id).data.status == "cancelled"
    late = missions.runs.events.log(run_id, mission_id=mission_id, type="status_change", summary="It failed").data
    assert late.run_id == run_id


def of_what_is_not_there(missions: MissionsResource, mission_id: str, run_id: str) -> None:
    runs, nobody = missions.runs, str(uuid.uuid4())
    event = runs.events.list(run_id, mission_id=mission_id).data[0]
    other = missions.create(name="Another").data.mission_id
    refused(telnyx.NotFoundError, lambda: missions.retrieve(nobody))
    refused(telnyx.NotFoundError, lambda: missions.retrieve("a b?c"))
    refused(telnyx.NotFoundError, lambda: runs.retrieve(nobody, mission_id=mission_id))
    refused(telnyx.NotFoundError, lambda: runs.retrieve(run_id, mission_id=other))
    refused(telnyx.NotFoundError, lambda: runs.list(nobody))
    refused(telnyx.NotFoundError, lambda: runs.events.list(run_id, mission_id=other))
    refused(telnyx.NotFoundError, lambda: runs.events.get_event_details(nobody, mission_id=mission_id, run_id=run_id))
    refused(
        telnyx.NotFoundError, lambda: runs.events.get_event_details(event.event_id, mission_id=other, run_id=run_id)
    )
    refused(telnyx.NotFoundError, lambda: runs.plan.get_step_details("no", mission_id=mission_id, run_id=run_id))
    wrong = refused(
        telnyx.UnprocessableEntityError,
        lambda: runs.events.log(run_id, mission_id=mission_id, type="nonsense", summary="x"),
    )
    assert wrong.body["detail"][0]["loc"] == ["body", "type"]
    missions.delete_mission(other)


def of_a_wrong_key(mission_id: str) -> None:
    client = Telnyx(api_key="tdg_not_a_key", base_url=ROOT)
    refused(telnyx.AuthenticationError, lambda: client.ai.missions.retrieve(mission_id))


def refused(kind: type[telnyx.APIStatusError], call: Callable[[], object]) -> telnyx.APIStatusError:
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"not refused with {kind.__name__}")


main()
