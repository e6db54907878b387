"""Who calls, what they may do, and that no project learns anything of another."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import bson
import grpc
import pytest
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from pydantic import SecretStr
from pymongo import AsyncMongoClient

from conftest import Start
from tidings.v1 import event_service_pb2, task_service_pb2
from tidings.v1.event_service_pb2 import (
    BatchGetEventsRequest,
    DeleteEventRequest,
    EventFilter,
    GetEventRequest,
    ListEventsRequest,
    WatchEventRequest,
)
from tidings.v1.task_pb2 import TASK_STATE_PENDING, TASK_STATE_RUNNING, TASK_STATE_SUCCEEDED, TaskStatus
from tidings.v1.task_service_pb2 import (
    CancelTaskRequest,
    GetTaskStatusRequest,
    UpdateTaskStatusRequest,
    WaitTaskStatusRequest,
)
from tidings_server import auth
from tidings_server.auth import SCOPES
from tidings_server.clock import system_clock
from tidings_server.server import StartRefused
from wire import Failed, Keyed, Wire, failure, take, take_synced

READ, WRITE = frozenset({"read"}), frozenset({"write"})
BOTH = READ | WRITE


@dataclass
class Deployment:
    """A server that needs keys, and the clients of whom it knows."""

    server: Wire
    entered: AsyncExitStack
    keys: dict[str, str] = field(default_factory=dict)

    async def client(self, project: str, scopes: frozenset[str] = BOTH) -> Keyed:
        """A client with a new key."""
        return await self.client_with(await self.server.server.api_keys.create(project, scopes))

    async def client_with(self, key: str = "", *, metadata: tuple[tuple[str, str], ...] = ()) -> Keyed:
        return await self.entered.enter_async_context(Keyed(self.server.server, key, metadata=metadata))


@pytest.fixture
async def closed(start: Start) -> AsyncIterator[Deployment]:
    async with start() as first:
        await first.server.api_keys.create("first", BOTH)
        async with start() as server, AsyncExitStack() as entered:  # one that knows from its start that there are keys
            yield Deployment(server, entered)


# ---- credentials ----


async def listed(client: Wire) -> list[str]:
    return [event.event_id for event in (await client.events.ListEvents(ListEventsRequest())).events]


@pytest.mark.parametrize(
    "header",
    [
        ("authorization", "Bearer {}"),
        ("authorization", "bearer {}"),
        ("authorization", "BEARER  {}"),
        ("authorization", "Token {}"),
        ("x-api-key", "{}"),
        ("x-api-key", " {} "),
    ],
)
async def test_a_key_may_be_sent_in_any_of_the_known_headers(closed: Deployment, header: tuple[str, str]) -> None:
    key = await closed.server.server.api_keys.create("alpha", BOTH)
    name, form = header
    client = await closed.client_with(metadata=((name, form.format(key)),))
    event = await client.create()
    assert await listed(client) == [event.event_id]
    assert await listed(await closed.client("alpha")) == [event.event_id]
    assert (await take_synced(client.watch(project={})))[0].change.event == event


async def test_a_call_without_a_key_is_refused(closed: Deployment) -> None:
    for metadata in ((("x-other", "x"),), (("authorization", "Basic dXNlcjpwdw=="),), (("authorization", "Bearer"),)):
        client = await closed.client_with(metadata=metadata)
        for call in (client.create(), take(client.watch(project={}))):
            failed = await failure(call)
            assert (failed.code, failed.reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
            assert "authorization: Bearer" in failed.message


def altered(key: str) -> str:
    return key[:-1] + ("a" if key[-1] != "a" else "b")


WRONG: dict[str, Callable[[str], str]] = {
    "wrong secret": altered,
    "part of the secret": lambda key: key[:-1],
    "more than the secret": lambda key: f"{key}a",
    "unknown": lambda key: "tdg_" + "0" * 16 + "_" + key.split("_")[2],
    "no secret": lambda key: "_".join(key.split("_")[:2]),
    "empty secret": lambda key: "_".join(key.split("_")[:2]) + "_",
    "empty id": lambda key: "tdg__" + key.split("_")[2],
    "other prefix": lambda key: key.replace("tdg_", "sk_"),
    "upper case": str.upper,
    "an operator": lambda key: 'tdg_{"$ne": 1}_' + key.split("_")[2],
    "not ours": lambda _: "hunter2",
    "long": lambda _: "tdg_x_" + "y" * 4000,
}


async def test_what_is_no_key_is_refused_and_not_told_why(closed: Deployment) -> None:
    key = await closed.server.server.api_keys.create("alpha", BOTH)
    revoked = await closed.server.server.api_keys.create("alpha", BOTH)
    await closed.server.server.store.keys.revoke(revoked.split("_")[1], system_clock())
    failures = [
        await failure(listed(await closed.client_with(wrong)))
        for wrong in (revoked, *(make_wrong(key) for make_wrong in WRONG.values()))
    ]
    assert {(failed.code, failed.reason) for failed in failures} == {
        (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
    }
    assert len({told(failed) for failed in failures}) == 1
    assert await listed(await closed.client_with(key)) == []


async def test_a_revoked_key_is_refused_from_then_on(closed: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "CACHE_SECONDS", 0.0)
    key = await closed.server.server.api_keys.create("alpha", BOTH)
    client, other = await closed.client_with(key), await closed.client("alpha")
    await listed(client)
    assert await closed.server.server.store.keys.revoke(key.split("_")[1], system_clock())
    assert (await failure(listed(client))).reason == "UNAUTHENTICATED"
    assert await listed(other) == []


async def test_the_secret_is_changed_without_an_interruption(start: Start) -> None:
    old, new = SecretStr("o" * 32), SecretStr("n" * 32)
    async with start(secret=old) as wire:
        key = await wire.server.api_keys.create("ours", SCOPES)
    async with start(secret=old) as wire, Keyed(wire.server, key) as client:
        token = (await take_synced(client.watch(project={})))[-1].resume_token
    async with start(secret=old, other_secret=new) as first, start(secret=new, other_secret=old) as second:
        for wire in (first, second, first):
            async with Keyed(wire.server, key) as client:
                token = (await take_synced(client.watch(project={}, resume_token=token)))[-1].resume_token
    async with start(secret=new) as wire, Keyed(wire.server, key) as client:
        assert (await failure(client.create())).reason == "UNAUTHENTICATED"
        key = await wire.server.api_keys.create("ours", SCOPES)
        async with Keyed(wire.server, key) as client:
            failed = await failure(take(client.watch(project={}, resume_token=token)))
            assert failed.reason == "RESUME_TOKEN_INVALID"


async def test_the_store_has_no_secret_in_clear(
    closed: Deployment, mongo: AsyncMongoClient[dict[str, Any]], database: str
) -> None:
    key = await closed.server.server.api_keys.create("alpha", BOTH)
    await (await closed.client_with(key)).create()
    _, key_id, secret = key.split("_")
    stored = b""
    for collection in await mongo[database].list_collection_names():
        stored += b"".join([bson.encode(document) async for document in mongo[database][collection].find()])
    assert key_id.encode() in stored
    assert secret.encode() not in stored
    assert secret.encode()[:16] not in stored


async def test_no_two_keys_are_alike(closed: Deployment) -> None:
    keys = [await closed.server.server.api_keys.create("alpha", BOTH) for _ in range(10)]
    assert len({key.split("_")[1] for key in keys}) == len({key.split("_")[2] for key in keys}) == 10
    assert {len(key.split("_")[2]) for key in keys} == {52}, "256 bits"


# ---- scopes ----

METHODS = [
    method
    for file in (event_service_pb2, task_service_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
NEED_READ = {"GetEvent", "BatchGetEvents", "ListEvents", "WatchEvent", "GetTaskStatus", "WaitTaskStatus"}
NEED_WRITE = {"CreateEvent", "BatchCreateEvents", "DeleteEvent", "UpdateTaskStatus", "CancelTask"}


def test_every_method_is_known_to_read_or_to_write() -> None:
    assert {method.name for method in METHODS} == NEED_READ | NEED_WRITE


def call(client: Wire, method: str, request: Message) -> Awaitable[Any]:
    made = getattr(client.events if hasattr(client.events, method) else client.tasks, method)(request)
    return take(made) if method == "WatchEvent" else made


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
async def test_a_method_needs_its_scope_and_no_other(closed: Deployment, method: Any) -> None:
    needed = "read" if method.name in NEED_READ else "write"
    request = GetMessageClass(method.input_type)()
    for scope in ("read", "write"):
        client = await closed.client("alpha", frozenset({scope}))
        if scope == needed and method.name == "ListEvents":
            await call(client, method.name, request)
            continue
        failed = await failure(call(client, method.name, request))
        if scope == needed:
            assert failed.reason == "INVALID_FIELD"
        else:
            assert (failed.code, failed.reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
            assert failed.metadata == {"scope": needed}


# ---- projects ----


def told(failed: Failed) -> tuple[grpc.StatusCode, str, bytes]:
    """All that a caller is told."""
    return failed.code, failed.message, failed.status.SerializeToString(deterministic=True)


def about(event_id: str) -> dict[str, Message]:
    """A request of every method that names an event."""
    return {
        "GetEvent": GetEventRequest(event_id=event_id),
        "DeleteEvent": DeleteEventRequest(event_id=event_id, expected_revision=1),
        "WatchEvent": WatchEventRequest(event_id=event_id),
        "GetTaskStatus": GetTaskStatusRequest(task_id=event_id),
        "UpdateTaskStatus": UpdateTaskStatusRequest(task_id=event_id, state=TASK_STATE_RUNNING, request_id="r"),
        "CancelTask": CancelTaskRequest(task_id=event_id, expected_revision=9),
        "WaitTaskStatus": WaitTaskStatusRequest(task_id=event_id, after_revision=1),
    }


def test_every_method_that_names_an_event_is_tried() -> None:
    fields = ({field.name for field in method.input_type.fields} for method in METHODS)
    naming = {method.name for method, names in zip(METHODS, fields, strict=True) if names & {"event_id", "task_id"}}
    assert naming == about("x").keys()


KINDS = {"task": TaskStatus(), "ended": TaskStatus(state=TASK_STATE_SUCCEEDED), "fact": None, "deleted": TaskStatus()}


@pytest.mark.parametrize("kind", KINDS)
async def test_what_belongs_to_others_is_as_what_does_not_exist(closed: Deployment, some_id: str, kind: str) -> None:
    alpha, beta = await closed.client("alpha"), await closed.client("beta")
    before = {method: told(await failure(call(beta, method, request))) for method, request in about(some_id).items()}
    unknown = await beta.events.BatchGetEvents(BatchGetEventsRequest(event_ids=[some_id]))
    created = await alpha.create_task(event_id=some_id, status=KINDS[kind])
    if kind == "deleted":
        await alpha.events.DeleteEvent(DeleteEventRequest(event_id=some_id, request_id="r"))
    after = {method: told(await failure(call(beta, method, request))) for method, request in about(some_id).items()}
    assert after == before
    assert await beta.events.BatchGetEvents(BatchGetEventsRequest(event_ids=[some_id])) == unknown
    if kind != "deleted":
        assert (await alpha.events.GetEvent(GetEventRequest(event_id=some_id))).event == created


async def test_lists_and_watches_hold_nothing_of_others(closed: Deployment, some_id: str) -> None:
    alpha, beta = await closed.client("alpha"), await closed.client("beta")
    ids = {"run_id": some_id, "mission_id": some_id, "step_id": some_id, "agent_id": some_id}
    await alpha.create_task("shared.type", **ids)
    await beta.ensure(some_id, some_id)
    queries: list[dict[str, Any]] = [{}, {"types": ["shared.type"]}, {"states": [TASK_STATE_PENDING]}]
    queries += [{name: value} for name, value in ids.items()]
    for query in queries:
        assert len((await alpha.events.ListEvents(ListEventsRequest(**query))).events) == 1
        assert not (await beta.events.ListEvents(ListEventsRequest(**query))).events
    scopes: list[dict[str, Any]] = [{"project": {}}, {"run_id": some_id}, {"mission_id": some_id}]
    watches = [beta.watch(**scope) for scope in scopes]
    for watch in watches:
        assert len(await take_synced(watch)) == 1
    foreign = await alpha.create_task("shared.type", **ids)
    own = await beta.create_task("shared.type", **ids)
    for watch in watches:
        assert (await take(watch)).change.event == own
    assert foreign.event_id != own.event_id


async def test_the_same_ids_and_keys_are_other_events_in_another_project(closed: Deployment, some_id: str) -> None:
    alpha, beta = await closed.client("alpha"), await closed.client("beta")
    first = await alpha.create(event_id=some_id, summary="of alpha")
    second = await beta.create(event_id=some_id, summary="of beta")
    assert (first.revision, second.revision) == (1, 1)
    keyed = [await client.create(run_id="run", idempotency_key="key") for client in (alpha, beta)]
    assert keyed[0].event_id != keyed[1].event_id
    await beta.events.DeleteEvent(DeleteEventRequest(event_id=some_id))
    assert (await alpha.events.GetEvent(GetEventRequest(event_id=some_id))).event == first


async def test_a_project_whose_name_begins_like_another_is_another(closed: Deployment) -> None:
    longer, shorter = await closed.client("alpha-2"), await closed.client("alpha")
    await longer.create(event_id="2")
    assert await listed(shorter) == []
    for event_id in ("-2/2", "/../alpha-2/2", "alpha-2/2"):
        failed = await failure(shorter.events.GetEvent(GetEventRequest(event_id=event_id)))
        assert failed.reason == "EVENT_NOT_FOUND"


async def test_all_keys_of_a_project_see_the_same(closed: Deployment, some_id: str) -> None:
    writer, reader = await closed.client("alpha", WRITE), await closed.client("alpha", READ)
    event = await writer.create(event_id=some_id)
    assert (await reader.events.GetEvent(GetEventRequest(event_id=some_id))).event == event


async def test_a_page_token_of_another_project_is_refused(closed: Deployment) -> None:
    alpha, beta = await closed.client("alpha"), await closed.client("beta")
    for client in (alpha, beta):
        await client.create()
        await client.create()
    request = ListEventsRequest(page_size=1)
    request.page_token = (await alpha.events.ListEvents(request)).next_page_token
    failed = await failure(beta.events.ListEvents(request))
    assert (failed.reason, failed.fields) == ("INVALID_FIELD", {"page_token": "INVALID_FIELD"})
    assert len((await (await closed.client("alpha")).events.ListEvents(request)).events) == 1, "another key will do"


@pytest.mark.parametrize("scope", ["project", "event_id", "run_id"])
async def test_a_resume_token_of_another_project_is_refused(closed: Deployment, some_id: str, scope: str) -> None:
    alpha, beta = await closed.client("alpha"), await closed.client("beta")
    for client in (alpha, beta):
        await client.create_task(event_id=some_id, run_id=some_id)
    fields: dict[str, Any] = {scope: {} if scope == "project" else some_id}
    token = (await take_synced(alpha.watch(**fields)))[-1].resume_token
    failed = await failure(take(beta.watch(**fields, resume_token=token)))
    assert (failed.code, failed.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "RESUME_TOKEN_INVALID")
    resumed = (await closed.client("alpha")).watch(**fields, resume_token=token, filter=None)
    assert (await take(resumed)).HasField("synced"), "another key will do"


@pytest.mark.parametrize(
    "other",
    [{"run_id": "other"}, {"event_id": "{}"}, {"project": {}}, {"run_id": "{}", "filter": EventFilter(types=["x"])}],
)
async def test_a_resume_token_of_another_watch_is_refused(server: Wire, some_id: str, other: dict[str, Any]) -> None:
    await server.create_task(event_id=some_id, run_id=some_id)
    token = (await take_synced(server.watch(run_id=some_id)))[-1].resume_token
    fields = {name: some_id if value == "{}" else value for name, value in other.items()}
    failed = await failure(take(server.watch(**fields, resume_token=token)))
    assert (failed.reason, failed.fields) == ("RESUME_TOKEN_INVALID", {"resume_token": "RESUME_TOKEN_INVALID"})


# ---- without keys ----


async def test_without_keys_every_caller_is_the_default_project(start: Start) -> None:
    async with start() as first:
        event = await first.create()
        async with Keyed(first.server, "whatever") as keyed:
            assert await listed(keyed) == [event.event_id]
        key = await first.server.api_keys.create("default", BOTH)
        async with start() as server, Keyed(server.server, key) as client:
            assert await listed(client) == [event.event_id]


async def test_the_first_key_closes_a_running_server(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "CACHE_SECONDS", 0.0)
    async with start() as server:
        await server.create()
        key = await server.server.api_keys.create("alpha", BOTH)
        assert (await failure(listed(server))).reason == "UNAUTHENTICATED"
        await server.server.store.keys.revoke(key.split("_")[1], system_clock())
        assert (await failure(listed(server))).reason == "UNAUTHENTICATED", "a revoked key opens nothing"


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", ":0", "192.0.2.1:0", "example.com:0"])
async def test_without_keys_no_network_is_listened_to(start: Start, address: str) -> None:
    with pytest.raises(StartRefused) as refused:
        async with start(listen=address):
            pass
    assert str(refused.value) == (
        f"there is no API key, and without one Tidings does not listen on {address}: "
        "create one with `tidings-server keys create --project NAME`, or listen on 127.0.0.1"
    )


async def test_with_a_key_any_address_is_listened_to(start: Start) -> None:
    async with start() as first:
        key = await first.server.api_keys.create("alpha", BOTH)
        async with start(listen="0.0.0.0:0") as server, Keyed(server.server, key) as client:
            assert await listed(client) == []
            assert (await failure(listed(server))).reason == "UNAUTHENTICATED"
