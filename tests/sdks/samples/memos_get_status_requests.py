# From MemOS, "Get Task Status": https://memos-docs.openmem.net/api_docs/message/get_status

import os
import requests
import json

# Replace with your API Key
os.environ["MEMOS_API_KEY"] = "YOUR_API_KEY"
os.environ["MEMOS_BASE_URL"] = "https://memos.memtensor.cn/api/openmem/v1"

data = {
    "task_id": "40aae834-4248-4944-b2bb-a674f37a2fdb" # Replace with the Task ID to query
}
headers = {
    "Content-Type": "application/json",
    "Authorization": f"Token {os.environ['MEMOS_API_KEY']}"
}
url = f"{os.environ['MEMOS_BASE_URL']}/get/status"

res = requests.post(url=url, headers=headers, data=json.dumps(data))
print(f"result: {res.json()}")
