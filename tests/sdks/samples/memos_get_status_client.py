# From MemOS, "Get Task Status": https://memos-docs.openmem.net/api_docs/message/get_status

# Ensure MemoS is installed (pip install MemoryOS -U)
from memos.api.client import MemOSClient

# Initialize client with API Key
client = MemOSClient(api_key="YOUR_API_KEY")

task_id = "40aae834-4248-4944-b2bb-a674f37a2fdb" # Replace with real Task ID
res = client.get_task_status(task_id=task_id)

print(f"result: {res}")
