"""What a request must satisfy before a handler sees it. No I/O.

Rules that can be said in the protos stand there and are enforced by protovalidate. Here are the others:
text and numbers that JSON or the store could not give back, the size and depth of payloads, and rules
between fields. A refusal names every violation at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, Final

import protovalidate
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from tidings.v1 import error_reason_pb2 as reasons
from tidings.v1 import event_service_pb2, mission_service_pb2, run_service_pb2, task_pb2, task_service_pb2
from tidings.v1.event_service_pb2 import (
    BatchCreateEventsRequest,
    CreateEventRequest,
    ListEventsRequest,
    WatchEventRequest,
)
from tidings.v1.mission_service_pb2 import CreateMissionRequest, ListMissionsRequest, UpdateMissionRequest
from tidings.v1.run_service_pb2 import (
    AddPlanStepsRequest,
    CreatePlanRequest,
    CreateRunRequest,
    ListRunsRequest,
    UpdatePlanStepRequest,
    UpdateRunRequest,
)
from tidings.v1.task_pb2 import TaskError, TaskStatus
from tidings.v1.task_service_pb2 import UpdateTaskStatusRequest
from tidings_server.clock import Clock, to_millis
from tidings_server.errors import Violation, invalid
from tidings_server.lifecycle import TERMINAL
from tidings_server.limits import Limits

VIOLATIONS_MAX: Final = 100
CLOCK_SKEW: Final = 5 * 60 * 1000
"""How far, in milliseconds, a caller's clock may be ahead before its times count as in the future."""
EXPIRY_AHEAD_MAX: Final = 10 * 365 * 24 * 60 * 60 * 1000

_REQUESTS: Final = [
    GetMessageClass(method.input_type)
    for file in (event_service_pb2, task_service_pb2, mission_service_pb2, run_service_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]

Violations = Iterator[Violation]


class Checker:
    """Checks requests against the protos' rules, the limits and the clock."""

    def __init__(self, limits: Limits, clock: Clock) -> None:
        self._limits = limits
        self._clock = clock
        self._validator = protovalidate.Validator()
        self._own_rules: Mapping[type[Message], Callable[[Any], Violations]] = {
            CreateEventRequest: self._create,
            BatchCreateEventsRequest: self._batch_create,
            ListEventsRequest: _list_events,
            ListMissionsRequest: _list,
            ListRunsRequest: _list,
            UpdateTaskStatusRequest: self._update,
            WatchEventRequest: _watch,
            CreateMissionRequest: self._create_mission,
            UpdateMissionRequest: self._update_mission,
            CreateRunRequest: self._create_run,
            UpdateRunRequest: self._update_run,
            CreatePlanRequest: self._steps,
            AddPlanStepsRequest: self._steps,
            UpdatePlanStepRequest: self._update_step,
        }
        for request in _REQUESTS:  # compiles its rules, so that the first caller does not wait for it
            self._validator.collect_violations(request())

    def check(self, request: Message) -> None:
        """Raise Failure, INVALID_ARGUMENT, if the request breaks any rule."""
        own_rules = self._own_rules.get(type(request), _no_rules)
        found = chain(self._rules_of_the_protos(request), _nul_texts(request, ""), own_rules(request))
        if violations := list(islice(found, VIOLATIONS_MAX)):
            raise invalid(violations)

    def _rules_of_the_protos(self, request: Message) -> Violations:
        for violation in self._validator.collect_violations(request):
            rule = violation.proto
            yield Violation(_path(rule.field.elements) if rule.field else "", rule.message or rule.rule_id)

    def _batch_create(self, request: BatchCreateEventsRequest) -> Violations:
        for index, item in enumerate(request.requests):
            for violation in self._create(item):
                yield Violation(f"requests[{index}].{violation.field}", violation.description, violation.reason)

    def _create(self, request: CreateEventRequest) -> Violations:
        event = request.event
        if event.event_id and event.idempotency_key:
            yield Violation("event.idempotency_key", "must not be given together with event_id, which it replaces")
        if event.HasField("expire_time"):
            yield from self._expiry(request)
        if event.HasField("status"):
            yield from self._new_status(event.status)
        yield from self._payload("event.payload", event.payload, self._limits.payload_bytes_max)
        yield from self._payload("event.metadata", event.metadata, self._limits.payload_bytes_max)
        yield from self._results("event.results", event.results)

    def _expiry(self, request: CreateEventRequest) -> Violations:
        ahead = to_millis(request.event.expire_time) - self._clock()
        if request.HasField("ttl"):
            yield Violation("ttl", "must not be given together with expire_time")
        if not 0 < ahead <= EXPIRY_AHEAD_MAX:
            yield Violation("event.expire_time", "must be in the future and at most ten years ahead")

    def _new_status(self, status: TaskStatus) -> Violations:
        if status.HasField("error"):
            yield from self._error("event.status.error", status.error, status.state)
        if status.HasField("start_time") and status.state in {
            task_pb2.TASK_STATE_UNSPECIFIED,
            task_pb2.TASK_STATE_PENDING,
        }:
            yield Violation("event.status.start_time", "must not be given for a PENDING task")
        if status.HasField("end_time") and status.state not in TERMINAL:
            yield Violation("event.status.end_time", "must be given only for a task in a terminal state")
        yield from self._order_of_times(status)

    def _order_of_times(self, status: TaskStatus) -> Violations:
        latest = 0
        for name in ("create_time", "start_time", "end_time"):
            if not status.HasField(name):
                continue
            time: Timestamp = getattr(status, name)
            if to_millis(time) < latest:
                yield Violation(f"event.status.{name}", "must not be before the times that come before it")
            if to_millis(time) > self._clock() + CLOCK_SKEW:
                yield Violation(f"event.status.{name}", "must not be in the future")
            latest = max(latest, to_millis(time))

    def _update(self, request: UpdateTaskStatusRequest) -> Violations:
        if request.HasField("error"):
            yield from self._error("error", request.error, request.state)
        yield from self._results("results", request.results)

    def _create_mission(self, request: CreateMissionRequest) -> Violations:
        if not request.mission.name:
            yield Violation("mission.name", "value is required")
        yield from self._payload("mission.metadata", request.mission.metadata, self._limits.payload_bytes_max)

    def _update_mission(self, request: UpdateMissionRequest) -> Violations:
        if not request.mission.mission_id:
            yield Violation("mission.mission_id", "value is required")
        if any("." in path for path in request.update_mask.paths):
            yield Violation("update_mask", "must name whole fields")
        if "name" in request.update_mask.paths and not request.mission.name:
            yield Violation("mission.name", "must not be made empty")
        yield from self._payload("mission.metadata", request.mission.metadata, self._limits.payload_bytes_max)

    def _create_run(self, request: CreateRunRequest) -> Violations:
        for name in ("input", "metadata", "result_payload"):
            yield from self._payload(f"run.{name}", getattr(request.run, name), self._limits.payload_bytes_max)
        if request.run.HasField("error"):
            yield Violation("run.error", "must be given only together with state FAILED")

    def _update_run(self, request: UpdateRunRequest) -> Violations:
        for name in ("result_payload", "metadata"):
            yield from self._payload(name, getattr(request, name), self._limits.payload_bytes_max)
        yield from self._payload("error.details", request.error.details, self._limits.error_details_bytes_max)

    def _steps(self, request: CreatePlanRequest | AddPlanStepsRequest) -> Violations:
        for index, step in enumerate(request.steps):
            yield from self._payload(f"steps[{index}].metadata", step.metadata, self._limits.step_metadata_bytes_max)

    def _update_step(self, request: UpdatePlanStepRequest) -> Violations:
        yield from self._payload("metadata", request.metadata, self._limits.step_metadata_bytes_max)

    def _error(self, path: str, error: TaskError, state: task_pb2.TaskState.ValueType) -> Violations:
        if state != task_pb2.TASK_STATE_FAILED:
            yield Violation(path, "must be given only together with state FAILED")
        yield from self._payload(f"{path}.details", error.details, self._limits.error_details_bytes_max)

    def _payload(self, path: str, payload: Struct, bytes_max: int) -> Violations:
        yield from _size(path, payload.ByteSize(), bytes_max)
        yield from _struct(path, payload, self._limits.payload_levels_max)

    def _results(self, path: str, results: Sequence[Value]) -> Violations:
        yield from _size(path, sum(value.ByteSize() for value in results), self._limits.payload_bytes_max)
        for index, value in enumerate(results):
            yield from _value(f"{path}[{index}]", value, self._limits.payload_levels_max)


def _no_rules(_: Message) -> Violations:
    return iter(())


def _list(request: ListEventsRequest | ListMissionsRequest | ListRunsRequest) -> Violations:
    if request.skip and request.page_token:
        yield Violation("skip", "must not be given together with page_token")


def _list_events(request: ListEventsRequest) -> Violations:
    yield from _list(request)
    if (
        request.HasField("created_from")
        and request.HasField("created_before")
        and to_millis(request.created_from) >= to_millis(request.created_before)
    ):
        yield Violation("created_before", "must be later than created_from")


def _watch(request: WatchEventRequest) -> Violations:
    one_event = request.WhichOneof("scope") == "event_id"
    if one_event and request.HasField("filter"):
        yield Violation("filter", "must not be given for a watch of one event")
    if request.stay_open and not one_event:
        yield Violation("stay_open", "is for a watch of one event; other watches stay open anyway")
    if request.parent.run_id and not one_event:
        yield Violation("parent.run_id", "is for a watch of one event")
    if request.parent.mission_id and request.WhichOneof("scope") not in {"event_id", "run_id"}:
        yield Violation("parent.mission_id", "is for a watch of one event or of one run")


def _size(path: str, size: int, bytes_max: int) -> Violations:
    if size > bytes_max:
        yield Violation(path, f"has {size} bytes, more than {bytes_max}", reasons.ERROR_REASON_PAYLOAD_TOO_LARGE)


def _struct(path: str, struct: Struct, levels: int) -> Violations:
    if levels <= 0:
        yield Violation(path, "is nested too deep", reasons.ERROR_REASON_PAYLOAD_TOO_DEEP)
        return
    for key, value in struct.fields.items():
        if "\0" in key:
            yield Violation(path, "has a key with a NUL character")
        yield from _value(f"{path}.{key}", value, levels - 1)


def _list_value(path: str, values: ListValue, levels: int) -> Violations:
    if levels <= 0:
        yield Violation(path, "is nested too deep", reasons.ERROR_REASON_PAYLOAD_TOO_DEEP)
        return
    for index, value in enumerate(values.values):
        yield from _value(f"{path}[{index}]", value, levels - 1)


def _value(path: str, value: Value, levels: int) -> Violations:
    match value.WhichOneof("kind"):
        case "number_value":
            if not math.isfinite(value.number_value):
                yield Violation(path, "must be a finite number")
        case "string_value":
            if "\0" in value.string_value:
                yield Violation(path, "must not contain a NUL character")
        case "struct_value":
            yield from _struct(path, value.struct_value, levels)
        case "list_value":
            yield from _list_value(path, value.list_value, levels)
        case None:
            yield Violation(path, "must have a value; for nothing, use null_value")
        case _:
            pass


def _nul_texts(message: Message, path: str) -> Violations:
    """Violations of the strings in a message's own fields; payloads are checked on their own."""
    for field, value in message.ListFields():
        name = f"{path}{field.name}"
        if field.type == FieldDescriptor.TYPE_STRING:
            if any("\0" in text for text in (value if field.is_repeated else [value])):
                yield Violation(name, "must not contain a NUL character")
        elif field.message_type is not None and not field.message_type.full_name.startswith("google."):
            if field.is_repeated:
                for index, item in enumerate(value):
                    yield from _nul_texts(item, f"{name}[{index}].")
            else:
                yield from _nul_texts(value, f"{name}.")


def _path(elements: Sequence[Any]) -> str:
    parts = []
    for element in elements:
        subscript = element.subscript
        parts.append(element.field_name + (f"[{subscript.value}]" if subscript else ""))
    return ".".join(parts)
