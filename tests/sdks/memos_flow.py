"""MemOS's documented flow, with its own client `MemoryOS` as it is.

A worker must be completing the tasks of type memory.add meanwhile, and failing those that say "please fail".
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from typing import Any

os.chdir(tempfile.mkdtemp())  # it writes its log into the working directory

from memos.api.client import MemOSClient  # noqa: E402
from requests import HTTPError  # noqa: E402

HTTP, KEY = os.environ["TIDINGS_HTTP"], os.environ["TIDINGS_KEY"]
ROOT = f"{HTTP}/api/openmem/v1"
WITHIN_SECONDS = 30

logging.disable()


def ended(client: MemOSClient, task_id: str) -> Any:
    """A task's data when it has ended."""
    until = time.monotonic() + WITHIN_SECONDS
    while (data := client.get_task_status(task_id=task_id).data).status == "running":
        assert time.monotonic() < until, data
        assert data.memory_views is None, data
        time.sleep(0.1)
    return data


def refused(call: Any) -> tuple[int, int]:
    """The HTTP status and the vendor's code of a call that fails."""
    try:
        answer = call()
    except HTTPError as error:
        return error.response.status_code, error.response.json()["code"]
    raise AssertionError(answer)


client = MemOSClient(api_key=KEY, base_url=ROOT)
messages = [
    {"role": "user", "content": "I've booked a trip to Guangzhou. Which chain hotels are there?"},
    {"role": "assistant", "content": "You can consider 7 Days Inn, Ji Hotel or Hilton."},
]
added = client.add_message(messages=messages, user_id="memos_user_123", conversation_id="0610")
assert added is not None
assert (added.code, added.success, added.status) == (0, True, "running"), added
data = ended(client, added.task_id)
assert (data.task_id, data.status) == (added.task_id, "completed"), data

failing = client.add_message(messages=[{"role": "user", "content": "please fail"}], agent_id="agent")
assert failing is not None
assert ended(client, failing.task_id).status == "failed"

feedback = client.add_feedback(user_id="memos_user_123", feedback_content="I prefer Ji Hotel.")
assert feedback is not None
assert feedback.success, feedback
assert client.get_task_status(feedback.task_id).data.status == "running"

assert refused(lambda: client.get_task_status("00000000-0000-4000-8000-000000000000")) == (404, 50131)
wrong = MemOSClient(api_key="wrong", base_url=ROOT)
assert refused(lambda: wrong.get_task_status(added.task_id)) == (401, 40132)
assert MemOSClient(api_key=KEY, base_url=ROOT + "/").get_task_status(added.task_id).data.status == "completed"
print("ok")
