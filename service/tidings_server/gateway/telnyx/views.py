"""What Telnyx's AI Missions API answers: how Tidings' missions, runs, steps and events look in it.

What is not there is left out of an answer: Telnyx has no nulls.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any, Final, Generic, Literal, TypeVar

from pydantic import BaseModel, Field
from pydantic.json_schema import SkipJsonSchema

from tidings.v1.event_pb2 import Event
from tidings.v1.mission_pb2 import EXECUTION_MODE_EXTERNAL, EXECUTION_MODE_MANAGED, ExecutionMode, Mission
from tidings.v1.run_pb2 import PlanStep, Run
from tidings_server.gateway.structs import Time, object_of, time_of
from tidings_server.gateway.words import TELNYX_RUN, TELNYX_STEP

Mode = Literal["external", "managed"]
RunStatus = Literal["pending", "running", "paused", "succeeded", "failed", "cancelled"]
StepStatus = Literal["pending", "in_progress", "completed", "skipped", "failed"]

MODES: Final[Mapping[ExecutionMode.ValueType, Mode]] = {
    EXECUTION_MODE_EXTERNAL: "external",
    EXECUTION_MODE_MANAGED: "managed",
}

Object = dict[str, Any]
Absent = SkipJsonSchema[None]
DataT = TypeVar("DataT")


class MissionData(BaseModel):
    mission_id: str
    name: str
    execution_mode: Mode
    created_at: Time
    updated_at: Time
    description: str | Absent = None
    instructions: str | Absent = None
    model: str | Absent = None
    metadata: Object | Absent = None

    @classmethod
    def of(cls, mission: Mission) -> MissionData:
        return cls(
            mission_id=mission.mission_id,
            name=mission.name,
            execution_mode=MODES[mission.execution_mode],
            created_at=mission.create_time.ToJsonString(),
            updated_at=mission.update_time.ToJsonString(),
            description=mission.description or None,
            instructions=mission.instructions or None,
            model=mission.model or None,
            metadata=object_of(mission, "metadata"),
        )


class MissionRunData(BaseModel):
    run_id: str
    mission_id: str
    status: RunStatus
    started_at: Time = Field(description="When the run was created, until it is started.")
    updated_at: Time
    finished_at: Time | Absent = None
    input: Object | Absent = None
    metadata: Object | Absent = None
    result_summary: str | Absent = None
    result_payload: Object | Absent = None
    error: str | Absent = None

    @classmethod
    def of(cls, run: Run) -> MissionRunData:
        return cls(
            run_id=run.run_id,
            mission_id=run.mission_id,
            status=TELNYX_RUN[run.state],
            started_at=time_of(run, "start_time") or run.create_time.ToJsonString(),
            updated_at=run.update_time.ToJsonString(),
            finished_at=time_of(run, "end_time"),
            input=object_of(run, "input"),
            metadata=object_of(run, "metadata"),
            result_summary=run.result_summary or None,
            result_payload=object_of(run, "result_payload"),
            error=run.error.message if run.HasField("error") else None,
        )


class EventData(BaseModel):
    event_id: str
    run_id: str
    type: str = Field(description="One of those that can be logged, or what another client of the service chose.")
    summary: str
    timestamp: Time
    step_id: str | Absent = None
    agent_id: str | Absent = None
    payload: Object | Absent = None
    idempotency_key: str | Absent = None

    @classmethod
    def of(cls, event: Event) -> EventData:
        return cls(
            event_id=event.event_id,
            run_id=event.run_id,
            type=event.type,
            summary=event.summary,
            timestamp=event.event_time.ToJsonString(),
            step_id=event.step_id or None,
            agent_id=event.agent_id or None,
            payload=object_of(event, "payload"),
            idempotency_key=_key_of(event),
        )


class PlanStepData(BaseModel):
    step_id: str
    run_id: str
    sequence: int
    description: str
    status: StepStatus
    parent_step_id: str | Absent = None
    started_at: Time | Absent = None
    completed_at: Time | Absent = None
    metadata: Object | Absent = None

    @classmethod
    def of(cls, step: PlanStep, run_id: str) -> PlanStepData:
        return cls(
            step_id=step.step_id,
            run_id=run_id,
            sequence=step.sequence,
            description=step.description,
            status=TELNYX_STEP[step.state],
            parent_step_id=step.parent_step_id or None,
            started_at=time_of(step, "start_time"),
            completed_at=time_of(step, "end_time"),
            metadata=object_of(step, "metadata"),
        )


class Answer(BaseModel, Generic[DataT]):
    data: DataT


class Meta(BaseModel):
    page_number: int
    page_size: int
    total_pages: int
    total_results: int


class Page(BaseModel, Generic[DataT]):
    data: list[DataT]
    meta: Meta

    @classmethod
    def of(cls, data: list[DataT], number: int, size: int, total: int) -> Page[DataT]:
        meta = Meta(page_number=number, page_size=size, total_pages=ceil(total / size), total_results=total)
        return cls(data=data, meta=meta)


def _key_of(event: Event) -> str | None:
    """The key, which an event that was stored under an id chosen elsewhere has in its metadata: it cannot have both."""
    return event.idempotency_key or event.metadata.fields["idempotency_key"].string_value or None
