"""GoMemory's dialect: jobs that are queued, and asked for (https://prateek-gupta001.github.io/go-memory-docs)."""

from __future__ import annotations

import uuid
from typing import Annotated, Any, Final

import grpc
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from tidings import TidingsError
from tidings.v1.event_pb2 import Event
from tidings.v1.event_service_pb2 import CreateEventRequest, DeleteEventRequest
from tidings.v1.task_pb2 import TaskStatus
from tidings_server.gateway.caller import Caller, caller_of
from tidings_server.gateway.dialect import DialectRoute
from tidings_server.gateway.refusal import Refusal
from tidings_server.gateway.structs import to_struct
from tidings_server.gateway.tasks import failure_text, find_task
from tidings_server.gateway.words import GOMEMORY, states_of

LIFETIME_SECONDS: Final = 24 * 60 * 60
ID_LENGTH_MAX: Final = 128
ATTEMPTS_MAX: Final = 5
"""How often a job is looked at anew because others, who send the same messages, came between."""
_OVERTAKEN: Final = {grpc.StatusCode.NOT_FOUND, grpc.StatusCode.ALREADY_EXISTS, grpc.StatusCode.ABORTED}
"""How a call fails when another caller has deleted the failed job, or has queued it again."""

QUEUED: Final = "Memory Insertion Job has been queued for insertion!"
QUEUED_BEFORE: Final = "Memory Insertion Job is already queued or processed successfully!"
NO_MESSAGES: Final = "No messages provided"
WRONG_FORMAT: Final = "Request format is wrong"
BAD_REQUEST: Final = "Bad Request"
TROUBLE: Final = "We are experiencing some techincal issues right now. Please try again after some time!"  # sic


def _caller_of(request: Request) -> Caller:
    """The caller, with a key that is set for those who send none, since the SDK cannot."""
    caller, key = caller_of(request), request.app.state.config.gomemory_key
    return caller if caller.key or key is None else Caller(caller.client, key.get_secret_value())


Tidings = Annotated[Caller, Depends(_caller_of)]


class Message(BaseModel):
    """What was said. The SDK knows the roles `user`, `model` and `system`."""

    role: str
    content: str


class NewMemory(BaseModel):
    """What to remember, and whose it is."""

    userId: str = Field(min_length=1)  # noqa: N815
    messages: list[Message] = Field(min_length=1)

    @property
    def req_id(self) -> str:
        """The id of the job, which the same messages of the same user always have."""
        return str(uuid.uuid5(uuid.NAMESPACE_OID, "".join(each.content for each in self.messages) + self.userId))


class QueuedJob(BaseModel):
    """The job, and whether it is a new one."""

    ReqId: str
    Msg: str


class User(BaseModel):
    """Somebody to remember things of."""

    userId: str  # noqa: N815


class Health(BaseModel):
    """That there is an answer."""

    message: str = "Server is healthy!"


class GoMemoryRefusal(BaseModel):
    """Why there is no answer: `Error` for readers of what the vendor's server sends, the others for its SDK."""

    Error: str
    Status: int
    Message: str


def _refuse(refusal: Refusal) -> Response:
    status, message = refusal.status, refusal.message
    if status == 422 or (status == 400 and not refusal.reason):  # not from the service: the body is not what it must be
        empty = any(flaw.kind == "too_short" and flaw.location[-1] == "messages" for flaw in refusal.flaws)
        status, message = 400, NO_MESSAGES if empty else WRONG_FORMAT
    content = GoMemoryRefusal(Error=message, Status=status, Message=message)
    return JSONResponse(content.model_dump(), status, refusal.headers)


class _Route(DialectRoute):
    refuse = staticmethod(_refuse)


router = APIRouter(
    route_class=_Route,
    tags=["GoMemory"],
    responses={"4XX": {"model": GoMemoryRefusal}, "5XX": {"model": GoMemoryRefusal}},
)


@router.get("/health", operation_id="gomemory_health", summary="Ask whether the gateway answers")
async def health() -> Health:
    return Health()


@router.post("/create/user", operation_id="gomemory_create_user", summary="Make up the id of a user")
async def create_user(tidings: Tidings) -> User:
    user = User(userId=str(uuid.uuid4()))
    event = Event(type="gomemory.user.created", payload=to_struct(user.model_dump()))
    await tidings.call(tidings.client.events.CreateEvent, CreateEventRequest(event=event))
    return user


@router.post("/add_memory", operation_id="gomemory_add_memory", summary="Queue a job, unless it is queued or done")
async def add_memory(memory: NewMemory, tidings: Tidings) -> QueuedJob:
    for _ in range(ATTEMPTS_MAX):
        job = await find_task(tidings, memory.req_id)
        if job is not None and not _has_failed(job):
            return QueuedJob(ReqId=memory.req_id, Msg=QUEUED_BEFORE)
        try:
            await _queue(tidings, memory, job)
        except TidingsError as error:
            if error.code() not in _OVERTAKEN:
                raise
        else:
            return QueuedJob(ReqId=memory.req_id, Msg=QUEUED)
    raise Refusal(503, TROUBLE, "REVISION_MISMATCH", retry_after=1)


# Not in the API description, whose readers take a 500 for a fault: here it is the documented answer for an unknown id.
@router.get("/get_status", include_in_schema=False)
@router.get("/get_status/{reqid:path}", include_in_schema=False)
async def get_status(tidings: Tidings, reqid: str = "") -> dict[str, Any]:
    req_id = reqid.strip("\"' ")
    if not _is_id(req_id):
        raise Refusal(400, BAD_REQUEST, "INVALID_FIELD")
    if (job := await find_task(tidings, req_id)) is None:
        raise Refusal(500, TROUBLE, "EVENT_NOT_FOUND")
    return shown(job)


def shown(event: Event) -> dict[str, Any]:
    """A task as `GET /get_status/{reqid}` gives it; `error` is left out unless it failed."""
    job = {"status": GOMEMORY[event.status.state], "createdAt": event.status.create_time.ToJsonString()}
    return job | ({"error": text} if (text := failure_text(event.status)) else {})


async def _queue(tidings: Caller, memory: NewMemory, failed: Event | None) -> None:
    """Create the job, in place of one that failed. Raises TidingsError."""
    if failed is not None:
        deletion = DeleteEventRequest(event_id=failed.event_id, expected_revision=failed.revision)
        await tidings.call(tidings.client.events.DeleteEvent, deletion)
    creation = CreateEventRequest(
        event=Event(
            event_id=memory.req_id, type="memory.add", payload=to_struct(memory.model_dump()), status=TaskStatus()
        )
    )
    creation.ttl.seconds = LIFETIME_SECONDS
    await tidings.call(tidings.client.events.CreateEvent, creation)


def _has_failed(job: Event) -> bool:
    return job.status.state in states_of("failure", GOMEMORY)


def _is_id(text: str) -> bool:
    """Whether a text can be the id of an event."""
    return 0 < len(text) <= ID_LENGTH_MAX and text.isprintable() and not set(text) & {" ", "/"}
