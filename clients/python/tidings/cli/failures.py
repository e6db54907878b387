"""What goes wrong, as a person reads it and as a script sees it in the exit code."""

from __future__ import annotations

from typing import Final

from tidings.cli.output import plain, say
from tidings.errors import TidingsError

STATUS_EXIT_CODE: Final = 64
"""Added to the number of a gRPC status, it is the exit code: NOT_FOUND is 69."""


class Refused(Exception):
    """The command cannot do what it was asked. The text says why, and how to mend it."""


def exit_code(error: TidingsError) -> int:
    """The exit code for the status of a failed call."""
    number: int = error.code().value[0]
    return STATUS_EXIT_CODE + number


def explain(error: TidingsError) -> None:
    """Tell a person about a failed call, with each field that is wrong on a line of its own."""
    if error.violations:
        say(f"tidings: {error.code().name} ({plain(error.info.reason)})")
    else:
        say(f"tidings: {plain(str(error))}")
    for field, description in error.violations.items():
        say(f"  {plain(field)}: {plain(description)}")
    if error.request_id:
        say(f"  the server's log tells more under {plain(error.request_id)}")
