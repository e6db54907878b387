"""The guarantees under faults, in a few short runs; `make torture` makes a long one of everything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from guarantees.scenario import Plan, run, seed_of_run

SERVERS: Final = ("server killed", "server stopped", "server drained")
STORE: Final = (
    "store killed",
    "store stopped, silent",
    "store fails reads",
    "store fails writes",
    "store fails, fatal",
    "store drops connections",
    "store slow",
    "store slow to tell changes",
)
HISTORY: Final = ("history turned over", "server stopped, history turned over", "store loses history")
NETWORK: Final = (
    "network to clients slow",
    "network to clients cut",
    "network to clients reset",
    "network to clients black hole",
    "network to store slow",
    "network to store cut",
    "network to store reset",
    "network to store black hole, silent",
)


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "faults", [(), (*SERVERS, *NETWORK), (*STORE, *HISTORY)], ids=["calm", "servers and network", "store and history"]
)
async def test_every_guarantee_holds(faults: Sequence[str], tmp_path: Path) -> None:
    plan = Plan(seconds=16, watchers=40, writers=4, faults=faults, fault_pause_seconds=1.0)
    outcome = await run(plan, seed_of_run(), tmp_path)
    print(outcome)  # noqa: T201 (pytest shows it when the test fails)
    assert not outcome.violations, f"recorded in {tmp_path}"
    assert outcome.counts["deliveries"] > outcome.counts["writes acknowledged"] > 0
    assert outcome.counts["streams resumed"] > 0
    assert sum(count for name, count in outcome.counts.items() if name.startswith("fault: ")) >= len(faults) // 2
