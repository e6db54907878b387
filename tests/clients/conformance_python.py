"""The driver of the Python clients: `conformance_python.py sync|async TARGET STEP...`, or `--event-id ID TARGET`.

It prints one JSON line per delivery and one at the end of each watch. Steps are played with a haste that is not for
real services.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from scripted_server import request_of
from tidings import AsyncClient, Client, TidingsError, _resumption
from tidings.v1.error_reason_pb2 import ErrorReason
from tidings.v1.event_service_pb2 import ChangeKind, WatchEventRequest
from tidings.v1.run_service_pb2 import RunChange, WatchRunRequest
from tidings.v1.task_pb2 import TaskState

Requests = dict[str, WatchEventRequest | WatchRunRequest]


def delivered(message: Any) -> dict[str, str]:
    """A message, in the words of the steps."""
    kind: str = message.WhichOneof("message")
    if kind == "unreadable":
        return {"deliver": f"unreadable {message.unreadable.event_id}"}
    if kind != "change":
        return {"deliver": kind}
    change = message.change
    is_run = isinstance(change, RunChange)
    resource_id, resource = (change.run.run_id, change.run) if is_run else (change.event.event_id, change.event)
    name = ChangeKind.Name(change.kind) if change.kind in ChangeKind.values() else str(change.kind)
    state = change.run.state if is_run else change.event.status.state
    return {
        "deliver": f"{name.removeprefix('CHANGE_KIND_')} {resource.revision} {resource_id}",
        "state": TaskState.Name(state).removeprefix("TASK_STATE_") if state in TaskState.values() else str(state),
    }


def failed(error: TidingsError) -> dict[str, str]:
    reason = ErrorReason.Name(error.reason).removeprefix("ERROR_REASON_")
    return {"end": "error", "code": error.code().name, "reason": reason}


def say(step: str, line: dict[str, str]) -> None:
    print(json.dumps({"step": step, **line}), flush=True)  # noqa: T201 (its output)


def run(target: str, requests: Requests) -> None:
    with Client(target) as client:
        for step, request in requests.items():
            watch = client.watch(request) if isinstance(request, WatchEventRequest) else client.watch_run(request)
            try:
                with watch:
                    for message in watch:
                        say(step, delivered(message))
            except TidingsError as error:
                say(step, failed(error))
            else:
                say(step, {"end": "complete"})


async def run_async(target: str, requests: Requests) -> None:
    async with AsyncClient(target) as client:
        for step, request in requests.items():
            watch = client.watch(request) if isinstance(request, WatchEventRequest) else client.watch_run(request)
            try:
                async with watch:
                    async for message in watch:
                        say(step, delivered(message))
            except TidingsError as error:
                say(step, failed(error))
            else:
                say(step, {"end": "complete"})


def steps(names: list[str]) -> Requests:
    _resumption.BACKOFF_BASE_SECONDS = 0.01
    _resumption.WATCHDOG_SLACK_SECONDS = 0.5
    heartbeat_seconds = int(os.environ["TIDINGS_HEARTBEAT_SECONDS"])
    return {name: request_of(name, heartbeat_seconds) for name in names}


def main(client: str, *arguments: str) -> None:
    if arguments[0] == "--event-id":
        _, event_id, target = arguments
        requests: Requests = {event_id: WatchEventRequest(event_id=event_id)}
    else:
        target, *names = arguments
        requests = steps(names)
    if client == "sync":
        run(target, requests)
    else:
        asyncio.run(run_async(target, requests))


if __name__ == "__main__":
    main(*sys.argv[1:])
