"""Two servers on one store against a model of what they should do, in random walks that Hypothesis chooses.

Every request is sent to one server and then, as a retry, to the other one: both must give the same answer, and the one
that the model expects. TIDINGS_TEST_STEPS says how many steps are walked in all (10,000 is the long run).
"""

from __future__ import annotations

import asyncio
import os
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, ClassVar, TypeAlias

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from pydantic import SecretStr

from tidings.v1 import event_pb2, mission_pb2, run_pb2
from tidings.v1 import event_service_pb2 as events
from tidings.v1 import mission_service_pb2 as missions
from tidings.v1 import run_service_pb2 as runs
from tidings.v1 import task_service_pb2 as tasks
from tidings.v1.event_service_pb2_grpc import EventServiceStub
from tidings.v1.mission_service_pb2_grpc import MissionServiceStub
from tidings.v1.run_service_pb2_grpc import RunServiceStub
from tidings.v1.task_pb2 import (
    TASK_STATE_CANCELLED,
    TASK_STATE_FAILED,
    TASK_STATE_PAUSED,
    TASK_STATE_PENDING,
    TASK_STATE_RUNNING,
    TASK_STATE_SUCCEEDED,
    TaskState,
)
from tidings.v1.task_service_pb2_grpc import TaskServiceStub
from tidings_server.config import Config
from tidings_server.server import serve
from wire import Failed, SetClock, reason_of

STEPS = int(os.environ.get("TIDINGS_TEST_STEPS", "300"))
STEPS_PER_WALK = 50
SECOND, DAY = 1000, 24 * 60 * 60 * 1000

State: TypeAlias = TaskState.ValueType
ENDED = {TASK_STATE_SUCCEEDED, TASK_STATE_FAILED, TASK_STATE_CANCELLED}
NEXT: dict[State, set[State]] = {
    TASK_STATE_PENDING: ENDED | {TASK_STATE_RUNNING},
    TASK_STATE_RUNNING: ENDED | {TASK_STATE_PAUSED},
    TASK_STATE_PAUSED: ENDED | {TASK_STATE_RUNNING},
}


# ---- the model ----


@dataclass
class Thing:
    """Something with an id, whether it is there or not."""

    mission: str = ""
    content: tuple[Any, ...] = ()
    revision: int = 0
    deleted: bool = True
    expires: int | None = None

    def is_there(self, now: int) -> bool:
        return not self.deleted and (self.expires is None or now < self.expires)

    def begin(self, content: tuple[Any, ...], expires: int | None = None) -> None:
        self.content, self.expires = content, expires
        self.revision, self.deleted = self.revision + 1, False

    def end(self) -> None:
        if not self.deleted:
            self.revision, self.deleted = self.revision + 1, True


@dataclass
class Run(Thing):
    state: State = TASK_STATE_PENDING
    steps: dict[str, State] = field(default_factory=dict)
    last_sequence: int = 0
    closes: int | None = None


@dataclass
class Event(Thing):
    run: str = ""
    is_task: bool = False
    is_fixed: bool = False
    state: State = TASK_STATE_PENDING
    cancel_requested: bool = False
    sequence: int = 0

    def stamp(self, now: int) -> None:
        if not self.is_fixed:
            days = 30 if not self.is_task else 1 if self.state in ENDED else 7
            self.expires = now + days * DAY


def refusal(state: State, to: State) -> str:
    """Why something in a state cannot go to another one, or nothing."""
    if to == state:
        return ""
    if state in ENDED:
        return "TASK_TERMINAL"
    return "" if to in NEXT[state] else "ILLEGAL_TRANSITION"


# ---- what is done to both ----

MISSIONS = ["m1", "m2"]
RUNS = [f"{mission}-{run}" for mission in MISSIONS for run in ("r1", "r2")]
EVENTS = [f"{place}-{number}" for place in [*RUNS, *MISSIONS] for number in (1, 2, 3)]
STEP_IDS = ["s1", "s2", "s3"]

mission_ids, run_ids, event_ids = st.sampled_from(MISSIONS), st.sampled_from(RUNS), st.sampled_from(EVENTS)
step_ids = st.lists(st.sampled_from(STEP_IDS), min_size=1, unique=True)
states = st.sampled_from([TASK_STATE_PENDING, TASK_STATE_RUNNING, TASK_STATE_PAUSED, *sorted(ENDED)])
specs = st.tuples(event_ids, st.booleans(), st.sampled_from([0, 0, 50]))


class Machine(RuleBasedStateMachine):
    servers: ClassVar[list[SimpleNamespace]]
    clock: ClassVar[SetClock]
    steps: ClassVar[int] = 0
    answers: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.prefix = uuid.uuid4().hex[:12] + "-"
        self.first = 0
        self.missions = {id_: Thing() for id_ in MISSIONS}
        self.runs = {id_: Run(mission=id_[:2]) for id_ in RUNS}
        self.events = {id_: Event(mission=id_[:2], run=id_[:5] if id_[:5] in RUNS else "") for id_ in EVENTS}

    # What is there

    @property
    def now(self) -> int:
        return self.clock.now

    def has_mission(self, id_: str) -> bool:
        return not self.missions[id_].deleted

    def run(self, id_: str) -> Run | None:
        run = self.runs[id_]
        return run if self.has_mission(run.mission) and run.is_there(self.now) else None

    def absence(self, event: Event) -> str:
        """Why there is no such event, or nothing."""
        if event.deleted or not self.has_mission(event.mission):
            return "EVENT_NOT_FOUND"
        return "" if event.is_there(self.now) else "EVENT_EXPIRED"

    # Asking

    def ask(self, service: str, method: str, request: Any) -> Any:
        """The answer of both servers, first of the one and then of the other: a response, or a reason."""
        self.first = 1 - self.first
        answers = [answer(self.servers[each], service, method, request) for each in (self.first, 1 - self.first)]
        assert answers[0] == answers[1], "a retry has the same answer"
        self.answers[f"{method} {answers[0] if isinstance(answers[0], str) else 'OK'}"] += 1
        return answers[0]

    def change(self, service: str, method: str, request: Any) -> Any:
        request.request_id = uuid.uuid4().hex
        type(self).steps += 1
        return self.ask(service, method, request)

    def create(self, service: str, method: str, request: Any) -> Any:
        type(self).steps += 1
        return self.ask(service, method, request)

    # Missions

    @initialize()
    def begin(self) -> None:
        for id_ in MISSIONS:
            self.create_mission(id_)
        for number, id_ in enumerate(RUNS[:3]):
            self.create_run(id_, 0, 20 * (number % 2))
            self.plan(id_, STEP_IDS[:2], "CreatePlan")
            self.move_run(id_, "UpdateRun", TASK_STATE_RUNNING)
        self.create_events([(id_, number % 3 > 0, 0) for number, id_ in enumerate(EVENTS)])

    @rule(id_=mission_ids)
    def create_mission(self, id_: str) -> None:
        mission = self.missions[id_]
        if mission.deleted:
            mission.begin(("name",))
        request = missions.CreateMissionRequest(mission=mission_pb2.Mission(mission_id=self.prefix + id_, name="name"))
        assert self.create("missions", "CreateMission", request).mission.revision == mission.revision

    @rule(id_=mission_ids, name=st.sampled_from(["name", "other"]))
    def update_mission(self, id_: str, name: str) -> None:
        mission = self.missions[id_]
        changed = mission_pb2.Mission(mission_id=self.prefix + id_, name=name)
        request = missions.UpdateMissionRequest(mission=changed, update_mask=FieldMask(paths=["name"]))
        reply = self.change("missions", "UpdateMission", request)
        if mission.deleted:
            assert reply == "MISSION_NOT_FOUND"
            return
        mission.revision += mission.content != (name,)
        mission.content = (name,)
        assert (reply.mission.revision, reply.mission.name) == (mission.revision, name)

    @rule(id_=mission_ids, chance=st.integers(0, 9))
    def delete_mission(self, id_: str, chance: int) -> None:
        if chance:  # or little is ever there
            return
        mission = self.missions[id_]
        reply = self.change("missions", "DeleteMission", missions.DeleteMissionRequest(mission_id=self.prefix + id_))
        if mission.deleted:
            assert reply == "MISSION_NOT_FOUND"
            return
        assert reply == missions.DeleteMissionResponse()
        mission.end()
        for thing in (*self.runs.values(), *self.events.values()):
            if thing.mission == id_:
                thing.end()

    # Runs

    @rule(id_=run_ids, ttl=st.sampled_from([0, 0, 100]), grace=st.sampled_from([0, 20]))
    def create_run(self, id_: str, ttl: int, grace: int) -> None:
        run, content = self.runs[id_], (ttl, grace)
        wanted = run_pb2.Run(run_id=self.prefix + id_, mission_id=self.prefix + run.mission)
        wanted.grace_period.seconds = grace
        reply = self.create("runs", "CreateRun", runs.CreateRunRequest(run=wanted, ttl=seconds(ttl)))
        if not self.has_mission(run.mission):
            assert reply == "MISSION_NOT_FOUND"
        elif run.is_there(self.now) and run.content != content:
            assert reply == "RUN_ALREADY_EXISTS"
        else:
            if not run.is_there(self.now):
                run.begin(content, self.now + ttl * SECOND if ttl else None)
                run.state, run.steps, run.closes = TASK_STATE_PENDING, {}, None
            self.check_run(run, reply.run)

    @rule(id_=run_ids, how=st.sampled_from(["PauseRun", "ResumeRun", "CancelRun", "UpdateRun"]), to=states)
    def move_run(self, id_: str, how: str, to: State) -> None:
        moves = {"PauseRun": TASK_STATE_PAUSED, "ResumeRun": TASK_STATE_RUNNING, "CancelRun": TASK_STATE_CANCELLED}
        request = getattr(runs, f"{how}Request")(run_id=self.prefix + id_)
        if how == "UpdateRun":
            request.state = to
        to = moves.get(how, to)
        reply, run = self.change("runs", how, request), self.run(id_)
        if run is None:
            assert reply == "RUN_NOT_FOUND"
        elif how == "ResumeRun" and run.state == TASK_STATE_PENDING:
            assert reply == "ILLEGAL_TRANSITION"
        elif why := refusal(run.state, to):
            assert reply == why
        else:
            run.revision += to != run.state
            if to in ENDED and to != run.state:
                run.closes = self.now + run.content[1] * SECOND
            run.state = to
            self.check_run(run, reply.run)

    @rule(id_=run_ids, step_ids=step_ids, method=st.sampled_from(["CreatePlan", "AddPlanSteps"]))
    def plan(self, id_: str, step_ids: list[str], method: str) -> None:
        steps = [run_pb2.PlanStep(step_id=each, sequence=int(each[1:])) for each in step_ids]
        request = getattr(runs, f"{method}Request")(run_id=self.prefix + id_, steps=steps)
        reply, run = self.change("runs", method, request), self.run(id_)
        if run is None:
            assert reply == "RUN_NOT_FOUND"
        elif method == "CreatePlan" and run.steps and run.steps.keys() != set(step_ids):
            assert reply == "PLAN_ALREADY_EXISTS"
        else:
            run.revision += not run.steps.keys() >= set(step_ids)
            run.steps = {**dict.fromkeys(step_ids, TASK_STATE_PENDING), **run.steps}
            self.check_run(run, reply.run)

    @rule(id_=run_ids, step_id=st.sampled_from(STEP_IDS), to=states)
    def update_step(self, id_: str, step_id: str, to: State) -> None:
        request = runs.UpdatePlanStepRequest(run_id=self.prefix + id_, step_id=step_id, state=to)
        reply, run = self.change("runs", "UpdatePlanStep", request), self.run(id_)
        if run is None:
            assert reply == "RUN_NOT_FOUND"
        elif step_id not in run.steps:
            assert reply == "STEP_NOT_FOUND"
        elif why := refusal(run.steps[step_id], to):
            assert reply == why
        else:
            run.revision += to != run.steps[step_id]
            run.steps[step_id] = to
            assert (reply.step.state, reply.revision) == (to, run.revision)

    def check_run(self, run: Run, told: run_pb2.Run) -> None:
        assert (told.state, told.revision, told.last_sequence) == (run.state, run.revision, run.last_sequence)
        assert [(step.step_id, step.state) for step in told.plan] == sorted(run.steps.items())

    # Events

    @rule(spec=specs)
    def create_event(self, spec: tuple[str, bool, int]) -> None:
        expected = self.expect_event(*spec)
        self.check_event(expected, self.create("events", "CreateEvent", self.creation(*spec)))

    @rule(batch=st.lists(specs, min_size=1, max_size=4))
    def create_events(self, batch: list[tuple[str, bool, int]]) -> None:
        request = events.BatchCreateEventsRequest(requests=[self.creation(*spec) for spec in batch])
        expected = [self.expect_event(*spec) for spec in batch]
        reply = self.create("events", "BatchCreateEvents", request)
        for each, result in zip(expected, reply.results, strict=True):
            self.check_event(each, reason_of(result.error) if result.HasField("error") else result)

    def creation(self, id_: str, is_task: bool, ttl: int) -> events.CreateEventRequest:
        event = event_pb2.Event(type="test.event", event_id=self.prefix + id_)
        if self.events[id_].run:
            event.run_id = self.prefix + self.events[id_].run
        else:
            event.mission_id = self.prefix + self.events[id_].mission
        if is_task:
            event.status.SetInParent()
        return events.CreateEventRequest(event=event, ttl=seconds(ttl))

    def expect_event(self, id_: str, is_task: bool, ttl: int) -> Event | str:
        """Create an event in the model: the event, or why there is none."""
        event, content = self.events[id_], (is_task, ttl)
        run = self.run(event.run) if event.run else None
        if event.run and run is None:
            return "RUN_NOT_FOUND"
        if not self.has_mission(event.mission):
            return "MISSION_NOT_FOUND"
        if event.is_there(self.now):
            return event if event.content == content else "EVENT_ALREADY_EXISTS"
        if run and run.closes is not None and run.closes <= self.now:
            return "RUN_CLOSED"
        event.begin(content)
        event.is_task, event.state, event.cancel_requested = is_task, TASK_STATE_PENDING, False
        if ttl:
            event.expires = self.now + ttl * SECOND
        elif run:
            event.expires = run.expires
        event.is_fixed = event.expires is not None
        event.stamp(self.now)
        if run:
            run.last_sequence += 1
            event.sequence = run.last_sequence
        return event

    def check_event(self, event: Event | str, reply: Any) -> None:
        if isinstance(event, str):
            assert reply == event
            return
        assert not isinstance(reply, str), reply
        told = reply.event
        assert (told.revision, told.sequence) == (event.revision, event.sequence)
        assert told.expire_time.ToMilliseconds() == event.expires
        assert told.HasField("status") == event.is_task
        if event.is_task:
            assert (told.status.state, told.status.cancel_requested) == (event.state, event.cancel_requested)

    @rule(id_=event_ids, to=st.none() | states)
    def change_task(self, id_: str, to: State | None) -> None:
        """Move a task, or ask for its cancellation."""
        event, task_id = self.events[id_], self.prefix + id_
        if to is None:
            reply = self.change("tasks", "CancelTask", tasks.CancelTaskRequest(task_id=task_id))
        else:
            reply = self.change("tasks", "UpdateTaskStatus", tasks.UpdateTaskStatusRequest(task_id=task_id, state=to))
        if why := self.absence(event) or ("" if event.is_task else "TASK_NOT_FOUND"):
            assert reply == why
            return
        is_running = event.state in {TASK_STATE_RUNNING, TASK_STATE_PAUSED}
        goal = (event.state if is_running else TASK_STATE_CANCELLED) if to is None else to
        if why := refusal(event.state, goal):
            assert reply == why
            return
        asks = to is None and is_running and not event.cancel_requested
        if asks or goal != event.state:
            event.revision += 1
            event.state, event.cancel_requested = goal, event.cancel_requested or asks
            event.stamp(self.now)
        status = reply.status
        assert (status.state, status.revision, status.cancel_requested) == (
            event.state,
            event.revision,
            event.cancel_requested,
        )

    @rule(id_=event_ids)
    def delete_event(self, id_: str) -> None:
        event = self.events[id_]
        reply = self.change("events", "DeleteEvent", events.DeleteEventRequest(event_id=self.prefix + id_))
        if why := self.absence(event):
            assert reply == why
        else:
            assert reply == events.DeleteEventResponse()
            event.end()

    # Time, and looking

    @rule(millis=st.sampled_from([5 * SECOND] * 3 + [60 * SECOND] * 2 + [DAY]))
    def wait(self, millis: int) -> None:
        type(self).steps += 1
        self.clock.forward(milliseconds=millis)

    @rule(id_=run_ids)
    def look_at_run(self, id_: str) -> None:
        type(self).steps += 1
        reply, run = self.ask("runs", "GetRun", runs.GetRunRequest(run_id=self.prefix + id_)), self.run(id_)
        if run is None:
            assert reply == "RUN_NOT_FOUND"
        else:
            self.check_run(run, reply.run)
        order = events.LIST_ORDER_OLDEST_FIRST
        listed = self.ask("events", "ListEvents", events.ListEventsRequest(run_id=self.prefix + id_, order=order))
        there = sorted(
            (event.sequence, self.prefix + key)
            for key, event in self.events.items()
            if event.run == id_ and not self.absence(event)
        )
        assert [(event.sequence, event.event_id) for event in listed.events] == there

    @rule()
    def look_at_events(self) -> None:
        type(self).steps += 1
        request = events.BatchGetEventsRequest(event_ids=[self.prefix + id_ for id_ in EVENTS])
        results = self.ask("events", "BatchGetEvents", request).results
        for event, result in zip(self.events.values(), results, strict=True):
            reply = reason_of(result.error) if result.HasField("error") else result
            self.check_event(self.absence(event) or event, reply)

    def teardown(self) -> None:
        self.look_at_events()
        for id_ in RUNS:
            self.look_at_run(id_)


def seconds(count: int) -> Duration | None:
    return Duration(seconds=count) if count else None


def answer(server: SimpleNamespace, service: str, method: str, request: Any) -> Any:
    """The response, or the reason of the failure. What is refused for the moment is asked again."""
    while True:
        try:
            return getattr(getattr(server, service), method)(request, timeout=20)
        except grpc.RpcError as error:
            failed: Any = error
            reason = Failed(failed).reason
            if not reason:
                raise
            if failed.code() != grpc.StatusCode.UNAVAILABLE:
                return reason


@contextmanager
def two_servers(uri: str, database: str, clock: SetClock) -> Iterator[list[SimpleNamespace]]:
    """Clients of two servers on one store that run in another thread."""
    config = Config(listen="127.0.0.1:0", http_port="off", mongodb_uri=SecretStr(uri), mongodb_database=database)
    started: Future[tuple[list[int], Callable[[], Any]]] = Future()

    async def run() -> None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        async with serve(config, clock=clock) as first, serve(config, clock=clock) as second:
            started.set_result(([first.port, second.port], lambda: loop.call_soon_threadsafe(stop.set)))
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    ports, stop = started.result(timeout=20)
    channels = [grpc.insecure_channel(f"127.0.0.1:{port}") for port in ports]
    try:
        yield [
            SimpleNamespace(
                events=EventServiceStub(channel),
                tasks=TaskServiceStub(channel),
                missions=MissionServiceStub(channel),
                runs=RunServiceStub(channel),
            )
            for channel in channels
        ]
    finally:
        for channel in channels:
            channel.close()
        stop()
        thread.join()


@pytest.mark.timeout(120 + STEPS // 5)
def test_two_servers_do_what_a_model_does(mongodb_uri: str, database: str) -> None:
    clock = SetClock()
    clock.forward(days=1000)  # far ahead of the store's own clock, so that the store purges nothing
    how = settings(
        max_examples=max(1, min(20, STEPS // STEPS_PER_WALK)),
        stateful_step_count=STEPS_PER_WALK,
        deadline=None,
        database=None,
        phases=[Phase.generate],  # to shorten a walk that went wrong takes many more
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
    with two_servers(mongodb_uri, database, clock) as servers:

        class Walk(Machine):
            pass

        Walk.servers, Walk.clock = servers, clock
        while Walk.steps < STEPS:
            run_state_machine_as_test(Walk, settings=how)
        print(f"{Walk.steps} steps: {dict(sorted(Walk.answers.items()))}")  # noqa: T201
