"""`tidings missions`: what agents are asked to do."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from tidings.cli.connection import connect
from tidings.cli.event_commands import RevisionOption
from tidings.cli.output import Output, OutputOption, plain, print_created, print_record, print_records, say
from tidings.cli.pages import LimitOption, PageOption, listed
from tidings.cli.records import MISSION_COLUMNS, mission_fields, mission_row
from tidings.v1.mission_pb2 import Mission
from tidings.v1.mission_service_pb2 import (
    CreateMissionRequest,
    DeleteMissionRequest,
    GetMissionRequest,
    ListMissionsRequest,
)

app: Final = typer.Typer(no_args_is_help=True, help="What agents are asked to do.")

MissionId = Annotated[str, typer.Argument(metavar="ID", help="The id of the mission.")]


@app.command("list")
def list_(
    context: typer.Context, limit: LimitOption = 50, page: PageOption = "", output: OutputOption = Output.TEXT
) -> None:
    """List missions, newest first."""
    request = ListMissionsRequest(page_token=page)
    missions = listed(connect(context).missions.ListMissions, request, lambda page: page.missions, limit)
    print_records(missions, output, MISSION_COLUMNS, mission_row)


@app.command()
def get(context: typer.Context, mission_id: MissionId, output: OutputOption = Output.TEXT) -> None:
    """Show one mission."""
    mission = connect(context).missions.GetMission(GetMissionRequest(mission_id=mission_id)).mission
    print_record(mission, output, mission_fields)


@app.command()
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name, for people.")],
    mission_id: Annotated[str, typer.Option("--id", help="The id; by default a new one.")] = "",
    description: Annotated[str, typer.Option(help="What the mission is about.")] = "",
    instructions: Annotated[str, typer.Option(help="What the agent is told.")] = "",
    model: Annotated[str, typer.Option(help="The model that the agent uses.")] = "",
    output: OutputOption = Output.TEXT,
) -> None:
    """Create a mission, and print its id."""
    mission = Mission(name=name, mission_id=mission_id, description=description, instructions=instructions, model=model)
    created = connect(context).missions.CreateMission(CreateMissionRequest(mission=mission)).mission
    print_created(created, output, created.mission_id)


@app.command()
def delete(context: typer.Context, mission_id: MissionId, expected_revision: RevisionOption = 0) -> None:
    """Delete a mission with its runs and their events."""
    request = DeleteMissionRequest(mission_id=mission_id, expected_revision=expected_revision)
    connect(context).missions.DeleteMission(request)
    say(f"{plain(mission_id)} deleted, with its runs and events")
