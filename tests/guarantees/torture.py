"""The long run: `make torture MINUTES=10`. Everything at once, and every kind of fault, for as long as asked."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import pytest

from guarantees.scenario import Plan, run, seed_of_run
from guarantees.test_quick import HISTORY, NETWORK, SERVERS, STORE
from guarantees.watchers import Habits

MINUTES: Final = float(os.environ.get("TIDINGS_TEST_TORTURE_MINUTES", "10"))


@pytest.mark.timeout(MINUTES * 60 * 2 + 300)
async def test_every_guarantee_holds_for_long(tmp_path: Path) -> None:
    plan = Plan(
        seconds=MINUTES * 60,
        watchers=200,
        writers=8,
        faults=(*SERVERS, *STORE, *HISTORY, *NETWORK),
        fault_pause_seconds=3.0,
        silent_seconds=16.0,
        habits=Habits(pauses=0.04, pause_seconds=75.0),
    )
    outcome = await run(plan, seed_of_run(), tmp_path)
    print(outcome)  # noqa: T201 (the counts show what was done)
    assert not outcome.violations, f"recorded in {tmp_path}"
