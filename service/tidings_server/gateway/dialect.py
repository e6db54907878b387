"""What the routes of every dialect have in common: strict JSON in, and failures in the vendor's own shape out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, Final

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from tidings import TidingsError
from tidings_server.gateway.json_text import UnfitJson, parsed
from tidings_server.gateway.refusal import Refusal
from tidings_server.limits import KIB

BODY_BYTES_MAX: Final = 1024 * KIB
"""As much as the service takes in a request."""
BODY_BYTES_HEARD: Final = 16 * BODY_BYTES_MAX
"""As much of a body that is too large is still taken: who is sending does not listen to an answer."""
BODY_SECONDS: Final = 60.0

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class StrictRequest(Request):
    """A request whose JSON body is refused unless it can be stored and given back as it is."""

    async def body(self) -> bytes:
        try:
            async with asyncio.timeout(BODY_SECONDS):
                return await super().body()
        except TimeoutError as error:
            raise HTTPException(408, f"the body did not come within {BODY_SECONDS:.0f} seconds") from error

    async def stream(self) -> AsyncGenerator[bytes]:
        size = 0
        async for chunk in super().stream():
            size += len(chunk)
            if size <= BODY_BYTES_MAX:
                yield chunk
            if size > BODY_BYTES_HEARD:
                break
        if size > BODY_BYTES_MAX:
            raise HTTPException(413, f"the body has more than {BODY_BYTES_MAX} bytes")

    async def json(self) -> Any:
        try:
            return parsed(await self.body())
        except UnfitJson as error:
            raise HTTPException(400, f"the body {error}") from error


class DialectRoute(APIRoute):
    """A route of a vendor's dialect. Each dialect derives its own, with its own `refuse`."""

    @staticmethod
    def refuse(refusal: Refusal) -> Response:
        """The vendor's answer to a request that is refused."""
        raise NotImplementedError

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            try:
                return await handle(StrictRequest(request.scope, request.receive))
            except (Refusal, TidingsError, RequestValidationError, HTTPException) as error:
                return self.refuse(Refusal.of(error))

        return guarded
