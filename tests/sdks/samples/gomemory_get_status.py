# From GoMemory, "Get Job Status": https://prateek-gupta001.github.io/go-memory-docs/docs/get-status

import time
from gomemory import GoMemoryClient, Message, Role

client = GoMemoryClient(base_url="http://localhost:9000")

# 1. First, queue a memory insertion job
insert_res = client.add_memory(
    user_id="834f5933-9378-4826-aa8a-12ae5331317c",
    messages=[Message(role=Role.USER, content="Test memory status")]
)
req_id = insert_res.req_id

# 2. Poll the status using the returned req_id
while True:
    status_res = client.get_status(req_id=req_id)
    print(f"Current Status: {status_res.status}")

    if status_res.status == "success":
        print(f"Job completed successfully. Created at: {status_res.created_at}")
        break
    elif status_res.status == "failure":
        print(f"Job failed with error: {status_res.error}")
        break

    # Wait before polling again
    time.sleep(2)
