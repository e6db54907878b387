"""Missions: created, read, changed, and deleted with all that is theirs, through the wire."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct, Value
from pymongo import AsyncMongoClient

from conftest import Start
from tidings.v1.event_pb2 import Event
from tidings.v1.event_service_pb2 import (
    CHANGE_KIND_DELETED,
    CLOSING_REASON_SCOPE_GONE,
    CLOSING_REASON_TERMINAL,
    BatchGetEventsRequest,
    CreateEventRequest,
    GetEventRequest,
    ListEventsRequest,
)
from tidings.v1.mission_pb2 import EXECUTION_MODE_EXTERNAL, EXECUTION_MODE_MANAGED, Mission
from tidings.v1.mission_service_pb2 import (
    CreateMissionRequest,
    DeleteMissionRequest,
    GetMissionRequest,
    ListMissionsRequest,
    UpdateMissionRequest,
)
from tidings.v1.run_pb2 import PlanStep
from tidings.v1.run_service_pb2 import (
    CreatePlanRequest,
    GetPlanRequest,
    GetRunRequest,
    ListRunsRequest,
    PauseRunRequest,
    UpdateRunRequest,
)
from tidings.v1.task_pb2 import TASK_STATE_RUNNING, TaskStatus
from tidings.v1.task_service_pb2 import CancelTaskRequest, GetTaskStatusRequest
from wire import WITHIN_SECONDS, Keyed, SetClock, Wire, failure, reason_of, take_all, take_synced

Mongo = AsyncMongoClient[dict[str, Any]]


def struct(**fields: Any) -> Struct:
    return ParseDict(fields, Struct())


FULL: dict[str, Any] = {
    "name": "clinics",
    "description": "Call the clinics.",
    "instructions": "Be polite.",
    "model": "model-1",
    "execution_mode": EXECUTION_MODE_MANAGED,
    "metadata": struct(team="health", size=3),
}


async def get(wire: Wire, mission_id: str) -> Mission:
    return (await wire.missions.GetMission(GetMissionRequest(mission_id=mission_id))).mission


async def update(wire: Wire, mission_id: str, paths: list[str], **fields: Any) -> Mission:
    options = {name: fields.pop(name) for name in ("expected_revision", "request_id") if name in fields}
    mission = Mission(mission_id=mission_id, **fields)
    request = UpdateMissionRequest(mission=mission, update_mask=FieldMask(paths=paths), **options)
    return (await wire.missions.UpdateMission(request)).mission


async def delete(wire: Wire, mission_id: str, **fields: Any) -> None:
    await wire.missions.DeleteMission(DeleteMissionRequest(mission_id=mission_id, **fields))


async def add(wire: Wire, **fields: Any) -> Event:
    """Create an event of a run or a mission that must be there."""
    return (await wire.events.CreateEvent(CreateEventRequest(event=Event(type="test.event", **fields)))).event


# Created and read


async def test_a_mission_is_read_as_it_was_created(server: Wire, some_id: str) -> None:
    created = await server.create_mission(mission_id=some_id, **FULL)
    assert {name: getattr(created, name) for name in FULL} == FULL
    assert (created.mission_id, created.revision) == (some_id, 1)
    assert created.create_time == created.update_time
    assert await get(server, some_id) == created


async def test_what_the_caller_leaves_out_is_chosen_by_the_service(server: Wire) -> None:
    created = await server.create_mission(revision=7)
    assert uuid.UUID(created.mission_id).version == 7
    assert (created.execution_mode, created.revision) == (EXECUTION_MODE_EXTERNAL, 1)


async def test_a_creation_is_safe_to_retry_with_a_chosen_id(server: Wire, some_id: str) -> None:
    await server.create_mission(mission_id=some_id, **FULL)
    changed = await update(server, some_id, ["name"], name="other")
    assert await server.create_mission(mission_id=some_id, **FULL) == changed
    failed = await failure(server.create_mission("another", mission_id=some_id))
    assert (failed.code, failed.reason) == (grpc.StatusCode.ALREADY_EXISTS, "MISSION_ALREADY_EXISTS")
    assert failed.metadata == {"mission_id": some_id}


async def test_an_unknown_mission_is_not_found_by_any_call(server: Wire, some_id: str) -> None:
    calls = [get(server, some_id), update(server, some_id, ["name"], name="new"), delete(server, some_id)]
    calls += [server.create_run(some_id), add(server, mission_id=some_id)]
    for call in calls:
        failed = await failure(call)
        assert (failed.code, failed.reason) == (grpc.StatusCode.NOT_FOUND, "MISSION_NOT_FOUND")
        assert failed.metadata == {"mission_id": some_id}


async def test_missions_are_listed_newest_first_in_pages_that_later_ones_do_not_disturb(start: Start) -> None:
    clock = SetClock()
    async with start(clock=clock) as wire:
        created = []
        for _ in range(5):
            created.append((await wire.create_mission()).mission_id)
            clock.forward(milliseconds=1)
        request, listed = ListMissionsRequest(page_size=2), []
        while True:
            page = await wire.missions.ListMissions(request)
            listed += [mission.mission_id for mission in page.missions]
            request.page_token = page.next_page_token
            if not request.page_token:
                break
            await wire.create_mission("meanwhile")
        assert listed == created[::-1]
        foreign = await failure(wire.missions.ListMissions(ListMissionsRequest(page_token="x")))
        assert foreign.fields == {"page_token": "INVALID_FIELD"}


# Changed


@pytest.mark.parametrize("name", FULL)
async def test_an_update_changes_the_field_that_its_mask_names_and_no_other(server: Wire, name: str) -> None:
    before = await server.create_mission()
    after = await update(server, before.mission_id, [name], **FULL)
    assert getattr(after, name) == FULL[name]
    assert after.revision == 2
    for other in FULL.keys() - {name}:
        assert getattr(after, other) == getattr(before, other)
    assert await get(server, before.mission_id) == after


@pytest.mark.parametrize("name", FULL.keys() - {"name"})
async def test_a_field_that_the_mask_names_and_the_request_leaves_out_is_cleared(server: Wire, name: str) -> None:
    mission = await server.create_mission(**FULL)
    after = await update(server, mission.mission_id, [name])
    if name == "execution_mode":
        assert after.execution_mode == EXECUTION_MODE_EXTERNAL
    elif name == "metadata":
        assert not after.HasField("metadata")
    else:
        assert not getattr(after, name)


async def test_metadata_are_replaced_as_a_whole(server: Wire) -> None:
    mission = await server.create_mission(**FULL)
    after = await update(server, mission.mission_id, ["metadata"], metadata=struct(size=4))
    assert after.metadata == struct(size=4)


async def test_an_update_to_what_is_there_already_changes_nothing(server: Wire) -> None:
    mission = await server.create_mission(**FULL)
    assert await update(server, mission.mission_id, list(FULL), **FULL) == mission


@pytest.mark.parametrize("path", ["mission_id", "revision", "create_time", "nothing", "metadata.team", "*"])
async def test_a_mask_with_any_other_path_is_refused(server: Wire, path: str) -> None:
    mission = await server.create_mission()
    failed = await failure(update(server, mission.mission_id, ["name", path], name="new"))
    assert (failed.code, failed.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert failed.fields == {"update_mask": "INVALID_FIELD"}
    assert await get(server, mission.mission_id) == mission


async def test_an_update_needs_a_mask_an_id_and_leaves_a_name(server: Wire) -> None:
    failed = await failure(server.missions.UpdateMission(UpdateMissionRequest(mission=Mission(name="new"))))
    assert failed.fields.keys() == {"mission.mission_id", "update_mask"}
    mission = await server.create_mission()
    failed = await failure(update(server, mission.mission_id, ["name"]))
    assert failed.fields.keys() == {"mission.name"}


async def test_a_change_at_another_revision_than_expected_is_aborted(server: Wire) -> None:
    mission_id = (await server.create_mission()).mission_id
    await update(server, mission_id, ["name"], name="second", expected_revision=1)
    for call in (
        update(server, mission_id, ["name"], name="third", expected_revision=1),
        delete(server, mission_id, expected_revision=1),
    ):
        failed = await failure(call)
        assert (failed.code, failed.reason) == (grpc.StatusCode.ABORTED, "REVISION_MISMATCH")
        assert failed.metadata == {"mission_id": mission_id, "current_revision": "2"}
    await delete(server, mission_id, expected_revision=2)


async def test_a_repeated_request_id_changes_nothing_again(server: Wire) -> None:
    mission_id = (await server.create_mission()).mission_id
    await update(server, mission_id, ["name"], name="second", request_id="a")
    third = await update(server, mission_id, ["name"], name="third", request_id="b")
    assert await update(server, mission_id, ["name"], name="second", request_id="a") == third
    failed = await failure(update(server, mission_id, ["name"], name="fourth", request_id="a"))
    assert (failed.code, failed.reason) == (grpc.StatusCode.ALREADY_EXISTS, "IDEMPOTENCY_CONFLICT")
    assert await get(server, mission_id) == third


async def test_a_deletion_is_safe_to_retry_with_its_request_id_only(server: Wire) -> None:
    mission_id = (await server.create_mission()).mission_id
    await delete(server, mission_id, request_id="a")
    await delete(server, mission_id, request_id="a")
    for other in ({}, {"request_id": "b"}):
        assert (await failure(delete(server, mission_id, **other))).reason == "MISSION_NOT_FOUND"


# Refused


async def test_all_bad_fields_of_a_mission_are_named_at_once(server: Wire) -> None:
    deep = Value(number_value=1)
    for _ in range(16):
        deep = Value(struct_value=Struct(fields={"a": deep}))
    mission = Mission(
        mission_id="a/b",
        description="d" * 4097,
        instructions="i" * 65_537,
        model="m" * 257,
        execution_mode=9,  # type: ignore[arg-type]
        metadata=Struct(fields={"a": deep}),
    )
    failed = await failure(server.missions.CreateMission(CreateMissionRequest(mission=mission)))
    assert failed.code == grpc.StatusCode.INVALID_ARGUMENT
    names = {field: reason for field, reason in failed.fields.items() if not field.startswith("mission.metadata")}
    fields = ("mission_id", "name", "description", "instructions", "model", "execution_mode")
    assert names == {f"mission.{name}": "INVALID_FIELD" for name in fields}
    assert "PAYLOAD_TOO_DEEP" in failed.fields.values()


async def test_a_mission_without_anything_is_refused(server: Wire) -> None:
    failed = await failure(server.missions.CreateMission(CreateMissionRequest()))
    assert "mission" in failed.fields


async def test_a_mission_of_another_project_is_as_one_that_does_not_exist(start: Start, some_id: str) -> None:
    async with start() as wire:
        keys = [await wire.server.api_keys.create(project, frozenset({"read", "write"})) for project in ("a", "b")]
    async with start() as wire, Keyed(wire.server, keys[0]) as mine, Keyed(wire.server, keys[1]) as theirs:
        await mine.create_mission(mission_id=some_id)
        run = await mine.create_run(some_id)
        for call in (get(theirs, some_id), update(theirs, some_id, ["name"], name="new"), delete(theirs, some_id)):
            failed = await failure(call)
            assert (failed.reason, failed.message) == ("MISSION_NOT_FOUND", f'mission "{some_id}" not found')
        assert not (await theirs.missions.ListMissions(ListMissionsRequest())).missions
        assert (await failure(theirs.create_run(some_id))).reason == "MISSION_NOT_FOUND"
        assert (await failure(theirs.runs.GetRun(GetRunRequest(run_id=run.run_id)))).reason == "RUN_NOT_FOUND"
        assert not (await theirs.runs.ListRuns(ListRunsRequest(mission_id=some_id))).runs
        await theirs.create_mission("theirs", mission_id=some_id)
        await delete(theirs, some_id)
        assert (await get(mine, some_id)).name == "test"
        assert (await mine.runs.GetRun(GetRunRequest(run_id=run.run_id))).run == run


# Deleted


class Family(NamedTuple):
    """A mission with a run that has a plan, a task of the run, and a fact of the mission outside of the run."""

    mission_id: str
    run_id: str
    task_id: str
    fact_id: str

    @classmethod
    async def founded(cls, wire: Wire) -> Family:
        mission_id = (await wire.create_mission()).mission_id
        run_id = (await wire.create_run(mission_id, state=TASK_STATE_RUNNING)).run_id
        await wire.runs.CreatePlan(CreatePlanRequest(run_id=run_id, steps=[PlanStep(step_id="a")]))
        task = await add(wire, run_id=run_id, status=TaskStatus())
        fact = await add(wire, mission_id=mission_id)
        return cls(mission_id, run_id, task.event_id, fact.event_id)

    async def mark(self, mongo: Mongo, database: str) -> None:
        """Mark the mission deleted as a server does that then crashes: nothing is swept until a patrol comes by."""
        marked = {"$set": {"deleted": True}, "$inc": {"revision": 1}}
        result = await mongo[database].missions.update_one({"_id": f"default/{self.mission_id}"}, marked)
        assert result.modified_count == 1


async def check_gone(wire: Wire, family: Family) -> None:
    """Nothing of the family is to be had by any read, nor to be changed or added to."""
    mission_id, run_id, task_id, fact_id = family
    refused: list[tuple[Any, str]] = [
        (get(wire, mission_id), "MISSION_NOT_FOUND"),
        (update(wire, mission_id, ["name"], name="new"), "MISSION_NOT_FOUND"),
        (wire.create_run(mission_id), "MISSION_NOT_FOUND"),
        (add(wire, mission_id=mission_id), "MISSION_NOT_FOUND"),
        (add(wire, run_id=run_id), "RUN_NOT_FOUND"),
        (wire.runs.GetRun(GetRunRequest(run_id=run_id)), "RUN_NOT_FOUND"),
        (wire.runs.GetPlan(GetPlanRequest(run_id=run_id)), "RUN_NOT_FOUND"),
        (wire.runs.PauseRun(PauseRunRequest(run_id=run_id)), "RUN_NOT_FOUND"),
        (wire.runs.UpdateRun(UpdateRunRequest(run_id=run_id, result_summary="new")), "RUN_NOT_FOUND"),
        (wire.events.GetEvent(GetEventRequest(event_id=task_id)), "EVENT_NOT_FOUND"),
        (wire.events.GetEvent(GetEventRequest(event_id=fact_id)), "EVENT_NOT_FOUND"),
        (wire.tasks.GetTaskStatus(GetTaskStatusRequest(task_id=task_id)), "EVENT_NOT_FOUND"),
        (wire.tasks.CancelTask(CancelTaskRequest(task_id=task_id)), "EVENT_NOT_FOUND"),
        (wire.update(task_id, TASK_STATE_RUNNING), "EVENT_NOT_FOUND"),
        (take_all(wire.watch(mission_id=mission_id)), "MISSION_NOT_FOUND"),
        (take_all(wire.watch(run_id=run_id)), "RUN_NOT_FOUND"),
        (take_all(wire.watch(event_id=task_id)), "EVENT_NOT_FOUND"),
        (take_all(wire.watch_run(run_id)), "RUN_NOT_FOUND"),
    ]
    assert [(await failure(call)).reason for call, _ in refused] == [reason for _, reason in refused]
    batch = await wire.events.BatchGetEvents(BatchGetEventsRequest(event_ids=[task_id, fact_id]))
    assert [reason_of(result.error) for result in batch.results] == ["EVENT_NOT_FOUND"] * 2
    for scope in ({}, {"mission_id": mission_id}, {"run_id": run_id}):
        events = (await wire.events.ListEvents(ListEventsRequest(**scope))).events
        assert not {event.event_id for event in events} & {task_id, fact_id}
    for run_scope in ({}, {"mission_id": mission_id}):
        runs = (await wire.runs.ListRuns(ListRunsRequest(**run_scope))).runs
        assert run_id not in [run.run_id for run in runs]
    missions = (await wire.missions.ListMissions(ListMissionsRequest())).missions
    assert mission_id not in [mission.mission_id for mission in missions]
    call = wire.watch(project={})
    told = {message.change.event.event_id for message in await take_synced(call)}
    call.cancel()
    assert not told & {task_id, fact_id}


@pytest.fixture
async def two(start: Start) -> AsyncIterator[list[Wire]]:
    """Two servers on the same database."""
    async with start() as first, start() as second:
        yield [first, second]


async def test_a_deleted_mission_is_gone_with_all_that_is_its_on_every_server_at_once(two: list[Wire]) -> None:
    family, other = await Family.founded(two[0]), await Family.founded(two[0])
    await delete(two[0], family.mission_id)
    for wire in two[::-1]:
        await check_gone(wire, family)
        assert (await get(wire, other.mission_id)).revision == 1
        assert (await wire.events.GetEvent(GetEventRequest(event_id=other.task_id))).event.sequence == 1
        assert (await wire.runs.GetRun(GetRunRequest(run_id=other.run_id))).run.last_sequence == 1


async def test_what_is_not_swept_away_yet_is_gone_all_the_same(two: list[Wire], mongo: Mongo, database: str) -> None:
    family = await Family.founded(two[0])
    await family.mark(mongo, database)
    for wire in two:
        await check_gone(wire, family)
    assert await mongo[database].runs.find_one({"_id": f"default/{family.run_id}", "deleted": {"$ne": True}})


async def until_swept(mongo: Mongo, database: str, mission_id: str) -> None:
    """Wait until every record of a deleted mission is to be purged, or has been."""
    there = mongo[database]
    async with asyncio.timeout(WITHIN_SECONDS):
        while await there.missions.find_one({"_id": f"default/{mission_id}", "expire_time": None}):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    alive = {"mission_id": mission_id, "$or": [{"deleted": {"$ne": True}}, {"expire_time": None}]}
    for collection in (there.runs, there.run_logs, there.events):
        assert await collection.find_one(alive) is None


async def test_a_mission_that_takes_the_id_of_a_deleted_one_has_nothing_of_it(
    start: Start, mongo: Mongo, database: str
) -> None:
    async with start() as wire:
        family = await Family.founded(wire)
        await family.mark(mongo, database)
        failed = await failure(wire.create_mission("another", mission_id=family.mission_id))
        assert (failed.code, failed.retry_seconds) == (grpc.StatusCode.UNAVAILABLE, 1)
        async with start():  # which finishes the deletion
            await until_swept(mongo, database, family.mission_id)
        assert (await wire.create_mission("another", mission_id=family.mission_id)).name == "another"
        assert (await failure(wire.runs.GetRun(GetRunRequest(run_id=family.run_id)))).reason == "RUN_NOT_FOUND"
        failed = await failure(wire.events.GetEvent(GetEventRequest(event_id=family.fact_id)))
        assert failed.reason == "EVENT_NOT_FOUND"
        assert not (await wire.runs.ListRuns(ListRunsRequest(mission_id=family.mission_id))).runs
        assert not (await wire.events.ListEvents(ListEventsRequest(mission_id=family.mission_id))).events


async def test_the_records_of_a_deleted_mission_are_swept_away(start: Start, mongo: Mongo, database: str) -> None:
    async with start() as wire:
        family = await Family.founded(wire)
        runs = [await wire.create_run(family.mission_id) for _ in range(3)]
        # More than is swept away in one step.
        await asyncio.gather(*(add(wire, run_id=runs[index % 3].run_id) for index in range(250)))
        await delete(wire, family.mission_id)
        await until_swept(mongo, database, family.mission_id)


async def test_a_sweep_that_was_interrupted_is_finished_by_the_next_server(
    start: Start, mongo: Mongo, database: str
) -> None:
    async with start() as wire:
        family, half = await Family.founded(wire), await Family.founded(wire)
        for each in (family, half):
            await each.mark(mongo, database)
        # The other one was interrupted when its run was swept away and its events were not.
        gone = {"$set": {"deleted": True}, "$currentDate": {"expire_time": True}, "$inc": {"revision": 1}}
        for collection in (mongo[database].run_logs, mongo[database].runs):
            await collection.update_one({"_id": f"default/{half.run_id}"}, gone)
    async with start() as wire:
        for each in (family, half):
            await until_swept(mongo, database, each.mission_id)
            await check_gone(wire, each)


async def test_what_cannot_be_read_does_not_stop_a_sweep(start: Start, mongo: Mongo, database: str) -> None:
    async with start() as wire:
        family = await Family.founded(wire)
        for collection, id_ in (("runs", family.run_id), ("events", family.task_id)):
            broken = {"$set": {"transitions": 7}}
            await mongo[database][collection].update_one({"_id": f"default/{id_}"}, broken)
        await delete(wire, family.mission_id)
        await until_swept(mongo, database, family.mission_id)


Opening = Callable[[Wire, Family], Any]
WATCHES: dict[str, tuple[Opening, bool]] = {
    "mission": (lambda wire, family: wire.watch(mission_id=family.mission_id), False),
    "log": (lambda wire, family: wire.watch(run_id=family.run_id), False),
    "run": (lambda wire, family: wire.watch_run(family.run_id), True),
    "event": (lambda wire, family: wire.watch(event_id=family.task_id), True),
    "stay_open": (lambda wire, family: wire.watch(event_id=family.fact_id, stay_open=True), True),
}


@pytest.mark.parametrize(("opened", "is_told"), WATCHES.values(), ids=WATCHES.keys())
async def test_a_watch_ends_with_a_reason_when_its_mission_is_deleted(
    two: list[Wire], opened: Opening, is_told: bool
) -> None:
    family = await Family.founded(two[0])
    calls = [opened(wire, family) for wire in two]
    for call in calls:
        await take_synced(call)
    await delete(two[0], family.mission_id)
    for call in calls:
        messages = await take_all(call)
        closing = CLOSING_REASON_TERMINAL if is_told else CLOSING_REASON_SCOPE_GONE
        assert messages[-1].closing.reason == closing
        assert not messages[-1].closing.HasField("reconnect_after")
        if is_told:
            assert messages[-2].change.kind == CHANGE_KIND_DELETED
        assert await call.code() == grpc.StatusCode.OK


async def test_a_watch_of_the_project_is_told_of_every_event_that_goes_with_its_mission(start: Start) -> None:
    async with start() as wire:
        family = await Family.founded(wire)
        call = wire.watch(project={})
        await take_synced(call)
        await delete(wire, family.mission_id)
        deleted: set[str] = set()
        async with asyncio.timeout(WITHIN_SECONDS):
            while deleted != {family.task_id, family.fact_id}:
                message = await call.read()
                if message.change.kind == CHANGE_KIND_DELETED:
                    deleted.add(message.change.event.event_id)
        call.cancel()


async def test_no_event_added_while_its_mission_is_deleted_remains(start: Start, mongo: Mongo, database: str) -> None:
    async with start() as wire:
        family = await Family.founded(wire)

        async def write() -> None:
            while True:
                await add(wire, run_id=family.run_id)

        writers = [asyncio.create_task(write()) for _ in range(4)]
        await add(wire, run_id=family.run_id)
        await delete(wire, family.mission_id)
        for writer in writers:
            assert (await failure(writer)).reason == "RUN_NOT_FOUND"
        await until_swept(mongo, database, family.mission_id)
        assert not (await wire.events.ListEvents(ListEventsRequest(run_id=family.run_id))).events
