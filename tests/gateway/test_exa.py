"""Exa's dialect, over the wire."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

import httpx
import pytest
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct
from structlog.testing import capture_logs

from conftest import Start
from faces import http_of, keyed
from sdks.exa_minimal import IMPORT, ITEM, MINIMAL, MONITOR, SEARCH
from tidings.v1.event_service_pb2 import CreateEventRequest
from tidings_server.gateway.exa.routes import LOOKS_MAX
from tidings_server.limits import Limits
from wire import SetClock, Wire

EVENTS = "/websets/v0/events"
JSON = {"content-type": "application/json"}

UNFIT: list[tuple[str, dict[str, Any], list[str]]] = [
    ("webset.created", {}, ["data.id"]),
    ("webset.idle", {"id": 1, "status": "odd"}, ["data.id", "data.status"]),
    ("webset.created", {"id": "w", "searches": [{"id": "s"}]}, ["data.searches.0.query", "data.searches.0.count"]),
    ("webset.search.created", {**SEARCH, "websetId": None, "count": 0}, ["data.websetId", "data.count"]),
    ("webset.search.created", {**SEARCH, "createdAt": "today"}, ["data.createdAt"]),
    ("webset.search.created", {**SEARCH, "entity": {"type": "custom"}}, ["data.entity.description"]),
    ("webset.item.created", {**ITEM, "properties": {"type": "x", "url": "no"}}, ["data.properties.url"]),
    (
        "webset.item.created",
        {**ITEM, "properties": {"type": "person", "url": "https://example.com"}},
        ["data.properties.person"],
    ),
    ("import.completed", {"id": "i", "format": "xls"}, ["data.format"]),
    ("monitor.updated", {**MONITOR, "metadata": {"a": 1}}, ["data.metadata.a"]),
    ("monitor.updated", {**MONITOR, "behavior": {"type": "search", "config": {}}}, ["data.behavior.config.count"]),
    ("monitor.run.created", {"id": "r", "type": "search"}, ["data.monitorId"]),
]


@asynccontextmanager
async def alone(start: Start, **settings: Any) -> AsyncIterator[tuple[Wire, httpx.AsyncClient]]:
    """A server whose list has this test's events only."""
    async with start(http_port=0, **settings) as wire, http_of(wire) as http:
        yield wire, http


async def post(http: httpx.AsyncClient, type_: str, data: Any = None, **fields: Any) -> dict[str, Any]:
    """Create an event, with the least data if there is none."""
    body = {"type": type_, "data": MINIMAL[type_] if data is None else data, **fields}
    answer = await http.post(EVENTS, json=body)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def native(wire: Wire, type_: str, data: dict[str, Any], **fields: Any) -> str:
    """Create an event the way that has nothing to do with Exa, and give its id."""
    payload = Struct()
    payload.update(data)
    return (await wire.create(type_, payload=payload, **fields)).event_id


async def listed(http: httpx.AsyncClient, **params: Any) -> list[str]:
    answer = await http.get(EVENTS, params=params)
    assert answer.status_code == 200, answer.text
    return [event["id"] for event in answer.json()["data"]]


def assert_refused(answer: httpx.Response, status: int, tag: str, *said: str) -> None:
    assert answer.status_code == status, answer.text
    content = answer.json()
    assert content.keys() == {"requestId", "error", "tag"}
    assert content["requestId"] == answer.headers["x-request-id"]
    assert content["tag"] == tag
    for each in said:
        assert each in content["error"]


@pytest.mark.parametrize("type_", MINIMAL)
async def test_the_least_data_is_enough_for_an_event(http: httpx.AsyncClient, type_: str) -> None:
    created = await post(http, type_)
    answer = await http.get(f"{EVENTS}/{created['id']}")
    assert answer.json() == created
    assert answer.headers["x-request-id"].startswith("req_")
    assert created.keys() == {"id", "object", "type", "data", "createdAt"}
    assert (created["object"], created["type"]) == ("event", type_)
    assert created["data"]["id"] == MINIMAL[type_]["id"]


async def test_what_is_missing_is_filled_in(http: httpx.AsyncClient) -> None:
    search = {"id": "s", "query": "wind farms", "count": 3, "createdAt": "2026-01-01T00:00:00Z"}
    enrichment = {"id": "e", "description": "How tall?"}
    monitor = {**MONITOR, "lastRun": {"id": "r", "type": "refresh", "status": "failed"}}
    del monitor["websetId"]
    data = {"id": "w", "searches": [search], "enrichments": [enrichment], "monitors": [monitor], "extra": {"one": 1}}
    created = await post(http, "webset.paused", data)
    time = created["createdAt"]
    assert created["data"] == {
        "id": "w",
        "object": "webset",
        "status": "paused",
        "dashboardUrl": "",
        "title": None,
        "externalId": None,
        "searches": [
            {
                "id": "s",
                "object": "webset_search",
                "websetId": "w",
                "status": "created",
                "query": "wind farms",
                "entity": None,
                "criteria": [],
                "count": 3,
                "maxPeoplePerCompany": None,
                "behavior": "override",
                "exclude": [],
                "scope": [],
                "progress": {"found": 0, "analyzed": 0, "completion": 0, "timeLeft": None},
                "recall": None,
                "metadata": {},
                "canceledAt": None,
                "canceledReason": None,
                "createdAt": "2026-01-01T00:00:00Z",
                "updatedAt": "2026-01-01T00:00:00Z",
            }
        ],
        "imports": [],
        "enrichments": [
            {
                "id": "e",
                "object": "webset_enrichment",
                "websetId": "w",
                "status": "pending",
                "title": None,
                "description": "How tall?",
                "format": None,
                "options": None,
                "instructions": None,
                "metadata": {},
                "createdAt": time,
                "updatedAt": time,
            }
        ],
        "monitors": [
            {
                "id": "monitor-1",
                "object": "monitor",
                "websetId": "w",
                "status": "enabled",
                "cadence": {"cron": "0 9 * * 1", "timezone": "Etc/UTC"},
                "behavior": {
                    "type": "search",
                    "config": {"count": 10, "query": None, "criteria": None, "entity": None, "behavior": "append"},
                },
                "lastRun": {
                    "id": "r",
                    "object": "monitor_run",
                    "status": "failed",
                    "monitorId": "monitor-1",
                    "type": "refresh",
                    "completedAt": None,
                    "failedAt": None,
                    "failedReason": None,
                    "canceledAt": None,
                    "createdAt": time,
                    "updatedAt": time,
                },
                "nextRunAt": None,
                "metadata": {},
                "createdAt": time,
                "updatedAt": time,
            }
        ],
        "metadata": {},
        "createdAt": time,
        "updatedAt": time,
        "extra": {"one": 1},
    }


@pytest.mark.parametrize("kind", ["article", "research_paper", "custom"])
async def test_a_publication_that_nothing_is_known_of_is_empty(http: httpx.AsyncClient, kind: str) -> None:
    created = await post(http, "webset.item.created", {**ITEM, "properties": {"type": kind, "url": "https://e.com"}})
    name = "researchPaper" if kind == "research_paper" else kind
    assert created["data"]["properties"] == {
        "type": kind,
        "url": "https://e.com",
        "description": "",
        "content": None,
        name: {"author": None, "publishedAt": None},
    }


async def test_the_word_for_the_kind_of_object_is_put_right(http: httpx.AsyncClient) -> None:
    data = {**ITEM, "object": "<string>", "enrichments": [{"object": "<string>", "enrichmentId": "e"}]}
    created = await post(http, "webset.item.enriched", data)
    assert created["data"]["object"] == "webset_item"
    assert created["data"]["enrichments"] == [
        {
            "object": "enrichment_result",
            "format": "text",
            "result": None,
            "reasoning": None,
            "references": [],
            "enrichmentId": "e",
        }
    ]


async def test_a_list_that_is_null_is_empty(http: httpx.AsyncClient) -> None:
    created = await post(http, "webset.item.enriched", {**ITEM, "evaluations": None, "enrichments": None})
    assert (created["data"]["evaluations"], created["data"]["enrichments"]) == ([], [])


@pytest.mark.parametrize(
    ("type_", "status"),
    [
        ("webset.idle", "idle"),
        ("webset.paused", "paused"),
        ("webset.search.created", "created"),
        ("webset.search.updated", "running"),
        ("webset.search.canceled", "canceled"),
        ("webset.search.completed", "completed"),
        ("import.created", "pending"),
        ("import.completed", "completed"),
        ("monitor.run.created", "created"),
        ("monitor.run.completed", "completed"),
    ],
)
async def test_the_type_tells_the_status(http: httpx.AsyncClient, type_: str, status: str) -> None:
    assert (await post(http, type_))["data"]["status"] == status


async def test_a_status_that_is_given_stays(http: httpx.AsyncClient) -> None:
    created = await post(http, "import.completed", {**IMPORT, "status": "failed"})
    assert created["data"]["status"] == "failed"


async def test_numbers_and_times_come_back_as_they_were(http: httpx.AsyncClient) -> None:
    time = "2026-01-01T01:30:00.120+01:30"
    data = {**SEARCH, "progress": {"found": 7, "completion": 12.5}, "createdAt": time, "metadata": {"one": 1}}
    created = await post(http, "webset.search.updated", data)
    text = (await http.get(f"{EVENTS}/{created['id']}")).text
    for each in ('"found":7,', '"completion":12.5,', '"one":1}', f'"createdAt":"{time}"'):
        assert each in text


async def test_exas_own_sample_is_read_as_it_is_printed(start: Start) -> None:
    """But for what its placeholders stand for, and what the SDK wants beyond it."""
    (sample,) = [
        json.loads(file.read_text())
        for file in (files("tidings_server") / "demo" / "samples").iterdir()
        if file.name.startswith("exa")
    ]
    document = sample["document"]
    data = document["data"]
    data |= {"object": "webset", "dashboardUrl": ""}
    data["searches"][0] |= {
        "object": "webset_search",
        "websetId": data["id"],
        "maxPeoplePerCompany": None,
        "scope": [],
    }
    data["enrichments"][0]["object"] = "webset_enrichment"
    async with alone(start) as (wire, http):
        created = await wire.events.CreateEvent(json_format.ParseDict(sample["request"], CreateEventRequest()))
        document["createdAt"] = created.event.create_time.ToJsonString()
        got = await http.get(f"{EVENTS}/%3Cstring%3E")
        page = await http.get(EVENTS)
    assert got.json() == document
    assert page.json() == {"data": [document], "hasMore": False, "nextCursor": None}


@pytest.mark.parametrize(("type_", "data", "fields"), UNFIT)
async def test_data_that_cannot_be_helped_is_refused_by_every_field(
    http: httpx.AsyncClient, type_: str, data: dict[str, Any], fields: list[str]
) -> None:
    answer = await http.post(EVENTS, json={"type": type_, "data": data})
    assert_refused(answer, 400, "INVALID_REQUEST", *(f"{field}: " for field in fields))
    assert answer.json()["error"].count(": ") == len(fields) + 1


@pytest.mark.parametrize(("type_", "data", "fields"), UNFIT)
async def test_an_event_that_the_sdk_could_not_read_is_left_out(
    start: Start, type_: str, data: dict[str, Any], fields: list[str]
) -> None:
    async with alone(start) as (wire, http):
        event_id = await native(wire, type_, data)
        answer = await http.get(f"{EVENTS}/{event_id}")
        assert_refused(answer, 404, "EVENT_UNREADABLE", event_id, *(f"{field}: " for field in fields))
        with capture_logs() as logs:
            assert await listed(http) == []
    (warning,) = logs
    assert (warning["log_level"], warning["event_id"], warning["fields"]) == ("warning", event_id, fields)


@pytest.mark.parametrize("limits", [None, Limits(response_bytes_max=1)], ids=["whole", "one by one"])
async def test_pages_are_full_and_miss_nothing(start: Start, limits: Limits | None) -> None:
    async with alone(start, limits=limits) as (wire, http):
        ids = []
        for number in range(7):
            ids.append(await native(wire, "webset.idle", {"id": f"{number}"}))
            await native(wire, "webset.idle", {"unfit": number})
        pages: list[dict[str, Any]] = []
        cursor: dict[str, str] = {}
        while not pages or pages[-1]["hasMore"]:
            answer = await http.get(EVENTS, params={"limit": 3, **cursor})
            pages.append(answer.json())
            cursor = {"cursor": pages[-1]["nextCursor"]}
    assert [[event["id"] for event in page["data"]] for page in pages] == [ids[6:3:-1], ids[3:0:-1], ids[:1]]
    assert pages[-1]["nextCursor"] is None


async def test_a_page_that_is_long_in_coming_is_given_as_it_is(start: Start) -> None:
    async with alone(start) as (wire, http):
        event_id = await native(wire, "webset.idle", {"id": "w"})
        for _ in range(LOOKS_MAX):
            await native(wire, "webset.idle", {})
        page = (await http.get(EVENTS, params={"limit": 1})).json()
        assert (page["data"], page["hasMore"]) == ([], True)
        assert await listed(http, limit=1, cursor=page["nextCursor"]) == [event_id]


async def test_a_page_has_twenty_five_events_unless_told(start: Start) -> None:
    async with alone(start) as (wire, http):
        ids = [await native(wire, "webset.idle", {"id": "w"}) for _ in range(27)]
        assert await listed(http) == ids[:1:-1]
        assert await listed(http, limit=200) == ids[::-1]


async def test_a_cursor_goes_on_in_its_own_list_only(start: Start) -> None:
    async with alone(start) as (wire, http):
        ids = [await native(wire, "webset.idle", {"id": "w"}) for _ in range(2)]
        types = ["webset.idle", "webset.paused"]
        cursor = (await http.get(EVENTS, params={"limit": 1, "types": types})).json()["nextCursor"]
        assert await listed(http, cursor=cursor, types=types[::-1]) == ids[:1]
        foreign = await http.get(EVENTS, params={"cursor": cursor, "types": types[:1]})
    assert_refused(foreign, 400, "INVALID_REQUEST", "cursor: was not issued for this list")


async def test_the_list_has_exas_types_only_or_those_that_are_asked_for(start: Start) -> None:
    async with alone(start) as (wire, http):
        await wire.create("ADD")
        idle, export, import_ = [
            (await post(http, type_))["id"] for type_ in ("webset.idle", "webset.export.created", "import.created")
        ]
        assert await listed(http) == [import_, export, idle]
        assert await listed(http, types=["import.created", "webset.idle"]) == [import_, idle]
        assert await listed(http, types="webset.deleted") == []


async def test_times_select_events_from_the_first_to_the_last_instant(start: Start) -> None:
    clock = SetClock()
    async with alone(start, clock=clock) as (_, http):
        events = []
        for _ in range(4):
            events.append(await post(http, "webset.idle"))
            clock.forward(milliseconds=1)
        ids = [event["id"] for event in events]
        times = [event["createdAt"] for event in events]
        assert await listed(http, createdAfter=times[1], createdBefore=times[2]) == [ids[2], ids[1]]
        assert await listed(http, createdAfter=times[1].replace("Z", "1Z")) == [ids[3], ids[2]]
        assert await listed(http, createdBefore=times[1].replace("Z", "9Z")) == [ids[1], ids[0]]
        assert await listed(http, createdAfter="0001-01-01T00:00:00+14:00", createdBefore=times[0]) == ids[:1]
        assert await listed(http, createdBefore="9999-12-31T23:59:59.999999-14:00") == ids[::-1]
        assert await listed(http, createdBefore="1969-12-31T00:00:00Z") == []


async def test_an_event_of_another_dialect_may_be_had_by_its_id(server: Wire, http: httpx.AsyncClient) -> None:
    event_id = await native(server, "ADD", {"one": 1})
    event = (await http.get(f"{EVENTS}/{event_id}")).json()
    assert (event["type"], event["data"]) == ("ADD", {"one": 1})


async def test_an_event_is_created_once_under_its_id(http: httpx.AsyncClient, some_id: str) -> None:
    created = await post(http, "webset.idle", id=some_id)
    assert created["id"] == some_id
    assert await post(http, "webset.idle", id=some_id) == created
    other = await http.post(EVENTS, json={"id": some_id, "type": "webset.idle", "data": {"id": "other"}})
    assert_refused(other, 409, "EVENT_ALREADY_EXISTS", some_id)


async def test_what_is_created_here_is_an_event_like_any_other(server: Wire, http: httpx.AsyncClient) -> None:
    created = await post(http, "webset.search.created")
    watch = server.watch(event_id=created["id"])
    event = (await watch.read()).change.event
    watch.cancel()
    assert event.type == "webset.search.created"
    assert json_format.MessageToDict(event.payload) == SEARCH


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("limit=0", "limit: "),
        ("limit=201", "limit: "),
        ("limit=1e9", "limit: "),
        (f"limit={'9' * 5000}", "limit: "),
        ("types=webset.odd", "types.0: "),
        ("types=ADD&types=webset.idle", "types.0: "),
        ("types=", "types.0: "),
        ("cursor=", "cursor: "),
        ("cursor=%00", "cursor: "),
        (f"cursor={'a' * 1025}", "cursor: "),
        ("createdAfter=tomorrow", "createdAfter: "),
        ("createdBefore=99999-01-01T00:00:00Z", "createdBefore: "),
    ],
)
async def test_a_query_that_is_wrong_is_refused(http: httpx.AsyncClient, query: str, said: str) -> None:
    assert_refused(await http.get(f"{EVENTS}?{query}"), 400, "INVALID_REQUEST", said)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff",
        b"{}",
        b'{"type": "webset.odd", "data": {"id": "w"}}',
        b'{"type": ["webset.idle"], "data": {"id": "w"}}',
        b'{"type": "webset.idle"}',
        b'{"type": "webset.idle", "data": null}',
        b'{"type": "webset.idle", "data": {"id": "w", "searches": {}}}',
        b'{"type": "webset.idle", "data": {"id": "w", "monitors": [[]]}}',
        b'{"type": "webset.idle", "data": {"id": "\\u0000"}}',
        b'{"type": "webset.idle", "data": {"id": "\\ud800"}}',
        b'{"type": "webset.idle", "data": {"id": "w", "big": 1e999}}',
        b'{"type": "webset.idle", "data": {"id": "w"}, "id": "a/b"}',
        b'{"type": "webset.idle", "data": {"id": "w"}, "id": ""}',
        b'{"type": "webset.idle", "data": {"id": "w", "deep": ' + b"[" * 20 + b"]" * 20 + b"}}",
        b'{"type": "webset.idle", "data": {"id": "' + b"w" * 300_000 + b'"}}',
    ],
)
async def test_a_body_that_is_wrong_is_refused(http: httpx.AsyncClient, body: bytes) -> None:
    assert_refused(await http.post(EVENTS, content=body, headers=JSON), 400, "INVALID_REQUEST")


@pytest.mark.parametrize("event_id", ["nowhere", "%ff", "%F0%9F%A6%94", "a b", "a?b", "~"])
async def test_an_unknown_id_is_not_found(http: httpx.AsyncClient, event_id: str) -> None:
    assert_refused(await http.get(f"{EVENTS}/{event_id}"), 404, "EVENT_NOT_FOUND")


@pytest.mark.parametrize("event_id", ["%00", "a" * 129])
async def test_an_id_that_no_event_can_have_is_refused(http: httpx.AsyncClient, event_id: str) -> None:
    assert_refused(await http.get(f"{EVENTS}/{event_id}"), 400, "INVALID_REQUEST", "id: ")


async def test_a_body_that_is_too_large_is_refused(http: httpx.AsyncClient) -> None:
    body = b'{"type": "webset.idle", "data": {"id": "' + b"w" * 1024 * 1024 + b'"}}'
    assert_refused(await http.post(EVENTS, content=body, headers=JSON), 413, "REQUEST_TOO_LARGE")


async def test_of_very_many_flaws_some_are_told(http: httpx.AsyncClient) -> None:
    body = {"type": "webset.idle", "data": {"id": "w", "searches": [1] * 1000}}
    assert_refused(await http.post(EVENTS, json=body), 400, "INVALID_REQUEST", "data.searches.49: ", "; and 950 more")


async def test_a_key_is_asked_for(start: Start) -> None:
    async with keyed(start) as (wire, key):
        async with http_of(wire, **{"x-api-key": key}) as http:
            event_id = (await post(http, "webset.idle"))["id"]
            assert await listed(http) == [event_id]
        for headers in ({}, {"x-api-key": "wrong"}):
            async with http_of(wire, **headers) as http:
                for path in (EVENTS, f"{EVENTS}/{event_id}"):
                    assert_refused(await http.get(path), 401, "INVALID_API_KEY")
                body = {"type": "webset.idle", "data": {"id": "w"}}
                assert_refused(await http.post(EVENTS, json=body), 401, "INVALID_API_KEY")
