"""The OpenAPI document: what FastAPI knows of the vendors' dialects, and Tidings' own routes from their table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from tidings_server.gateway.rest.proto_json import JSON
from tidings_server.gateway.rest.route import Route
from tidings_server.gateway.rest.routes import PREFIX, ROUTES
from tidings_server.gateway.rest.schemas import Schemas

Content = dict[str, Any]

VERSION: Final = "3.1.0"
_DESCRIPTION: Final = """\
Under `/tidings/v1` is every RPC of Tidings' gRPC services, its messages as
[proto3 JSON](https://protobuf.dev/programming-guides/json/): fields that have their default value are left out of
answers, whole numbers are numbers, and those of 64 bits may also be sent as texts. What the fields mean stands in the
protos. An id in a path that ends like a verb (`:watch`) must have its `:` percent-encoded. The other paths are those of
the vendors' own APIs."""
_WATCH: Final = """\
[Server-sent events](https://html.spec.whatwg.org/multipage/server-sent-events.html) named `change`, `synced`,
`bookmark`, `reset`, `closing` or `unreadable`, each with a message of the watch, but for its token, as data, and the
token as id; and `error`, with the error that ended the watch. A watch that fails at once has an error's status."""
_LAST_ID: Final = "The newest id: the watch goes on right after it, whatever `liveOnly` and `resumeToken` say."
_SECURITY: Final[Mapping[str, Content]] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key."},
    "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "An API key."},
}
_ERRORS: Final[Mapping[int, str]] = {
    400: "The request is invalid; `violations` says where.",
    401: "The API key is missing or not valid.",
    403: "The API key does not have the scope that this needs.",
    404: "There is no such event, task, mission, run or step.",
    409: "The state or the revision of what is there is against it, or the id is taken.",
    410: "Changes since the resume token are no longer stored.",
    413: "The body is too large.",
    415: "The body is not `application/json`.",
    429: "There are too many calls or watches under way.",
    500: "A fault of the service, or a record that cannot be read.",
    503: "The service cannot answer at the moment.",
    504: "The service did not answer in time.",
}
_ERROR_REF: Final[Content] = {"$ref": "#/components/schemas/tidings.v1.Error"}
_ERROR: Final[Content] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "status", "reason", "message"],
            "properties": {
                "code": {"type": "integer", "description": "The HTTP status."},
                "status": {"type": "string", "description": "The name of the gRPC status."},
                "reason": {"type": "string", "description": "An ErrorReason without its prefix, or empty."},
                "message": {"type": "string", "description": "What is wrong, for people."},
                "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
                "violations": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["field", "description"],
                        "properties": {"field": {"type": "string"}, "description": {"type": "string"}},
                    },
                },
                "requestId": {"type": "string", "description": "Under which the service's log tells more."},
            },
        }
    },
}


def document(app: FastAPI) -> Content:
    """The document of the whole port; made once."""
    if app.openapi_schema is None:
        made = get_openapi(
            title=app.title, version=app.version, openapi_version=VERSION, description=_DESCRIPTION, routes=app.routes
        )
        schemas = Schemas()
        for route in ROUTES:
            made["paths"].setdefault(PREFIX + route.path, {})[route.method.lower()] = _operation(route, schemas)
        components = made.setdefault("components", {})
        components.setdefault("schemas", {}).update({**schemas.components, "tidings.v1.Error": _ERROR})
        components["responses"] = {f"tidings.v1.{status}": _error(text) for status, text in _ERRORS.items()}
        components["securitySchemes"] = dict(_SECURITY)
        made["security"] = [*({name: list[str]()} for name in _SECURITY), {}]
        app.openapi_schema = made
    return app.openapi_schema


def _operation(route: Route, schemas: Schemas) -> Content:
    operation: Content = {
        "operationId": route.operation,
        "summary": route.summary,
        "tags": ["Tidings"],
        "parameters": list(_parameters(route, schemas)),
        "responses": {"200": _success(route, schemas)}
        | {str(status): {"$ref": f"#/components/responses/tidings.v1.{status}"} for status in _statuses(route)},
    }
    if route.is_watch:
        operation["responses"]["204"] = {"description": "There is nothing after the id that was given."}
    if route.has_body:
        body = schemas.of_body(route.request, () if route.ids_in else route.ids)
        operation["requestBody"] = {"content": {JSON: {"schema": body}}, "required": True}
    return operation


def _parameters(route: Route, schemas: Schemas) -> Iterator[Content]:
    an_id = {"type": "string", "minLength": 1, "maxLength": 128, "pattern": r"^[^/\u0000]+$"}
    for name in route.ids:
        yield {"name": name, "in": "path", "required": True, "schema": an_id}
    for name, field in route.query.items():
        yield {"name": name, "in": "query", "schema": schemas.of_parameter(field)}
    if route.is_watch:
        yield {"name": "Last-Event-ID", "in": "header", "schema": {"type": "string"}, "description": _LAST_ID}


def _success(route: Route, schemas: Schemas) -> Content:
    message = route.rpc_descriptor.output_type
    answer = schemas.of_answer(message)
    if not route.is_watch:
        return {"description": "Done.", "content": {JSON: {"schema": answer}}}
    names = [each.name for each in message.oneofs_by_name["message"].fields]
    return {"description": _WATCH, "content": {"text/event-stream": {"schema": _sent_event(names, answer)}}}


def _sent_event(names: Sequence[str], message: Content) -> Content:
    """The schema of one event: OpenAPI 3.1 has none for a stream of them."""
    data = {"type": "string", "contentMediaType": JSON, "contentSchema": {"anyOf": [message, _ERROR_REF]}}
    properties = {
        "id": {"type": "string"},
        "event": {"type": "string", "enum": [*names, "error"]},
        "data": data,
        "retry": {"type": "integer"},
    }
    return {"type": "object", "required": ["event", "data"], "properties": properties}


def _statuses(route: Route) -> Iterator[int]:
    only_for = {413: route.has_body, 415: route.has_body, 409: route.method != "GET", 410: route.is_watch}
    return (status for status in _ERRORS if only_for.get(status, True))


def _error(description: str) -> Content:
    return {"description": description, "content": {JSON: {"schema": _ERROR_REF}}}
