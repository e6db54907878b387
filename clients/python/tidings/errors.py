"""The one exception of the clients: a gRPC status with the details that Tidings adds to it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Final, Self, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RequestInfo, RetryInfo
from google.rpc.status_pb2 import Status

from tidings.v1.error_reason_pb2 import ERROR_REASON_UNSPECIFIED, ErrorReason

_DOMAIN: Final = "tidings"
_REASON_PREFIX: Final = "ERROR_REASON_"

_Detail = TypeVar("_Detail", bound=Message)


class TidingsError(grpc.aio.AioRpcError):
    """A call that failed, of either client. It is a `grpc.RpcError`: `code()` and `details()` are as of any other.

    try:
        client.events.GetEvent(GetEventRequest(event_id="ev-1"))
    except TidingsError as error:
        if error.reason != ErrorReason.ERROR_REASON_EVENT_NOT_FOUND:
            raise
    """

    @classmethod
    def local(cls, code: grpc.StatusCode, details: str) -> Self:
        """A failure of the client's own."""
        return cls(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details)

    @classmethod
    def of(cls, error: grpc.RpcError) -> Self:
        """The same failure, with its details to be read."""
        assert isinstance(error, grpc.Call | grpc.aio.AioRpcError)
        return cls(
            error.code(),
            grpc.aio.Metadata(),
            grpc.aio.Metadata(*(error.trailing_metadata() or ())),
            error.details(),
        )

    @property
    def reason(self) -> ErrorReason.ValueType:
        """Why the service failed the call; unspecified if it was not the service, or if `info` has a newer reason."""
        value = ErrorReason.DESCRIPTOR.values_by_name.get(_REASON_PREFIX + self.info.reason)
        return ErrorReason.ValueType(value.number) if value else ERROR_REASON_UNSPECIFIED

    @cached_property
    def info(self) -> ErrorInfo:
        """The reason as the service wrote it, without `ERROR_REASON_`; empty if the failure is not from the service."""
        info = self._detail(ErrorInfo())
        return info if info.domain == _DOMAIN else ErrorInfo()

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the reason is about: ErrorReason says for each which ids and values."""
        return dict(self.info.metadata)

    @cached_property
    def violations(self) -> Mapping[str, str]:
        """What is wrong with an invalid request, by field."""
        found: dict[str, str] = {}
        for each in self._detail(BadRequest()).field_violations:
            before = f"{found[each.field]}; " if each.field in found else ""
            found[each.field] = before + each.description
        return found

    @cached_property
    def retry_delay_seconds(self) -> float | None:
        """When the service wants the call to be repeated; None if it does not say."""
        info = self._detail(RetryInfo())
        return info.retry_delay.ToTimedelta().total_seconds() if info.HasField("retry_delay") else None

    @cached_property
    def request_id(self) -> str:
        """Under which the service's log tells more about an INTERNAL failure; empty for others."""
        return str(self._detail(RequestInfo()).request_id)

    def __str__(self) -> str:
        reason = f" ({self.info.reason})" if self.info.reason else ""
        return f"{self.code().name}{reason}: {self.details()}"

    def _detail(self, detail: _Detail) -> _Detail:
        """Fill a detail from the status; it stays empty if the status has none of its kind."""
        for packed in self._status.details:
            if packed.Unpack(detail):
                break
        return detail

    @cached_property
    def _status(self) -> Status:
        encoded = self.trailing_metadata().get("grpc-status-details-bin", b"")
        try:
            return Status.FromString(encoded)
        except DecodeError:  # not what the service wrote
            return Status()
