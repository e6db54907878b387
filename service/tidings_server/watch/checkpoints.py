"""Places that a change stream can go on from at once: the store need not look for them among all that it keeps."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from time import monotonic
from typing import Final

from tidings_server.change import Change, Checkpoint, Position

INTERVAL_SECONDS: Final = 2.0
CHECKPOINTS_MAX: Final = 1_800
"""An hour of them."""
KEPT_FOR_THE_NEXT: Final = 10
"""How many checkpoints back is the one that is kept for the next server: what came since fills its memory."""


class Checkpoints:
    """Checkpoints of changes that were seen, some seconds apart."""

    def __init__(self) -> None:
        self._checkpoints: deque[Checkpoint] = deque(maxlen=CHECKPOINTS_MAX)
        self._due = 0.0

    def note(self, change: Change) -> None:
        """Keep the checkpoint of a change, if it is time for one."""
        if change.checkpoint is not None and monotonic() >= self._due:
            self._checkpoints.append(change.checkpoint)
            self._due = monotonic() + INTERVAL_SECONDS

    def clear(self) -> None:
        """Begin anew, after history was lost."""
        self._checkpoints.clear()
        self._due = 0.0

    def before(self, position: Position) -> Checkpoint | None:
        """The newest checkpoint at or before a position."""
        number = bisect_right(self._checkpoints, position, key=_position)
        return self._checkpoints[number - 1] if number else None

    @property
    def recent(self) -> Checkpoint | None:
        """One that is some seconds old, if there is one."""
        return self._checkpoints[-min(KEPT_FOR_THE_NEXT, len(self._checkpoints))] if self._checkpoints else None


def _position(checkpoint: Checkpoint) -> Position:
    return checkpoint.position
