"""Schemathesis against the OpenAPI document: whatever is sent, the answer is one that the document tells.

With TIDINGS_TEST_SCHEMATHESIS=all there are more requests for each operation, and what can be enumerated is tried too:
bounds, fields left out, other methods. That takes minutes.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import pytest

from conftest import Start
from wire import Wire

SEED: Final = 20261122
ALL: Final = os.environ.get("TIDINGS_TEST_SCHEMATHESIS") == "all"
EXAMPLES: Final = 50 if ALL else 6
WITHIN_SECONDS: Final = 3600 if ALL else 100

# Where not everything that fits its schema is accepted: `positive_data_acceptance` is off, and nothing else anywhere.
NOT_ALL_ACCEPTED: Final[Mapping[str, Sequence[str]]] = {
    "page tokens are the service's own, and not together with skip": ["listEvents", "listMissions", "listRuns"],
    "the filter and the times of a list must fit each other": ["listEvents"],
    "resume tokens are the service's own, and exclude liveOnly": [
        "watchEvent",
        "watchEvents",
        "watchRunEvents",
        "watchMissionEvents",
        "watchRun",
    ],
    "durations have bounds that no pattern tells": ["waitTaskStatus", "createEvent", "batchCreateEvents", "createRun"],
    "expire_time and ttl, event_id and idempotency_key exclude each other; times have an order": [
        "createEvent",
        "batchCreateEvents",
    ],
    "an error is for a FAILED task only": ["updateTaskStatus", "createEvent", "batchCreateEvents", "createRun"],
    "a mission has a name, unless it is changed in other fields": ["createMission", "updateMission"],
    "the id in the path must be that in the body": ["updateMission"],
    "parents of steps must be steps": ["createPlan", "addPlanSteps"],
    "payloads are free, but for NUL, whole numbers beyond 2^53 and a depth that no schema tells": [
        "mem0_add",
        "mem0_add_v1",
        "gomemory_add_memory",
        "memos_add_message",
        "memos_add_feedback",
        "exa_create_event",
        "telnyx_create_mission",
        "telnyx_update_mission",
        "telnyx_create_run",
        "telnyx_update_run",
        "telnyx_log_event",
        "telnyx_create_plan",
        "telnyx_add_steps",
        "telnyx_update_step",
    ],
    "cursors are the service's own": ["exa_list_events"],
}


def configuration() -> str:
    off = sorted({operation for operations in NOT_ALL_ACCEPTED.values() for operation in operations})
    return f"""
seed = {SEED}
request-timeout = 20
max-stream-events = 1  # a watch goes on
continue-on-failure = true
suppress-health-check = ["all"]
warnings = false
checks.enabled = true
phases.coverage.enabled = {json.dumps(ALL)}
phases.stateful.enabled = false  # the document has no links
generation.max-examples = {EXAMPLES}
generation.database = "none"

[[operations]]
include-operation-id = {json.dumps(off)}
checks.positive_data_acceptance.enabled = false
"""


@pytest.mark.timeout(WITHIN_SECONDS + 20)
async def test_every_answer_is_one_that_is_documented(start: Start, tmp_path: Path) -> None:
    (tmp_path / "schemathesis.toml").write_text(configuration())
    async with start(http_port=0) as wire:
        code, said = await run(wire, tmp_path)
    assert code == 0, said  # with the seed


async def run(wire: Wire, folder: Path) -> tuple[int | None, str]:
    command = Path(sys.executable).with_name("schemathesis")
    url = f"http://127.0.0.1:{wire.server.http_port}/openapi.json"
    process = await asyncio.create_subprocess_exec(
        command, "run", url, cwd=folder, stdout=-1, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(WITHIN_SECONDS):
        said, _ = await process.communicate()
    return process.returncode, said.decode()
