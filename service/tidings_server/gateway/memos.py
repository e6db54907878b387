"""MemOS's dialect: messages that become tasks, and their status (https://memos-docs.openmem.net/api_docs).

Its SDK sends a request that fails three times, at once, and nothing in a request tells a repetition from a second
message: each request that arrives is a task, so a message whose first answer was lost may be two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal, Self

import grpc
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from tidings import TidingsError
from tidings.v1.event_pb2 import Event
from tidings.v1.task_pb2 import TASK_STATE_SUCCEEDED
from tidings_server.gateway.caller import Caller, RequestT, ResponseT, caller_of
from tidings_server.gateway.dialect import DialectRoute
from tidings_server.gateway.refusal import Refusal
from tidings_server.gateway.structs import from_values
from tidings_server.gateway.tasks import create_task, failure_text, find_task
from tidings_server.gateway.words import MEMOS

# https://memos-docs.openmem.net/api_docs/help/error_codes
INVALID: Final = 40000
EMPTY: Final = 40002
KEY_MISSING: Final = 40130
KEY_INVALID: Final = 40132
TOO_LARGE: Final = 40305
RATE_LIMITED: Final = 40300
INTERNAL: Final = 50000
UNAVAILABLE: Final = 50004
TASK_NOT_FOUND: Final = 50131

_CODES: Final[Mapping[int, int]] = {
    401: KEY_INVALID,
    403: KEY_INVALID,
    404: TASK_NOT_FOUND,
    413: TOO_LARGE,
    429: RATE_LIMITED,
    503: UNAVAILABLE,
    504: UNAVAILABLE,
}
_NO_KEY: Final = "NO_KEY"
_EMPTY_KINDS: Final = {"missing", "too_short", "string_too_short"}

Id = Annotated[str, Field(min_length=1)]
Ids = Id | Annotated[list[Id], Field(min_length=1)]


class TaskQuery(BaseModel):
    """Which task is asked for."""

    task_id: Id


class TaskData(BaseModel):
    """Where a task stands."""

    task_id: str
    status: Literal["running", "completed", "failed"]
    memory_views: dict[str, Any] | None = Field(None, description="what it has changed; only of a completed one")
    error: str | None = Field(None, description="why it failed; left out if it did not")


class TaskAnswer(BaseModel):
    """Where a task stands, or a list of one, for SDKs before 2.0.24, if the gateway is set so."""

    code: Literal[0]
    message: str
    data: TaskData | list[TaskData]


class NewMessages(BaseModel):
    """What was said, and by whom. Anything else is for the worker, too."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "anyOf": [
                {"required": [name], "properties": {name: {"type": ["string", "array"], "minLength": 1, "minItems": 1}}}
                for name in ("user_id", "agent_id")
            ]
        },
    )

    messages: list[dict[str, Any]] = Field(min_length=1)
    user_id: Ids | None = None
    agent_id: Ids | None = None

    @model_validator(mode="after")
    def _is_somebodys(self) -> Self:
        if self.user_id is None and self.agent_id is None:
            raise PydanticCustomError("missing", "user_id or agent_id is required")
        return self


class NewFeedback(BaseModel):
    """What somebody thinks of a memory. Anything else is for the worker, too."""

    model_config = ConfigDict(extra="allow")

    user_id: Id
    feedback_content: str = Field(min_length=1)


class AddedData(BaseModel):
    """The task that was created."""

    success: bool = True
    task_id: str
    status: Literal["running"] = "running"


class Added(BaseModel):
    """The answer to what was added."""

    code: Literal[0] = 0
    message: str = "ok"
    data: AddedData


class MemosRefusal(BaseModel):
    """Why there is no answer, by a code of the vendor's."""

    code: int
    message: str
    data: None = None


class _Caller(Caller):
    """A caller who is told whether the key is wrong or was not sent: the vendor has a code for each."""

    async def call(
        self, rpc: Callable[..., grpc.aio.UnaryUnaryCall[RequestT, ResponseT]], request: RequestT
    ) -> ResponseT:
        try:
            return await super().call(rpc, request)
        except TidingsError as error:
            if error.code() == grpc.StatusCode.UNAUTHENTICATED and not self.key:
                raise Refusal(401, error.details() or "", _NO_KEY) from error
            raise


def _caller_of(request: Request) -> Caller:
    caller = caller_of(request)
    return _Caller(caller.client, caller.key)


Tidings = Annotated[Caller, Depends(_caller_of)]


def _refuse(refusal: Refusal) -> Response:
    status = 400 if refusal.status == 422 else refusal.status
    content = MemosRefusal(code=_code(refusal), message=refusal.message)
    return JSONResponse(content.model_dump(), status, refusal.headers)


def _code(refusal: Refusal) -> int:
    if refusal.status == 401 and refusal.reason == _NO_KEY:
        return KEY_MISSING
    if any(flaw.kind in _EMPTY_KINDS for flaw in refusal.flaws):
        return EMPTY
    return _CODES.get(refusal.status, INVALID if refusal.status < 500 else INTERNAL)


class _Route(DialectRoute):
    refuse = staticmethod(_refuse)


router = APIRouter(
    prefix="/api/openmem/v1",
    route_class=_Route,
    tags=["MemOS"],
    responses={"4XX": {"model": MemosRefusal}, "5XX": {"model": MemosRefusal}},
)


@router.post(
    "/get/status",
    operation_id="memos_get_status",
    summary="Get the status of a task",
    response_model=TaskAnswer,
    response_model_exclude_unset=True,
)
async def get_status(query: TaskQuery, request: Request, tidings: Tidings) -> dict[str, Any]:
    if (task := await find_task(tidings, query.task_id)) is None:
        raise Refusal(404, "task not found")
    answer = shown(task)
    return answer | {"data": [answer["data"]]} if request.app.state.config.memos_status_as_list else answer


@router.post("/add/message", operation_id="memos_add_message", summary="Create a task to remember messages")
async def add_message(messages: NewMessages, tidings: Tidings) -> Added:
    return await _add(tidings, "memory.add", messages)


@router.post("/add/feedback", operation_id="memos_add_feedback", summary="Create a task to learn from feedback")
async def add_feedback(feedback: NewFeedback, tidings: Tidings) -> Added:
    return await _add(tidings, "memory.feedback", feedback)


def shown(event: Event) -> dict[str, Any]:
    """A task as `POST /get/status` gives it: the first result of a completed one is its `memory_views`."""
    data: dict[str, Any] = {"task_id": event.event_id, "status": MEMOS[event.status.state]}
    views = from_values(event.results[:1]) if event.status.state == TASK_STATE_SUCCEEDED else []
    if views and isinstance(views[0], dict):  # the SDK takes no other
        data["memory_views"] = views[0]
    if text := failure_text(event.status):
        data["error"] = text
    return {"code": 0, "message": "ok", "data": data}


async def _add(tidings: Caller, type_: str, added: BaseModel) -> Added:
    task = await create_task(tidings, type_, added.model_dump(exclude_unset=True))
    return Added(data=AddedData(task_id=task.event_id))
