"""mem0's documented flow, with its own clients `mem0ai` and `mem0-cli` as they are.

A worker must be completing the tasks of type ADD meanwhile, and failing those that say "please fail".
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

home = tempfile.TemporaryDirectory()
os.environ.update(HOME=home.name, MEM0_DIR=home.name, MEM0_TELEMETRY="False")

from mem0 import AsyncMemoryClient, MemoryClient  # noqa: E402  (reads its environment when it is imported)
from mem0.client.utils import api_error_handler  # noqa: E402
from mem0.exceptions import MemoryNotFoundError, ValidationError  # noqa: E402

HTTP, KEY = os.environ["TIDINGS_HTTP"], os.environ["TIDINGS_KEY"]
UNKNOWN = "00000000-0000-4000-8000-000000000000"
WITHIN_SECONDS = 30


@api_error_handler
def get(client: MemoryClient, path: str) -> Any:
    """What a path has, as the SDK asks for it: it has no method for events."""
    response = client.client.get(path)
    response.raise_for_status()
    return response.json()


def ended(client: MemoryClient, event_id: str) -> dict[str, Any]:
    """An event when it has ended."""
    until = time.monotonic() + WITHIN_SECONDS
    while (event := get(client, f"/v1/event/{event_id}/"))["status"] in {"PENDING", "RUNNING"}:
        assert time.monotonic() < until, event
        time.sleep(0.1)
    return dict(event)


def command(*arguments: str, key: str = KEY) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("mem0")
    return subprocess.run(
        [program, *arguments, "--base-url", HTTP, "--api-key", key], capture_output=True, text=True, check=False
    )


def sync_client() -> str:
    client = MemoryClient(api_key=KEY, host=HTTP)
    added = client.add("I moved to Lisbon.", user_id="alice", metadata={"turn": 3, "share": 0.5})
    assert added["status"] == "PENDING", added
    event = ended(client, added["event_id"])
    assert (event["id"], event["event_type"], event["status"]) == (added["event_id"], "ADD", "SUCCEEDED")
    messages = [{"role": "user", "content": "I moved to Lisbon."}]
    assert event["payload"]["messages"] == messages
    assert json.dumps(event["payload"]["metadata"], sort_keys=True) == '{"share": 0.5, "turn": 3}'
    assert event["created_at"] <= event["started_at"] <= event["completed_at"] == event["updated_at"]
    assert type(event["latency"]) is int
    assert get(client, f"/v1/events/{event['id']}/") == event

    failed = ended(client, client.add("please fail", filters={"user_id": "alice"})["event_id"])
    assert failed["status"] == "FAILED", failed
    assert failed["error"]

    page = get(client, "/v1/events/?page_size=1&event_type=ADD")
    assert page["results"] == [failed], page
    assert page["count"] >= 2
    assert get(client, page["next"])["results"] == [event]
    assert failed["id"] not in {each["id"] for each in get(client, "/v1/events/?status=SUCCEEDED")["results"]}

    raises(MemoryNotFoundError, lambda: get(client, f"/v1/event/{UNKNOWN}/"))
    raises(ValidationError, lambda: client.add("Whose is it?"))
    error = raises(ValueError, lambda: MemoryClient(api_key="wrong", host=HTTP))
    assert "API key" in str(error), error
    return str(event["id"])


async def async_client() -> None:
    client = AsyncMemoryClient(api_key=KEY, host=HTTP + "/")  # then it pings a doubled slash
    added = await client.add([{"role": "user", "content": "I do not eat meat."}], agent_id="assistant")
    response = await client.async_client.get(f"/v1/event/{added['event_id']}/")
    assert response.json()["id"] == added["event_id"], response.text


def command_line(event_id: str) -> None:
    shown = command("event", "status", event_id, "-o", "json")
    assert shown.returncode == 0, shown
    assert json.loads(shown.stdout)["id"] == event_id
    text = command("event", "status", event_id)
    assert text.returncode == 0, text
    assert "SUCCEEDED" in text.stdout
    listed = command("event", "list", "-o", "json")
    assert listed.returncode == 0, listed
    assert event_id in {event["id"] for event in json.loads(listed.stdout)}
    added = command("add", "I like the sea.", "--user-id", "bob", "-o", "json")
    assert added.returncode == 0, added
    unknown = command("event", "status", UNKNOWN)
    assert unknown.returncode == 1, unknown
    wrong = command("event", "list", key="wrong")
    assert wrong.returncode == 1, wrong


def raises(kind: type[Exception], call: Any) -> Exception:
    try:
        answer = call()
    except kind as error:
        return error
    raise AssertionError(answer)


command_line(sync_client())
asyncio.run(async_client())
print("ok")
