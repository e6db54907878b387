# From MemOS, "Get Task Status": https://memos-docs.openmem.net/api_docs/message/get_status

curl --request POST \
  --url https://memos.memtensor.cn/api/openmem/v1/get/status \
  --header 'Authorization: Token YOUR_API_KEY' \
  --header 'Content-Type: application/json' \
  --data '{
  "task_id": "40aae834-4248-4944-b2bb-a674f37a2fdb"
}'
