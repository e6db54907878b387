"""Each guarantee broken on purpose is found by the checks in a run.

Some are tried always; `make test-sabotage` tries all.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from guarantees.sabotaged_server import SABOTAGES
from guarantees.scenario import Plan, run, seed_of_run
from guarantees.watchers import Habits

PLAN: Final = Plan(
    seconds=6,
    watchers=25,
    writers=6,
    write_pause_seconds=0.03,
    servers=1,
    end_seconds=3,
    habits=Habits(leaves=0.8, leaves_at_bookmark=0.8, pauses=0.0, forgets=0.3, foreign=0.2),
)
READS: Final = Habits(leaves=0.0, leaves_at_bookmark=0.0, pauses=0.0, foreign=0.0, forgets=0.0)
ALWAYS: Final = ("update-skipped", "ok-without-terminal", "project-forgotten")
FOUND: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "read-before-subscribe": ("Complete or loud", {}),
    "drop-on-full-queue": ("Complete or loud", {}),
    "update-skipped": ("Complete or loud", {}),
    "told-out-of-order": ("Ordered", {}),
    "bookmark-past-the-queue": ("Bookmarks are true", {"seconds": 12, "writers": 2, "write_pause_seconds": 0.15}),
    "bookmark-of-a-silent-store-is-live": (
        "Bookmarks are true",
        {
            "seconds": 1,
            "habits": READS,
            "moments": [(2, "store stopped, silent")],
            "silent_seconds": 14.0,
        },
    ),
    "token-not-advanced-on-empty-batches": (
        "Resumable",
        {
            "writers": 2,
            "write_pause_seconds": 8.0,
            "habits": READS,
            "moments": [(0, "history turned over"), (10, "network to clients reset"), (3, "network to clients reset")],
        },
    ),
    "snapshot-without-barrier": ("Unique", {"moments": [(0, "store slow to tell changes")] * 3}),
    "repeats-after-resume": ("Unique", {}),
    "ok-without-terminal": ("OK means complete", {}),
    "expired-event-told": ("Expiry", {}),
    "foreign-token-accepted": ("Resumable", {}),
    "acknowledged-and-not-written": ("Durable", {}),
    "project-forgotten": ("Isolated", {}),
    "heartbeat-forgotten": ("Fair and bounded", {"seconds": 15}),
}
"""By which check each is found, and what its run needs besides."""


@pytest.mark.parametrize("name", FOUND if "TIDINGS_TEST_SABOTAGE" in os.environ else ALWAYS)
async def test_a_broken_guarantee_is_found(name: str, tmp_path: Path) -> None:
    guarantee, needs = FOUND[name]
    program = (str(Path(__file__).with_name("sabotaged_server.py")), name)
    outcome = await run(replace(PLAN, program=program, **needs), seed_of_run(), tmp_path)
    found = {violation.partition(":")[0] for violation in outcome.violations}
    assert guarantee in found, f"{outcome}\nrecorded in {tmp_path}"


def test_every_sabotage_is_tried() -> None:
    assert FOUND.keys() == SABOTAGES.keys()
