"""The commands put together, and what the process ends with."""

from __future__ import annotations

import sys
from typing import Annotated, Final, NoReturn

import typer

from tidings.cli import (
    context_commands,
    doctor,
    event_commands,
    keys_command,
    mission_commands,
    run_commands,
    task_commands,
    watch_command,
)
from tidings.cli.connection import NAME_VARIABLE, Choice
from tidings.cli.failures import Refused, exit_code, explain
from tidings.cli.output import say
from tidings.errors import TidingsError

app: Final = typer.Typer(
    name="tidings",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="See, move and follow long-running work.",
)
app.command()(event_commands.get)
app.command("list")(event_commands.list_)
app.command()(event_commands.create)
app.command()(event_commands.delete)
app.command()(task_commands.update)
app.command()(task_commands.cancel)
app.command()(task_commands.wait)
app.command()(watch_command.watch)
app.add_typer(mission_commands.app, name="missions")
app.add_typer(run_commands.app, name="runs")
app.add_typer(context_commands.app, name="context")
app.command()(doctor.doctor)
app.command(add_help_option=False, context_settings={"ignore_unknown_options": True, "allow_extra_args": True})(
    keys_command.keys
)


@app.callback()
def choose(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Option(
            "--context",
            "-c",
            metavar="NAME",
            autocompletion=context_commands.complete_name,
            help=f"The server, by its name; also {NAME_VARIABLE}.",
        ),
    ] = "",
    target: Annotated[str, typer.Option(metavar="HOST:PORT", help="The server, by its address.")] = "",
) -> None:
    context.obj = Choice(name, target)


def run() -> NoReturn:
    """Run the command line and end the process."""
    try:
        app(prog_name="tidings")
    except TidingsError as error:
        explain(error)
        sys.exit(exit_code(error))
    except Refused as error:
        say(f"tidings: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)
