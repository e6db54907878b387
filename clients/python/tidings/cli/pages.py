"""Lists, over as many pages as it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, Final, TypeVar

import typer

from tidings.cli.output import say

PAGE_MAX: Final = 1000

LimitOption = Annotated[int, typer.Option("--limit", "-n", min=1, help="How many to list at most.")]
PageOption = Annotated[
    str, typer.Option("--page", metavar="TOKEN", help="Go on after a list that said so, with the same filters.")
]

_Record = TypeVar("_Record")


def listed(
    call: Callable[[Any], Any], request: Any, records: Callable[[Any], Sequence[_Record]], limit: int
) -> Iterator[_Record]:
    """The records that a list call has for a request, up to the limit. If there are more, say how to go on."""
    left = limit
    while left > 0:
        request.page_size = min(left, PAGE_MAX)
        page = call(request)
        yield from records(page)
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token
        left -= len(records(page))
    say(f"there are more: --page {request.page_token}")
