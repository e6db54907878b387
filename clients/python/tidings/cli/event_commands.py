"""`tidings get`, `list`, `create` and `delete`: events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from tidings.cli import arguments
from tidings.cli.connection import connect
from tidings.cli.output import Output, OutputOption, plain, print_created, print_record, print_records, say
from tidings.cli.pages import LimitOption, PageOption, listed
from tidings.cli.records import EVENT_COLUMNS, event_fields, event_row
from tidings.v1.event_pb2 import Event
from tidings.v1.event_service_pb2 import (
    LIST_ORDER_NEWEST_FIRST,
    LIST_ORDER_OLDEST_FIRST,
    CreateEventRequest,
    DeleteEventRequest,
    GetEventRequest,
    ListEventsRequest,
    ListEventsResponse,
)
from tidings.v1.task_pb2 import TaskStatus

EventId = Annotated[str, typer.Argument(metavar="ID", help="The id of the event.")]
RevisionOption = Annotated[
    int, typer.Option("--expected-revision", min=0, help="Only if it is at this revision.", show_default=False)
]
TypesOption = Annotated[list[str], typer.Option("--type", "-t", help="Only this type; may be given several times.")]
StatesOption = Annotated[
    list[arguments.State],
    typer.Option("--state", "-s", case_sensitive=False, help="Only in this state; may be given several times."),
]
TtlOption = Annotated[
    Duration | None,
    typer.Option(parser=arguments.duration, metavar="DURATION", help="How long it is kept, such as 90s, 10m or 7d."),
]


def get(context: typer.Context, event_id: EventId, output: OutputOption = Output.TEXT) -> None:
    """Show one event."""
    event = connect(context).events.GetEvent(GetEventRequest(event_id=event_id)).event
    print_record(event, output, event_fields)


def list_(
    context: typer.Context,
    types: TypesOption = [],  # noqa: B006 (typer never changes it)
    states: StatesOption = [],  # noqa: B006
    run: Annotated[str, typer.Option(help="Only of this run.")] = "",
    mission: Annotated[str, typer.Option(help="Only of this mission.")] = "",
    step: Annotated[str, typer.Option(help="Only of this step.")] = "",
    agent: Annotated[str, typer.Option(help="Only of this agent.")] = "",
    since: Annotated[
        Timestamp | None,
        typer.Option(parser=arguments.time, metavar="TIME", help="Only created since then: a time, or how long ago."),
    ] = None,
    until: Annotated[
        Timestamp | None, typer.Option(parser=arguments.time, metavar="TIME", help="Only created before then.")
    ] = None,
    oldest_first: Annotated[bool, typer.Option("--oldest-first", help="By default newest first.")] = False,
    limit: LimitOption = 50,
    page: PageOption = "",
    output: OutputOption = Output.TEXT,
) -> None:
    """List events."""
    request = ListEventsRequest(
        types=types,
        states=[state.number for state in states],
        run_id=run,
        mission_id=mission,
        step_id=step,
        agent_id=agent,
        created_from=since,
        created_before=until,
        order=LIST_ORDER_OLDEST_FIRST if oldest_first else LIST_ORDER_NEWEST_FIRST,
        page_token=page,
    )
    events = listed(connect(context).events.ListEvents, request, _readable, limit)
    print_records(events, output, EVENT_COLUMNS, event_row)


def create(
    context: typer.Context,
    type_: Annotated[str, typer.Argument(metavar="TYPE", help="What kind of event: words joined by dots.")],
    summary: Annotated[str, typer.Option(help="One line for people.")] = "",
    payload: Annotated[
        Struct | None,
        typer.Option(parser=arguments.json_object, metavar="JSON", help="A JSON object, @FILE, or - for stdin."),
    ] = None,
    task: Annotated[bool, typer.Option("--task", help="Create a task, in the state PENDING.")] = False,
    event_id: Annotated[str, typer.Option("--id", help="The id; by default a new one.")] = "",
    ttl: TtlOption = None,
    run: Annotated[str, typer.Option(help="The run that it is of.")] = "",
    mission: Annotated[str, typer.Option(help="The mission that it is of.")] = "",
    output: OutputOption = Output.TEXT,
) -> None:
    """Record a fact or submit a task, and print its id."""
    event = Event(
        type=type_,
        summary=summary,
        payload=payload,
        status=TaskStatus() if task else None,
        event_id=event_id,
        run_id=run,
        mission_id=mission,
    )
    created = connect(context).events.CreateEvent(CreateEventRequest(event=event, ttl=ttl)).event
    print_created(created, output, created.event_id)


def delete(context: typer.Context, event_id: EventId, expected_revision: RevisionOption = 0) -> None:
    """Delete an event."""
    request = DeleteEventRequest(event_id=event_id, expected_revision=expected_revision)
    connect(context).events.DeleteEvent(request)
    say(f"{plain(event_id)} deleted")


def _readable(page: ListEventsResponse) -> Sequence[Event]:
    for event_id in page.unreadable_event_ids:
        say(f"{plain(event_id)} cannot be read and is missing")
    return page.events
