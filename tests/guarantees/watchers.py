"""Those who watch: all scopes and filters, at any server, breaking off and resuming, reading slowly or not at all."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any, Final

import grpc

from guarantees.authors import MISSIONS, QUIET_RUN, RUNS, TYPES, Shelf
from guarantees.deployment import NARROW, Deployment
from guarantees.entries import Ended, Opened, Paused, told
from guarantees.recording import Recorder
from guarantees.truth import Selection
from tidings.v1.event_service_pb2 import (
    HISTORY_LOSS_POLICY_FAIL,
    EventFilter,
    ProjectScope,
    WatchEventRequest,
    WatchEventResponse,
)
from tidings.v1.event_service_pb2_grpc import EventServiceStub
from tidings.v1.task_pb2 import TaskState
from wire import Failed

STATES: Final = ("PENDING", "RUNNING", "PAUSED", "SUCCEEDED")
SCOPES: Final = {"event_id": 35, "run_id": 30, "mission_id": 20, "project": 15}
SILENT_SECONDS: Final = 9.0
"""For so long beyond its heartbeat a watcher waits before it takes its stream for dead."""
TOKENS_MAX: Final = 50


@dataclass(frozen=True)
class Habits:
    """What watchers do besides reading, as chances for each stream."""

    leaves: float = 0.4
    leaves_at_bookmark: float = 0.3
    pauses: float = 0.15
    pause_seconds: float = 5.0
    foreign: float = 0.03
    forgets: float = 0.1
    """Begins anew, with a snapshot."""


@dataclass
class Common:
    """What all watchers of a run share."""

    deployment: Deployment
    recorder: Recorder
    shelves: dict[str, Shelf]
    habits: Habits
    over: asyncio.Event
    """From then on everybody only reads."""
    tokens: list[tuple[Selection, str]]


class Watcher:
    """Watches one selection until its marker is told; or one event after another, each to its end."""

    def __init__(self, name: str, common: Common, chance: random.Random) -> None:
        self._name = name
        self._common = common
        self._chance = random.Random(chance.random())
        self._follows = 0
        self.opened: Opened | None = None
        """The stream that is being read, or was last."""

    async def watch(self) -> None:
        chance = self._chance
        project = chance.choice(list(self._common.shelves))
        (scope,) = chance.choices(list(SCOPES), list(SCOPES.values()))
        while True:
            wanted = await self._wanted(project, scope)
            if wanted is None:
                return
            await _Follow(wanted, self._common, chance, self._seen).to_its_end()
            if scope != "event_id" or self._common.over.is_set():
                return

    def _seen(self, opened: Opened) -> None:
        self.opened = opened

    async def _wanted(self, project: str, scope: str) -> Opened | None:
        """What to watch; None when there is no event to follow any more."""
        chance = self._chance
        self._follows += 1
        opened = Opened(
            time=0.0,
            watcher=f"{self._name}/{self._follows}",
            number=0,
            server=0,
            project=project,
            scope=scope,
            start="live" if chance.random() < 0.1 else "snapshot",
            fails_on_loss=chance.random() < 0.3,
            heartbeat=float(chance.randint(1, 4)),
        )
        match scope:
            case "event_id":
                event_id = await self._living(project)
                if event_id is None:
                    return None
                return replace(opened, scope_id=event_id, stay_open=chance.random() < 0.2)
            case "run_id":
                opened = replace(opened, scope_id=chance.choice([*RUNS, QUIET_RUN]))
            case "mission_id":
                opened = replace(opened, scope_id=chance.choice(MISSIONS))
        if chance.random() < 0.4:
            opened = replace(opened, types=tuple(chance.sample(TYPES, 2)))
        if chance.random() < 0.4:
            opened = replace(opened, states=tuple(chance.sample(STATES, 2)))
        if chance.random() < 0.1:
            opened = replace(opened, max_duration=float(chance.randint(2, 9)))
        return opened

    async def _living(self, project: str) -> str | None:
        while not self._common.over.is_set():
            if states := self._common.shelves[project].states:
                return self._chance.choice(list(states))
            await asyncio.sleep(0.1)
        return None


class _Follow:
    """One watch over as many streams as it takes."""

    def __init__(self, wanted: Opened, common: Common, chance: random.Random, seen: Callable[[Opened], None]) -> None:
        self._wanted = wanted
        self._common = common
        self._chance = chance
        self._seen = seen
        self._token = ""
        self._number = 0
        self._done = False

    async def to_its_end(self) -> None:
        while not self._done:
            status = await self._stream(self._token)
            if status.partition(" ")[0] in {"OUT_OF_RANGE", "INVALID_ARGUMENT"}:
                self._token = ""
            self._done = self._done or status.startswith("NOT_FOUND")
            if self._chance.random() < self._common.habits.foreign and not self._common.over.is_set():
                await self._try_foreign()
            if self._chance.random() < self._common.habits.forgets:
                self._token = ""
            if not self._done:
                await asyncio.sleep(self._chance.uniform(0.05, 0.5))

    async def _try_foreign(self) -> None:
        selection = Selection.of(self._wanted)
        others = [token for of, token in self._common.tokens if of != selection]
        if others:
            await self._stream(self._chance.choice(others), start="foreign")

    async def _stream(self, token: str, start: str = "") -> str:
        """Read a stream to its end, or until the watcher has had enough; its status."""
        chance, common = self._chance, self._common
        self._number += 1
        server = chance.randrange(len(common.deployment.nodes))
        start = start or ("resumed" if token else self._wanted.start)
        opened = replace(self._wanted, number=self._number, server=server, start=start, time=monotonic())
        common.recorder.add(opened)
        common.recorder.counts[f"streams {start}"] += 1
        self._seen(opened)
        options = [NARROW] if chance.random() < 0.3 else []
        channel = common.deployment.channel(server, *options)
        try:
            call = EventServiceStub(channel).WatchEvent(
                _request(opened, token), metadata=common.deployment.credential(opened.project)
            )
            status = await self._read(call, opened)
        except grpc.aio.AioRpcError as error:
            status = f"{error.code().name} {Failed(error).reason}".strip()
        finally:
            await channel.close()
        common.recorder.add(Ended(monotonic(), opened.watcher, opened.number, status))
        common.recorder.counts[f"ended {status}"] += 1
        return status

    async def _read(self, call: Any, opened: Opened) -> str:
        chance, common, habits = self._chance, self._common, self._common.habits
        leaves_after = chance.randrange(60) if chance.random() < habits.leaves else None
        at_bookmark = chance.random() < habits.leaves_at_bookmark
        pauses_after = chance.randrange(30) if chance.random() < habits.pauses else None
        count = 0
        while True:
            try:
                async with asyncio.timeout(opened.heartbeat + SILENT_SECONDS):
                    message = await call.read()
            except TimeoutError:
                common.recorder.counts["streams that fell silent"] += 1
                return "LEFT"
            if message is grpc.aio.EOF:
                return str((await call.code()).name)
            self._take(message, opened)
            count += 1
            if self._done and opened.scope != "event_id":
                return "LEFT"
            if not common.over.is_set():
                if count == leaves_after or (at_bookmark and message.HasField("bookmark")):
                    return "LEFT"
                if count == pauses_after:
                    await self._pause(opened)

    def _take(self, message: WatchEventResponse, opened: Opened) -> None:
        entry = told(opened.watcher, opened.number, message)
        self._common.recorder.add(entry)
        self._common.recorder.counts[f"told {entry.kind}"] += 1
        self._common.recorder.counts["deliveries"] += entry.is_change
        if opened.start == "foreign":
            return
        self._token = message.resume_token
        if self._chance.random() < 0.01:
            self._common.tokens[TOKENS_MAX - 1 :] = []
            self._common.tokens.insert(0, (Selection.of(opened), message.resume_token))
        is_end = entry.kind == "closing" and entry.detail == "TERMINAL"
        self._done = self._done or is_end or (entry.is_marker and opened.scope != "event_id")

    async def _pause(self, opened: Opened) -> None:
        begin = monotonic()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._chance.uniform(0.2, 1) * self._common.habits.pause_seconds):
                await self._common.over.wait()
        self._common.recorder.add(Paused(opened.watcher, begin, monotonic()))
        self._common.recorder.counts["pauses of readers"] += 1


def _request(opened: Opened, token: str) -> WatchEventRequest:
    request = WatchEventRequest(stay_open=opened.stay_open)
    if opened.types or opened.states:
        states = [TaskState.Value(f"TASK_STATE_{name}") for name in opened.states]
        request.filter.MergeFrom(EventFilter(types=opened.types, states=states))
    if opened.scope == "project":
        request.project.CopyFrom(ProjectScope())
    else:
        setattr(request, opened.scope, opened.scope_id)
    if token:
        request.resume_token = token
    elif opened.start == "live":
        request.live_only = True
    if opened.fails_on_loss:
        request.on_history_loss = HISTORY_LOSS_POLICY_FAIL
    request.heartbeat_interval.FromMilliseconds(int(opened.heartbeat * 1000))
    if opened.max_duration:
        request.max_duration.FromMilliseconds(int(opened.max_duration * 1000))
    return request
