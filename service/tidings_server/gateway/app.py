"""The application: every dialect on one port, each under the paths that its vendor's SDK asks for."""

from __future__ import annotations

import re
import uuid
from functools import partial

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from tidings import AsyncClient
from tidings_server.config import HttpConfig
from tidings_server.gateway import exa, gomemory, mem0, memos, rest, telnyx
from tidings_server.gateway.openapi import document
from tidings_server.gateway.refusal import Refusal
from tidings_server.gateway.rest.errors import refuse

log = structlog.get_logger()


def create_app(client: AsyncClient, config: HttpConfig) -> ASGIApp:
    """The application, on top of a client of the gRPC port that is closed after it."""
    app = FastAPI(
        title="Tidings",
        version="1",
        redirect_slashes=False,  # mem0's SDK takes a redirect for an error
        docs_url=None,  # they load scripts from elsewhere
        redoc_url=None,
    )
    app.state.client = client
    app.state.config = config
    for dialect in (mem0, gomemory, exa, telnyx, memos, rest):
        app.include_router(dialect.router)
    for failure in (Refusal, HTTPException, RequestValidationError):
        app.add_exception_handler(failure, _refuse)
    app.add_exception_handler(Exception, _fail)
    app.openapi = partial(document, app)  # type: ignore[method-assign]  # https://fastapi.tiangolo.com/how-to/extending-openapi/
    return OnePath(app)


class OnePath:
    """Lets a path be asked for with or without a slash at its end, and with doubled ones, which some SDKs send."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = re.sub("/{2,}", "/", scope["path"])
            scope = {**scope, "path": path.rstrip("/") or "/"}
        await self._app(scope, receive, send)


async def _refuse(request: Request, error: Exception) -> JSONResponse:
    return refuse(Refusal.of(error))


async def _fail(request: Request, error: Exception) -> JSONResponse:
    """Answer what nobody foresaw: an id here, and everything else in the log only."""
    reference = str(uuid.uuid4())
    log.error("an HTTP request failed", reference=reference, path=request.url.path, exc_info=error)
    return refuse(Refusal(500, f"internal error; the log tells more under {reference}", "INTERNAL"))
