"""The truth of a run: every change of every event in the order of the store, read by a change stream of our own."""

from __future__ import annotations

import asyncio
import json
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from time import monotonic
from typing import Any, Final, Self

from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError

from guarantees.entries import Opened
from tidings_server.lifecycle import TERMINAL, state_name

TERMINAL_STATES: Final = frozenset(state_name(state) for state in TERMINAL)
CHURN: Final = "churn"
"""A collection that is none of the service's: what is written to it only turns the store's history over."""
CHURN_PAUSE_SECONDS: Final = 0.05
"""So that servers which read keep up with it."""
RETRY_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Stored:
    """A change of an event, as the store made it. Positions count all changes of events of the run."""

    position: int
    project: str
    event_id: str
    revision: int
    updated: int
    created: int
    expires: int
    kind: str
    state: str = ""
    previous: str = ""
    type: str = ""
    run_id: str = ""
    mission_id: str = ""
    sequence: int = 0

    def __str__(self) -> str:
        return f"revision {self.revision} of {self.project}/{self.event_id}"

    @property
    def key(self) -> tuple[str, str, int, int]:
        """What tells this change from all others, also when an id is used again."""
        return self.project, self.event_id, self.revision, self.updated

    @property
    def is_final(self) -> bool:
        """Whether a watch of the event has nothing more to wait for."""
        return self.kind == "DELETED" or not self.state or self.state in TERMINAL_STATES


def stored(position: int, document: Mapping[str, Any]) -> Stored:
    """The change that made an event's document what it is."""
    project, _, event_id = document["_id"].partition("/")
    transition = (document.get("transitions") or [{}])[-1]
    is_move = transition.get("revision") == document["revision"] and transition["from"] != "UNSPECIFIED"
    first = document["revision"] == document["first_revision"]
    return Stored(
        position=position,
        project=project,
        event_id=event_id,
        revision=int(document["revision"]),
        updated=_millis(document["update_time"]),
        created=_millis(document["create_time"]),
        expires=_millis(document["expire_time"]),
        kind="DELETED" if document.get("deleted") else "CREATED" if first else "UPDATED",
        state=document["status"]["state"] if "status" in document else "",
        previous=transition["from"] if is_move else "",
        type=document["type"],
        run_id=document.get("run_id", ""),
        mission_id=document.get("mission_id", ""),
        sequence=int(document["sequence"]),
    )


def _millis(date: Any) -> int:
    milliseconds: int = round(date.timestamp() * 1000)
    return milliseconds


@dataclass(frozen=True, slots=True)
class Selection:
    """The events that a stream was asked for."""

    project: str
    scope: str
    scope_id: str
    types: tuple[str, ...]
    states: tuple[str, ...]

    @classmethod
    def of(cls, opened: Opened) -> Self:
        """Filters that differ only in their order are the same."""
        types, states = (tuple(sorted(each)) for each in (opened.types, opened.states))
        return cls(opened.project, opened.scope, opened.scope_id, types, states)

    def tells(self, change: Stored) -> bool:
        """Whether a change is to be told: of an event that passes the filter, or did before the change."""
        return self._is_of(change) and (
            not self.states or change.state in self.states or (change.previous != "" and change.previous in self.states)
        )

    def has(self, change: Stored) -> bool:
        """Whether the event is among those selected after a change that is told."""
        return change.kind != "DELETED" and (not self.states or change.state in self.states)

    def _is_of(self, change: Stored) -> bool:
        if change.project != self.project or (self.types and change.type not in self.types):
            return False
        return self.scope == "project" or getattr(change, self.scope) == self.scope_id


class Truth:
    """Everything that the store did."""

    def __init__(self, changes: Iterable[Stored], final: Iterable[Stored], written: Iterable[float]) -> None:
        """With the events as they are stored at the end, and when each entry of the store's log was seen."""
        self.changes = list(changes)
        self.final = {(each.project, each.event_id): each for each in final}
        self.written = list(written)
        self._told: dict[Selection, list[Stored]] = {}

    @cached_property
    def by_key(self) -> dict[tuple[str, str, int, int], Stored]:
        return {change.key: change for change in self.changes}

    @cached_property
    def of_event(self) -> dict[tuple[str, str], list[Stored]]:
        events: defaultdict[tuple[str, str], list[Stored]] = defaultdict(list)
        for change in self.changes:
            events[change.project, change.event_id].append(change)
        return dict(events)

    def told(self, selection: Selection) -> list[Stored]:
        """Every change that is told of a selection, in order."""
        if selection not in self._told:
            self._told[selection] = [change for change in self.changes if selection.tells(change)]
        return self._told[selection]

    def entries_between(self, begin: float, end: float) -> int:
        """How many entries the store's log took between two times."""
        return bisect_right(self.written, end) - bisect_left(self.written, begin)

    def defects(self) -> list[str]:
        """Why this cannot be the whole truth: each event's revisions must follow each other up to what is stored."""
        found = []
        for (project, event_id), changes in self.of_event.items():
            for before, after in zip([None, *changes], changes, strict=False):
                if after.revision not in {1, before.revision + 1 if before else 1}:
                    found.append(f"{project}/{event_id}: {after.revision} follows {before and before.revision}")
            final = self.final.get((project, event_id))
            if final and final.key != changes[-1].key:
                found.append(f"{project}/{event_id}: seen up to {changes[-1].revision}, stored at {final.revision}")
        return found

    def save(self, path: Path) -> None:
        content = {
            "changes": [asdict(each) for each in self.changes],
            "final": [asdict(each) for each in self.final.values()],
            "written": self.written,
        }
        path.write_text(json.dumps(content))

    @classmethod
    def load(cls, path: Path) -> Self:
        content = json.loads(path.read_text())
        changes, final = ([Stored(**each) for each in content[name]] for name in ("changes", "final"))
        return cls(changes, final, content["written"])


class Observer:
    """Reads all changes of a database from the moment it is entered, whatever happens to the store."""

    def __init__(self, client: AsyncMongoClient[dict[str, Any]], database: str) -> None:
        self._client = client
        self._database = client[database]
        self._changes: list[Stored] = []
        self._written: list[float] = []
        self._token: Any = None
        self._marks: dict[str, asyncio.Event] = {}

    async def __aenter__(self) -> Self:
        begun = asyncio.Event()
        self._reading = asyncio.create_task(self._read_on(begun))
        await begun.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)

    async def churn(self, count: int) -> None:
        """Make entries in the store's log until the older ones are pruned, and return when they were seen."""
        for begin in range(0, count, 100):
            await self._database[CHURN].insert_many([{} for _ in range(min(100, count - begin))])
            await self.caught_up()
            await asyncio.sleep(CHURN_PAUSE_SECONDS)
        await self._client.admin.command("secantusAdmin.pruneOplog")

    async def caught_up(self) -> None:
        """Return when everything that was written before has been seen."""
        mark = f"mark-{len(self._marks)}"
        seen = self._marks[mark] = asyncio.Event()
        await self._database[CHURN].insert_one({"_id": mark})
        await seen.wait()

    async def truth(self) -> Truth:
        await self.caught_up()
        final = [stored(0, document) async for document in self._database.events.find()]
        return Truth(self._changes, final, self._written)

    async def _read_on(self, begun: asyncio.Event) -> None:
        while True:
            try:
                async with await self._database.watch(resume_after=self._token, max_await_time_ms=200) as stream:
                    begun.set()
                    while True:
                        change = await stream.try_next()
                        self._token = stream.resume_token
                        if change is not None:
                            self._take(change)
            except PyMongoError:
                await asyncio.sleep(RETRY_SECONDS)

    def _take(self, change: Mapping[str, Any]) -> None:
        self._written.append(monotonic())
        collection = change["ns"].get("coll")
        if collection == CHURN:
            if mark := self._marks.get(change["documentKey"]["_id"]):
                mark.set()
        elif collection == "events" and change["operationType"] in {"insert", "replace"}:
            self._changes.append(stored(len(self._changes) + 1, change["fullDocument"]))
