"""Events, runs and missions as MongoDB documents, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from bson.int64 import Int64
from google.protobuf.struct_pb2 import ListValue

from tidings.v1 import mission_pb2, task_pb2
from tidings.v1.event_pb2 import Event
from tidings.v1.mission_pb2 import Mission
from tidings.v1.run_pb2 import PlanStep, Run
from tidings.v1.task_pb2 import TaskStatus
from tidings_server.clock import to_duration, to_millis
from tidings_server.event_record import EVENT
from tidings_server.lifecycle import stamp_latency, state_name
from tidings_server.mission_record import MISSION
from tidings_server.run_record import RUN, progress_of
from tidings_server.store.fields import (
    Codec,
    Document,
    read_error,
    read_optional_times,
    read_state,
    read_structs,
    read_texts,
    read_times,
    read_transitions,
    write_error,
    write_structs,
    write_texts,
    write_times,
    write_transitions,
)

_RECORD_TIMES: Final = ("create_time", "update_time")
_EVENT_TEXTS: Final = ("type", "summary", "mission_id", "run_id", "step_id", "agent_id", "idempotency_key")
_EVENT_STRUCTS: Final = ("payload", "metadata")
_EVENT_TIMES: Final = ("event_time", "create_time", "update_time", "expire_time")
_STATUS_TEXTS: Final = ("message", "cancel_requested")
_STATUS_TIMES: Final = ("create_time", "start_time", "end_time", "update_time")
_RUN_TEXTS: Final = ("mission_id", "result_summary")
_RUN_STRUCTS: Final = ("input", "metadata", "result_payload")
_RUN_TIMES: Final = ("start_time", "end_time", "expire_time")
_STEP_TEXTS: Final = ("step_id", "sequence", "description", "parent_step_id")
_STEP_TIMES: Final = ("start_time", "end_time")
_MISSION_TEXTS: Final = ("name", "description", "instructions", "model")


def _write_event(event: Event) -> Document:
    document = {
        **write_texts(event, _EVENT_TEXTS),
        **write_times(event, _EVENT_TIMES),
        **write_structs(event, _EVENT_STRUCTS),
        "sequence": Int64(event.sequence),
    }
    if event.results:
        document["results"] = ListValue(values=event.results).SerializeToString()
    if event.HasField("status"):
        document["status"] = _write_status(event.status)
        document["transitions"] = write_transitions(event.transitions)
    return document


def _read_event(event_id: str, document: Mapping[str, Any]) -> Event:
    event = Event(event_id=event_id, revision=document["revision"], sequence=document["sequence"])
    read_texts(event, document, _EVENT_TEXTS)
    read_times(event, document, _EVENT_TIMES)
    read_structs(event, document, _EVENT_STRUCTS)
    if "results" in document:
        event.results.extend(ListValue.FromString(document["results"]).values)
    if "status" in document:
        _read_status(event.status, document["status"])
        event.status.task_id = event_id
        event.status.revision = event.revision
        event.transitions.extend(read_transitions(document["transitions"]))
    return event


def _write_status(status: TaskStatus) -> Document:
    document: Document = {
        "state": state_name(status.state),
        **write_texts(status, _STATUS_TEXTS),
        **write_times(status, _STATUS_TIMES),
    }
    if status.HasField("progress"):
        progress = status.progress
        document["progress"] = {
            "completed": Int64(progress.completed),
            "total": Int64(progress.total),
            "unit": progress.unit,
            "message": progress.message,
        }
    if status.HasField("error"):
        document["error"] = write_error(status.error)
    return document


def _read_status(status: TaskStatus, document: Mapping[str, Any]) -> None:
    status.state = read_state(document["state"])
    read_texts(status, document, _STATUS_TEXTS)
    read_optional_times(status, document, _STATUS_TIMES)
    stamp_latency(status)
    if "progress" in document:
        status.progress.CopyFrom(task_pb2.TaskProgress(**document["progress"]))
    if "error" in document:
        read_error(status.error, document["error"])


def _write_run(run: Run) -> Document:
    document = {
        "state": state_name(run.state),
        **write_texts(run, _RUN_TEXTS),
        **write_times(run, (*_RECORD_TIMES, *_RUN_TIMES)),
        **write_structs(run, _RUN_STRUCTS),
        "transitions": write_transitions(run.transitions),
    }
    if run.HasField("error"):
        document["error"] = write_error(run.error)
    if run.HasField("grace_period"):
        document["grace_millis"] = Int64(to_millis(run.grace_period))
    if run.plan:
        document["plan"] = [_write_step(step) for step in run.plan]
    return document


def _read_run(run_id: str, document: Mapping[str, Any]) -> Run:
    run = Run(run_id=run_id, state=read_state(document["state"]))
    read_texts(run, document, _RUN_TEXTS)
    read_times(run, document, _RECORD_TIMES)
    read_optional_times(run, document, _RUN_TIMES)
    read_structs(run, document, _RUN_STRUCTS)
    run.transitions.extend(read_transitions(document["transitions"]))
    if "error" in document:
        read_error(run.error, document["error"])
    if "grace_millis" in document:
        run.grace_period.CopyFrom(to_duration(document["grace_millis"]))
    run.plan.extend(_read_step(step) for step in document.get("plan", ()))
    run.progress.CopyFrom(progress_of(run.plan))
    return run


def _write_step(step: PlanStep) -> Document:
    return {
        "state": state_name(step.state),
        **write_texts(step, _STEP_TEXTS),
        **write_times(step, _STEP_TIMES),
        **write_structs(step, ["metadata"]),
    }


def _read_step(document: Mapping[str, Any]) -> PlanStep:
    step = PlanStep(state=read_state(document["state"]))
    read_texts(step, document, _STEP_TEXTS)
    read_optional_times(step, document, _STEP_TIMES)
    read_structs(step, document, ["metadata"])
    return step


def _write_mission(mission: Mission) -> Document:
    return {
        **write_texts(mission, _MISSION_TEXTS),
        **write_times(mission, _RECORD_TIMES),
        **write_structs(mission, ["metadata"]),
        "execution_mode": mission_pb2.ExecutionMode.Name(mission.execution_mode).removeprefix("EXECUTION_MODE_"),
    }


def _read_mission(mission_id: str, document: Mapping[str, Any]) -> Mission:
    mode = mission_pb2.ExecutionMode.Value(f"EXECUTION_MODE_{document['execution_mode']}")
    mission = Mission(mission_id=mission_id, execution_mode=mode)
    read_texts(mission, document, _MISSION_TEXTS)
    read_times(mission, document, _RECORD_TIMES)
    read_structs(mission, document, ["metadata"])
    return mission


EVENTS: Final = Codec(EVENT.id_of, _write_event, _read_event)
RUNS: Final = Codec(RUN.id_of, _write_run, _read_run)
MISSIONS: Final = Codec(MISSION.id_of, _write_mission, _read_mission)
