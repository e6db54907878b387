"""A run: authors and watchers at two servers, one fault after another, a common end, and then the checks."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import uuid
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pymongo import AsyncMongoClient

from guarantees.authors import QUIET_RUN, RUNS, TYPES, Author, Shelf
from guarantees.checks import violations
from guarantees.deployment import PROJECTS, Deployment, deployed, restarted
from guarantees.entries import Survivor
from guarantees.faults import Faults
from guarantees.recording import Recorder, Recording
from guarantees.truth import Observer, Truth
from guarantees.watchers import Common, Habits, Watcher
from tidings_server.embedded import EmbeddedStore

INJECTED: Final = "failCommand"
SHOWN_MAX: Final = 50
SHOWN_CHARACTERS_MAX: Final = 400


@dataclass(frozen=True)
class Plan:
    """What a run is made of."""

    seconds: float
    watchers: int
    writers: int
    faults: Sequence[str] = ()
    """Kinds of faults, injected at random: see Faults.kinds."""
    moments: Sequence[tuple[float, str]] = ()
    """Faults that are injected one after another, each so many seconds after the one before."""
    fault_pause_seconds: float = 2.0
    write_pause_seconds: float = 0.05
    history_max: int = 2000
    silent_seconds: float = 5.0
    servers: int = 2
    end_seconds: float = 90.0
    """Longer than it takes any watcher to be told of everything once all is well again."""
    habits: Habits = field(default_factory=Habits)
    program: Sequence[str] = ("-m", "tidings_server")


@dataclass
class Outcome:
    violations: list[str]
    counts: dict[str, int]
    errors: list[dict[str, Any]]
    """What the servers logged as errors, but for those of the store that were injected."""

    def __str__(self) -> str:
        lines = [f"{name:45} {count:9,}" for name, count in sorted(self.counts.items())]
        lines += [f"logged: {str(each)[:SHOWN_CHARACTERS_MAX]}" for each in self.errors[:SHOWN_MAX]]
        lines += [f"violation: {each}" for each in self.violations[:SHOWN_MAX]]
        return "\n".join(
            [*lines, f"{len(self.violations)} violations, {len(self.errors)} errors logged by the servers"]
        )


async def run(plan: Plan, seed: str, directory: Path) -> Outcome:
    """Make a run and judge it; what was recorded, and the truth, are left in the directory."""
    with closing(Recorder(directory / "recording.jsonl")) as recorder:
        truth, logged = await _make(plan, random.Random(seed), recorder)
    truth.save(directory / "truth.json")
    (directory / "servers.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in logged))
    errors = [entry for entry in logged if entry.get("level") == "error" and INJECTED not in str(entry)]
    found = await asyncio.to_thread(judge, directory)
    return Outcome(found, dict(recorder.counts), errors)


def judge(directory: Path) -> list[str]:
    """The violations that a recorded run shows."""
    return violations(Recording.load(directory / "recording.jsonl"), Truth.load(directory / "truth.json"))


def seed_of_run() -> str:
    """A seed, printed; TIDINGS_TEST_SEED gives it again."""
    seed = os.environ.get("TIDINGS_TEST_SEED") or str(random.randrange(2**32))
    print(f"TIDINGS_TEST_SEED={seed}", flush=True)  # noqa: T201 (pytest shows it when the test fails)
    return seed


async def _make(plan: Plan, chance: random.Random, recorder: Recorder) -> tuple[Truth, list[dict[str, Any]]]:
    """The truth of the run, and what the servers logged."""
    arguments = ["--enable-test-commands", "--oplog-max-entries", str(plan.history_max)]
    async with EmbeddedStore(None, arguments=arguments) as store, restarted(store):
        # A failed read is repeated until then, which outlasts a restart of the store.
        client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(store.uri, tz_aware=True, timeoutMS=30_000)
        database = f"torture_{uuid.uuid4().hex[:8]}"
        async with client, deployed(store, database, servers=plan.servers, program=plan.program) as deployment:
            async with Observer(client, database) as observer:
                recorder.begin(plan.history_max)
                await _act(plan, chance, deployment, client, observer, recorder)
                truth = await observer.truth()
            return truth, _logged(deployment)


async def _act(
    plan: Plan,
    chance: random.Random,
    deployment: Deployment,
    client: AsyncMongoClient[dict[str, Any]],
    observer: Observer,
    recorder: Recorder,
) -> None:
    shelves = {project: Shelf(project) for project in PROJECTS}
    authors = [
        Author(f"author-{number // 2}", deployment, recorder, chance, shelves[PROJECTS[number % 2]])
        for number in range(max(2, plan.writers))
    ]
    over, written = asyncio.Event(), asyncio.Event()
    common = Common(deployment, recorder, shelves, plan.habits, over, [])
    watchers = [Watcher(f"watcher-{number}", common, chance) for number in range(plan.watchers)]
    faults = Faults(
        deployment,
        client,
        observer,
        recorder,
        chance,
        history_max=plan.history_max,
        silent_seconds=plan.silent_seconds,
    )
    for author in authors[:2]:
        await author.prepare()
    async with asyncio.TaskGroup() as at_work:
        watching = {watcher: at_work.create_task(watcher.watch()) for watcher in watchers}
        writing = [at_work.create_task(author.write(written, plan.write_pause_seconds)) for author in authors]
        injecting = at_work.create_task(faults.inject(list(plan.faults), over, plan.fault_pause_seconds))
        await asyncio.sleep(plan.seconds)
        for pause, kind in plan.moments:
            await asyncio.sleep(pause)
            await faults.kinds[kind]()
        over.set()
        await injecting
        written.set()
        await asyncio.gather(*writing)
        survivors = [watcher for watcher, task in watching.items() if not task.done()]
        await _end(authors, survivors, recorder)
        await asyncio.wait(watching.values(), timeout=plan.end_seconds)
        for task in watching.values():
            task.cancel()
    for author in authors:
        await author.aclose()


async def _end(authors: list[Author], survivors: list[Watcher], recorder: Recorder) -> None:
    """Write the end of everything that is watched."""
    for author in authors:
        author.be_patient()
    watched = [watcher.opened for watcher in survivors if watcher.opened is not None]
    for opened in watched:
        recorder.add(Survivor(opened.watcher))
    await asyncio.gather(
        *(
            authors[PROJECTS.index(opened.project)].end(opened.scope_id, delete=opened.stay_open)
            for opened in watched
            if opened.scope == "event_id"
        )
    )
    marked = itertools.product(authors[: len(PROJECTS)], TYPES, [*RUNS, QUIET_RUN])
    await asyncio.gather(*(author.mark(type_, run_id) for author, type_, run_id in marked))


def _logged(deployment: Deployment) -> list[dict[str, Any]]:
    return [
        {"server": server, **entry}
        for server, node in enumerate(deployment.nodes)
        for entry in [*node.entries, *node.process.unread()]
    ]
