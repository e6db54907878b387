"""The guarantees, one function each: what a recording shows against them, given the truth, in sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from guarantees.checks_of_changes import complete_or_loud, durable, exact_start, ordered, unique
from guarantees.checks_of_streams import (
    bookmarks_are_true,
    expiry,
    fair_and_bounded,
    isolated,
    ok_means_complete,
    resumable,
)
from guarantees.recording import Recording
from guarantees.truth import Truth

Check = Callable[[Recording, Truth], Iterator[str]]

CHECKS: Final[dict[str, Check]] = {
    "Ordered": ordered,
    "Unique": unique,
    "Complete or loud": complete_or_loud,
    "Exact start": exact_start,
    "Resumable": resumable,
    "Bookmarks are true": bookmarks_are_true,
    "Fair and bounded": fair_and_bounded,
    "OK means complete": ok_means_complete,
    "Expiry": expiry,
    "Durable": durable,
    "Isolated": isolated,
}
"""By the names under which the guarantees are published."""


def violations(recording: Recording, truth: Truth) -> list[str]:
    return [f"{name}: {text}" for name, check in CHECKS.items() for text in check(recording, truth)]
