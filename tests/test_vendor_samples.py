"""Samples of the five APIs whose events Tidings keeps: each is stored and read back as its vendor prints it."""

import copy
import json
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import httpx
import protovalidate
import pytest
from google.protobuf import json_format

from tidings.v1.event_pb2 import Event
from tidings.v1.event_service_pb2 import CreateEventRequest, DeleteEventRequest

Sample = dict[str, Any]

ADDRESSES: dict[str, Callable[[Event], str]] = {
    "mem0": lambda event: f"/v1/event/{event.event_id}/",
    "gomemory": lambda event: f"/get_status/{event.event_id}",
    "exa": lambda event: f"/websets/v0/events/{event.event_id}",
    "telnyx": lambda event: f"/v2/ai/missions/{event.mission_id}/runs/{event.run_id}/events/{event.event_id}",
    "memos": lambda event: "/api/openmem/v1/get/status",
}
"""Where each vendor's page says that the event is asked for."""

PLACEHOLDER = "<string>"
"""What Exa's page prints for any text, also where its SDK takes one only, as for `object`."""

SAMPLES: dict[str, Sample] = {
    file.name.removesuffix(".json"): json.loads(file.read_text(encoding="utf-8"))
    for file in sorted((files("tidings_server") / "demo" / "samples").iterdir(), key=lambda file: file.name)
}

each_sample = pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES.keys())


def documents(vendor: str) -> list[dict[str, Any]]:
    return [sample["document"] for sample in SAMPLES.values() if sample["vendor"] == vendor]


def request_of(sample: Sample) -> CreateEventRequest:
    return json_format.ParseDict(sample["request"], CreateEventRequest())


def expected_document(sample: Sample, event_id: str) -> dict[str, Any]:
    """Give what the vendor prints, with the derived id where Tidings derives it: such a document names none."""
    document: dict[str, Any] = copy.deepcopy(sample["document"])
    if "idempotencyKey" in sample["request"]["event"]:
        document["data"]["event_id"] = event_id
    return document


def exactly(document: Any) -> str:
    """JSON text, in which 1 and 1.0, or 1 and true, are not equal as they are in Python."""
    return json.dumps(document, sort_keys=True)


@each_sample
def test_sample_request_is_valid(sample: Sample) -> None:
    request = request_of(sample)
    protovalidate.validate(request)
    assert json_format.MessageToDict(request) == sample["request"]  # so it is written in the canonical names


async def asked(http: httpx.AsyncClient, vendor: str, event: Event) -> Any:
    """What the HTTP face answers to the vendor's callers."""
    address = ADDRESSES[vendor](event)
    answer = await (http.post(address, json={"task_id": event.event_id}) if vendor == "memos" else http.get(address))
    assert answer.status_code == 200, answer.text
    return answer.json()


def holds(answer: Any, document: Any) -> bool:
    """Whether an answer has all that a document has, and perhaps what Exa's SDK insists on and its page leaves out."""
    if isinstance(document, dict):
        return isinstance(answer, dict) and all(
            name in answer and holds(answer[name], each) for name, each in document.items()
        )
    if isinstance(document, list):
        return isinstance(answer, list) and len(answer) == len(document) and all(map(holds, answer, document))
    if document == PLACEHOLDER:
        return isinstance(answer, str)
    return exactly(answer) == exactly(document)


@each_sample
async def test_sample_reads_back_equal(sample: Sample, server: Any, http: httpx.AsyncClient) -> None:
    request = request_of(sample)
    if request.event.run_id:
        await server.create_mission(mission_id=request.event.mission_id)
        await server.create_run(request.event.mission_id, run_id=request.event.run_id)
    created = await server.events.CreateEvent(request)
    event_id = created.event.event_id
    try:
        answer, document = await asked(http, sample["vendor"], created.event), expected_document(sample, event_id)
        if sample["vendor"] == "exa":
            document["createdAt"] = created.event.create_time.ToJsonString()  # by which Exa's lists are ordered
            assert holds(answer, document)
        else:
            assert exactly(answer) == exactly(document)
    finally:  # two samples are the same MemOS task at different times
        await server.events.DeleteEvent(DeleteEventRequest(event_id=event_id))


def test_every_vendor_has_a_sample() -> None:
    assert {sample["vendor"] for sample in SAMPLES.values()} == ADDRESSES.keys()
    for sample in SAMPLES.values():
        assert sample.keys() == {"vendor", "source", "document", "request"}
        assert ": https://" in sample["source"]


def test_mem0_samples_fill_every_field() -> None:
    fields = {"id", "event_type", "status", "payload", "metadata", "results"}
    fields |= {"created_at", "updated_at", "started_at", "completed_at", "latency"}
    done, pending = documents("mem0")
    assert done.keys() == pending.keys() == fields
    assert (done["event_type"], done["status"], done["latency"]) == ("ADD", "SUCCEEDED", 2250)
    assert None not in done.values()
    assert [result["event"] for result in done["results"]] == ["ADD", "ADD"]
    assert [name for name, value in pending.items() if value is None] == [
        "metadata", "started_at", "completed_at", "latency",
    ]  # fmt: skip


def test_gomemory_samples_are_the_two_printed_ones() -> None:
    created_at = "2026-03-03T21:44:15Z"
    error = "Vector database timeout during embedding generation"
    failure, success = documents("gomemory")
    assert failure == {"status": "failure", "createdAt": created_at, "error": error}
    assert success == {"status": "success", "createdAt": created_at}


def test_exa_sample_is_the_whole_printed_webset() -> None:
    (document,) = documents("exa")
    assert (document["id"], document["object"], document["type"]) == ("<string>", "event", "webset.created")
    assert document["data"].keys() == {
        "id", "object", "status", "externalId", "title", "searches", "imports", "enrichments", "monitors", "streams",
        "metadata", "createdAt", "updatedAt",
    }  # fmt: skip
    assert document["data"]["searches"][0]["recall"]["expected"]["bounds"] == {"min": 123, "max": 123}


def test_telnyx_samples_fill_every_field_of_each_type() -> None:
    events = [document["data"] for document in documents("telnyx")]
    assert sorted(event["type"] for event in events) == [
        "custom", "error", "message", "status_change", "step_completed", "step_failed", "step_started", "tool_call",
        "tool_result",
    ]  # fmt: skip
    fields = {"run_id", "type", "summary", "timestamp", "step_id", "agent_id", "payload", "idempotency_key"}
    for event in events:
        assert event.keys() | {"event_id"} == fields | {"event_id"}
        assert all(event.values())


def test_telnyx_samples_choose_an_id_or_derive_it_from_the_key() -> None:
    events = [sample["request"]["event"] for sample in SAMPLES.values() if sample["vendor"] == "telnyx"]
    assert all(("eventId" in event) != ("idempotencyKey" in event) for event in events)
    assert [event["type"] for event in events if "idempotencyKey" in event] == ["tool_call"]


def test_memos_samples_are_one_task_running_and_completed() -> None:
    completed, running = (document["data"] for document in documents("memos"))
    assert running == {"task_id": "40aae834-4248-4944-b2bb-a674f37a2fdb", "status": "running"}
    assert completed.keys() == {"task_id", "status", "memory_views"}
    assert completed["task_id"] == running["task_id"]
    assert completed["status"] == "completed"
