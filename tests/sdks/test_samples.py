"""The programs that the five vendors' documentation shows, as printed but for the address, the key and ids.

What they ask for are the events that the documentation shows beside them, so that they must print those.
"""

from __future__ import annotations

import ast
import json
import re
import shutil
from collections.abc import AsyncIterator, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict

from conftest import Start
from tidings.v1.event_service_pb2 import CreateEventRequest
from vendors import MUST_RUN_ALL, Service, needs_sdks, python_of, run, service

pytestmark = needs_sdks

SAMPLES = Path(__file__).parent / "samples"


@pytest.fixture
async def serving(start: Start) -> AsyncIterator[Service]:
    async with service(start) as running:
        yield running


def adapted(name: str, changes: dict[str, str]) -> str:
    """A sample with the address, the key and the ids of this test."""
    text = (SAMPLES / name).read_text(encoding="utf-8")
    for printed, real in changes.items():
        assert printed in text
        text = text.replace(printed, real)
    return text


async def output_of(name: str, changes: dict[str, str], folder: Path, **environment: str) -> str:
    """What a sample prints; it runs in the environment of the vendor that its name begins with, or with curl."""
    if name.endswith(".sh"):
        if shutil.which("curl") is None and not MUST_RUN_ALL:
            pytest.skip("there is no curl on the PATH")
        command = ("/bin/sh", "-c")
    else:
        command = (python_of(name.partition("_")[0]), "-c")
    return await run(*command, adapted(name, changes), folder=folder, environment=environment)


async def store(serving: Service, name: str) -> dict[str, Any]:
    """Store one of the samples that the demo has, and return it."""
    text = (files("tidings_server") / "demo" / "samples" / f"{name}.json").read_text(encoding="utf-8")
    sample: dict[str, Any] = json.loads(text)
    event = sample["request"]["event"]
    await serving.client.ensure(event.get("runId", ""), event.get("missionId", ""))
    await serving.client.events.CreateEvent(ParseDict(sample["request"], CreateEventRequest()))
    return sample


@pytest.mark.parametrize("program", ["mem0_get_event.py", "mem0_get_event.sh"])
async def test_mem0_get_event(serving: Service, program: str, tmp_path: Path) -> None:
    document = (await store(serving, "mem0_add_succeeded"))["document"]
    changes = {"https://api.mem0.ai": serving.url, "<api-key>": serving.key, "{event_id}": document["id"]}
    assert json.loads(await output_of(program, changes, tmp_path)) == document


@pytest.mark.parametrize(
    ("message", "end"),
    [
        ("Test memory status", r"Job completed successfully\. Created at: \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"),
        ("please fail", "Job failed with error: message 1 asks to fail"),
    ],
    ids=["success", "failure"],
)
async def test_gomemory_get_job_status(serving: Service, message: str, end: str, tmp_path: Path) -> None:
    changes = {
        "http://localhost:9000": f"http://gomemory:{serving.key}@{serving.address}",
        "Test memory status": message,
    }
    *polls, last_poll, last = (await output_of("gomemory_get_status.py", changes, tmp_path)).splitlines()
    assert set(polls) <= {"Current Status: pending", "Current Status: processing"}
    assert last_poll in {"Current Status: success", "Current Status: failure"}
    assert re.fullmatch(end, last)


async def test_exa_get_an_event(serving: Service, tmp_path: Path) -> None:
    """Its page has placeholders: but `object` has one word for each kind, and `createdAt` is of the record."""
    document = (await store(serving, "exa_webset_created"))["document"]
    changes = {"https://api.exa.ai": serving.url, "<api-key>": serving.key, "{id}": "%3Cstring%3E"}
    promised = dict(leaves(document))
    answered = dict(leaves(json.loads(await output_of("exa_get_an_event.sh", changes, tmp_path))))
    assert promised.keys() <= answered.keys()
    differing = {path for path, value in promised.items() if answered[path] != value}
    assert differing <= {path for path in promised if path[-1] == "object" or path == ("createdAt",)}


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every value in a JSON document that is no object or array with something in it, and where it is."""
    if isinstance(value, dict | list) and value:
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, (*path, key))
    else:
        yield path, value


async def test_telnyx_get_event_details(serving: Service, tmp_path: Path) -> None:
    data = (await store(serving, "telnyx_tool_result"))["document"]["data"]
    changes = {
        'event_id="event_id"': f'event_id="{data["event_id"]}"',
        'run_id="182bd5e5-6e1a-4fe4-a799-aa6d9a6ab26e"': f'run_id="{data["run_id"]}"',
    }
    environment = {"TELNYX_API_KEY": serving.key, "TELNYX_BASE_URL": f"{serving.url}/v2"}
    printed = ast.parse(await output_of("telnyx_get_event_details.py", changes, tmp_path, **environment), mode="eval")
    assert isinstance(printed.body, ast.Call)
    fields = {field.arg: field.value for field in printed.body.keywords}
    assert fields.keys() == data.keys()
    for name in data.keys() - {"timestamp"}:
        assert ast.literal_eval(fields[name]) == data[name]


@pytest.mark.parametrize("program", ["memos_get_status_requests.py", "memos_get_status.sh"])
async def test_memos_get_task_status(serving: Service, program: str, tmp_path: Path) -> None:
    document = (await store(serving, "memos_running"))["document"]
    changes = {"https://memos.memtensor.cn": serving.url, "YOUR_API_KEY": serving.key}
    printed = await output_of(program, changes, tmp_path)
    assert ast.literal_eval(printed.removeprefix("result: ")) == document


async def test_memos_get_task_status_with_the_client(serving: Service, tmp_path: Path) -> None:
    data = (await store(serving, "memos_running"))["document"]["data"]
    changes = {"YOUR_API_KEY": serving.key}
    environment = {"MEMOS_BASE_URL": f"{serving.url}/api/openmem/v1"}
    printed = await output_of("memos_get_status_client.py", changes, tmp_path, **environment)
    shown = f"GetTaskStatusData(task_id='{data['task_id']}', status='{data['status']}', memory_views=None)"
    assert printed.splitlines()[-1] == f"result: code=0 message='ok' data={shown}"  # the package logs to the same place
