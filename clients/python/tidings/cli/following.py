"""How a watch is shown: drawn anew on a terminal, a line for each change elsewhere, or NDJSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import typer
from rich.console import ConsoleRenderable
from rich.live import Live

from tidings import TidingsError, Watch
from tidings.cli.output import Output, plain, results, say, to_json

REFRESHES_PER_SECOND = 4


class Picture(ConsoleRenderable, Protocol):
    """What is drawn of what a watch has told. A thread of its own draws it."""

    is_synced: bool

    def apply(self, change: Any) -> None: ...

    def clear(self) -> None: ...


def follow(watch: Watch[Any], output: Output, picture: Picture, line: Callable[[Any], Sequence[str]]) -> None:
    """Show a watch to its end. Whoever ends it before learns how to go on."""
    try:
        with watch:
            if output is Output.JSON:
                for told in watch:
                    typer.echo(to_json(told))
            elif results.is_terminal:
                _draw(watch, picture)
            else:
                _print_lines(watch, line)
    except (KeyboardInterrupt, TidingsError):
        if watch.resume_token:
            say(f"go on with --from {watch.resume_token}")
        raise


def _draw(watch: Watch[Any], picture: Picture) -> None:
    with Live(picture, console=results, refresh_per_second=REFRESHES_PER_SECOND):
        for told in watch:
            match told.WhichOneof("message"):
                case "change":
                    picture.apply(told.change)
                case "synced":
                    picture.is_synced = True
                case "reset":
                    picture.clear()
                case "unreadable":
                    _say_unreadable(told)


def _print_lines(watch: Watch[Any], line: Callable[[Any], Sequence[str]]) -> None:
    for told in watch:
        match told.WhichOneof("message"):
            case "change":
                typer.echo("\t".join(line(told.change)))
            case "synced":
                say("up to date")
            case "reset":
                say("history was lost: what there is follows")
            case "unreadable":
                _say_unreadable(told)


def _say_unreadable(told: Any) -> None:
    say(f"{plain(told.unreadable.event_id or told.unreadable.run_id)} cannot be read")
