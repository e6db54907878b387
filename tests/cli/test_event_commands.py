"""`tidings get`, `list`, `create`, `update`, `cancel` and `delete`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from command import Tidings
from google.protobuf.json_format import ParseDict

from tidings.v1.event_pb2 import Event
from tidings.v1.event_service_pb2 import GetEventRequest
from tidings.v1.task_pb2 import TASK_STATE_RUNNING, TaskError, TaskProgress, TaskStatus
from wire import Wire

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")

TASK = """\
event        {id}
type         report
summary      Seven pages
state        FAILED
message      on page 3
progress     3/9 pages  the third
error        E7: no ink (may be retried)
created      TIME
started      TIME
ended        TIME
result       1
result       {{"url": "a.pdf"}}
payload      {{"pages": 7, "tags": ["é", null]}}
happened     TIME
updated      TIME
expires      TIME
revision     3
"""


async def stored(server: Wire, event_id: str) -> Event:
    return (await server.events.GetEvent(GetEventRequest(event_id=event_id))).event


async def test_a_fact_is_created_and_its_id_printed(server: Wire, tmp_path: Path) -> None:
    created = await Tidings(tmp_path, server.target).done("create", "note", "--summary", "hello")
    event = await stored(server, created.out.strip())
    assert (event.type, event.summary, event.HasField("status")) == ("note", "hello", False)


async def test_a_task_is_created_with_all_that_was_given(server: Wire, tmp_path: Path, some_id: str) -> None:
    await server.ensure(run_id=f"{some_id}-run", mission_id=f"{some_id}-mission")
    options = (
        "--task",
        "--id",
        some_id,
        "--ttl",
        "1h30m",
        "--run",
        f"{some_id}-run",
        "--mission",
        f"{some_id}-mission",
    )
    tidings = Tidings(tmp_path, server.target)
    assert (await tidings.done("create", "report", "--payload", '{"pages": 7}', *options)).out == f"{some_id}\n"
    event = await stored(server, some_id)
    assert event.HasField("status")
    assert dict(event.payload) == {"pages": 7}
    assert (event.run_id, event.mission_id) == (f"{some_id}-run", f"{some_id}-mission")
    assert round((event.expire_time.seconds - event.create_time.seconds) / 60) == 90


async def test_a_payload_comes_from_a_file_or_from_stdin(server: Wire, tmp_path: Path) -> None:
    (tmp_path / "payload.json").write_text('{"from": "file"}')
    tidings = Tidings(tmp_path, server.target)
    from_file = await tidings.done("create", "note", "--payload", f"@{tmp_path}/payload.json")
    from_stdin = await tidings.done("create", "note", "--payload", "-", stdin='{"from": "stdin"}')
    assert dict((await stored(server, from_file.out.strip())).payload) == {"from": "file"}
    assert dict((await stored(server, from_stdin.out.strip())).payload) == {"from": "stdin"}


async def test_get_shows_a_record_in_full(server: Wire, tmp_path: Path, some_id: str) -> None:
    tidings = Tidings(tmp_path, server.target)
    await tidings.done(
        *("create", "report", "--task", "--id", some_id, "--summary", "Seven pages"),
        *("--payload", '{"pages": 7, "tags": ["é", null]}'),
    )
    progress = TaskProgress(completed=3, total=9, unit="pages", message="the third")
    await server.update(some_id, TASK_STATE_RUNNING, progress=progress)
    await tidings.done(
        *("update", some_id, "--state", "failed", "--message", "on page 3", "--error", "no ink", "--error-code", "E7"),
        *("--retryable", "--result", "1", "--result", '{"url": "a.pdf"}'),
    )
    assert TIME.sub("TIME", (await tidings.done("get", some_id)).out) == TASK.format(id=some_id)


async def test_json_is_that_of_proto3(server: Wire, tmp_path: Path, some_id: str) -> None:
    tidings = Tidings(tmp_path, server.target)
    created = await tidings.done("create", "note", "--id", some_id, "--payload", '{"whole": 7, "é": 0.5}', "-o", "json")
    event = await stored(server, some_id)
    got = await tidings.done("get", some_id, "-o", "json")
    (listed,) = (await tidings.done("list", "--type", "note", "--limit", "1", "-o", "json")).lines
    assert ParseDict(created.json, Event()) == ParseDict(got.json, Event()) == event
    assert got.json["eventId"] == some_id
    assert re.search(r'"whole": 7,?\n', got.out)
    assert f'"eventId": "{some_id}"' in listed


async def test_a_list_is_lines_of_tabs_for_other_commands(server: Wire, tmp_path: Path, some_id: str) -> None:
    await server.create_task(some_id, event_id=f"{some_id}-1", summary="a\ttab and a \x1b[31mred line\n")
    await server.update(f"{some_id}-1", TASK_STATE_RUNNING, progress=TaskProgress(completed=1))
    await server.create(some_id, event_id=f"{some_id}-2")
    rows = (await Tidings(tmp_path, server.target).done("list", "-t", some_id)).rows
    assert [[TIME.sub("TIME", cell) for cell in row] for row in rows] == [
        [f"{some_id}-2", some_id, "", "", "TIME", ""],
        [f"{some_id}-1", some_id, "RUNNING", "1", "TIME", r"a\ttab and a \x1b[31mred line\n"],
    ]


async def test_a_list_is_a_table_for_people(server: Wire, tmp_path: Path, some_id: str) -> None:
    type_ = some_id[:12]
    await server.create_task(type_, event_id=f"{some_id}-1", summary="\x1b[31mred and more than fits on a line")
    async with Tidings(tmp_path, server.target).on_terminal("list", "-t", type_) as terminal:
        assert await terminal.exit_code() == 0
        header, row = (await terminal.shows("red")).splitlines()
    assert header.split() == ["EVENT", "TYPE", "STATE", "PROGRESS", "UPDATED", "SUMMARY"]
    assert row.split()[0] == f"{some_id}-1"
    assert row.split()[4].startswith(r"\x1b[31mred")
    assert row.rstrip().endswith("…")


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (("--state", "running"), ["b"]),
        (("-s", "pending", "-s", "RUNNING"), ["c", "b"]),
        (("--run", "{}-run"), ["c"]),
        (("--mission", "{}-other"), ["d"]),
        (("--step", "one"), ["b"]),
        (("--agent", "bot"), ["a"]),
        (("--oldest-first",), ["a", "b", "c", "d"]),
        (("--since", "1h"), ["d", "c", "b", "a"]),
        (("--since", "2100-01-01"), []),
        (("--until", "1h"), []),
        (("--until", "2100-01-01T00:00:00Z", "--limit", "2"), ["d", "c"]),
    ],
)
async def test_a_list_is_filtered(
    server: Wire, tmp_path: Path, some_id: str, filters: tuple[str, ...], found: list[str]
) -> None:
    await server.create(some_id, event_id=f"{some_id}-a", agent_id="bot")
    await server.create_task(
        some_id, event_id=f"{some_id}-b", step_id="one", status=TaskStatus(state=TASK_STATE_RUNNING)
    )
    await server.create_task(some_id, event_id=f"{some_id}-c", run_id=f"{some_id}-run")
    await server.create(some_id, event_id=f"{some_id}-d", mission_id=f"{some_id}-other")
    options = (each.format(some_id) for each in filters)
    rows = (await Tidings(tmp_path, server.target).done("list", "-t", some_id, *options)).rows
    assert [row[0].removeprefix(f"{some_id}-") for row in rows] == found


async def test_a_list_that_was_cut_says_how_to_go_on(server: Wire, tmp_path: Path, some_id: str) -> None:
    tidings = Tidings(tmp_path, server.target)
    for number in range(5):
        await server.create(some_id, event_id=f"{some_id}-{number}")
    first = await tidings.done("list", "-t", some_id, "--limit", "3")
    token = re.fullmatch(r"there are more: --page (\S+)\n", first.err)
    assert token
    second = await tidings.done("list", "-t", some_id, "--limit", "3", "--page", token[1])
    assert [row[0] for row in first.rows + second.rows] == [f"{some_id}-{number}" for number in (4, 3, 2, 1, 0)]
    assert second.err == ""


async def test_a_list_is_made_of_as_many_pages_as_it_takes(server: Wire, tmp_path: Path, some_id: str) -> None:
    for number in range(16):  # about 4 MB, and a page has 3 MiB at most
        await server.create(some_id, event_id=f"{some_id}-{number}", summary="s" * 4000, payload={"x": "x" * 250_000})
    rows = (await Tidings(tmp_path, server.target).done("list", "-t", some_id, "--limit", "16")).rows
    assert len(rows) == 16


async def test_a_task_is_moved_and_cancelled(server: Wire, tmp_path: Path, some_id: str) -> None:
    tidings = Tidings(tmp_path, server.target)
    await server.create_task(event_id=some_id)
    moved = await tidings.done(
        "update", some_id, "-s", "running", "-m", "begun", "--progress", "3/9 pages", "--expected-revision", "1"
    )
    status = (await stored(server, some_id)).status
    assert (status.state, status.message) == (TASK_STATE_RUNNING, "begun")
    assert status.progress == TaskProgress(completed=3, total=9, unit="pages")
    assert "state        RUNNING\n" in moved.out
    cancelled = await tidings.done("cancel", some_id, "-m", "too late", "-o", "json")
    assert cancelled.json["cancelRequested"]
    assert "RUNNING (somebody has asked for it to be cancelled)\n" in (await tidings.done("get", some_id)).out


async def test_only_what_is_given_of_a_task_changes(server: Wire, tmp_path: Path, some_id: str) -> None:
    await server.create_task(event_id=some_id, status=TaskStatus(state=TASK_STATE_RUNNING, message="kept"))
    await Tidings(tmp_path, server.target).done("update", some_id, "--progress", "4")
    status = (await stored(server, some_id)).status
    assert (status.message, status.progress.completed, status.error) == ("kept", 4, TaskError())


async def test_an_event_is_deleted(server: Wire, tmp_path: Path, some_id: str) -> None:
    tidings = Tidings(tmp_path, server.target)
    await server.create(event_id=some_id)
    refused = await tidings.run("delete", some_id, "--expected-revision", "7")
    assert (refused.code, "REVISION_MISMATCH" in refused.err) == (64 + 10, True)
    deleted = await tidings.done("delete", some_id)
    assert (deleted.out, deleted.err) == ("", f"{some_id} deleted\n")
    assert (await tidings.run("get", some_id)).code == 64 + 5


async def test_a_failed_call_is_told_on_stderr_and_by_the_exit_code(server: Wire, tmp_path: Path) -> None:
    tidings = Tidings(tmp_path, server.target)
    missing = await tidings.run("get", "no-such-event", "-o", "json")
    assert missing == (69, "", 'tidings: NOT_FOUND (EVENT_NOT_FOUND): event "no-such-event" not found\n')
    invalid = await tidings.run("create", "not a type", "--id", "a/b")
    assert (invalid.code, invalid.out) == (67, "")
    assert invalid.err.splitlines()[0] == "tidings: INVALID_ARGUMENT (INVALID_FIELD)"
    assert {each.split(":")[0] for each in invalid.err.splitlines()[1:]} == {"  event.type", "  event.event_id"}


async def test_a_server_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert (await Tidings(tmp_path, "127.0.0.1:1").run("get", "x")).code == 64 + 14


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("get",), "Missing argument"),
        (("create", "x", "--payload", "[1]"), "not a JSON object"),
        (("create", "x", "--payload", "{"), "not a JSON object"),
        (("create", "x", "--payload", "@/none"), "/none cannot be read"),
        (("create", "x", "--ttl", "soon"), "not a duration"),
        (("create", "x", "--ttl", "99999999999d"), "longer than ten years"),
        (("list", "--since", "yesterday"), "not a duration"),
        (("list", "--state", "odd"), "odd"),
        (("list", "--limit", "0"), "--limit"),
        (("update", "x", "--progress", "half"), "not progress"),
        (("list", "-o", "yaml"), "yaml"),
    ],
)
async def test_a_wrong_command_line_is_refused_with_a_sentence(
    tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    result = await Tidings(tmp_path, "127.0.0.1:1", COLUMNS="200").run(*arguments)
    assert (result.code, result.out) == (2, "")
    assert words in result.err
    assert "Traceback" not in result.err
