"""GoMemory's documented flow, with its own client `gomemory` as it is.

A worker must be completing the tasks of type memory.add meanwhile, and failing those that say "please fail".
"""

from __future__ import annotations

import os
import time
from typing import Any
from urllib.parse import quote, urlsplit

from gomemory import APIError, FullReqStatus, GoMemoryClient, Message, Role

HTTP, KEY = os.environ["TIDINGS_HTTP"], os.environ["TIDINGS_KEY"]
QUEUED = "Memory Insertion Job has been queued for insertion!"
QUEUED_BEFORE = "Memory Insertion Job is already queued or processed successfully!"
TROUBLE = "We are experiencing some techincal issues right now. Please try again after some time!"
WITHIN_SECONDS = 30


def client_with(key: str) -> GoMemoryClient:
    """A client that sends a key in the one way that it has: as the password in the URL."""
    url = urlsplit(HTTP)
    return GoMemoryClient(base_url=f"{url.scheme}://gm:{quote(key, safe='')}@{url.netloc}/")


def ended(client: GoMemoryClient, req_id: str) -> FullReqStatus:
    """A job's status when it has ended."""
    until = time.monotonic() + WITHIN_SECONDS
    while (job := client.get_status(req_id=req_id)).status in {"pending", "processing"}:
        assert time.monotonic() < until, job
        assert job.error is None, job
        time.sleep(0.1)
    return job


def refused(call: Any) -> APIError:
    try:
        answer = call()
    except APIError as error:
        return error
    raise AssertionError(answer)


client = client_with(KEY)
assert client.health_check() == {"message": "Server is healthy!"}
user_id = client.create_user().user_id
assert client.create_user().user_id != user_id

messages = [Message(role=Role.USER, content="My name is Mario."), Message(role=Role.ASSISTANT, content="Noted.")]
added = client.add_memory(user_id=user_id, messages=messages)
assert added.msg == QUEUED, added
job = ended(client, added.req_id)
assert (job.status, job.error) == ("success", None), job
assert job.created_at.endswith("Z"), job
again = client.add_memory(user_id=user_id, messages=messages)
assert (again.req_id, again.msg) == (added.req_id, QUEUED_BEFORE), again
assert client.get_status(added.req_id).status == "success"

failing = [Message(role=Role.SYSTEM, content="please fail")]
first = client.add_memory(user_id=user_id, messages=failing)
job = ended(client, first.req_id)
assert job.status == "failure", job
assert job.error, job
second = client.add_memory(user_id=user_id, messages=failing)
assert (second.req_id, second.msg) == (first.req_id, QUEUED), second
assert ended(client, first.req_id).status == "failure"

unknown = refused(lambda: client.get_status("00000000-0000-4000-8000-000000000000"))
assert (unknown.status, unknown.message) == (500, TROUBLE), unknown
unfit = refused(lambda: client.get_status('""'))
assert (unfit.status, unfit.message) == (400, "Bad Request"), unfit
empty = refused(lambda: client.add_memory(user_id=user_id, messages=[]))
assert (empty.status, empty.message) == (400, "No messages provided"), empty
assert refused(lambda: client_with("wrong").create_user()).status == 401
print("ok")
