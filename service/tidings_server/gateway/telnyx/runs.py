"""The runs of Telnyx's missions, each with its log and its plan. A run is found under its own mission only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Header

from tidings.v1.event_service_pb2 import LIST_ORDER_OLDEST_FIRST, EventParent, GetEventRequest, ListEventsRequest
from tidings.v1.mission_service_pb2 import GetMissionRequest
from tidings.v1.run_pb2 import PlanStep, Run
from tidings.v1.run_service_pb2 import (
    AddPlanStepsRequest,
    CancelRunRequest,
    CreatePlanRequest,
    GetPlanRequest,
    GetRunRequest,
    ListRunsRequest,
    PauseRunRequest,
    ResumeRunRequest,
)
from tidings_server.gateway.caller import Caller, Tidings
from tidings_server.gateway.refusal import Refusal
from tidings_server.gateway.telnyx.bodies import NewEvent, NewRun, NewSteps, RunChange, StepChange
from tidings_server.gateway.telnyx.pages import Number, OfType, Size, event_page, run_page, states_called
from tidings_server.gateway.telnyx.refusals import TelnyxRoute
from tidings_server.gateway.telnyx.views import Answer, EventData, MissionRunData, Page, PlanStepData

router = APIRouter(route_class=TelnyxRoute)

RetryCount = Annotated[str, Header(alias="x-stainless-retry-count", description="How often the SDK has repeated it.")]
"""What is there is in the way of a new plan or step; what the SDK only repeats, the service knows by its content."""


@router.post("/{mission_id}/runs", status_code=201)
async def create_run(mission_id: str, tidings: Tidings, body: NewRun | None = None) -> Answer[MissionRunData]:
    request = (body or NewRun()).to_request(mission_id)
    answer = await tidings.call(tidings.client.runs.CreateRun, request)
    return Answer(data=MissionRunData.of(answer.run))


@router.get("/{mission_id}/runs")
async def list_runs(
    mission_id: str, tidings: Tidings, status: str | None = None, number: Number = 1, size: Size = 20
) -> Page[MissionRunData]:
    """The runs of a mission, newest first."""
    await tidings.call(tidings.client.missions.GetMission, GetMissionRequest(mission_id=mission_id))
    request = ListRunsRequest(mission_id=mission_id, states=states_called(status))
    return await run_page(tidings, request, number, size)


@router.get("/{mission_id}/runs/{run_id}")
async def get_run(mission_id: str, run_id: str, tidings: Tidings) -> Answer[MissionRunData]:
    request = GetRunRequest(run_id=run_id, mission_id=mission_id)
    answer = await tidings.call(tidings.client.runs.GetRun, request)
    return Answer(data=MissionRunData.of(answer.run))


@router.patch("/{mission_id}/runs/{run_id}")
async def update_run(mission_id: str, run_id: str, body: RunChange, tidings: Tidings) -> Answer[MissionRunData]:
    """Change what is given, and leave the rest as it is."""
    request = body.to_request(mission_id, run_id)
    answer = await tidings.call(tidings.client.runs.UpdateRun, request)
    return Answer(data=MissionRunData.of(answer.run))


@router.post("/{mission_id}/runs/{run_id}/pause")
async def pause_run(mission_id: str, run_id: str, tidings: Tidings) -> Answer[MissionRunData]:
    request = PauseRunRequest(run_id=run_id, mission_id=mission_id)
    answer = await tidings.call(tidings.client.runs.PauseRun, request)
    return Answer(data=MissionRunData.of(answer.run))


@router.post("/{mission_id}/runs/{run_id}/resume")
async def resume_run(mission_id: str, run_id: str, tidings: Tidings) -> Answer[MissionRunData]:
    request = ResumeRunRequest(run_id=run_id, mission_id=mission_id)
    answer = await tidings.call(tidings.client.runs.ResumeRun, request)
    return Answer(data=MissionRunData.of(answer.run))


@router.post("/{mission_id}/runs/{run_id}/cancel")
async def cancel_run(mission_id: str, run_id: str, tidings: Tidings) -> Answer[MissionRunData]:
    request = CancelRunRequest(run_id=run_id, mission_id=mission_id)
    answer = await tidings.call(tidings.client.runs.CancelRun, request)
    return Answer(data=MissionRunData.of(answer.run))


@router.post("/{mission_id}/runs/{run_id}/events", status_code=201)
async def log_event(mission_id: str, run_id: str, body: NewEvent, tidings: Tidings) -> Answer[EventData]:
    """Add an event to the log of a run; with the `idempotency_key` of one that is there, get that one."""
    answer = await tidings.call(tidings.client.events.CreateEvent, body.to_request(mission_id, run_id))
    return Answer(data=EventData.of(answer.event))


@router.get("/{mission_id}/runs/{run_id}/events")
async def list_run_events(
    mission_id: str,
    run_id: str,
    tidings: Tidings,
    type_: OfType = None,
    step_id: str | None = None,
    agent_id: str | None = None,
    number: Number = 1,
    size: Size = 50,
) -> Page[EventData]:
    """The log of a run, oldest first."""
    await tidings.call(tidings.client.runs.GetRun, GetRunRequest(run_id=run_id, mission_id=mission_id))
    request = ListEventsRequest(
        run_id=run_id,
        types=[] if type_ is None else [type_],
        step_id=step_id or "",
        agent_id=agent_id or "",
        order=LIST_ORDER_OLDEST_FIRST,
    )
    return await event_page(tidings, request, number, size)


@router.get("/{mission_id}/runs/{run_id}/events/{event_id}")
async def get_event(mission_id: str, run_id: str, event_id: str, tidings: Tidings) -> Answer[EventData]:
    request = GetEventRequest(event_id=event_id, parent=EventParent(run_id=run_id, mission_id=mission_id))
    answer = await tidings.call(tidings.client.events.GetEvent, request)
    return Answer(data=EventData.of(answer.event))


@router.post("/{mission_id}/runs/{run_id}/plan", status_code=201)
async def create_plan(
    mission_id: str, run_id: str, body: NewSteps, tidings: Tidings, retry_count: RetryCount = "0"
) -> Answer[list[PlanStepData]]:
    """Give a run its plan, unless it has one."""
    if retry_count == "0" and await _plan(tidings, mission_id, run_id):
        raise Refusal(409, f'run "{run_id}" has a plan: add steps to it', "PLAN_ALREADY_EXISTS")
    request = CreatePlanRequest(run_id=run_id, mission_id=mission_id, steps=body.to_steps())
    answer = await tidings.call(tidings.client.runs.CreatePlan, request)
    return _given(answer.run, body)


@router.get("/{mission_id}/runs/{run_id}/plan")
async def get_plan(mission_id: str, run_id: str, tidings: Tidings) -> Answer[list[PlanStepData]]:
    """All steps, in the order of their `sequence`."""
    return Answer(data=[PlanStepData.of(step, run_id) for step in await _plan(tidings, mission_id, run_id)])


@router.post("/{mission_id}/runs/{run_id}/plan/steps", status_code=201)
async def add_steps(
    mission_id: str, run_id: str, body: NewSteps, tidings: Tidings, retry_count: RetryCount = "0"
) -> Answer[list[PlanStepData]]:
    """Add steps to a plan, all or none."""
    there = {step.step_id for step in await _plan(tidings, mission_id, run_id)} if retry_count == "0" else set()
    if taken := there & body.step_ids:
        raise Refusal(409, f'run "{run_id}" has a step "{min(taken)}" in its plan', "STEP_ALREADY_EXISTS")
    request = AddPlanStepsRequest(run_id=run_id, mission_id=mission_id, steps=body.to_steps())
    answer = await tidings.call(tidings.client.runs.AddPlanSteps, request)
    return _given(answer.run, body)


@router.get("/{mission_id}/runs/{run_id}/plan/steps/{step_id}")
async def get_step(mission_id: str, run_id: str, step_id: str, tidings: Tidings) -> Answer[PlanStepData]:
    for step in await _plan(tidings, mission_id, run_id):
        if step.step_id == step_id:
            return Answer(data=PlanStepData.of(step, run_id))
    raise Refusal(404, f'run "{run_id}" has no step "{step_id}" in its plan', "STEP_NOT_FOUND")


@router.patch("/{mission_id}/runs/{run_id}/plan/steps/{step_id}")
async def update_step(
    mission_id: str, run_id: str, step_id: str, body: StepChange, tidings: Tidings
) -> Answer[PlanStepData]:
    """Change what is given, and leave the rest as it is."""
    answer = await tidings.call(tidings.client.runs.UpdatePlanStep, body.to_request(mission_id, run_id, step_id))
    return Answer(data=PlanStepData.of(answer.step, run_id))


async def _plan(tidings: Caller, mission_id: str, run_id: str) -> Sequence[PlanStep]:
    plan = await tidings.call(tidings.client.runs.GetPlan, GetPlanRequest(run_id=run_id, mission_id=mission_id))
    return plan.steps


def _given(run: Run, body: NewSteps) -> Answer[list[PlanStepData]]:
    """Those steps of the plan that a request gave."""
    return Answer(data=[PlanStepData.of(step, run.run_id) for step in run.plan if step.step_id in body.step_ids])
