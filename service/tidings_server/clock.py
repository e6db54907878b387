"""Times as Tidings counts them: whole milliseconds since 1970, the precision of the store's dates."""

from __future__ import annotations

import time
from collections.abc import Callable

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

Clock = Callable[[], int]
"""Gives the present time in milliseconds since 1970."""


def system_clock() -> int:
    return time.time_ns() // 1_000_000


def to_timestamp(millis: int) -> Timestamp:
    return Timestamp(seconds=millis // 1000, nanos=millis % 1000 * 1_000_000)


def to_millis(time_: Timestamp | Duration) -> int:
    """The time or duration in milliseconds; finer digits are cut off."""
    return time_.seconds * 1000 + time_.nanos // 1_000_000


def to_duration(millis: int) -> Duration:
    return Duration(seconds=millis // 1000, nanos=millis % 1000 * 1_000_000)
