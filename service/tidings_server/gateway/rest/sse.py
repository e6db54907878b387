"""Watches as server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html).

An event's id is the token with which the watch goes on after it, so that a browser, which sends the newest id when it
connects again, resumes exactly. A browser connects again whatever the end was: the last id of a watch that has nothing
more to tell has a mark, and who comes back with it gets 204, upon which a browser stays away.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from tidings import TidingsError
from tidings.v1.event_service_pb2 import CLOSING_REASON_SCOPE_GONE, CLOSING_REASON_TERMINAL, WatchEventResponse
from tidings.v1.run_service_pb2 import WatchRunResponse
from tidings_server.gateway.refusal import Refusal
from tidings_server.gateway.rest.errors import error_json
from tidings_server.gateway.rest.proto_json import to_json

RETRY_MILLISECONDS: Final = 1_000
END: Final = ".end"
"""Marks the last id; no token has a dot."""
HEAD_SECONDS: Final = 5
"""How long the head of the answer waits for the first message, so that a watch which fails at once has a status."""
_HEADERS: Final = {"cache-control": "no-store", "x-accel-buffering": "no"}
_NOTHING_MORE: Final = frozenset({CLOSING_REASON_TERMINAL, CLOSING_REASON_SCOPE_GONE})

Call = Any
"""A call of a watch; gRPC has no type for one with interceptors."""


def resume(content: dict[str, Any], last_id: str | None) -> bool:
    """Let a request begin after the last id that its sender had, if any; whether nothing comes after that."""
    if last_id:
        content.pop("liveOnly", None)  # the browser repeats what it asked for at first
        content["resumeToken"] = last_id
    token = content.get("resumeToken", "")
    if not token.endswith(END):
        return False
    content["resumeToken"] = token.removesuffix(END)
    return not content.get("stayOpen", False)


async def watch(call: Call) -> EventStream:
    """The answer that tells what a watch does. Raises TidingsError if it fails at once."""
    first = asyncio.ensure_future(call.read())
    try:
        await asyncio.wait([first], timeout=HEAD_SECONDS)
        if first.done():
            first.result()
    except grpc.aio.AioRpcError as error:
        raise TidingsError.of(error) from None
    except asyncio.CancelledError:
        call.cancel()
        raise
    return EventStream(call, first)


class EventStream(StreamingResponse):
    """Sends messages as fast as the reader takes them, and ends the call when the reader goes away."""

    def __init__(self, call: Call, first: asyncio.Future[Any]) -> None:
        super().__init__(_told(call, first), headers=_HEADERS, media_type="text/event-stream")
        self._call = call

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._call.cancel()


async def _told(call: Call, first: asyncio.Future[Any]) -> AsyncIterator[str]:
    yield f"retry: {RETRY_MILLISECONDS}\n\n"
    try:
        message = await first
        while message is not grpc.aio.EOF:
            yield _event(message)
            message = await call.read()
    except grpc.aio.AioRpcError as error:
        yield f"event: error\ndata: {_line(error_json(Refusal.of(TidingsError.of(error))))}\n\n"


def _event(message: WatchEventResponse | WatchRunResponse) -> str:
    content = to_json(message)
    event_id = content.pop("resumeToken") + (END if message.closing.reason in _NOTHING_MORE else "")
    kind = message.WhichOneof("message") or "unknown"
    retry = ""
    if message.closing.HasField("reconnect_after"):
        retry = f"retry: {message.closing.reconnect_after.ToMilliseconds()}\n"
    return f"{retry}id: {event_id}\nevent: {kind}\ndata: {_line(content)}\n\n"


def _line(content: dict[str, Any]) -> str:
    # ASCII only: some clients take other characters for the end of a line.
    return json.dumps(content, separators=(",", ":"))
