# From mem0, "Get Event": https://docs.mem0.ai/api-reference/events/get-event

curl --request GET \
  --url https://api.mem0.ai/v1/event/{event_id}/ \
  --header 'Authorization: Token <api-key>'
