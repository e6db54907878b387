"""RunService. Requests come here checked, and from a known caller."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from tidings.v1 import error_reason_pb2 as reasons
from tidings.v1 import task_pb2
from tidings.v1.run_pb2 import Run
from tidings.v1.run_service_pb2 import (
    AddPlanStepsRequest,
    AddPlanStepsResponse,
    CancelRunRequest,
    CancelRunResponse,
    CreatePlanRequest,
    CreatePlanResponse,
    CreateRunRequest,
    CreateRunResponse,
    GetPlanRequest,
    GetPlanResponse,
    GetRunRequest,
    GetRunResponse,
    ListRunsRequest,
    ListRunsResponse,
    PauseRunRequest,
    PauseRunResponse,
    ResumeRunRequest,
    ResumeRunResponse,
    UpdatePlanStepRequest,
    UpdatePlanStepResponse,
    UpdateRunRequest,
    UpdateRunResponse,
    WatchRunRequest,
)
from tidings.v1.run_service_pb2_grpc import RunServiceServicer
from tidings_server.auth import CALLER
from tidings_server.clock import Clock
from tidings_server.lifecycle import move
from tidings_server.limits import Limits
from tidings_server.record import Mutation, Record, digest_of
from tidings_server.run_record import (
    RUN,
    add_steps,
    apply_update,
    check_mission,
    create_plan,
    new_run,
    step_of,
    update_step,
)
from tidings_server.services.page_token import PageTokens
from tidings_server.store import RunQuery, RunStore
from tidings_server.watch.stream import Send
from tidings_server.watch.watches import Watches

Context = grpc.aio.ServicerContext[Any, Any]
Rule = Callable[[Run, int], bool]


class RunService(RunServiceServicer):
    """Creates, reads, moves and watches runs and their plans in the caller's project."""

    def __init__(self, runs: RunStore, watches: Watches, page_tokens: PageTokens, clock: Clock, limits: Limits) -> None:
        self._runs = runs
        self._watches = watches
        self._page_tokens = page_tokens
        self._clock = clock
        self._limits = limits

    async def CreateRun(self, request: CreateRunRequest, context: Context) -> CreateRunResponse:
        record = new_run(CALLER.get().project, request, self._clock(), self._limits)
        return CreateRunResponse(run=await self._runs.create(record))

    async def GetRun(self, request: GetRunRequest, context: Context) -> GetRunResponse:
        return GetRunResponse(run=await self._get(request))

    async def ListRuns(self, request: ListRunsRequest, context: Context) -> ListRunsResponse:
        project = CALLER.get().project
        query = RunQuery(project, request.mission_id, request.states)
        page = await self._runs.page(
            query,
            after=self._page_tokens.read(request.page_token, project, request),
            limit=request.page_size or self._limits.page_size_default,
            skip=request.skip,
        )
        return ListRunsResponse(
            runs=page.items,
            next_page_token=self._page_tokens.write(page.next, project, request),
            total_size=await self._runs.count(query) if request.count_total else 0,
        )

    async def UpdateRun(self, request: UpdateRunRequest, context: Context) -> UpdateRunResponse:
        return UpdateRunResponse(run=await self._change(request, lambda run, now: apply_update(run, request, now)))

    async def PauseRun(self, request: PauseRunRequest, context: Context) -> PauseRunResponse:
        return PauseRunResponse(run=await self._move(request, task_pb2.TASK_STATE_PAUSED))

    async def ResumeRun(self, request: ResumeRunRequest, context: Context) -> ResumeRunResponse:
        return ResumeRunResponse(run=await self._change(request, _resume))

    async def CancelRun(self, request: CancelRunRequest, context: Context) -> CancelRunResponse:
        return CancelRunResponse(run=await self._move(request, task_pb2.TASK_STATE_CANCELLED))

    async def CreatePlan(self, request: CreatePlanRequest, context: Context) -> CreatePlanResponse:
        run = await self._change(request, lambda run, now: create_plan(run, request.steps, now, self._limits))
        return CreatePlanResponse(run=run)

    async def AddPlanSteps(self, request: AddPlanStepsRequest, context: Context) -> AddPlanStepsResponse:
        run = await self._change(request, lambda run, now: add_steps(run, request.steps, now, self._limits))
        return AddPlanStepsResponse(run=run)

    async def GetPlan(self, request: GetPlanRequest, context: Context) -> GetPlanResponse:
        run = await self._get(request)
        return GetPlanResponse(steps=run.plan, progress=run.progress, revision=run.revision)

    async def UpdatePlanStep(self, request: UpdatePlanStepRequest, context: Context) -> UpdatePlanStepResponse:
        run = await self._change(request, lambda run, now: update_step(run, request, now))
        return UpdatePlanStepResponse(step=step_of(run, request.step_id), revision=run.revision)

    # In place of the context, the interceptor gives a watch what it sends with.
    async def WatchRun(self, request: WatchRunRequest, send: Send) -> None:  # type: ignore[override]
        await self._watches.tell_run(CALLER.get().project, request, send)

    async def _get(self, request: GetRunRequest | GetPlanRequest) -> Run:
        run = await self._runs.get(CALLER.get().project, request.run_id)
        check_mission(run, request.mission_id)
        return run

    async def _move(self, request: PauseRunRequest | CancelRunRequest, state: task_pb2.TaskState.ValueType) -> Run:
        return await self._change(request, lambda run, now: move(run, state, now))

    async def _change(self, request: Any, rule: Rule) -> Run:
        """Change the run that a request names, by a rule and on the request's conditions."""

        def of_mission(record: Record[Run], now: int) -> bool:
            check_mission(record.resource, request.mission_id)
            return rule(record.resource, now)

        mutation = Mutation(of_mission, digest_of(request), request.expected_revision, request.request_id)
        return await self._runs.change(CALLER.get().project, request.run_id, mutation)


def _resume(run: Run, now: int) -> bool:
    if run.state == task_pb2.TASK_STATE_PENDING:  # which may go to RUNNING, but is not to be resumed
        metadata = {"from": "PENDING", "to": "RUNNING"}
        raise RUN.failure(
            reasons.ERROR_REASON_ILLEGAL_TRANSITION, run.run_id, "is PENDING: it was not paused", **metadata
        )
    return move(run, task_pb2.TASK_STATE_RUNNING, now)
