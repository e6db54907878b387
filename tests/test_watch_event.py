"""The watch of one event, through the wire: from what it is, through every change of its state, to its end."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Value
from pymongo import AsyncMongoClient

from conftest import Start
from picture import sketch
from tidings.v1.event_pb2 import Event
from tidings.v1.event_service_pb2 import (
    CHANGE_KIND_DELETED,
    HISTORY_LOSS_POLICY_FAIL,
    SOURCE_STATE_LIVE,
    DeleteEventRequest,
    GetEventRequest,
    ProjectScope,
    WatchEventResponse,
)
from tidings.v1.task_pb2 import (
    TASK_STATE_FAILED,
    TASK_STATE_PAUSED,
    TASK_STATE_RUNNING,
    TASK_STATE_SUCCEEDED,
    TaskError,
    TaskProgress,
    TaskStatus,
)
from tidings_server.auth import SCOPES
from tidings_server.clock import system_clock, to_millis
from tidings_server.limits import Limits
from wire import Failed, Keyed, Wire, ended, failure, take, take_all, take_synced, take_until

Mongo = AsyncMongoClient[dict[str, Any]]

DAY = 24 * 60 * 60 * 1000
SECOND = Duration(seconds=1)
TRANSITIONS_KEPT = Limits().transitions_max
LARGE = Value(string_value="x" * 200_000)


async def pause_and_resume(wire: Wire, event_id: str, transitions: int) -> None:
    """Move a RUNNING task so many times."""
    for number in range(transitions):
        await wire.update(event_id, TASK_STATE_RUNNING if number % 2 else TASK_STATE_PAUSED)


async def report(wire: Wire, event_id: str, times: int) -> None:
    """Make so many large changes that are not of state."""
    for number in range(times):
        await wire.update(event_id, results=[LARGE], progress=TaskProgress(completed=number))


async def delete(wire: Wire, event_id: str) -> None:
    await wire.events.DeleteEvent(DeleteEventRequest(event_id=event_id))


async def token_after_synced(wire: Wire, event_id: str) -> str:
    """The token of a watch that was broken off when it knew the event as it is."""
    call = wire.watch(event_id=event_id, stay_open=True)
    messages = await take_synced(call)
    call.cancel()
    return messages[-1].resume_token


async def refusal(wire: Wire, **fields: Any) -> Failed:
    """Why a watch is refused before it has told anything."""
    messages, error = await ended(wire.watch(**fields))
    assert messages == []
    return Failed(error)


# From the beginning to the end


async def test_a_task_is_told_as_it_is_then_every_change_until_it_has_ended(server: Wire) -> None:
    task = await server.create_task(summary="read a book")
    call = server.watch(event_id=task.event_id)
    messages = await take_synced(call)
    assert messages[0].change.event == task
    await server.update(task.event_id, TASK_STATE_RUNNING)
    await server.update(task.event_id, progress=TaskProgress(completed=1))
    await server.update(task.event_id, TASK_STATE_FAILED, error=TaskError(code="eyes_tired"))
    messages += await take_all(call)
    assert sketch(messages) == [
        "INITIAL 1 PENDING",
        "synced",
        "UPDATED 2 RUNNING from PENDING",
        "UPDATED 3 RUNNING",
        "UPDATED 4 FAILED from RUNNING",
        "closing TERMINAL",
    ]
    assert messages[-2].change.event == (await server.events.GetEvent(GetEventRequest(event_id=task.event_id))).event
    assert not messages[-1].closing.HasField("reconnect_after")
    assert await call.code() == grpc.StatusCode.OK


async def test_a_fact_ends_right_after_synced(server: Wire) -> None:
    fact = await server.create(summary="it rained")
    messages = await take_all(server.watch(event_id=fact.event_id))
    assert sketch(messages) == ["INITIAL 1", "synced", "closing TERMINAL"]
    assert messages[0].change.event == fact


async def test_a_task_that_has_ended_ends_right_after_synced(server: Wire) -> None:
    task = await server.create_task()
    await server.update(task.event_id, TASK_STATE_SUCCEEDED)
    messages = await take_all(server.watch(event_id=task.event_id))
    assert sketch(messages) == ["INITIAL 2 SUCCEEDED", "synced", "closing TERMINAL"]


@pytest.mark.parametrize("status", [None, TaskStatus(state=TASK_STATE_SUCCEEDED)], ids=["fact", "ended task"])
async def test_a_watch_that_stays_open_ends_with_the_deletion(server: Wire, status: TaskStatus | None) -> None:
    event = await server.create(status=status)
    call = server.watch(event_id=event.event_id, stay_open=True, heartbeat_interval=SECOND)
    await take_synced(call)
    assert sketch([await take(call)]) == ["bookmark LIVE"]
    await delete(server, event.event_id)
    messages = await take_until(call, lambda message: message.HasField("change"))
    messages += await take_all(call)
    state = " SUCCEEDED" if status else ""
    assert sketch(messages)[-2:] == [f"DELETED 2{state}", "closing TERMINAL"]


async def test_a_task_that_is_deleted_is_told_as_it_was_last(server: Wire) -> None:
    task = await server.create_task(summary="read a book")
    call = server.watch(event_id=task.event_id)
    await take_synced(call)
    await server.update(task.event_id, TASK_STATE_RUNNING)
    await delete(server, task.event_id)
    messages = await take_all(call)
    assert sketch(messages) == ["UPDATED 2 RUNNING from PENDING", "DELETED 3 RUNNING", "closing TERMINAL"]
    assert messages[1].change.event.summary == "read a book"


async def test_an_event_that_is_not_there_is_not_found(server: Wire, some_id: str) -> None:
    unknown = await refusal(server, event_id=some_id)
    assert (unknown.code, unknown.reason) == (grpc.StatusCode.NOT_FOUND, "EVENT_NOT_FOUND")
    deleted = await server.create()
    await delete(server, deleted.event_id)
    gone = await refusal(server, event_id=deleted.event_id)
    assert (gone.code, gone.reason) == (grpc.StatusCode.NOT_FOUND, "EVENT_NOT_FOUND")


async def test_an_event_that_has_expired_is_not_found(start: Start) -> None:
    later = [0]
    async with start(clock=lambda: system_clock() + later[0]) as wire:
        event = await wire.create()
        later[0] = 30 * DAY
        expired = await refusal(wire, event_id=event.event_id)
        assert (expired.code, expired.reason) == (grpc.StatusCode.NOT_FOUND, "EVENT_EXPIRED")


async def test_an_event_of_another_project_is_as_one_that_is_not_there(start: Start) -> None:
    async with start() as wire:
        keys = [await wire.server.api_keys.create(project, SCOPES) for project in ("ours", "theirs")]
    async with start() as wire, Keyed(wire.server, keys[0]) as ours, Keyed(wire.server, keys[1]) as theirs:
        event = await theirs.create()
        foreign = await refusal(ours, event_id=event.event_id)
        unknown = await refusal(ours, event_id=event.event_id[:-1])
        assert foreign.code == unknown.code == grpc.StatusCode.NOT_FOUND
        assert foreign.reason == unknown.reason == "EVENT_NOT_FOUND"
        assert foreign.message.replace(event.event_id, "") == unknown.message.replace(event.event_id[:-1], "")
        assert foreign.metadata == {"event_id": event.event_id}
        assert sketch(await take_all(theirs.watch(event_id=event.event_id)))[0] == "INITIAL 1"


# Expiry


@pytest.mark.parametrize("status", [None, TaskStatus(state=TASK_STATE_RUNNING)], ids=["fact", "running task"])
async def test_expiry_is_told_within_a_second_of_it(server: Wire, status: TaskStatus | None) -> None:
    event = await server.create(status=status, ttl=1)
    call = server.watch(event_id=event.event_id, stay_open=True)
    await take_synced(call)
    message = await take(call)
    told_at = system_clock()
    assert sketch([message])[0].startswith("EXPIRED 1")
    assert message.change.event == event
    assert 0 <= told_at - to_millis(event.expire_time) < 1000
    assert sketch(await take_all(call)) == ["closing TERMINAL"]
    error = await failure(server.events.GetEvent(GetEventRequest(event_id=event.event_id)))
    assert error.reason == "EVENT_EXPIRED"


async def test_an_expiry_that_is_put_off_is_not_told(start: Start) -> None:
    later = [0]

    def clock() -> int:
        return system_clock() + later[0]

    async with start(clock=clock) as wire:
        task = await wire.create_task()
        later[0] = to_millis(task.expire_time) - system_clock() - 1500
        call = wire.watch(event_id=task.event_id, heartbeat_interval=SECOND)
        await take_synced(call)
        await wire.update(task.event_id, progress=TaskProgress(completed=1))  # a task expires a while after its last
        messages = await take_until(call, lambda _: clock() > to_millis(task.expire_time))
        assert sketch(messages)[0] == "UPDATED 2 PENDING"
        assert set(sketch(messages)[1:]) == {"bookmark LIVE"}
        await wire.update(task.event_id, TASK_STATE_SUCCEEDED)
        messages = await take_until(call, lambda message: message.HasField("closing"))
        assert sketch(messages)[-2:] == ["UPDATED 3 SUCCEEDED from PENDING", "closing TERMINAL"]


async def test_expiry_is_told_to_a_slow_reader_whose_event_was_purged_meanwhile(
    start: Start, mongo: Mongo, database: str
) -> None:
    async with start(limits=Limits(watch_queue_max=2)) as wire, wire.narrow() as slow:
        task = await wire.create_task(ttl=2)
        call = slow.watch(event_id=task.event_id)
        await take_synced(call)
        await wire.update(task.event_id, TASK_STATE_RUNNING)
        await report(wire, task.event_id, 6)
        onlooker = wire.watch(event_id=task.event_id)
        await take_until(onlooker, lambda message: message.HasField("closing"))
        await mongo[database].events.delete_one({"_id": f"default/{task.event_id}"})
        assert sketch(await take_all(call))[-2:] == ["EXPIRED 8 RUNNING", "closing TERMINAL"]


# How a watch is asked for


async def test_a_live_watch_tells_nothing_of_what_is(server: Wire) -> None:
    task = await server.create_task()
    await server.update(task.event_id, TASK_STATE_RUNNING)
    call = server.watch(event_id=task.event_id, live_only=True)
    assert sketch([await take(call)]) == ["synced"]
    await server.update(task.event_id, TASK_STATE_SUCCEEDED)
    assert sketch(await take_all(call)) == ["UPDATED 3 SUCCEEDED from RUNNING", "closing TERMINAL"]


async def test_a_live_watch_of_what_has_ended_ends_at_once(server: Wire) -> None:
    fact = await server.create()
    messages = await take_all(server.watch(event_id=fact.event_id, live_only=True))
    assert sketch(messages) == ["synced", "closing TERMINAL"]


async def test_a_watch_ends_with_ok_after_the_time_it_was_given(server: Wire) -> None:
    task = await server.create_task()
    call = server.watch(event_id=task.event_id, max_duration=SECOND)
    messages = await take_all(call)
    assert sketch(messages) == ["INITIAL 1 PENDING", "synced", "closing MAX_DURATION"]
    assert await call.code() == grpc.StatusCode.OK
    await server.update(task.event_id, TASK_STATE_SUCCEEDED)
    resumed = await take_all(server.watch(event_id=task.event_id, resume_token=messages[-1].resume_token))
    assert sketch(resumed) == ["UPDATED 2 SUCCEEDED from PENDING", "synced", "closing TERMINAL"]


async def test_a_quiet_watch_is_kept_alive_with_bookmarks(server: Wire) -> None:
    task = await server.create_task()
    call = server.watch(event_id=task.event_id, heartbeat_interval=SECOND)
    await take_synced(call)
    for _ in range(2):
        before = system_clock()
        message = await take(call)
        assert message.bookmark.source_state == SOURCE_STATE_LIVE
        assert message.bookmark.source_lag.ToMilliseconds() < 6000
        assert system_clock() - before < 2000
    await server.update(task.event_id, TASK_STATE_SUCCEEDED)
    resumed = await take_all(server.watch(event_id=task.event_id, resume_token=message.resume_token))
    assert sketch(resumed) == ["UPDATED 2 SUCCEEDED from PENDING", "synced", "closing TERMINAL"]


# Resuming


async def test_a_watch_goes_on_after_any_of_its_messages(server: Wire) -> None:
    task = await server.create_task(metadata={"book": "blue"}, run_id="reading", step_id="first", agent_id="eye")
    call = server.watch(event_id=task.event_id)
    messages = await take_synced(call)
    await server.update(task.event_id, TASK_STATE_RUNNING, message="page 1")
    await server.update(task.event_id, progress=TaskProgress(completed=1))
    await server.update(task.event_id, TASK_STATE_PAUSED, message="tea")
    await server.update(task.event_id, TASK_STATE_RUNNING)
    await server.update(task.event_id, TASK_STATE_SUCCEEDED)
    messages += await take_all(call)
    missed = {
        2: "UPDATED 2 RUNNING from PENDING partial",
        4: "UPDATED 4 PAUSED from RUNNING partial",
        5: "UPDATED 5 RUNNING from PAUSED partial",
        6: "UPDATED 6 SUCCEEDED from RUNNING",
    }
    known = 0
    for message in messages:
        known = message.change.event.revision or known
        resumed = await take_all(server.watch(event_id=task.event_id, resume_token=message.resume_token))
        expected = [text for revision, text in missed.items() if revision > known]
        assert sketch(resumed) == [*expected, "synced", "closing TERMINAL"], f"after {sketch([message])}"
        assert [each.change.event for each in resumed if sketch([each]) == [missed[6]]] == (
            [messages[-2].change.event] if known < 6 else []
        )


async def test_a_missed_transition_has_what_is_still_known_of_it(server: Wire) -> None:
    task = await server.create_task(
        summary="read", metadata={"book": "blue"}, mission_id="learn", run_id="lesson", step_id="first", agent_id="eye"
    )
    token = await token_after_synced(server, task.event_id)
    await server.update(task.event_id, TASK_STATE_RUNNING, message="page 1")
    await server.update(task.event_id, TASK_STATE_SUCCEEDED, message="read")
    first, last, *_ = await take_all(server.watch(event_id=task.event_id, resume_token=token))
    running = last.change.event.transitions[1]
    expected = Event(
        event_id=task.event_id,
        type=task.type,
        mission_id="learn",
        run_id="lesson",
        step_id="first",
        agent_id="eye",
        sequence=task.sequence,
        update_time=running.time,
        revision=2,
        status=TaskStatus(
            task_id=task.event_id, state=TASK_STATE_RUNNING, message="page 1", update_time=running.time, revision=2
        ),
    )
    assert first.change.partial
    assert first.change.event == expected
    assert not last.change.partial
    assert last.change.event == (await server.events.GetEvent(GetEventRequest(event_id=task.event_id))).event


async def test_as_many_transitions_as_are_kept_may_be_missed(server: Wire) -> None:
    task = await server.create(status=TaskStatus(state=TASK_STATE_RUNNING))
    token = await token_after_synced(server, task.event_id)
    await pause_and_resume(server, task.event_id, TRANSITIONS_KEPT)
    messages = await take_synced(server.watch(event_id=task.event_id, resume_token=token))
    assert [message.change.event.revision for message in messages[:-1]] == list(range(2, TRANSITIONS_KEPT + 2))
    assert [message.change.partial for message in messages[:-1]] == [True] * (TRANSITIONS_KEPT - 1) + [False]


async def test_more_missed_transitions_than_are_kept_are_said_to_be_lost(server: Wire) -> None:
    task = await server.create(status=TaskStatus(state=TASK_STATE_RUNNING))
    token = await token_after_synced(server, task.event_id)
    await pause_and_resume(server, task.event_id, TRANSITIONS_KEPT + 1)
    call = server.watch(event_id=task.event_id, resume_token=token)
    newest = TRANSITIONS_KEPT + 2
    assert sketch(await take_synced(call)) == ["reset HISTORY_LOST", f"INITIAL {newest} PAUSED", "synced"]
    lost = await refusal(server, event_id=task.event_id, resume_token=token, on_history_loss=HISTORY_LOSS_POLICY_FAIL)
    assert (lost.code, lost.reason) == (grpc.StatusCode.OUT_OF_RANGE, "HISTORY_LOST")


async def test_a_record_older_than_what_was_told_is_said_to_be_a_loss(
    start: Start, mongo: Mongo, database: str
) -> None:
    async with start() as wire:
        events = mongo[database].events
        task = await wire.create_task()
        backup = await events.find_one({"_id": f"default/{task.event_id}"})
        await wire.update(task.event_id, TASK_STATE_RUNNING)
        token = await token_after_synced(wire, task.event_id)
        await events.replace_one({"_id": backup["_id"]}, backup)
        messages = await take_synced(wire.watch(event_id=task.event_id, resume_token=token))
        assert sketch(messages) == ["reset HISTORY_LOST", "INITIAL 1 PENDING", "synced"]


@pytest.mark.parametrize("status", [None, TaskStatus()], ids=["fact", "task"])
async def test_another_event_with_the_id_is_not_taken_for_the_one_that_was_watched(
    server: Wire, some_id: str, status: TaskStatus | None
) -> None:
    await server.create(event_id=some_id, summary="first", status=status)
    token = await token_after_synced(server, some_id)
    await delete(server, some_id)
    await server.create(event_id=some_id, summary="second", status=status)
    messages = await take_synced(server.watch(event_id=some_id, resume_token=token))
    assert sketch(messages)[0] == "reset HISTORY_LOST"
    assert messages[1].change.event.summary == "second"


async def test_another_event_with_the_id_of_one_that_was_purged_is_not_taken_for_it(
    start: Start, mongo: Mongo, database: str, some_id: str
) -> None:
    async with start() as wire:
        await wire.create_task(event_id=some_id, summary="first")
        token = await token_after_synced(wire, some_id)
        await mongo[database].events.delete_one({"_id": f"default/{some_id}"})
        assert (await wire.create_task(event_id=some_id, summary="second")).revision == 1
        messages = await take_synced(wire.watch(event_id=some_id, resume_token=token))
        assert sketch(messages) == ["reset HISTORY_LOST", "INITIAL 1 PENDING", "synced"]
        assert messages[1].change.event.summary == "second"


async def test_a_watch_resumes_after_a_restart(start: Start) -> None:
    async with start() as wire:
        client = Wire(wire.server)  # which outlives the server
        task = await wire.create_task()
        call = client.watch(event_id=task.event_id)
        messages = await take_synced(call)
        await wire.update(task.event_id, TASK_STATE_RUNNING)
        messages.append(await take(call))
    rest, error = await ended(call)
    await client.channel.close()
    assert sketch(rest) == ["closing DRAINING"]
    assert rest[0].closing.reconnect_after.ToMilliseconds() > 0
    assert (error.code(), Failed(error).reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
    async with start() as wire:
        await wire.update(task.event_id, TASK_STATE_PAUSED)
        await wire.update(task.event_id, TASK_STATE_SUCCEEDED)
        resumed = await take_all(wire.watch(event_id=task.event_id, resume_token=rest[0].resume_token))
    assert sketch(messages) == ["INITIAL 1 PENDING", "synced", "UPDATED 2 RUNNING from PENDING"]
    assert sketch(resumed) == [
        "UPDATED 3 PAUSED from RUNNING partial",
        "UPDATED 4 SUCCEEDED from PAUSED",
        "synced",
        "closing TERMINAL",
    ]


@pytest.mark.parametrize("told", ["before", "after"])
async def test_a_deletion_that_was_missed_is_told_with_what_led_to_it(server: Wire, told: str) -> None:
    task = await server.create_task()
    call = server.watch(event_id=task.event_id)
    token = (await take_synced(call))[-1].resume_token
    await server.update(task.event_id, TASK_STATE_RUNNING)
    await server.events.DeleteEvent(DeleteEventRequest(event_id=task.event_id))
    if told == "after":
        token = (await take_until(call, lambda message: message.change.kind == CHANGE_KIND_DELETED))[-1].resume_token
    call.cancel()
    resumed = sketch(await take_all(server.watch(event_id=task.event_id, resume_token=token)))
    missed = ["UPDATED 2 RUNNING from PENDING partial", "DELETED 3 RUNNING"] if told == "before" else []
    assert resumed == [*missed, "synced", "closing TERMINAL"]


async def test_a_watch_resumes_on_another_server(start: Start) -> None:
    async with start() as first, start() as second:
        task = await first.create_task()
        token = await token_after_synced(first, task.event_id)
        call = second.watch(event_id=task.event_id, resume_token=token)
        assert sketch(await take_synced(call)) == ["synced"]
        await first.update(task.event_id, TASK_STATE_RUNNING)
        message = await take(call)
        assert sketch([message]) == ["UPDATED 2 RUNNING from PENDING"]
        back = first.watch(event_id=task.event_id, resume_token=message.resume_token)
        assert sketch(await take_synced(back)) == ["synced"]
        await second.update(task.event_id, TASK_STATE_SUCCEEDED)
        for each in (call, back):
            assert sketch(await take_all(each)) == ["UPDATED 3 SUCCEEDED from RUNNING", "closing TERMINAL"]


# Tokens that are none


def invalid(error: Failed) -> bool:
    return (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "RESUME_TOKEN_INVALID")


async def test_a_token_that_was_changed_is_refused(server: Wire) -> None:
    task = await server.create_task()
    token = await token_after_synced(server, task.event_id)
    flipped = [token[:at] + ("B" if token[at] == "A" else "A") + token[at + 1 :] for at in (0, len(token) // 2)]
    garbage = ["x", "nonsense", "Ω", token[:-1], token[: len(token) // 2], token + "AAAA", token.swapcase()]
    for each in garbage + flipped:
        assert invalid(await refusal(server, event_id=task.event_id, resume_token=each)), each


async def test_a_token_of_another_watch_is_refused(server: Wire) -> None:
    task, other = await server.create_task(run_id="reading"), await server.create_task()
    token = await token_after_synced(server, task.event_id)
    for scope in ({"event_id": other.event_id}, {"run_id": task.event_id}, {"mission_id": task.event_id}):
        assert invalid(await refusal(server, **scope, resume_token=token)), scope
    assert invalid(await refusal(server, project=ProjectScope(), resume_token=token))
    for scope in ({"run_id": "reading"}, {"project": ProjectScope()}):
        call = server.watch(**scope)
        of_scope = (await take_synced(call))[-1].resume_token
        call.cancel()
        assert invalid(await refusal(server, event_id=task.event_id, resume_token=of_scope)), scope


async def test_a_token_of_another_deployment_is_refused(server: Wire, start: Start, some_id: str) -> None:
    async with start() as other:
        await other.create_task(event_id=some_id)
        await server.create_task(event_id=some_id)
        token = await token_after_synced(other, some_id)
        assert invalid(await refusal(server, event_id=some_id, resume_token=token))


async def test_a_token_of_another_project_is_refused(start: Start, some_id: str) -> None:
    async with start() as wire:
        keys = [await wire.server.api_keys.create(project, SCOPES) for project in ("ours", "theirs")]
    async with start() as wire, Keyed(wire.server, keys[0]) as ours, Keyed(wire.server, keys[1]) as theirs:
        await ours.create_task(event_id=some_id)
        await theirs.create_task(event_id=some_id)
        token = await token_after_synced(theirs, some_id)
        assert invalid(await refusal(ours, event_id=some_id, resume_token=token))
        assert invalid(await refusal(ours, event_id=some_id[:-1], resume_token=token))


async def test_tokens_tell_nothing(server: Wire, some_id: str) -> None:
    await server.create_task(event_id=some_id)
    token = await token_after_synced(server, some_id)
    content = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    assert some_id.encode() not in content
    assert b"default" not in content


# Readers that are slow


def transitions_told(messages: list[WatchEventResponse]) -> list[int]:
    return [each.change.event.revision for each in messages if each.change.previous_state]


@pytest.mark.parametrize("narrow", [True, False], ids=["small windows", "the transport's windows"])
async def test_a_slow_reader_misses_no_transition_and_delays_nobody(start: Start, narrow: bool) -> None:
    async with start(limits=Limits(watch_queue_max=8)) as wire, wire.narrow() as other:
        slow = other if narrow else wire
        task = await wire.create_task()
        call, onlooker = slow.watch(event_id=task.event_id), wire.watch(event_id=task.event_id)
        await take_synced(call)
        await take_synced(onlooker)
        looking_on = asyncio.create_task(take_all(onlooker))
        await wire.update(task.event_id, TASK_STATE_RUNNING)
        for _ in range(20):  # together more than the transport holds
            await report(wire, task.event_id, 2)
            await pause_and_resume(wire, task.event_id, 2)
        await wire.update(task.event_id, TASK_STATE_SUCCEEDED)
        # The slow reader has read nothing of all this yet: it held up neither the writer nor the other watcher.
        everything = await looking_on
        messages = await take_all(call)
        made = [2, *(3 + 4 * number + each for number in range(20) for each in (2, 3)), 83]
        assert transitions_told(everything) == transitions_told(messages) == made
        revisions = [each.change.event.revision for each in messages if each.HasField("change")]
        assert revisions == sorted(set(revisions))
        assert len(revisions) < 82, "it did not fall behind, so that nothing was shown"
        assert messages[-2].change.event == everything[-2].change.event


async def test_a_slow_reader_of_a_deleted_event_misses_no_transition(start: Start) -> None:
    async with start(limits=Limits(watch_queue_max=2)) as wire, wire.narrow() as slow:
        task = await wire.create_task()
        call = slow.watch(event_id=task.event_id)
        await take_synced(call)
        await wire.update(task.event_id, TASK_STATE_RUNNING)
        await report(wire, task.event_id, 4)
        await pause_and_resume(wire, task.event_id, 4)
        await delete(wire, task.event_id)
        onlooker = wire.watch(project=ProjectScope())
        await take_synced(onlooker)  # the deletion has passed through the server
        messages = await take_all(call)
        assert transitions_told(messages) == [2, 7, 8, 9, 10]
        assert sketch(messages)[-2:] == ["DELETED 11 RUNNING", "closing TERMINAL"]


async def test_a_slow_reader_does_not_take_another_event_with_the_id_for_its_own(start: Start, some_id: str) -> None:
    async with start(limits=Limits(watch_queue_max=2)) as wire, wire.narrow() as slow:
        await wire.create_task(event_id=some_id, summary="first")
        call = slow.watch(event_id=some_id)
        await take_synced(call)
        await report(wire, some_id, 6)
        await delete(wire, some_id)
        await wire.create_task(event_id=some_id, summary="second")
        onlooker = wire.watch(event_id=some_id)
        assert (await take_synced(onlooker))[0].change.event.summary == "second"
        await wire.update(some_id, TASK_STATE_SUCCEEDED)
        messages = await take_all(call)
        told = next(at for at, each in enumerate(messages) if each.change.event.summary == "second")
        assert sketch(messages)[told - 1] in {"DELETED 8 PENDING", "reset HISTORY_LOST"}


# Records that cannot be read


async def corrupt(mongo: Mongo, database: str, event_id: str) -> None:
    nonsense = {"$set": {"status.state": "NONSENSE"}}
    result = await mongo[database].events.update_one({"_id": f"default/{event_id}"}, nonsense)
    assert result.modified_count == 1


async def test_a_record_that_cannot_be_read_is_data_loss(start: Start, mongo: Mongo, database: str) -> None:
    async with start() as wire:
        task = await wire.create_task()
        await corrupt(mongo, database, task.event_id)
        loss = await refusal(wire, event_id=task.event_id)
        assert (loss.code, loss.reason) == (grpc.StatusCode.DATA_LOSS, "CORRUPT_RECORD")
        assert loss.metadata == {"event_id": task.event_id}


async def test_a_record_that_can_no_longer_be_read_is_told_and_what_follows_too(
    start: Start, mongo: Mongo, database: str
) -> None:
    async with start() as wire:
        task = await wire.create_task()
        events = mongo[database].events
        backup = await events.find_one({"_id": f"default/{task.event_id}"})
        call = wire.watch(event_id=task.event_id)
        await take_synced(call)
        await corrupt(mongo, database, task.event_id)
        message = await take(call)
        assert message.unreadable.event_id == task.event_id
        await events.replace_one({"_id": backup["_id"]}, backup)
        await wire.update(task.event_id, TASK_STATE_SUCCEEDED)
        assert sketch(await take_all(call)) == ["UPDATED 2 SUCCEEDED from PENDING", "closing TERMINAL"]


async def test_a_document_that_is_no_record_at_all_stops_nobody(start: Start, mongo: Mongo, database: str) -> None:
    async with start() as wire:
        task = await wire.create_task()
        call = wire.watch(event_id=task.event_id)
        await take_synced(call)
        await mongo[database].events.insert_many([{"note": "by hand"}, {"_id": "no slash"}, {"_id": 7, "project": 7}])
        await wire.update(task.event_id, TASK_STATE_SUCCEEDED)
        async with asyncio.timeout(5):
            assert sketch(await take_all(call)) == ["UPDATED 2 SUCCEEDED from PENDING", "closing TERMINAL"]
