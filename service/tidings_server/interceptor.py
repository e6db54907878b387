"""The way into every method of ours: who calls, whether there is room, whether the request is sound.

It is the outermost interceptor, so every failure leaves through it, as a status with a reason; what is not a
`Failure` leaves as INTERNAL with the id of a log line and nothing else.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Final, NoReturn, TypeAlias

import grpc
import structlog
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.message import DecodeError, Message

from tidings.v1 import error_reason_pb2 as reasons
from tidings.v1.error_reason_pb2 import ErrorReason
from tidings_server.admission import Admission
from tidings_server.auth import CALLER, READ, WRITE, Authenticator, Caller
from tidings_server.checks import Checker
from tidings_server.errors import STATUS_DETAILS_KEY, Failure, Violation
from tidings_server.limits import Limits
from tidings_server.patience import Patience

log = structlog.get_logger()

PACKAGE: Final = "/tidings.v1."
WAITING_METHODS: Final = frozenset({"/tidings.v1.TaskService/WaitTaskStatus"})
"""Unary methods that may be under way as long as a watch, and are counted as one."""

Context = grpc.aio.ServicerContext[Any, Any]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"  # generic for the type checker only
Enter = Callable[[Any, Context], Awaitable[AbstractContextManager[None]]]


class Gate:
    """Whether calls are let in at all: not before the server is ready, and not while it drains."""

    def __init__(self) -> None:
        self._reason: Failure | None = Failure(reasons.ERROR_REASON_NOT_READY, "the server is starting")

    def open(self) -> None:
        self._reason = None

    def drain(self) -> None:
        self._reason = Failure(reasons.ERROR_REASON_DRAINING, "the server shuts down: try another one")

    def pass_through(self) -> None:
        """Raises Failure: NOT_READY, DRAINING."""
        if self._reason is not None:
            raise self._reason


class Interceptor(grpc.aio.ServerInterceptor):
    """Wraps the handlers of our services; leaves others, such as health, alone."""

    def __init__(
        self, gate: Gate, authenticator: Authenticator, admission: Admission, checker: Checker, limits: Limits
    ) -> None:
        self._gate = gate
        self._authenticator = authenticator
        self._admission = admission
        self._checker = checker
        self._limits = limits
        self._patience = Patience(limits.watch_stall_seconds)
        self._wrapped: dict[str, Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        handler = await continuation(details)
        if handler is None or not details.method.startswith(PACKAGE):
            return handler
        if details.method not in self._wrapped:
            self._wrapped[details.method] = self._wrap(details.method, handler)
        return self._wrapped[details.method]

    def _wrap(self, method: str, handler: Handler) -> Handler:
        assert handler.request_deserializer is not None
        deserialize = _bounded(handler.request_deserializer, self._limits.request_bytes_max)
        if handler.unary_stream is not None:
            # Watches send their messages themselves, and encoded: a change is encoded once for all of them.
            return grpc.unary_stream_rpc_method_handler(
                _guarded_stream(handler.unary_stream, self._entrance(method), self._patience), deserialize
            )
        assert handler.unary_unary is not None
        return grpc.unary_unary_rpc_method_handler(
            _guarded_call(handler.unary_unary, self._entrance(method)), deserialize, handler.response_serializer
        )

    def _entrance(self, method: str) -> Enter:
        scope, is_watch = _scope_of(method), _is_watch(method)

        async def enter(request: Any, context: Context) -> AbstractContextManager[None]:
            self._gate.pass_through()
            caller = await self._authenticator.authenticate(context.invocation_metadata() or ())
            caller.require(scope)
            if isinstance(request, Failure):
                raise request
            self._checker.check(request)
            CALLER.set(caller)
            return self._admit(caller, is_watch=is_watch)

        return enter

    def _admit(self, caller: Caller, *, is_watch: bool) -> AbstractContextManager[None]:
        return self._admission.watch(caller.project) if is_watch else self._admission.call(caller.project)


def _guarded_call(behavior: Callable[..., Awaitable[Any]], enter: Enter) -> Callable[..., Awaitable[Any]]:
    async def call(request: Any, context: Context) -> Any:
        try:
            with await enter(request, context):
                return await behavior(request, context)
        except Exception as error:  # noqa: BLE001 (nothing else may answer for us)
            await _abort(context, error)

    return call


def _guarded_stream(behavior: Callable[..., Any], enter: Enter, patience: Patience) -> Callable[..., Awaitable[None]]:
    async def stream(request: Any, context: Context) -> None:
        give_up = partial(_abort, context, _stalled())
        try:
            with await enter(request, context), patience.guarding(context.write, give_up) as offer:
                await behavior(request, offer.send)
        except grpc.aio.BaseError:  # grpc's own: the reader has gone while it was sent something
            raise
        except Exception as error:  # noqa: BLE001 (nothing else may answer for us)
            await _abort(context, error)

    return stream


def _stalled() -> Failure:
    return Failure(reasons.ERROR_REASON_WATCHER_STALLED, "no message was taken for long: resume with the last token")


async def _abort(context: Context, error: Exception) -> NoReturn:
    failure = error if isinstance(error, Failure) else _internal(error)
    details = failure.to_status().SerializeToString()
    await context.abort(failure.code, failure.message, ((STATUS_DETAILS_KEY, details),))


def _internal(error: Exception) -> Failure:
    reference = uuid.uuid4().hex
    log.error("a call failed for a reason of our own", reference=reference, exc_info=error)
    sentence = f"internal error; the log has more under {reference}"
    return Failure(reasons.ERROR_REASON_INTERNAL, sentence, metadata={"request_id": reference})


def _bounded(deserialize: Callable[[bytes], Message], bytes_max: int) -> Callable[[bytes], Message | Failure]:
    """Parse a request, or return why it is not one: grpc would answer UNKNOWN with the parser's words."""

    def parse(data: bytes) -> Message | Failure:
        if len(data) > bytes_max:
            sentence = f"the request has {len(data)} bytes, more than {bytes_max}"
            return _unfit(reasons.ERROR_REASON_PAYLOAD_TOO_LARGE, sentence)
        try:
            return deserialize(data)
        except DecodeError:
            return _unfit(reasons.ERROR_REASON_MALFORMED_REQUEST, "the request is not a message of this method's type")

    return parse


def _unfit(reason: ErrorReason.ValueType, sentence: str) -> Failure:
    return Failure(reason, sentence, violations=[Violation("", sentence, reason)])


def _scope_of(method: str) -> str:
    """Methods that the protos declare free of side effects need `read`, all others `write`."""
    service, _, name = method.removeprefix("/").partition("/")
    options = descriptor_pool.Default().FindServiceByName(service).methods_by_name[name].GetOptions()
    return READ if options.idempotency_level == MethodOptions.NO_SIDE_EFFECTS else WRITE


def _is_watch(method: str) -> bool:
    return method.endswith(("/WatchEvent", "/WatchRun")) or method in WAITING_METHODS
