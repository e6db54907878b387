"""`tidings update`, `cancel` and `wait`: tasks."""

from __future__ import annotations

from threading import TIMEOUT_MAX, Timer
from typing import Annotated, Final

import typer
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Value

from tidings import Client
from tidings.cli import arguments
from tidings.cli.connection import connect
from tidings.cli.event_commands import RevisionOption
from tidings.cli.output import Output, OutputOption, plain, print_record, say, state_name
from tidings.cli.records import status_fields
from tidings.v1.event_service_pb2 import WatchEventRequest
from tidings.v1.task_pb2 import (
    TASK_STATE_CANCELLED,
    TASK_STATE_FAILED,
    TASK_STATE_SUCCEEDED,
    TASK_STATE_UNSPECIFIED,
    TaskError,
    TaskProgress,
    TaskStatus,
)
from tidings.v1.task_service_pb2 import CancelTaskRequest, GetTaskStatusRequest, UpdateTaskStatusRequest

OUTCOME_EXIT_CODES: Final = {TASK_STATE_SUCCEEDED: 0, TASK_STATE_FAILED: 3, TASK_STATE_CANCELLED: 4}
TIMEOUT_EXIT_CODE: Final = 5

TaskId = Annotated[str, typer.Argument(metavar="ID", help="The id of the task.")]


def update(
    context: typer.Context,
    task_id: TaskId,
    state: Annotated[
        arguments.State | None, typer.Option("--state", "-s", case_sensitive=False, help="The state to move to.")
    ] = None,
    message: Annotated[str | None, typer.Option("--message", "-m", help="What a person should know now.")] = None,
    progress: Annotated[
        TaskProgress | None,
        typer.Option(parser=arguments.progress, metavar="PROGRESS", help="Such as 3, 3/9 or '3/9 pages'."),
    ] = None,
    error: Annotated[str | None, typer.Option(help="What went wrong; with --state failed.")] = None,
    error_code: Annotated[str, typer.Option(help="The error's code, for programs.")] = "",
    retryable: Annotated[bool, typer.Option("--retryable", help="A new task with the same input may succeed.")] = False,
    results: Annotated[
        list[Value],
        typer.Option(
            "--result",
            parser=arguments.json_value,
            metavar="JSON",
            help="What the task has produced: JSON, @FILE, or - for stdin; may be given several times.",
        ),
    ] = [],  # noqa: B006 (typer never changes it)
    expected_revision: RevisionOption = 0,
    output: OutputOption = Output.TEXT,
) -> None:
    """Move a task, or say how far it is."""
    has_error = error is not None or error_code or retryable
    request = UpdateTaskStatusRequest(
        task_id=task_id,
        state=state.number if state else TASK_STATE_UNSPECIFIED,
        message=message,
        progress=progress,
        error=TaskError(code=error_code, message=error or "", retryable=retryable) if has_error else None,
        results=results,
        expected_revision=expected_revision,
    )
    print_record(connect(context).tasks.UpdateTaskStatus(request).status, output, status_fields)


def cancel(
    context: typer.Context,
    task_id: TaskId,
    message: Annotated[str | None, typer.Option("--message", "-m", help="Why, for people.")] = None,
    expected_revision: RevisionOption = 0,
    output: OutputOption = Output.TEXT,
) -> None:
    """Cancel a task that has not begun; ask one that has begun to stop."""
    request = CancelTaskRequest(task_id=task_id, message=message, expected_revision=expected_revision)
    print_record(connect(context).tasks.CancelTask(request).status, output, status_fields)


def wait(
    context: typer.Context,
    task_id: TaskId,
    timeout: Annotated[
        Duration | None,
        typer.Option(parser=arguments.duration, metavar="DURATION", help="How long, such as 90s; by default for ever."),
    ] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Wait for a task to end. The exit code tells how: 0 SUCCEEDED, 3 FAILED, 4 CANCELLED, 5 not within the timeout."""
    client = connect(context)
    # A watch would wait for a server that is not there; this says so.
    status = client.tasks.GetTaskStatus(GetTaskStatusRequest(task_id=task_id)).status
    if status.state not in OUTCOME_EXIT_CODES:
        say(f"{plain(task_id)} is {state_name(status.state)}")
        timeout_seconds = timeout.ToTimedelta().total_seconds() if timeout else TIMEOUT_MAX
        status = _followed(client, status, min(timeout_seconds, TIMEOUT_MAX))
    print_record(status, output, status_fields)
    raise typer.Exit(OUTCOME_EXIT_CODES.get(status.state, TIMEOUT_EXIT_CODE))


def _followed(client: Client, status: TaskStatus, timeout_seconds: float) -> TaskStatus:
    """The last that was heard of a task until it ended or the time was up. Raises NOT_FOUND if it is gone by then."""
    task_id = status.task_id
    with client.watch(WatchEventRequest(event_id=task_id)) as watch:
        timer = Timer(timeout_seconds, watch.close)
        timer.daemon = True
        timer.start()
        for told in watch:
            if told.HasField("change"):
                status = told.change.event.status
        in_time = timer.is_alive()
        timer.cancel()
    if in_time and status.state not in OUTCOME_EXIT_CODES:
        return client.tasks.GetTaskStatus(GetTaskStatusRequest(task_id=task_id)).status
    return status
