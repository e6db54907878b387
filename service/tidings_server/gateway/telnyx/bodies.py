"""What Telnyx's AI Missions API takes: the JSON of requests, and the requests to the service that they become."""

from __future__ import annotations

from typing import Any, Final, Literal, get_args

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from pydantic import BaseModel, ConfigDict, Field

from tidings.v1.event_pb2 import Event
from tidings.v1.event_service_pb2 import CreateEventRequest
from tidings.v1.mission_pb2 import Mission
from tidings.v1.mission_service_pb2 import CreateMissionRequest, UpdateMissionRequest
from tidings.v1.run_pb2 import PlanStep, Run
from tidings.v1.run_service_pb2 import CreateRunRequest, UpdatePlanStepRequest, UpdateRunRequest
from tidings.v1.task_pb2 import TaskError
from tidings_server.gateway.structs import to_struct
from tidings_server.gateway.telnyx.views import MODES, Mode, Object, RunStatus, StepStatus
from tidings_server.gateway.words import TELNYX_RUN, TELNYX_STEP, states_of

EventType = Literal[
    "status_change",
    "step_started",
    "step_completed",
    "step_failed",
    "tool_call",
    "tool_result",
    "message",
    "error",
    "custom",
]
EVENT_TYPES: Final[tuple[str, ...]] = get_args(EventType)

GRACE_PERIOD: Final = Duration(seconds=24 * 60 * 60)
"""Telnyx closes no log: agents report the end of a run after the run has ended. This is as long as the service lets."""


class _Body(BaseModel):
    """The JSON of a request. A null is as good as nothing."""

    model_config = ConfigDict(strict=True)

    def fields(self) -> dict[str, Any]:
        """What is given, as fields of a message."""
        given = self.model_dump(exclude_none=True)
        return {name: to_struct(value) if isinstance(value, dict) else value for name, value in given.items()}


class MissionChange(_Body):
    name: str | None = Field(default=None, min_length=1, max_length=256)
    description: str | None = None
    instructions: str | None = None
    model: str | None = None
    execution_mode: Mode | None = None
    metadata: Object | None = None

    def fields(self) -> dict[str, Any]:
        fields = super().fields()
        if self.execution_mode:
            fields["execution_mode"] = next(mode for mode, word in MODES.items() if word == self.execution_mode)
        return fields

    def to_request(self, mission_id: str) -> UpdateMissionRequest:
        fields = self.fields()
        mission = Mission(mission_id=mission_id, **fields)
        return UpdateMissionRequest(mission=mission, update_mask=FieldMask(paths=fields))


class NewMission(MissionChange):
    name: str = Field(min_length=1, max_length=256)

    def to_creation(self) -> CreateMissionRequest:
        return CreateMissionRequest(mission=Mission(**self.fields()))


class NewRun(_Body):
    input: Object | None = None
    metadata: Object | None = None

    def to_request(self, mission_id: str) -> CreateRunRequest:
        return CreateRunRequest(run=Run(mission_id=mission_id, grace_period=GRACE_PERIOD, **self.fields()))


class RunChange(_Body):
    status: RunStatus | None = None
    result_summary: str | None = None
    result_payload: Object | None = None
    error: str | None = None
    metadata: Object | None = None

    def to_request(self, mission_id: str, run_id: str) -> UpdateRunRequest:
        fields = self.fields()
        if word := fields.pop("status", None):
            fields["state"] = states_of(word, TELNYX_RUN)[0]
        if "error" in fields:
            fields["error"] = TaskError(message=fields["error"])
        return UpdateRunRequest(run_id=run_id, mission_id=mission_id, **fields)


class NewEvent(_Body):
    type: EventType
    summary: str
    step_id: str | None = None
    agent_id: str | None = None
    payload: Object | None = None
    idempotency_key: str | None = None

    def to_request(self, mission_id: str, run_id: str) -> CreateEventRequest:
        return CreateEventRequest(event=Event(mission_id=mission_id, run_id=run_id, **self.fields()))


class NewStep(_Body):
    step_id: str = Field(min_length=1, max_length=128)
    description: str
    sequence: int = Field(ge=0, lt=2**31)
    parent_step_id: str | None = None
    metadata: Object | None = None


class NewSteps(_Body):
    steps: list[NewStep] = Field(min_length=1, max_length=500)

    @property
    def step_ids(self) -> set[str]:
        return {step.step_id for step in self.steps}

    def to_steps(self) -> list[PlanStep]:
        return [PlanStep(**step.fields()) for step in self.steps]


class StepChange(_Body):
    status: StepStatus | None = None
    metadata: Object | None = None

    def to_request(self, mission_id: str, run_id: str, step_id: str) -> UpdatePlanStepRequest:
        fields = self.fields()
        if word := fields.pop("status", None):
            fields["state"] = states_of(word, TELNYX_STEP)[0]
        return UpdatePlanStepRequest(run_id=run_id, mission_id=mission_id, step_id=step_id, **fields)
