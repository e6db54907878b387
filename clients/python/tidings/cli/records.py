"""What is shown of events, tasks and missions as text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from google.protobuf.message import Message
from rich.text import Text

from tidings.cli.output import json_data, plain, progress_text, state_text, time_text
from tidings.v1.event_pb2 import Event
from tidings.v1.mission_pb2 import Mission
from tidings.v1.task_pb2 import TaskError, TaskStatus

EVENT_COLUMNS = ("EVENT", "TYPE", "STATE", "PROGRESS", "UPDATED", "SUMMARY")
MISSION_COLUMNS = ("MISSION", "NAME", "MODEL", "UPDATED")

Field = tuple[str, str | Text]


def event_row(event: Event) -> Sequence[str | Text]:
    return (
        plain(event.event_id),
        event.type,
        event_state(event),
        progress_text(event.status.progress),
        time_text(event.update_time),
        plain(event.summary),
    )


def event_state(event: Event) -> Text:
    """The state of a task; a fact has none."""
    return state_text(event.status.state) if event.HasField("status") else Text()


def event_fields(event: Event) -> Iterator[Field]:
    yield "event", plain(event.event_id)
    yield "type", event.type
    yield "summary", plain(event.summary)
    if event.HasField("status"):
        yield from _task_fields(event.status)
    for result in event.results:
        yield "result", _json(result)
    yield "payload", _json(event.payload)
    yield "metadata", _json(event.metadata)
    yield "mission", plain(event.mission_id)
    yield "run", plain(event.run_id)
    yield "sequence", str(event.sequence or "")
    yield "step", plain(event.step_id)
    yield "agent", plain(event.agent_id)
    yield "happened", time_text(event.event_time)
    yield "updated", time_text(event.update_time)
    yield "expires", time_text(event.expire_time)
    yield "revision", str(event.revision)


def status_fields(status: TaskStatus) -> Iterator[Field]:
    yield "task", plain(status.task_id)
    yield from _task_fields(status)
    yield "updated", time_text(status.update_time)
    yield "revision", str(status.revision)


def mission_row(mission: Mission) -> Sequence[str | Text]:
    return plain(mission.mission_id), plain(mission.name), plain(mission.model), time_text(mission.update_time)


def mission_fields(mission: Mission) -> Iterator[Field]:
    yield "mission", plain(mission.mission_id)
    yield "name", plain(mission.name)
    yield "description", plain(mission.description)
    yield "instructions", plain(mission.instructions)
    yield "model", plain(mission.model)
    yield "metadata", _json(mission.metadata)
    yield "created", time_text(mission.create_time)
    yield "updated", time_text(mission.update_time)
    yield "revision", str(mission.revision)


def _task_fields(status: TaskStatus) -> Iterator[Field]:
    asked = " (somebody has asked for it to be cancelled)" if status.cancel_requested else ""
    yield "state", state_text(status.state).append(asked)
    yield "message", plain(status.message)
    yield "progress", "  ".join(filter(None, (progress_text(status.progress), plain(status.progress.message))))
    yield "error", error_text(status.error)
    yield "created", time_text(status.create_time)
    yield "started", time_text(status.start_time)
    yield "ended", time_text(status.end_time)


def error_text(error: TaskError) -> str:
    """Such as `timeout: the database did not answer (may be retried)`; empty if there is none."""
    retryable = " (may be retried)" if error.retryable else ""
    return plain(": ".join(filter(None, (error.code, error.message)))) + retryable


def _json(message: Message) -> str:
    """On one line and in order; nothing for what is empty."""
    return plain(json.dumps(json_data(message), ensure_ascii=False, sort_keys=True)) if message.ByteSize() else ""
