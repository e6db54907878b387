"""Those who write: tasks and facts, alone and in batches, in runs and outside, moved, deleted, and created anew."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final

import grpc

from guarantees.deployment import Deployment
from guarantees.entries import MARKER, Attempt, Read
from guarantees.recording import Recorder
from tidings.v1.event_pb2 import Event
from tidings.v1.event_service_pb2 import (
    BatchCreateEventsRequest,
    CreateEventRequest,
    DeleteEventRequest,
    GetEventRequest,
)
from tidings.v1.event_service_pb2_grpc import EventServiceStub
from tidings.v1.mission_pb2 import Mission
from tidings.v1.mission_service_pb2 import CreateMissionRequest
from tidings.v1.mission_service_pb2_grpc import MissionServiceStub
from tidings.v1.run_pb2 import Run
from tidings.v1.run_service_pb2 import CreateRunRequest
from tidings.v1.run_service_pb2_grpc import RunServiceStub
from tidings.v1.task_pb2 import (
    TASK_STATE_PAUSED,
    TASK_STATE_RUNNING,
    TASK_STATE_SUCCEEDED,
    TaskProgress,
    TaskState,
    TaskStatus,
)
from tidings.v1.task_service_pb2 import CancelTaskRequest, UpdateTaskStatusRequest
from tidings.v1.task_service_pb2_grpc import TaskServiceStub
from tidings_server.clock import to_millis
from tidings_server.lifecycle import NEXT_STATES, TERMINAL
from wire import Failed, reason_of

TYPES: Final = ("red", "green", "blue")
RUNS: Final = {f"run-{number}": f"mission-{number % 3}" for number in range(6)}
"""The runs of a project, each with its mission."""
QUIET_RUN: Final = "run-quiet"
"""Of a mission of its own; nobody writes to it until the end."""
MISSIONS: Final = tuple(sorted(set(RUNS.values())))
PREPARED: Final = 60
"""So many events are in each run before anybody watches, so that snapshots have pages."""
CALL_SECONDS: Final = 6.0
PATIENCE_SECONDS, LAST_PATIENCE_SECONDS = 10.0, 90.0
"""For how long a call is repeated; the last ones until even a transaction that was left open is forgotten."""
LARGE_BYTES: Final = 30_000
UNKNOWN: Final = {"UNAVAILABLE", "CANCELLED", "DEADLINE_EXCEEDED", "INTERNAL", "UNKNOWN"}
"""Statuses after which a change may have been made, or not."""
LIVES: Final = ((), (TASK_STATE_RUNNING,), (TASK_STATE_RUNNING, TASK_STATE_PAUSED), (TASK_STATE_SUCCEEDED,))
"""The ways of markers to the states in which they stay: one for every state that a filter may ask for."""


@dataclass
class Shelf:
    """What the authors of a project know of its events."""

    project: str
    states: dict[str, TaskState.ValueType] = field(default_factory=dict)
    """The state of each living task when it was last touched; unspecified for facts."""
    gone: list[str] = field(default_factory=list)
    """Deleted or expired."""
    short_lived: list[str] = field(default_factory=list)
    """Soon to expire, or expired."""


class Author:
    """Writes to one project, through any server, and repeats what was not answered."""

    def __init__(
        self, name: str, deployment: Deployment, recorder: Recorder, chance: random.Random, shelf: Shelf
    ) -> None:
        self._name = name
        self._recorder = recorder
        self._chance = random.Random(chance.random())
        self._shelf = shelf
        self._credential = deployment.credential(shelf.project)
        self._channels = [deployment.channel(server) for server in range(len(deployment.nodes))]
        self._written = 0
        self._patience = PATIENCE_SECONDS

    async def aclose(self) -> None:
        for channel in self._channels:
            await channel.close()

    async def prepare(self) -> None:
        """Create the missions and runs of the project, and some events."""
        (channel, *_) = self._channels
        runs = {**RUNS, QUIET_RUN: QUIET_RUN}
        for mission_id in sorted(set(runs.values())):
            mission = CreateMissionRequest(mission=Mission(mission_id=mission_id, name=mission_id))
            await MissionServiceStub(channel).CreateMission(mission, metadata=self._credential)
        for run_id, mission_id in runs.items():
            run = CreateRunRequest(run=Run(run_id=run_id, mission_id=mission_id))
            await RunServiceStub(channel).CreateRun(run, metadata=self._credential)
        for run_id in ["", *runs]:
            await self._create_batch(run_id, PREPARED)

    async def write(self, over: asyncio.Event, pause_seconds: float) -> None:
        while not over.is_set():
            await self._any_call()
            await asyncio.sleep(self._chance.uniform(0, 2 * pause_seconds))

    def be_patient(self) -> None:
        """What is written from now on must come to be written."""
        self._patience = LAST_PATIENCE_SECONDS

    async def end(self, event_id: str, *, delete: bool) -> None:
        """Bring an event to its end."""
        await self._change_state(event_id, TASK_STATE_SUCCEEDED)
        if delete:
            await self._delete(event_id)

    async def mark(self, type_: str, run_id: str) -> None:
        """Create the markers that the watchers of a type, a run, its mission and the project wait for.

        One of them stays in each state: a watcher that begins anew only then still finds one in those it asked for.
        """
        for life in LIVES:
            event = self._event(type_, run_id, summary=MARKER, status=TaskStatus())
            await self._create(event)
            for state in life:
                await self._change_state(event.event_id, state)

    async def _any_call(self) -> None:
        dice = self._chance.random()
        if dice < 0.22 or not self._shelf.states:
            await self._create(self._any_event())
        elif dice < 0.27:
            await self._create_batch(self._chance.choice(["", *RUNS]), self._chance.randint(2, 8))
        elif dice < 0.4:
            await self._read()
        else:
            await self._change(self._chance.choice(list(self._shelf.states)))

    async def _change(self, event_id: str) -> None:
        state = self._shelf.states[event_id]
        dice = self._chance.random()
        if dice < 0.12 or not state or state in TERMINAL:
            await self._delete(event_id)
            return
        request = UpdateTaskStatusRequest(task_id=event_id, request_id=self._new_id())
        if dice < 0.16:
            cancel = CancelTaskRequest(task_id=event_id, request_id=self._new_id())
            await self._call("CancelTask", event_id, lambda channel: self._cancel(channel, cancel))
            return
        if dice < 0.5:
            request.progress.CopyFrom(TaskProgress(completed=self._chance.randrange(2**40)))
        else:
            following = sorted(NEXT_STATES[state] - {TaskState.TASK_STATE_SKIPPED})
            request.state = self._chance.choice([*following, TASK_STATE_RUNNING, TASK_STATE_PAUSED])
        await self._call("UpdateTaskStatus", event_id, lambda channel: self._update(channel, request))

    async def _change_state(self, event_id: str, state: TaskState.ValueType) -> None:
        request = UpdateTaskStatusRequest(task_id=event_id, state=state, request_id=self._new_id())
        await self._call("UpdateTaskStatus", event_id, lambda channel: self._update(channel, request))

    # The calls

    async def _create(self, event: Event) -> None:
        request = CreateEventRequest(event=event)
        if event.summary != MARKER and self._chance.random() < 0.15:
            request.ttl.seconds = self._chance.randint(1, 5)
            self._shelf.short_lived.append(event.event_id)

        async def create(channel: grpc.aio.Channel) -> int:
            stub = EventServiceStub(channel)
            created = (await stub.CreateEvent(request, metadata=self._credential, timeout=CALL_SECONDS)).event
            self._shelf.states[created.event_id] = created.status.state
            return created.revision

        await self._call("CreateEvent", event.event_id, create)

    async def _create_batch(self, run_id: str, count: int) -> None:
        events = [self._event(self._chance.choice(TYPES), run_id) for _ in range(count)]
        request = BatchCreateEventsRequest(requests=[CreateEventRequest(event=event) for event in events])
        sent = monotonic()
        try:
            stub = EventServiceStub(self._chance.choice(self._channels))
            response = await stub.BatchCreateEvents(request, metadata=self._credential, timeout=CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            for event in events:
                self._record("BatchCreateEvents", event.event_id, sent, _status(error))
            return
        for event, result in zip(events, response.results, strict=True):
            if result.HasField("event"):
                self._shelf.states[event.event_id] = result.event.status.state
                self._record("BatchCreateEvents", event.event_id, sent, "OK", result.event.revision)
            else:
                unknown = "UNAVAILABLE" if result.error.code == grpc.StatusCode.UNAVAILABLE.value[0] else "FAILED"
                self._record("BatchCreateEvents", event.event_id, sent, f"{unknown} {reason_of(result.error)}")

    async def _delete(self, event_id: str) -> None:
        request = DeleteEventRequest(event_id=event_id, request_id=self._new_id())

        async def delete(channel: grpc.aio.Channel) -> int:
            await EventServiceStub(channel).DeleteEvent(request, metadata=self._credential, timeout=CALL_SECONDS)
            self._shelf.states.pop(event_id, None)
            self._shelf.gone.append(event_id)
            return 0

        await self._call("DeleteEvent", event_id, delete)

    async def _update(self, channel: grpc.aio.Channel, request: UpdateTaskStatusRequest) -> int:
        stub = TaskServiceStub(channel)
        reply = await stub.UpdateTaskStatus(request, metadata=self._credential, timeout=CALL_SECONDS)
        return self._keep(reply.status)

    async def _cancel(self, channel: grpc.aio.Channel, request: CancelTaskRequest) -> int:
        reply = await TaskServiceStub(channel).CancelTask(request, metadata=self._credential, timeout=CALL_SECONDS)
        return self._keep(reply.status)

    def _keep(self, status: TaskStatus) -> int:
        if status.task_id in self._shelf.states:
            self._shelf.states[status.task_id] = status.state
        return status.revision

    async def _read(self) -> None:
        """Read something that is there, something that is gone, or something that never was."""
        shelf = self._shelf
        ids = [shelf.states, shelf.gone, shelf.short_lived, ["nobody", f"{self._name}-{self._written + 1000}"]]
        event_id = self._chance.choice(list(self._chance.choice([each for each in ids if each])))
        sent = monotonic()
        try:
            stub = EventServiceStub(self._chance.choice(self._channels))
            reply = await stub.GetEvent(
                GetEventRequest(event_id=event_id), metadata=self._credential, timeout=CALL_SECONDS
            )
        except grpc.aio.AioRpcError as error:
            status = _status(error)
            self._recorder.add(Read(self._shelf.project, event_id, sent, status, error.details() or ""))
            if status == "NOT_FOUND EVENT_EXPIRED":
                self._shelf.states.pop(event_id, None)
                self._shelf.gone.append(event_id)
        else:
            event = reply.event
            expires = to_millis(event.expire_time)
            self._recorder.add(Read(self._shelf.project, event_id, sent, "OK", "", event.revision, expires))

    async def _call(self, call: str, event_id: str, make: Callable[[grpc.aio.Channel], Awaitable[int]]) -> None:
        """Make a call until it is answered, and record every attempt."""
        until = monotonic() + self._patience
        while monotonic() < until:
            sent = monotonic()
            try:
                revision = await make(self._chance.choice(self._channels))
            except grpc.aio.AioRpcError as error:
                status = _status(error)
                self._record(call, event_id, sent, status)
                if status.partition(" ")[0] not in UNKNOWN:
                    if status.startswith("NOT_FOUND"):
                        self._shelf.states.pop(event_id, None)
                    return
                await asyncio.sleep(self._chance.uniform(0.1, 1))
            else:
                self._record(call, event_id, sent, "OK", revision)
                return
        self._shelf.states.pop(event_id, None)

    def _record(self, call: str, event_id: str, sent: float, status: str, revision: int = 0) -> None:
        code = status.partition(" ")[0]
        outcome = "acknowledged" if code == "OK" else "unknown" if code in UNKNOWN else "failed"
        self._recorder.add(
            Attempt(self._name, self._shelf.project, call, event_id, sent, monotonic(), outcome, status, revision)
        )
        self._recorder.counts[f"writes {outcome}"] += 1

    # The events

    def _any_event(self) -> Event:
        event = self._event(self._chance.choice(TYPES), self._chance.choice(["", "", *RUNS]))
        if self._shelf.gone and self._chance.random() < 0.15:
            event.event_id = self._shelf.gone.pop(self._chance.randrange(len(self._shelf.gone)))
        if self._chance.random() < 0.1:
            event.ClearField("status")
        if self._chance.random() < 0.05:
            event.payload["text"] = "x" * LARGE_BYTES
        return event

    def _event(self, type_: str, run_id: str, **fields: Any) -> Event:
        mission_id = "" if run_id else self._chance.choice(["", *MISSIONS])
        event = Event(event_id=self._new_id(), type=type_, run_id=run_id, mission_id=mission_id, status=TaskStatus())
        event.agent_id = self._shelf.project  # so that a leak shows
        event.MergeFrom(Event(**fields))
        return event

    def _new_id(self) -> str:
        """The same ids in every project."""
        self._written += 1
        return f"{self._name}-{self._written}"


def _status(error: grpc.aio.AioRpcError) -> str:
    return f"{error.code().name} {Failed(error).reason}".strip()
