# From mem0, "Get Event": https://docs.mem0.ai/api-reference/events/get-event

import requests

url = "https://api.mem0.ai/v1/event/{event_id}/"

headers = {"Authorization": "Token <api-key>"}

response = requests.request("GET", url, headers=headers)

print(response.text)
