"""`tidings missions` and `tidings runs`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from command import Tidings, end, line
from google.protobuf.json_format import ParseDict

from tidings.v1.mission_service_pb2 import GetMissionRequest
from tidings.v1.run_pb2 import PlanStep, Run
from tidings.v1.run_service_pb2 import (
    CreatePlanRequest,
    GetRunRequest,
    UpdatePlanStepRequest,
    UpdateRunRequest,
    WatchRunResponse,
)
from tidings.v1.task_pb2 import (
    TASK_STATE_FAILED,
    TASK_STATE_RUNNING,
    TASK_STATE_SKIPPED,
    TASK_STATE_SUCCEEDED,
    TaskError,
)
from wire import Failed, Wire, failure

TREE = """\
{id}  FAILED  3/4 steps  TIME for N s  the printer is broken  E7: no ink
├── write  RUNNING  since TIME  Write the report
│   ├── read  SUCCEEDED  TIME for N s  Read the sources
│   └── check  SKIPPED  TIME
└── print  SUCCEEDED  TIME for N s
"""

MISSION = """\
mission      {id}
name         Reports
description  Weekly ones
instructions Be brief
model        small
created      TIME
updated      TIME
revision     1
"""


def without_times(text: str) -> str:
    return re.sub(r"for \d+\.\d s", "for N s", re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "TIME", text))


async def step(server: Wire, run_id: str, step_id: str, *states: Any) -> None:
    for state in states:
        await server.runs.UpdatePlanStep(UpdatePlanStepRequest(run_id=run_id, step_id=step_id, state=state))


async def planned(server: Wire, run_id: str) -> None:
    """A run at work, with a plan of steps within steps."""
    await server.create_run(run_id=run_id, state=TASK_STATE_RUNNING)
    steps = [
        PlanStep(step_id="print", sequence=4),
        PlanStep(step_id="check", sequence=3, parent_step_id="write"),
        PlanStep(step_id="read", sequence=2, parent_step_id="write", description="Read the sources"),
        PlanStep(step_id="write", sequence=1, description="Write the report"),
    ]
    await server.runs.CreatePlan(CreatePlanRequest(run_id=run_id, steps=steps))


async def test_a_run_is_a_tree_of_its_plan(server: Wire, tmp_path: Path, some_id: str) -> None:
    await planned(server, some_id)
    await step(server, some_id, "write", TASK_STATE_RUNNING)
    await step(server, some_id, "read", TASK_STATE_RUNNING, TASK_STATE_SUCCEEDED)
    await step(server, some_id, "check", TASK_STATE_SKIPPED)
    await step(server, some_id, "print", TASK_STATE_RUNNING, TASK_STATE_SUCCEEDED)
    error = TaskError(code="E7", message="no ink")
    ended = UpdateRunRequest(
        run_id=some_id, state=TASK_STATE_FAILED, error=error, result_summary="the printer is broken"
    )
    await server.runs.UpdateRun(ended)
    tree = (await Tidings(tmp_path, server.target).done("runs", "get", some_id)).out
    assert without_times(tree) == TREE.format(id=some_id)


async def test_a_run_is_created_listed_and_cancelled(server: Wire, tmp_path: Path, some_id: str) -> None:
    tidings = Tidings(tmp_path, server.target)
    mission = await server.create_mission()
    options = ("--id", some_id, "--input", '{"pages": 7}', "--ttl", "1d")
    assert (await tidings.done("runs", "create", mission.mission_id, *options)).out == f"{some_id}\n"
    other = (await tidings.done("runs", "create", mission.mission_id)).out.strip()
    run = (await server.runs.GetRun(GetRunRequest(run_id=some_id))).run
    assert (dict(run.input), round((run.expire_time.seconds - run.create_time.seconds) / 3600)) == ({"pages": 7}, 24)
    listed = await tidings.done("runs", "list", "--mission", mission.mission_id)
    assert [row[:3] for row in listed.rows] == [[each, mission.mission_id, "PENDING"] for each in (other, some_id)]
    assert (await tidings.done("runs", "cancel", some_id)).rows[0][2] == "CANCELLED"
    cancelled = await tidings.done("runs", "list", "--mission", mission.mission_id, "-s", "cancelled", "-o", "json")
    assert [json.loads(each)["runId"] for each in cancelled.lines] == [some_id]


async def test_json_of_a_run_is_that_of_proto3(server: Wire, tmp_path: Path, some_id: str) -> None:
    await planned(server, some_id)
    got = await Tidings(tmp_path, server.target).done("runs", "get", some_id, "-o", "json")
    assert ParseDict(got.json, Run()) == (await server.runs.GetRun(GetRunRequest(run_id=some_id))).run


async def test_each_change_of_a_run_is_a_line_or_a_message(server: Wire, tmp_path: Path, some_id: str) -> None:
    tidings = Tidings(tmp_path, server.target)
    await planned(server, some_id)
    lines, messages = [await tidings.begin("runs", "watch", some_id, *more) for more in ((), ("-o", "json"))]
    assert (await line(lines)).split("\t")[1::2] == [
        "INITIAL",
        (await server.runs.GetRun(GetRunRequest(run_id=some_id))).run.mission_id,
        "0/4 steps",
        "",
    ]
    kinds = [ParseDict(json.loads(await line(messages)), WatchRunResponse()).WhichOneof("message") for _ in range(2)]
    assert kinds == ["change", "synced"]
    await step(server, some_id, "read", TASK_STATE_SUCCEEDED)
    assert "\tUPDATED\t" in await line(lines)
    await server.runs.UpdateRun(UpdateRunRequest(run_id=some_id, state=TASK_STATE_SUCCEEDED))
    assert "\tSUCCEEDED\t1/4 steps\t" in await line(lines)
    assert await end(lines) == (0, "", "up to date\n")
    assert (await end(messages)).code == 0


async def test_a_terminal_shows_the_tree_as_it_changes(server: Wire, tmp_path: Path, some_id: str) -> None:
    await planned(server, some_id)
    async with Tidings(tmp_path, server.target).on_terminal("runs", "watch", some_id) as terminal:
        await terminal.shows("0/4 steps", "├── write  PENDING", "└── print  PENDING")
        await step(server, some_id, "print", TASK_STATE_RUNNING, TASK_STATE_SUCCEEDED)
        await terminal.shows("1/4 steps", "└── print  SUCCEEDED")
        await server.runs.UpdateRun(UpdateRunRequest(run_id=some_id, state=TASK_STATE_SUCCEEDED))
        assert await terminal.exit_code() == 0


async def test_missions_are_created_shown_listed_and_deleted(server: Wire, tmp_path: Path, some_id: str) -> None:
    tidings = Tidings(tmp_path, server.target)
    options = ("--id", some_id, "--description", "Weekly ones", "--instructions", "Be brief", "--model", "small")
    assert (await tidings.done("missions", "create", "Reports", *options)).out == f"{some_id}\n"
    assert without_times((await tidings.done("missions", "get", some_id)).out) == MISSION.format(id=some_id)
    (row,) = (await tidings.done("missions", "list", "--limit", "1")).rows
    assert row[:3] == [some_id, "Reports", "small"]
    (listed,) = (await tidings.done("missions", "list", "--limit", "1", "-o", "json")).lines
    assert json.loads(listed) == (await tidings.done("missions", "get", some_id, "-o", "json")).json
    refused = await tidings.run("missions", "delete", some_id, "--expected-revision", "9")
    assert (refused.code, "REVISION_MISMATCH" in refused.err) == (74, True)
    await tidings.done("missions", "delete", some_id)
    gone: Failed = await failure(server.missions.GetMission(GetMissionRequest(mission_id=some_id)))
    assert gone.reason == "MISSION_NOT_FOUND"


@pytest.mark.parametrize("group", ["missions", "runs"])
async def test_an_unknown_id_is_not_found(server: Wire, tmp_path: Path, group: str) -> None:
    assert (await Tidings(tmp_path, server.target).run(group, "get", "none")).code == 69
