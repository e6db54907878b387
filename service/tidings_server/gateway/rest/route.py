"""A route of Tidings' own face: an RPC behind a method and a path, and which of its fields come from where."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from tidings import AsyncClient
from tidings.v1 import event_service_pb2, mission_service_pb2, run_service_pb2, task_service_pb2
from tidings_server.gateway.rest.query import query_fields

SERVICES: Final = {
    "events": event_service_pb2.DESCRIPTOR.services_by_name["EventService"],
    "tasks": task_service_pb2.DESCRIPTOR.services_by_name["TaskService"],
    "missions": mission_service_pb2.DESCRIPTOR.services_by_name["MissionService"],
    "runs": run_service_pb2.DESCRIPTOR.services_by_name["RunService"],
}
"""The services, by their names in the client."""


@dataclass(frozen=True)
class Route:
    """One method of one path. Names of fields are those that they have in JSON."""

    method: str
    path: str
    rpc: str
    """The service, by its name in the client, and the RPC."""
    summary: str
    name: str = ""
    """Of the operation, if not that of the RPC."""
    ids_in: str = ""
    """The field in which the ids of the path are, if not in the request itself."""
    fixed: dict[str, Any] = field(default_factory=dict)
    """What the path says by itself."""
    without: frozenset[str] = frozenset()
    """Fields that are not for this route."""

    @cached_property
    def rpc_descriptor(self) -> MethodDescriptor:
        service, _, name = self.rpc.partition(".")
        return SERVICES[service].methods_by_name[name]

    @property
    def operation(self) -> str:
        rpc = self.rpc_descriptor.name
        return self.name or rpc[0].lower() + rpc[1:]

    @property
    def request(self) -> Descriptor:
        return self.rpc_descriptor.input_type

    @cached_property
    def request_class(self) -> type[Message]:
        return GetMessageClass(self.request)

    def rpc_of(self, client: AsyncClient) -> Any:
        service, _, name = self.rpc.partition(".")
        return getattr(getattr(client, service), name)

    @property
    def is_watch(self) -> bool:
        return self.rpc_descriptor.server_streaming

    @property
    def has_body(self) -> bool:
        return self.method in {"POST", "PATCH"}

    @cached_property
    def ids(self) -> tuple[str, ...]:
        return tuple(re.findall(r"{(\w+)}", self.path))

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        return re.compile(re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", self.path))

    @cached_property
    def query(self) -> Mapping[str, FieldDescriptor]:
        """The fields that the query may give, by their names in it."""
        if self.has_body:
            return {}
        given = {*self.ids, *self.fixed}
        decided = [each.containing_oneof for each in self.request.fields if each.json_name in given]
        instead = {each.json_name for oneof in decided if oneof for each in oneof.fields}
        return query_fields(self.request, self.without | given | instead)
