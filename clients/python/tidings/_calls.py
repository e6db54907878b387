"""What both clients do for every call: the channel's settings, the key, a deadline, and ids that make retries safe."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from datetime import timedelta
from ipaddress import ip_address
from typing import Any, Final, TypeVar
from uuid import uuid4

import grpc
from google.protobuf.message import Message
from uuid_utils import uuid7

from tidings.v1 import event_service_pb2, mission_service_pb2, run_service_pb2, task_service_pb2
from tidings.v1.event_service_pb2 import BatchCreateEventsRequest, CreateEventRequest
from tidings.v1.mission_service_pb2 import CreateMissionRequest
from tidings.v1.run_service_pb2 import CreateRunRequest
from tidings.v1.task_service_pb2 import WaitTaskStatusRequest

DEADLINE_SECONDS: Final = 10.0
_WAIT_DEFAULT: Final = timedelta(seconds=30)
_WAIT_MARGIN: Final = timedelta(seconds=5)

_SERVICES: Final = (
    event_service_pb2.DESCRIPTOR.services_by_name["EventService"],
    task_service_pb2.DESCRIPTOR.services_by_name["TaskService"],
    mission_service_pb2.DESCRIPTOR.services_by_name["MissionService"],
    run_service_pb2.DESCRIPTOR.services_by_name["RunService"],
)

_RETRY_POLICY: Final = {
    "maxAttempts": 4,
    "initialBackoff": "0.1s",
    "maxBackoff": "2s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}

Request = TypeVar("Request", bound=Message)


def channel_credentials(
    target: str, credentials: grpc.ChannelCredentials | None, *, insecure: bool
) -> grpc.ChannelCredentials | None:
    """How to secure the channel; None for plaintext: where the caller says so, and to this machine.

    Raises ValueError if the caller says two things.
    """
    if credentials is not None and insecure:
        raise ValueError("give either credentials or insecure=True")
    if insecure or (credentials is None and _is_loopback(target)):
        return None
    return credentials or grpc.ssl_channel_credentials()


def channel_options() -> list[tuple[str, str | int]]:
    return [
        ("grpc.service_config", json.dumps(_service_config())),
        # As the watches' own backoff: after a long outage gRPC would wait for two minutes.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 10_000),
    ]


def authorization(key: str | None) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {key}"),) if key else ()


def deadline_seconds(request: Message) -> float:
    """How long a call may take when the caller does not say."""
    if not isinstance(request, WaitTaskStatusRequest):
        return DEADLINE_SECONDS
    wait = request.timeout.ToTimedelta() if request.HasField("timeout") else _WAIT_DEFAULT
    return (wait + _WAIT_MARGIN).total_seconds()


def safe_to_retry(request: Request) -> Request:
    """The request with an id by which the service knows a retry of it, if it changes something and has none.

    The caller's message is left as it is: it may be used again for another call.
    """
    safe = deepcopy(request)
    if isinstance(safe, BatchCreateEventsRequest):
        for each in safe.requests:
            _identify(each)
    else:
        _identify(safe)
    return safe


def _identify(request: Any) -> None:
    match request:
        case CreateEventRequest() if not request.event.event_id and not request.event.idempotency_key:
            request.event.event_id = str(uuid7())
        case CreateMissionRequest() if not request.mission.mission_id:
            request.mission.mission_id = str(uuid7())
        case CreateRunRequest() if not request.run.run_id:
            request.run.run_id = str(uuid7())
        case _ if "request_id" in request.DESCRIPTOR.fields_by_name and not request.request_id:
            request.request_id = str(uuid4())


def _service_config() -> dict[str, Any]:
    """Every call is safe to retry: it reads, or `safe_to_retry` made it so. Watches resume by themselves."""
    retried = [{"service": service.full_name} for service in _SERVICES]
    return {"methodConfig": [{"name": retried, "retryPolicy": _RETRY_POLICY}, {"name": list(_watches())}]}


def _watches() -> Iterator[dict[str, str]]:
    for service in _SERVICES:
        for method in service.methods:
            if method.server_streaming:
                yield {"service": service.full_name, "method": method.name}


def _is_loopback(target: str) -> bool:
    """Whether a gRPC target, such as `host:port`, `ipv4:host:port` or `dns:///host:port`, is of this machine."""
    if target.startswith("unix"):
        return True
    address = target.rpartition("/")[2].removeprefix("ipv4:").removeprefix("ipv6:")
    host = address.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
