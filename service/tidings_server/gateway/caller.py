"""The gRPC port in the name of whoever sent an HTTP request: same credentials, limits and errors."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final, TypeVar

import grpc
from fastapi import Depends, Request
from google.protobuf.message import Message

from tidings import AsyncClient
from tidings_server.gateway.dialect import BODY_BYTES_MAX
from tidings_server.gateway.refusal import Refusal

VISIBLE: Final = re.compile(r"[\x21-\x7e]{1,512}")

RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT")


@dataclass(frozen=True, slots=True)
class Caller:
    """A client of the gRPC port with the credential of one HTTP request."""

    client: AsyncClient
    key: str

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.key}"),) if self.key else ()

    async def call(
        self, rpc: Callable[..., grpc.aio.UnaryUnaryCall[RequestT, ResponseT]], request: RequestT
    ) -> ResponseT:
        """Call one of the client's methods. Raises TidingsError; Refusal if JSON grew too large as a message."""
        if request.ByteSize() > BODY_BYTES_MAX:
            raise Refusal(413, f"the request has more than {BODY_BYTES_MAX} bytes", "PAYLOAD_TOO_LARGE")
        return await rpc(request, metadata=self.metadata)


def caller_of(request: Request) -> Caller:
    """The caller, by any of the headers in which vendors' SDKs send a key."""
    return Caller(request.app.state.client, key_of(request))


Tidings = Annotated[Caller, Depends(caller_of)]
"""What a handler asks for to speak to the gRPC port."""


def key_of(request: Request) -> str:
    """The API key that was sent, as `x-api-key`, or in `authorization` as Bearer, Token, or Basic with it as password.

    What no API key can be is passed on as one that nobody has; empty if there is none.
    """
    scheme, _, credential = request.headers.get("authorization", "").partition(" ")
    key = request.headers.get("x-api-key", "")
    if scheme.lower() in {"bearer", "token"}:
        key = credential.strip()
    elif scheme.lower() == "basic":
        key = _password(credential)
    return key if not key or VISIBLE.fullmatch(key) else "unreadable"


def _password(credential: str) -> str:
    try:
        return base64.b64decode(credential, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return "unreadable"
