"""EventService. Requests come here checked, and from a known caller."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc

from tidings.v1.event_pb2 import Event
from tidings.v1.event_service_pb2 import (
    LIST_ORDER_OLDEST_FIRST,
    BatchCreateEventsRequest,
    BatchCreateEventsResponse,
    BatchGetEventsRequest,
    BatchGetEventsResponse,
    CreateEventRequest,
    CreateEventResponse,
    DeleteEventRequest,
    DeleteEventResponse,
    EventResult,
    GetEventRequest,
    GetEventResponse,
    ListEventsRequest,
    ListEventsResponse,
    WatchEventRequest,
)
from tidings.v1.event_service_pb2_grpc import EventServiceServicer
from tidings_server.auth import CALLER
from tidings_server.clock import Clock, to_millis
from tidings_server.errors import Failure, response_too_large
from tidings_server.event_record import check_parent, new_event
from tidings_server.limits import Limits
from tidings_server.record import Mutation, deletion, digest_of
from tidings_server.services.page_token import PageTokens
from tidings_server.store import EventStore, Query
from tidings_server.watch.stream import Send
from tidings_server.watch.watches import Watches

Context = grpc.aio.ServicerContext[Any, Any]


class EventService(EventServiceServicer):
    """Creates, reads, lists, deletes and watches events in the caller's project."""

    def __init__(
        self, events: EventStore, watches: Watches, page_tokens: PageTokens, clock: Clock, limits: Limits
    ) -> None:
        self._events = events
        self._watches = watches
        self._page_tokens = page_tokens
        self._clock = clock
        self._limits = limits

    async def CreateEvent(self, request: CreateEventRequest, context: Context) -> CreateEventResponse:
        record = new_event(CALLER.get().project, request, self._clock(), self._limits)
        return CreateEventResponse(event=await self._events.create(record))

    async def BatchCreateEvents(self, request: BatchCreateEventsRequest, context: Context) -> BatchCreateEventsResponse:
        project, now = CALLER.get().project, self._clock()
        records = [
            new_event(project, item, now, self._limits, path=f"requests[{index}].event")
            for index, item in enumerate(request.requests)
        ]
        outcomes = await self._events.create_many(records)
        return BatchCreateEventsResponse(results=self._results(outcomes))

    async def GetEvent(self, request: GetEventRequest, context: Context) -> GetEventResponse:
        event = await self._events.get(CALLER.get().project, request.event_id)
        check_parent(event, request.parent)
        return GetEventResponse(event=event)

    async def BatchGetEvents(self, request: BatchGetEventsRequest, context: Context) -> BatchGetEventsResponse:
        outcomes = await self._events.get_many(CALLER.get().project, request.event_ids)
        return BatchGetEventsResponse(results=self._results(outcomes))

    async def ListEvents(self, request: ListEventsRequest, context: Context) -> ListEventsResponse:
        project = CALLER.get().project
        query = _query(project, request)
        page = await self._events.page(
            query,
            after=self._page_tokens.read(request.page_token, project, request),
            limit=request.page_size or self._limits.page_size_default,
            skip=request.skip,
        )
        return ListEventsResponse(
            events=page.items,
            next_page_token=self._page_tokens.write(page.next, project, request),
            unreadable_event_ids=page.unreadable,
            total_size=await self._events.count(query) if request.count_total else 0,
        )

    async def DeleteEvent(self, request: DeleteEventRequest, context: Context) -> DeleteEventResponse:
        mutation: Mutation[Event] = Mutation(
            deletion, digest_of(request), request.expected_revision, request.request_id
        )
        await self._events.change(CALLER.get().project, request.event_id, mutation)
        return DeleteEventResponse()

    # In place of the context, the interceptor gives a watch what it sends with.
    async def WatchEvent(self, request: WatchEventRequest, send: Send) -> None:  # type: ignore[override]
        await self._watches.tell(CALLER.get().project, request, send)

    def _results(self, outcomes: Sequence[Event | Failure]) -> list[EventResult]:
        results, size = [], 0
        for outcome in outcomes:
            if isinstance(outcome, Event):
                size += outcome.ByteSize()
            if isinstance(outcome, Event) and size > self._limits.response_bytes_max:
                outcome = response_too_large(outcome.event_id)
            results.append(
                EventResult(event=outcome) if isinstance(outcome, Event) else EventResult(error=outcome.to_status())
            )
        return results


def _query(project: str, request: ListEventsRequest) -> Query:
    names = ("run_id", "mission_id", "step_id", "agent_id")
    return Query(
        project=project,
        types=request.types,
        states=request.states,
        ids={name: value for name in names if (value := getattr(request, name))},
        created_from=to_millis(request.created_from) if request.HasField("created_from") else None,
        created_before=to_millis(request.created_before) if request.HasField("created_before") else None,
        newest_first=request.order != LIST_ORDER_OLDEST_FIRST,
    )
