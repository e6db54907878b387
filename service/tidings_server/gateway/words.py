"""The vendors' words for the state of a task.

No vendor but Telnyx has a word for PAUSED or CANCELLED: the nearest one stands in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tidings.v1.task_pb2 import (
    TASK_STATE_CANCELLED,
    TASK_STATE_FAILED,
    TASK_STATE_PAUSED,
    TASK_STATE_PENDING,
    TASK_STATE_RUNNING,
    TASK_STATE_SKIPPED,
    TASK_STATE_SUCCEEDED,
    TaskState,
)

Words = Mapping[TaskState.ValueType, str]

MEM0: Final[Words] = {
    TASK_STATE_PENDING: "PENDING",
    TASK_STATE_RUNNING: "RUNNING",
    TASK_STATE_PAUSED: "RUNNING",
    TASK_STATE_SUCCEEDED: "SUCCEEDED",
    TASK_STATE_FAILED: "FAILED",
    TASK_STATE_CANCELLED: "FAILED",
}
GOMEMORY: Final[Words] = {
    TASK_STATE_PENDING: "pending",
    TASK_STATE_RUNNING: "processing",
    TASK_STATE_PAUSED: "processing",
    TASK_STATE_SUCCEEDED: "success",
    TASK_STATE_FAILED: "failure",
    TASK_STATE_CANCELLED: "failure",
}
TELNYX_RUN: Final[Words] = {
    TASK_STATE_PENDING: "pending",
    TASK_STATE_RUNNING: "running",
    TASK_STATE_PAUSED: "paused",
    TASK_STATE_SUCCEEDED: "succeeded",
    TASK_STATE_FAILED: "failed",
    TASK_STATE_CANCELLED: "cancelled",
}
TELNYX_STEP: Final[Words] = {
    TASK_STATE_PENDING: "pending",
    TASK_STATE_RUNNING: "in_progress",
    TASK_STATE_PAUSED: "in_progress",
    TASK_STATE_SUCCEEDED: "completed",
    TASK_STATE_FAILED: "failed",
    TASK_STATE_SKIPPED: "skipped",
    TASK_STATE_CANCELLED: "skipped",
}
MEMOS: Final[Words] = {
    TASK_STATE_PENDING: "running",
    TASK_STATE_RUNNING: "running",
    TASK_STATE_PAUSED: "running",
    TASK_STATE_SUCCEEDED: "completed",
    TASK_STATE_FAILED: "failed",
    TASK_STATE_CANCELLED: "failed",
}


def states_of(word: str, words: Words) -> list[TaskState.ValueType]:
    """The states that a word stands for, the one that it is the best word for first."""
    return [state for state, each in words.items() if each == word]
