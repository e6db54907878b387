"""`tidings watch`: one event to its end, or everything in a run, a mission or the project."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from tidings.cli.connection import connect
from tidings.cli.event_commands import StatesOption, TypesOption
from tidings.cli.following import follow
from tidings.cli.live import EventTable
from tidings.cli.output import Output, OutputOption, plain, progress_text, state_name, time_text
from tidings.v1.event_service_pb2 import (
    ChangeKind,
    EventChange,
    EventFilter,
    ListEventsRequest,
    ProjectScope,
    WatchEventRequest,
)

FromOption = Annotated[str, typer.Option("--from", metavar="TOKEN", help="Go on after the message with this token.")]


def watch(
    context: typer.Context,
    event_id: Annotated[str, typer.Argument(metavar="[ID]", help="The id of an event.", show_default=False)] = "",
    run: Annotated[str, typer.Option(help="Watch the events of this run.")] = "",
    mission: Annotated[str, typer.Option(help="Watch the events of this mission.")] = "",
    project: Annotated[bool, typer.Option("--project", help="Watch all events of the project.")] = False,
    types: TypesOption = [],  # noqa: B006 (typer never changes it)
    states: StatesOption = [],  # noqa: B006
    from_: FromOption = "",
    output: OutputOption = Output.TEXT,
) -> None:
    """Watch one event until it is final, or the events of a run, a mission or the project until Ctrl-C."""
    named = {"event_id": event_id, "run_id": run, "mission_id": mission, "project": project and ProjectScope()}
    scope: dict[str, Any] = {name: value for name, value in named.items() if value}
    if len(scope) != 1:
        raise typer.BadParameter("say what to watch: an ID, --run, --mission or --project")
    request = WatchEventRequest(**scope, resume_token=from_)
    if types or states:
        request.filter.CopyFrom(EventFilter(types=types, states=[state.number for state in states]))
    client = connect(context)
    client.events.ListEvents(ListEventsRequest(page_size=1))  # a watch would wait for a server that is not there
    follow(client.watch(request), output, EventTable(), _line)


def change_kind(kind: ChangeKind.ValueType) -> str:
    """What happened, as people write it."""
    name = ChangeKind.Name(kind) if kind in ChangeKind.values() else str(kind)
    return name.removeprefix("CHANGE_KIND_")


def _line(change: EventChange) -> Sequence[str]:
    event = change.event
    return (
        time_text(event.update_time),
        change_kind(change.kind),
        plain(event.event_id),
        event.type,
        state_name(event.status.state) if event.HasField("status") else "",
        progress_text(event.status.progress),
        plain(event.status.message or event.status.progress.message or event.summary),
    )
