"""mem0's dialect: events are tasks, to be asked for, listed, and added (https://docs.mem0.ai/api-reference/events)."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tidings.v1.event_pb2 import Event
from tidings.v1.event_service_pb2 import BatchGetEventsRequest, ListEventsRequest
from tidings_server.gateway.caller import Tidings
from tidings_server.gateway.dialect import DialectRoute
from tidings_server.gateway.numbered_pages import numbered_page
from tidings_server.gateway.refusal import Refusal
from tidings_server.gateway.structs import Time, from_struct, from_values, object_of, time_of
from tidings_server.gateway.tasks import create_task, failure_text, find_task
from tidings_server.gateway.words import MEM0, states_of

ENTITIES: Final = ("user_id", "agent_id", "app_id", "run_id")
"""Whose memory it is: at least one of them is given."""

PAGE_SIZE: Final = 50
PAGE_SIZE_MAX: Final = 100
PAGE_MAX: Final = 100_000
"""As far as the service skips."""

Word = Literal["PENDING", "RUNNING", "SUCCEEDED", "FAILED"]


class Ping(BaseModel):
    """That the key is valid. The SDK insists on ids of an organization and a project; it sends them nowhere."""

    status: str = "ok"
    org_id: str = "tidings"
    project_id: str = "tidings"
    user_email: str | None = None


class MemoryEvent(BaseModel):
    """A task; what is not known yet is null."""

    id: str
    event_type: str
    status: Word
    payload: dict[str, Any]
    metadata: dict[str, Any] | None
    results: list[Any]
    created_at: Time
    updated_at: Time
    started_at: Time | None
    completed_at: Time | None
    latency: int | None = Field(description="milliseconds between start and completion")
    error: str | None = Field(None, description="why the task failed; left out if it did not")


class MemoryEvents(BaseModel):
    """One page of the tasks, the newest first."""

    count: int
    next: str | None
    previous: str | None
    results: list[MemoryEvent]


class NewMemories(BaseModel):
    """What to remember, and whose it is. Anything else is for the worker, too."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "anyOf": [
                {"required": [name], "properties": {name: {"type": "string", "minLength": 1}}} for name in ENTITIES
            ]
        },
    )

    messages: Annotated[list[dict[str, Any]], Field(min_length=1)] | Annotated[str, Field(min_length=1)]
    user_id: str | None = None
    agent_id: str | None = None
    app_id: str | None = None
    run_id: str | None = None
    filters: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _is_somebodys(self) -> Self:
        filters = self.filters or {}  # where the typed options of the SDK put them
        if not any(getattr(self, name) or filters.get(name) for name in ENTITIES):
            raise ValueError(f"at least one of {', '.join(ENTITIES)} is required")
        return self


class Queued(BaseModel):
    """The task that was created."""

    message: str = "Memory processing has been queued for background execution"
    status: Literal["PENDING"] = "PENDING"
    event_id: str


class QueuedList(BaseModel):
    """The task that was created, as the SDK's releases before 2.0 read it."""

    results: list[Queued]


class Mem0Refusal(BaseModel):
    """Why there is no answer, twice: the SDK reads `detail`, the newer documentation has `error`."""

    detail: str
    error: str


def _refuse(refusal: Refusal) -> Response:
    content = Mem0Refusal(detail=refusal.message, error=refusal.message)
    status = 400 if refusal.status == 422 else refusal.status  # the command line reads the detail of a 400 only
    return JSONResponse(content.model_dump(), status, refusal.headers)


class _Route(DialectRoute):
    refuse = staticmethod(_refuse)


router = APIRouter(
    route_class=_Route, tags=["mem0"], responses={"4XX": {"model": Mem0Refusal}, "5XX": {"model": Mem0Refusal}}
)


@router.get("/v1/ping", operation_id="mem0_ping", summary="Ask whether the key is valid")
async def ping(tidings: Tidings) -> Ping:
    # Asks for what is not there: the cheapest call that needs a key.
    await tidings.call(tidings.client.events.BatchGetEvents, BatchGetEventsRequest(event_ids=["-"]))
    return Ping()


@router.get(
    "/v1/event/{event_id:path}",
    operation_id="mem0_get_event",
    summary="Get a task",
    response_model=MemoryEvent,
    response_model_exclude_unset=True,
)
@router.get(
    "/v1/events/{event_id:path}",
    operation_id="mem0_get_event_by_its_documented_path",
    summary="Get a task, by the path that the command line's documentation has",
    response_model=MemoryEvent,
    response_model_exclude_unset=True,
)
async def get_event(event_id: str, tidings: Tidings) -> dict[str, Any]:
    if (event := await find_task(tidings, event_id)) is None:
        raise Refusal(404, "Event not found or you don't have permission to access it.")
    return shown(event)


@router.get(
    "/v1/events",
    operation_id="mem0_list_events",
    summary="List the tasks, the newest first",
    response_model=MemoryEvents,
    response_model_exclude_unset=True,
)
async def list_events(
    request: Request,
    tidings: Tidings,
    page: Annotated[int, Query(ge=1, le=PAGE_MAX)] = 1,
    page_size: Annotated[int, Query(ge=1, le=PAGE_SIZE_MAX)] = PAGE_SIZE,
    event_type: Annotated[str, Query(max_length=128)] = "",
    status: Word | None = None,
) -> dict[str, Any]:
    query = ListEventsRequest(
        types=[event_type] if event_type else [],
        states=states_of(status, MEM0) if status else list(MEM0),  # a state, any: facts have none
    )
    events, count = await numbered_page(tidings, tidings.client.events.ListEvents, query, "events", page, page_size)
    return {
        "count": count,
        "next": _page_url(request, page + 1) if page * page_size < count else None,
        "previous": _page_url(request, page - 1) if page > 1 else None,
        "results": [shown(event) for event in events],
    }


@router.post("/v3/memories/add", operation_id="mem0_add", summary="Create a task to add memories")
async def add(memories: NewMemories, tidings: Tidings) -> Queued:
    task = await create_task(tidings, "ADD", memories.model_dump(exclude_unset=True))
    return Queued(event_id=task.event_id)


@router.post("/v1/memories", operation_id="mem0_add_v1", summary="Create a task to add memories, for older SDKs")
async def add_v1(memories: NewMemories, tidings: Tidings) -> QueuedList:
    return QueuedList(results=[await add(memories, tidings)])


def shown(event: Event) -> dict[str, Any]:
    """A task as `GET /v1/event/{event_id}/` gives it."""
    status = event.status
    answer = {
        "id": event.event_id,
        "event_type": event.type,
        "status": MEM0[status.state],
        "payload": from_struct(event.payload),
        "metadata": object_of(event, "metadata"),
        "results": from_values(event.results),
        "created_at": status.create_time.ToJsonString(),
        "updated_at": status.update_time.ToJsonString(),
        "started_at": time_of(status, "start_time"),
        "completed_at": time_of(status, "end_time"),
        "latency": status.latency.ToMilliseconds() if status.HasField("latency") else None,
    }
    return answer | ({"error": text} if (text := failure_text(status)) else {})


def _page_url(request: Request, page: int) -> str:
    return f"{request.base_url}v1/events/?{urlencode({**request.query_params, 'page': page})}"
