# From Exa, "Get an Event": https://docs.exa.ai/websets/api/events/get-an-event

curl --request GET \
  --url https://api.exa.ai/websets/v0/events/{id} \
  --header 'x-api-key: <api-key>'
