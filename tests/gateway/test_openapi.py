"""The OpenAPI document: every route is in it, with what the protos say of its fields."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tidings_server.gateway.rest.routes import PREFIX, ROUTES


@pytest.fixture
async def document(http: httpx.AsyncClient) -> Any:
    answer = await http.get("/openapi.json")
    assert answer.status_code == 200
    return answer.json()


def schema(document: Any, name: str) -> Any:
    return document["components"]["schemas"][name]


def operation(document: Any, name: str) -> Any:
    return next(
        each for path in document["paths"].values() for each in path.values() if each.get("operationId") == name
    )


def parameters(document: Any, name: str) -> dict[str, Any]:
    return {each["name"]: each["schema"] for each in operation(document, name)["parameters"]}


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        yield from ([part["$ref"]] if isinstance(part.get("$ref"), str) else [])
    for each in part.values() if isinstance(part, dict) else part if isinstance(part, list) else []:
        yield from references(each)


def test_every_route_is_in_it(document: Any) -> None:
    assert document["openapi"].startswith("3.1")
    for route in ROUTES:
        found = document["paths"][PREFIX + route.path][route.method.lower()]
        assert (found["operationId"], found["summary"]) == (route.operation, route.summary)
    ids = [each["operationId"] for path in document["paths"].values() for each in path.values()]
    assert len(set(ids)) == len(ids)


def test_it_refers_to_what_is_there(document: Any) -> None:
    found = set(references(document))
    assert found
    for reference in found:
        place = document
        for name in reference.removeprefix("#/").split("/"):
            place = place[name]


def test_a_key_may_be_given_in_two_ways(document: Any) -> None:
    assert document["security"] == [{"bearer": []}, {"apiKey": []}, {}]
    schemes = document["components"]["securitySchemes"]
    assert (schemes["bearer"]["scheme"], schemes["apiKey"]["name"]) == ("bearer", "x-api-key")


def test_the_rules_of_the_protos_are_told(document: Any) -> None:
    event = schema(document, "tidings.v1.Event-Input")
    assert event["required"] == ["type"]
    assert event["additionalProperties"] is False
    properties = event["properties"]
    assert properties["summary"]["maxLength"] == 4096
    assert properties["type"]["pattern"] == r"^[A-Za-z0-9_-]+([.][A-Za-z0-9_-]+)*$"
    assert properties["eventId"]["pattern"] == r"^$|^[^/\p{C}\p{Z}]{1,128}$"
    assert properties["eventTime"]["format"] == "date-time"
    assert "TASK_STATE_SKIPPED" not in schema(document, "tidings.v1.TaskStatus-Input")["properties"]["state"]["enum"]
    body = operation(document, "batchCreateEvents")["requestBody"]["content"]["application/json"]["schema"]
    assert (body["properties"]["requests"]["minItems"], body["properties"]["requests"]["maxItems"]) == (1, 500)
    mask = operation(document, "updateMission")["requestBody"]["content"]["application/json"]["schema"]
    assert mask["properties"]["updateMask"]["pattern"].startswith(
        "^(name|description|instructions|model|executionMode|"
    )
    wait = parameters(document, "waitTaskStatus")["timeout"]
    assert (wait["pattern"], wait["description"]) == (r"^[0-9]{1,2}(\.[0-9]{1,9})?s$", "From 0s to 60s.")
    revision = mask["properties"]["expectedRevision"]
    assert (revision["type"], revision["minimum"], revision["pattern"]) == (["integer", "string"], 0, "^[0-9]{1,19}$")


def test_the_events_of_a_watch_are_told(document: Any) -> None:
    event = operation(document, "watchRun")["responses"]["200"]["content"]["text/event-stream"]["schema"]["properties"]
    names = ["change", "synced", "bookmark", "reset", "closing", "unreadable", "error"]
    assert event["event"]["enum"] == names
    told, error = event["data"]["contentSchema"]["anyOf"]
    assert told == {"$ref": "#/components/schemas/tidings.v1.WatchRunResponse"}
    assert error == {"$ref": "#/components/schemas/tidings.v1.Error"}


def test_answers_may_grow(document: Any) -> None:
    event = schema(document, "tidings.v1.Event")
    assert "required" not in event
    assert "additionalProperties" not in event
    assert set(event["properties"]) == set(schema(document, "tidings.v1.Event-Input")["properties"])


def test_a_query_has_what_the_path_does_not_give(document: Any) -> None:
    listed = parameters(document, "listEvents")
    assert (listed["pageSize"]["minimum"], listed["pageSize"]["maximum"]) == (0, 1000)
    assert listed["types"]["maxItems"] == 32
    assert "TASK_STATE_UNSPECIFIED" not in listed["states"]["items"]["enum"]
    common = {"resumeToken", "liveOnly", "heartbeatInterval", "onHistoryLoss", "maxDuration", "Last-Event-ID"}
    narrowing = {"filter.types", "filter.states"}
    assert set(parameters(document, "watchEvents")) == common | narrowing
    assert set(parameters(document, "watchMissionEvents")) == common | narrowing | {"missionId"}
    assert set(parameters(document, "watchRunEvents")) == common | narrowing | {"runId", "parent.missionId"}
    of_one = {"eventId", "stayOpen", "parent.runId", "parent.missionId"}
    assert set(parameters(document, "watchEvent")) == common | of_one
    body = operation(document, "updateTaskStatus")["requestBody"]["content"]["application/json"]["schema"]
    assert "taskId" not in body["properties"]


def test_every_status_is_told(document: Any) -> None:
    everywhere = {"200", "400", "401", "403", "404", "429", "500", "503", "504"}
    assert set(operation(document, "getEvent")["responses"]) == everywhere
    assert set(operation(document, "deleteEvent")["responses"]) == everywhere | {"409"}
    assert set(operation(document, "createEvent")["responses"]) == everywhere | {"409", "413", "415"}
    assert set(operation(document, "watchEvent")["responses"]) == everywhere | {"204", "410"}
