"""Exa's dialect: the events of Websets, to be asked for and listed (https://docs.exa.ai/websets/api/events).

Exa's API has no way to create them. Whoever has no gRPC client may send them here.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal

import structlog
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from tidings.v1.event_pb2 import Event
from tidings.v1.event_service_pb2 import CreateEventRequest, GetEventRequest, ListEventsRequest
from tidings_server.gateway.caller import Caller, Tidings
from tidings_server.gateway.dialect import DialectRoute, Handler
from tidings_server.gateway.exa.events import TYPES, AnyNewEvent, EventType, completed
from tidings_server.gateway.refusal import Flaw, Location, Refusal
from tidings_server.gateway.structs import Time, from_struct, to_struct

log = structlog.get_logger()

FLAWS_MAX: Final = 50
"""How many are told; who sends a list of a thousand wrong things need not read them all."""
LOOKS_MAX: Final = 100
"""How often one request looks for more when events are left out; a page that is not full by then stays so."""
TIME_MAX_MS: Final = 253402300799_000
"""The last second that a google.protobuf.Timestamp can tell."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_TAGS: Final[Mapping[int, str]] = {
    400: "INVALID_REQUEST",
    401: "INVALID_API_KEY",
    403: "ACCESS_DENIED",
    413: "REQUEST_TOO_LARGE",
}
_NAMES: Final[Mapping[str, str]] = {"page_token": "cursor", "event_id": "id", "payload": "data"}
"""What Exa's callers call that which has another name in the service."""


class Answer(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class ExaEvent(Answer):
    """Something that happened to a webset, or to what belongs to one."""

    id: str
    object: Literal["event"] = "event"
    type: str
    data: dict[str, Any]
    created_at: Time


class ExaEvents(Answer):
    """One page of events, the newest first."""

    data: list[ExaEvent]
    has_more: bool
    next_cursor: str | None = Field(description="For the next page; null on the last.")


class ExaRefusal(Answer):
    """Why there is no answer."""

    request_id: str
    error: str
    tag: str


def _refuse(refusal: Refusal) -> Response:
    status = 400 if refusal.status == 422 else refusal.status
    tag = _TAGS.get(status) or refusal.reason or HTTPStatus(status).name
    content = ExaRefusal(request_id=_new_request_id(), error=_told(refusal), tag=tag)
    headers = {**refusal.headers, "x-request-id": content.request_id}
    return JSONResponse(content.model_dump(by_alias=True), status, headers)


class _Route(DialectRoute):
    refuse = staticmethod(_refuse)

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()

        async def identified(request: Request) -> Response:
            response = await handle(request)
            response.headers.setdefault("x-request-id", _new_request_id())
            return response

        return identified


_HEADERS: Final = {"X-Request-Id": {"required": True, "schema": {"type": "string"}}}
_REFUSALS: Final[dict[int | str, dict[str, Any]]] = {
    status: {"model": ExaRefusal, "headers": _HEADERS} for status in (400, 401, 403, 404, 409, 413, 429, 500, 503, 504)
}

router = APIRouter(prefix="/websets/v0/events", route_class=_Route, tags=["Exa Websets"], responses=_REFUSALS)


def _no_number(text: str) -> str:
    """Pydantic takes a number for a time, too: the seconds since 1970."""
    if text[4:5] != "-":
        raise ValueError("must be a date and time such as 2026-11-22T18:56:25Z")
    return text


Moment = Annotated[
    datetime,
    BeforeValidator(_no_number),
    AfterValidator(lambda time: time if time.tzinfo else time.replace(tzinfo=UTC)),
]


@router.get("/{event_id}", operation_id="exa_get_event", summary="Get an event", responses={200: {"headers": _HEADERS}})
async def get_event(event_id: str, tidings: Tidings) -> ExaEvent:
    answer = await tidings.call(tidings.client.events.GetEvent, GetEventRequest(event_id=event_id))
    try:
        return view(answer.event)
    except ValidationError as error:
        message = f"event {event_id} has no data that Exa's SDK could read"
        raise Refusal(404, message, "EVENT_UNREADABLE", _flaws(error)) from error


@router.get("", operation_id="exa_list_events", summary="List events", responses={200: {"headers": _HEADERS}})
async def list_events(
    tidings: Tidings,
    cursor: Annotated[str | None, Query(min_length=1, max_length=1024)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 25,
    types: Annotated[list[EventType] | None, Query(description="All of Exa's if not given.")] = None,
    created_after: Annotated[Moment | None, Query(alias="createdAfter", description="Inclusive.")] = None,
    created_before: Annotated[Moment | None, Query(alias="createdBefore", description="Inclusive.")] = None,
) -> ExaEvents:
    """The newest first. Events whose data Exa's SDK could not read are left out."""
    # The project has events in other dialects too. Sorted, for the cursor is bound to the list.
    request = ListEventsRequest(page_token=cursor or "", types=sorted(set(types or TYPES)))
    if created_after:
        request.created_from.CopyFrom(_timestamp(-((_EPOCH - created_after) // _MILLISECOND)))
    if created_before:
        request.created_before.CopyFrom(_timestamp((created_before - _EPOCH) // _MILLISECOND + 1))
    return await _page(tidings, request, limit)


@router.post(
    "",
    status_code=201,
    operation_id="exa_create_event",
    summary="Create an event (not in Exa's API)",
    responses={201: {"headers": _HEADERS}},
)
async def create_event(body: AnyNewEvent, tidings: Tidings) -> ExaEvent:
    """What is missing in the data and can be told is filled in whenever the event is read."""
    data = body.data.model_dump(by_alias=True, exclude_unset=True)
    event = Event(event_id=body.id or "", type=body.type, payload=to_struct(data))
    answer = await tidings.call(tidings.client.events.CreateEvent, CreateEventRequest(event=event))
    return view(answer.event)


def view(event: Event) -> ExaEvent:
    """An event as Exa's SDK reads it. Raises ValidationError if it could not."""
    # Not `event_time`: lists are in the order of this time, and select by it.
    created_at = event.create_time.ToJsonString()
    data = completed(event.type, from_struct(event.payload), created_at)
    return ExaEvent(id=event.event_id, type=event.type, data=data, created_at=created_at)


async def _page(tidings: Caller, request: ListEventsRequest, limit: int) -> ExaEvents:
    """A page that is full unless the list is at its end: a page of the service may hold fewer, some of them unfit."""
    found: list[ExaEvent] = []
    for _ in range(LOOKS_MAX):
        request.page_size = limit - len(found)
        answer = await tidings.call(tidings.client.events.ListEvents, request)
        found += [event for each in answer.events if (event := _view_if_fit(each))]
        request.page_token = answer.next_page_token
        if not request.page_token or len(found) == limit:
            break
    return ExaEvents(data=found, has_more=bool(request.page_token), next_cursor=request.page_token or None)


def _view_if_fit(event: Event) -> ExaEvent | None:
    try:
        return view(event)
    except ValidationError as error:
        fields = [_place(flaw.location) for flaw in _flaws(error)[:FLAWS_MAX]]
        log.warning("left out an event that Exa's SDK could not read", event_id=event.event_id, fields=fields)
        return None


def _flaws(error: ValidationError) -> tuple[Flaw, ...]:
    return tuple(Flaw(("body", "data", *each["loc"]), each["msg"], each["type"]) for each in error.errors())


def _told(refusal: Refusal) -> str:
    """What is wrong, in the names that the caller knows."""
    if not refusal.flaws:
        return refusal.message
    start = refusal.message if refusal.status == 404 else "invalid request"
    named = [f"{_place(flaw.location)}: {flaw.message}" for flaw in refusal.flaws[:FLAWS_MAX]]
    more = len(refusal.flaws) - len(named)
    return f"{start}: {'; '.join(named)}{f'; and {more} more' if more else ''}"


def _place(location: Location) -> str:
    """Where in the request something is, without the choices of variants that Pydantic counts as steps of the way."""
    steps = [str(step) for step in location[1:] if step not in TYPES and not str(step).startswith("~")]
    if steps[:1] == ["event"]:  # the message that the service has for the body
        del steps[0]
    return ".".join([_NAMES.get(steps[0], steps[0]), *steps[1:]]) if steps else str(location[0])


def _timestamp(milliseconds: int) -> Timestamp:
    """The time that is the closest of those that the service knows."""
    timestamp = Timestamp()
    timestamp.FromMilliseconds(min(max(milliseconds, 0), TIME_MAX_MS))
    return timestamp


def _new_request_id() -> str:
    return f"req_{uuid.uuid4().hex}"
