"""`tidings watch`: a table on a terminal, lines or NDJSON elsewhere, and a way to go on."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from command import Tidings, end, interrupt, line
from google.protobuf.json_format import ParseDict

from conftest import Start
from tidings.v1.event_service_pb2 import (
    CHANGE_KIND_INITIAL,
    CHANGE_KIND_UPDATED,
    DeleteEventRequest,
    WatchEventResponse,
)
from tidings.v1.task_pb2 import TASK_STATE_RUNNING, TASK_STATE_SUCCEEDED, TaskProgress
from wire import Wire

TOKEN = re.compile(r"go on with --from (\S+)\n")


async def test_each_change_is_a_line(server: Wire, tmp_path: Path, some_id: str) -> None:
    await server.create_task("report", event_id=some_id, summary="Seven\tpages")
    process = await Tidings(tmp_path, server.target).begin("watch", some_id)
    first = await line(process)
    await server.update(some_id, TASK_STATE_RUNNING, progress=TaskProgress(completed=3, total=9, message="third"))
    second = await line(process)
    await server.update(some_id, TASK_STATE_SUCCEEDED, message="done")
    third = await line(process)
    assert [row.split("\t")[1:] for row in (first, second, third)] == [
        ["INITIAL", some_id, "report", "PENDING", "", r"Seven\tpages"],
        ["UPDATED", some_id, "report", "RUNNING", "3/9", "third"],
        ["UPDATED", some_id, "report", "SUCCEEDED", "3/9", "done"],
    ]
    assert await end(process) == (0, "", "up to date\n")


async def test_json_is_a_message_to_a_line(server: Wire, tmp_path: Path, some_id: str) -> None:
    await server.create_task(event_id=some_id)
    process = await Tidings(tmp_path, server.target).begin("watch", some_id, "-o", "json")
    told = [ParseDict(json.loads(await line(process)), WatchEventResponse()) for _ in range(2)]
    await server.update(some_id, TASK_STATE_SUCCEEDED)
    told.append(ParseDict(json.loads(await line(process)), WatchEventResponse()))
    assert [each.WhichOneof("message") for each in told] == ["change", "synced", "change"]
    assert [told[0].change.kind, told[2].change.kind] == [CHANGE_KIND_INITIAL, CHANGE_KIND_UPDATED]
    assert all(each.resume_token for each in told)
    assert await end(process) == (0, "", "")


async def test_a_watch_that_was_interrupted_goes_on_where_it_was(server: Wire, tmp_path: Path, some_id: str) -> None:
    tidings = Tidings(tmp_path, server.target)
    await server.create_task(event_id=some_id)
    first = await tidings.begin("watch", some_id)
    assert "INITIAL" in await line(first)
    assert first.stderr is not None
    assert await first.stderr.readline() == b"up to date\n"
    interrupted = await interrupt(first)
    token = TOKEN.fullmatch(interrupted.err)
    assert interrupted.code == 130
    assert token, interrupted
    await server.update(some_id, TASK_STATE_SUCCEEDED)
    second = await tidings.done("watch", some_id, "--from", token[1])
    assert [row[1] for row in second.rows] == ["UPDATED"]


async def test_a_watch_goes_on_through_a_restart_of_the_server(start: Start, tmp_path: Path) -> None:
    async with start() as server:
        await server.create_task(event_id="a")
        process = await Tidings(tmp_path, server.target).begin("watch", "a")
        assert "INITIAL" in await line(process)
    async with start(listen=server.target) as server:
        await server.update("a", TASK_STATE_SUCCEEDED)
        assert "SUCCEEDED" in await line(process)
        assert (await end(process)).code == 0


@pytest.mark.parametrize("scope", [("--run", "{}-run"), ("--mission", "{}-mission"), ("--project", "--type", "{}")])
async def test_a_scope_is_watched(server: Wire, tmp_path: Path, some_id: str, scope: tuple[str, ...]) -> None:
    within = {"mission_id": f"{some_id}-mission", "run_id": f"{some_id}-run"}
    await server.create(some_id, event_id=f"{some_id}-1", **within)
    await server.create("other", event_id=f"{some_id}-other")
    process = await Tidings(tmp_path, server.target).begin("watch", *(each.format(some_id) for each in scope))
    assert f"\tINITIAL\t{some_id}-1\t" in await line(process)
    await server.create(some_id, event_id=f"{some_id}-2", **within)
    assert f"\tCREATED\t{some_id}-2\t" in await line(process)
    assert (await interrupt(process)).code == 130


async def test_only_tasks_in_a_state_are_watched(server: Wire, tmp_path: Path, some_id: str) -> None:
    await server.create_task(some_id, event_id=f"{some_id}-1")
    await server.create_task(some_id, event_id=f"{some_id}-2")
    await server.update(f"{some_id}-2", TASK_STATE_RUNNING)
    process = await Tidings(tmp_path, server.target).begin("watch", "--project", "-t", some_id, "-s", "running")
    assert f"\tINITIAL\t{some_id}-2\t" in await line(process)
    await interrupt(process)


async def test_a_terminal_shows_a_table_with_bars(server: Wire, tmp_path: Path, some_id: str) -> None:
    type_ = some_id[:8]
    await server.create_task(type_, event_id=f"{type_}-1")
    await server.create(type_, event_id=f"{type_}-2", summary="a fact\x1b[2J")
    async with Tidings(tmp_path, server.target).on_terminal("watch", "--project", "--type", type_) as terminal:
        screen = await terminal.shows("EVENT", "PENDING", r"a fact\x1b[2J", "2 events; up to date")
        assert rows(screen) == [f"{type_}-2", f"{type_}-1"]
        await server.update(f"{type_}-1", TASK_STATE_RUNNING, progress=TaskProgress(completed=1, total=2, unit="pages"))
        screen = await terminal.shows("RUNNING", "━━━━━━━━━━", "1/2 pages", "2 events;")
        assert rows(screen) == [f"{type_}-1", f"{type_}-2"]
        await server.create(type_, event_id=f"{type_}-3")
        assert rows(await terminal.shows("3 events")) == [f"{type_}-1", f"{type_}-3", f"{type_}-2"]
        await server.events.DeleteEvent(DeleteEventRequest(event_id=f"{type_}-2"))
        assert rows(await terminal.shows("2 events")) == [f"{type_}-1", f"{type_}-3"]
        await server.update(f"{type_}-1", TASK_STATE_SUCCEEDED, message="done")
        assert "━" not in await terminal.shows("SUCCEEDED", "done")
        assert "\x1b[32m" in terminal.raw
        terminal.type("\x03")
        assert await terminal.exit_code() == 130
        assert "\x1b[?25h" in terminal.raw.rpartition("SUCCEEDED")[2]
        assert TOKEN.search(terminal.screen)


def rows(screen: str) -> list[str]:
    """The ids in the table, from above."""
    return [row.split()[0] for row in screen.splitlines()[1:-1]]


async def test_a_table_is_no_higher_than_the_screen(server: Wire, tmp_path: Path, some_id: str) -> None:
    for number in range(30):
        await server.create(some_id, event_id=f"{some_id[:8]}-{number}")
    async with Tidings(tmp_path, server.target).on_terminal("watch", "--project", "--type", some_id) as terminal:
        screen = await terminal.shows("30 events, 9 of them not shown; up to date")
    assert len(rows(screen)) == 21


async def test_a_table_is_without_what_has_expired(server: Wire, tmp_path: Path, some_id: str) -> None:
    type_ = some_id[:8]
    await server.create(type_, event_id=f"{type_}-1")
    async with Tidings(tmp_path, server.target).on_terminal("watch", "--project", "--type", type_) as terminal:
        await terminal.shows("1 event; up to date")
        await server.create(type_, event_id=f"{type_}-2", ttl=1)
        await terminal.shows("2 events")
        assert rows(await terminal.shows("1 event;")) == [f"{type_}-1"]


async def test_there_are_no_colours_when_they_are_not_wanted(server: Wire, tmp_path: Path, some_id: str) -> None:
    await server.create_task(event_id=some_id)
    await server.update(some_id, TASK_STATE_SUCCEEDED)
    for environment, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
        async with Tidings(tmp_path, server.target, **environment).on_terminal("watch", some_id) as terminal:
            assert await terminal.exit_code() == 0
            await terminal.shows("SUCCEEDED", "1 event;")
        assert ("\x1b[32m" in terminal.raw) == coloured


@pytest.mark.parametrize("arguments", [(), ("x", "--project"), ("--run", "x", "--mission", "y")])
async def test_one_thing_is_watched(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    result = await Tidings(tmp_path, "127.0.0.1:1").run("watch", *arguments)
    assert (result.code, "say what to watch" in result.err) == (2, True)


@pytest.mark.parametrize("arguments", [("watch", "--project"), ("wait", "x"), ("runs", "watch", "x")])
async def test_a_server_that_is_not_there_is_not_waited_for(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert (await Tidings(tmp_path, "127.0.0.1:1").run(*arguments)).code == 64 + 14


async def test_what_cannot_be_watched_is_told(server: Wire, tmp_path: Path) -> None:
    tidings = Tidings(tmp_path, server.target)
    assert (await tidings.run("watch", "no-such-event")).code == 69
    bad = await tidings.run("watch", "--project", "--from", "bad")
    assert (bad.code, "RESUME_TOKEN_INVALID" in bad.err) == (67, True)
