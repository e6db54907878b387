"""`tidings runs`: the executions of missions, with their plans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

import typer
from google.protobuf.struct_pb2 import Struct
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from tidings.cli import arguments
from tidings.cli.connection import connect
from tidings.cli.event_commands import RevisionOption, StatesOption, TtlOption
from tidings.cli.following import follow
from tidings.cli.output import (
    Output,
    OutputOption,
    plain,
    print_created,
    print_records,
    results,
    state_text,
    time_text,
    to_json,
)
from tidings.cli.pages import LimitOption, PageOption, listed
from tidings.cli.run_tree import run_tree, steps_text
from tidings.cli.watch_command import FromOption, change_kind
from tidings.v1.run_pb2 import Run
from tidings.v1.run_service_pb2 import (
    CancelRunRequest,
    CreateRunRequest,
    GetRunRequest,
    ListRunsRequest,
    RunChange,
    WatchRunRequest,
)

app: Final = typer.Typer(no_args_is_help=True, help="The executions of missions.")

COLUMNS: Final = ("RUN", "MISSION", "STATE", "STEPS", "UPDATED", "SUMMARY")

RunId = Annotated[str, typer.Argument(metavar="ID", help="The id of the run.")]


@app.command("list")
def list_(
    context: typer.Context,
    mission: Annotated[str, typer.Option(help="Only of this mission.")] = "",
    states: StatesOption = [],  # noqa: B006 (typer never changes it)
    limit: LimitOption = 50,
    page: PageOption = "",
    output: OutputOption = Output.TEXT,
) -> None:
    """List runs, newest first."""
    request = ListRunsRequest(mission_id=mission, states=[state.number for state in states], page_token=page)
    runs = listed(connect(context).runs.ListRuns, request, lambda page: page.runs, limit)
    print_records(runs, output, COLUMNS, _row)


@app.command()
def get(context: typer.Context, run_id: RunId, output: OutputOption = Output.TEXT) -> None:
    """Show a run as a tree of its plan, with states and times."""
    run = connect(context).runs.GetRun(GetRunRequest(run_id=run_id)).run
    if output is Output.JSON:
        typer.echo(to_json(run, indent=2))
    else:
        results.print(run_tree(run), soft_wrap=False)


@app.command()
def create(
    context: typer.Context,
    mission_id: Annotated[str, typer.Argument(metavar="MISSION", help="The id of the mission.")],
    run_id: Annotated[str, typer.Option("--id", help="The id; by default a new one.")] = "",
    input_: Annotated[
        Struct | None,
        typer.Option(
            "--input", parser=arguments.json_object, metavar="JSON", help="A JSON object, @FILE, or - for stdin."
        ),
    ] = None,
    ttl: TtlOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Create a run of a mission, and print its id."""
    run = Run(mission_id=mission_id, run_id=run_id, input=input_)
    created = connect(context).runs.CreateRun(CreateRunRequest(run=run, ttl=ttl)).run
    print_created(created, output, created.run_id)


@app.command()
def cancel(
    context: typer.Context,
    run_id: RunId,
    expected_revision: RevisionOption = 0,
    output: OutputOption = Output.TEXT,
) -> None:
    """Cancel a run that has not ended. Runs are deleted with their mission."""
    run = connect(context).runs.CancelRun(CancelRunRequest(run_id=run_id, expected_revision=expected_revision)).run
    print_records([run], output, COLUMNS, _row)


@app.command()
def watch(context: typer.Context, run_id: RunId, from_: FromOption = "", output: OutputOption = Output.TEXT) -> None:
    """Watch a run with its plan until it has ended."""
    client = connect(context)
    client.runs.GetRun(GetRunRequest(run_id=run_id))  # a watch would wait for a server that is not there
    follow(client.watch_run(WatchRunRequest(run_id=run_id, resume_token=from_)), output, RunPicture(), _line)


class RunPicture:
    """The tree of a run as it was told last."""

    def __init__(self) -> None:
        self._run = Run()
        self.is_synced = False

    def apply(self, change: RunChange) -> None:
        self._run = change.run

    def clear(self) -> None:
        self._run = Run()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield run_tree(self._run)


def _row(run: Run) -> Sequence[str | Text]:
    return (
        plain(run.run_id),
        plain(run.mission_id),
        state_text(run.state),
        steps_text(run),
        time_text(run.update_time),
        plain(run.result_summary),
    )


def _line(change: RunChange) -> Sequence[str]:
    row = (str(cell) for cell in _row(change.run))
    return time_text(change.run.update_time), change_kind(change.kind), *row
