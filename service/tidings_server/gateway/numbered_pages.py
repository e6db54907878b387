"""Pages that callers number, out of lists that give tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from google.protobuf.message import Message

from tidings_server.gateway.caller import Caller

SKIP_MAX: Final = 10_000_000
"""How many items the lists leave out at most. What is asked for beyond is past the end: nobody has so many."""


async def numbered_page(
    tidings: Caller, rpc: Callable[..., Any], request: Any, items: str, number: int, size: int
) -> tuple[list[Any], int]:
    """A page of a list, the first being number 1, and how many items all pages have; `items` names their field.

    A response is no larger than a gRPC message may be, so that a page may take several calls. What cannot be read is
    missing in the page; the items after it do not move up, which would give them twice.
    """
    request.page_size, request.skip, request.count_total = size, min((number - 1) * size, SKIP_MAX), True
    answer = await tidings.call(rpc, request)
    found, total, left = list(getattr(answer, items)), answer.total_size, size - _length(answer, items)
    while answer.next_page_token and left > 0:
        request.page_size, request.skip, request.count_total = left, 0, False
        request.page_token = answer.next_page_token
        answer = await tidings.call(rpc, request)
        found += getattr(answer, items)
        left -= _length(answer, items)
    return found, total


def _length(answer: Message, items: str) -> int:
    return len(getattr(answer, items)) + len(getattr(answer, "unreadable_event_ids", ()))
