"""Tidings' own face: every RPC under a method and a path, its messages as JSON.

A body, or the query where there is none, has the fields of the request but for what the path gives. What is not set
is left out of answers, as always in Protobuf's JSON. The table of them is in `routes`, the watches are in `sse`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, ParamSpec, TypeVar

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from google.protobuf.message import Message
from starlette.exceptions import HTTPException

from tidings import TidingsError
from tidings_server.gateway.caller import caller_of
from tidings_server.gateway.dialect import StrictRequest
from tidings_server.gateway.refusal import Flaw, Refusal
from tidings_server.gateway.rest import sse
from tidings_server.gateway.rest.errors import refuse
from tidings_server.gateway.rest.proto_json import JSON, check, json_path, refuse_for, to_json, to_message
from tidings_server.gateway.rest.query import query_content
from tidings_server.gateway.rest.route import Route
from tidings_server.gateway.rest.routes import PREFIX, find
from tidings_server.limits import KIB

P = ParamSpec("P")
T = TypeVar("T")

LARGE_BYTES: Final = 64 * KIB
"""Beyond it JSON is worked on in a thread, so that others' calls and watches go on meanwhile."""

router = APIRouter()


async def _answer(request: Request) -> Response:
    try:
        route, ids = find(request.method, request.scope["raw_path"])
        return await _call(route, ids, StrictRequest(request.scope, request.receive))
    except (Refusal, HTTPException) as error:
        return refuse(Refusal.of(error))


# No methods are all of them: which ones a path has is the table's to say.
router.add_route(PREFIX + "/{path:path}", _answer, methods=[], include_in_schema=False)


async def _call(route: Route, ids: Mapping[str, str], request: Request) -> Response:
    content = await _content(route, request)
    _add_ids(content, route, ids)
    if route.is_watch and sse.resume(content, request.headers.get("last-event-id")):
        return Response(status_code=204)
    message = route.request_class()
    await _worked(len(await request.body()), to_message, content | route.fixed, message)
    caller = caller_of(request)
    rpc = route.rpc_of(caller.client)
    try:
        if route.is_watch:
            return await sse.watch(rpc(message, metadata=caller.metadata))
        answer = await caller.call(rpc, message)
    except TidingsError as error:
        raise _in_json_names(Refusal.of(error), route) from error
    return await _worked(answer.ByteSize(), _in_json, answer)


async def _content(route: Route, request: Request) -> dict[str, Any]:
    if not route.has_body:
        return query_content(request.scope["query_string"], route.query)
    # Without asking, browsers send for any page what does not say so: https://fetch.spec.whatwg.org/#http-cors-protocol
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
        raise Refusal(415, f"the content type must be {JSON}")
    content: dict[str, Any] = await request.json()
    check(content, route.request)
    return content


async def _worked(size: int, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    if size > LARGE_BYTES:
        return await asyncio.to_thread(work, *arguments, **named)
    return work(*arguments, **named)


def _in_json(answer: Message) -> Response:
    return JSONResponse(to_json(answer))


def _add_ids(content: dict[str, Any], route: Route, ids: Mapping[str, str]) -> None:
    within = content.setdefault(route.ids_in, {}) if route.ids_in else content
    at = f"{route.ids_in}." if route.ids_in else ""
    refuse_for(
        Flaw(("body", at + name), "must be as in the path, or left out")
        for name, value in ids.items()
        if within.setdefault(name, value) != value
    )


def _in_json_names(refusal: Refusal, route: Route) -> Refusal:
    """The service names the fields as in Protobuf."""
    paths = ((flaw, ".".join(map(str, flaw.location[1:]))) for flaw in refusal.flaws)
    flaws = (replace(flaw, location=(flaw.location[0], json_path(route.request, path))) for flaw, path in paths)
    return replace(refusal, flaws=tuple(flaws))
