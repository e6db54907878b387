"""Exa's own SDK against Tidings: get and list, page by page and by type, and what an unknown id and a wrong key give.

Needs TIDINGS_HTTP, the root URL of a server that has API keys, and TIDINGS_KEY, one of them.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from datetime import UTC, datetime
from typing import Any

import requests
from exa_py import AsyncExa, Exa

from exa_minimal import MINIMAL

ROOT = os.environ["TIDINGS_HTTP"].rstrip("/")
KEY = os.environ["TIDINGS_KEY"]
CLASSED = [type_ for type_ in MINIMAL if ".export." not in type_]
"""The types that every release of the SDK knows."""


def main() -> None:
    exa = Exa(KEY, base_url=ROOT)
    ids = {type_: create(type_) for type_ in CLASSED}
    get_each(exa, ids)
    list_by_pages(exa, ids)
    list_by_type(exa, ids)
    asyncio.run(ask_asynchronously(ids))
    fail(lambda: exa.websets.events.get("no-such-event"), "404", "EVENT_NOT_FOUND")
    fail(lambda: exa.websets.events.list(cursor="made up"), "400", "INVALID_REQUEST")
    fail(lambda: exa.websets.events.list(limit=201), "400", "INVALID_REQUEST")
    fail(lambda: Exa("wrong", base_url=ROOT).websets.events.list(), "401", "INVALID_API_KEY")
    print("ok")  # for whoever runs it


def create(type_: str) -> str:
    event = {"id": f"event-{uuid.uuid4().hex}", "type": type_, "data": MINIMAL[type_]}
    answer = requests.post(f"{ROOT}/websets/v0/events", json=event, headers={"x-api-key": KEY}, timeout=30)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def get_each(exa: Any, ids: dict[str, str]) -> None:
    for type_, event_id in ids.items():
        event = exa.websets.events.get(event_id)
        assert type(event).__name__ == class_of(type_)
        assert (event.id, event.object, event.type) == (event_id, "event", type_)
        assert event.data.id == MINIMAL[type_]["id"]
        assert event.created_at == event.data.created_at
        assert abs((datetime.now(UTC) - event.created_at).total_seconds()) < 600


def list_by_pages(exa: Any, ids: dict[str, str]) -> None:
    """The events are the newest, so they are on the first pages."""
    listed: list[str] = []
    cursor = None
    while len(listed) < len(ids):
        page = exa.websets.events.list(limit=5, cursor=cursor, types=CLASSED)
        assert len(page.data) == 5 or not page.has_more
        listed += [event.id for event in page.data]
        cursor = page.next_cursor
        assert page.has_more == (cursor is not None)
    assert listed[: len(ids)] == list(ids.values())[::-1]


def list_by_type(exa: Any, ids: dict[str, str]) -> None:
    types = ["webset.idle", "monitor.run.completed"]
    page = exa.websets.events.list(types=types, limit=2)
    assert [event.id for event in page.data] == [ids["monitor.run.completed"], ids["webset.idle"]]
    assert page.data[0].data.status == "completed"


async def ask_asynchronously(ids: dict[str, str]) -> None:
    exa = AsyncExa(api_key=KEY, api_base=ROOT)
    for type_, event_id in ids.items():
        event = await exa.websets.events.get(event_id)
        assert (type(event).__name__, event.id) == (class_of(type_), event_id)
    page = await exa.websets.events.list(limit=len(ids), types=CLASSED)
    assert [event.id for event in page.data] == list(ids.values())[::-1]


def class_of(type_: str) -> str:
    return "".join(word.title() for word in type_.split(".")) + "Event"


def fail(call: Any, status: str, tag: str) -> None:
    try:
        call()
    except ValueError as error:  # the SDK has no other
        told = str(error)
    else:
        raise AssertionError(f"expected {status}")
    for each in (f"status code {status}", tag, "requestId"):
        assert each in told, told


if __name__ == "__main__":
    main()
