"""The only place that builds things: store, hub, services, server; and the order in which they start and stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from tempfile import TemporaryDirectory
from typing import Any, Final

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from tidings import AsyncClient
from tidings.v1 import (
    event_service_pb2,
    event_service_pb2_grpc,
    mission_service_pb2,
    mission_service_pb2_grpc,
    run_service_pb2,
    run_service_pb2_grpc,
    task_service_pb2,
    task_service_pb2_grpc,
)
from tidings_server.admission import Admission
from tidings_server.auth import DEFAULT_PROJECT, ApiKeys, Authenticator
from tidings_server.checks import Checker
from tidings_server.clock import Clock, system_clock
from tidings_server.config import Config
from tidings_server.embedded import EmbeddedStore
from tidings_server.errors import Failure
from tidings_server.gateway.app import create_app
from tidings_server.gateway.http_server import CannotListen, serve_http
from tidings_server.interceptor import Gate, Interceptor
from tidings_server.limits import KIB, Limits
from tidings_server.services.events import EventService
from tidings_server.services.missions import MissionService
from tidings_server.services.page_token import PageTokens
from tidings_server.services.runs import RunService
from tidings_server.services.tasks import TaskService
from tidings_server.store import Deployment, Store
from tidings_server.watch.hub import Hub
from tidings_server.watch.token import Tokens
from tidings_server.watch.watches import Watches

log = structlog.get_logger()

SERVICES: Final = (
    event_service_pb2.DESCRIPTOR.services_by_name["EventService"].full_name,
    task_service_pb2.DESCRIPTOR.services_by_name["TaskService"].full_name,
    mission_service_pb2.DESCRIPTOR.services_by_name["MissionService"].full_name,
    run_service_pb2.DESCRIPTOR.services_by_name["RunService"].full_name,
)
PREPARE_RETRY_SECONDS: Final = 0.5
HEALTH_SECONDS: Final = 0.5
FLUSH_SECONDS: Final = 0.5
"""How long the last answers may take on their way out before what is left is cut off."""

_OPTIONS: Final = (
    ("grpc.so_reuseport", 0),  # a second server on the port must fail, not take half of the calls
    ("grpc.max_receive_message_length", 4 * 1024 * KIB),  # above our own limit, which is refused with a reason
    # A reconnect storm must find room in the accept queue: the default loses one stream in fifteen of 2,000.
    ("grpc.server.max_pending_requests", 10_000),
    ("grpc.server.max_pending_requests_hard_limit", 20_000),
    # Clients that vanish without a word are found; those that ping often, to find us gone, are not punished. The
    # timeout is also the time after which a connection is cut that takes nothing of what was sent, and so the longest
    # that a stop waits for one.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
)


class StartRefused(Exception):
    """The server cannot start with this configuration. The text says how to mend it."""


@asynccontextmanager
async def serve(config: Config, *, clock: Clock = system_clock, limits: Limits | None = None) -> AsyncIterator[Server]:
    """Start everything, hand out the server when it is ready, and stop everything in order.

    Raises StartRefused, StoreRefused or EmbeddedStoreError if it cannot start.
    """
    limits = limits or Limits()
    async with opened_store(config, clock, limits) as store, AsyncExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory(prefix="tidings-"))
        server = Server(config, store, await _prepared(store, config), clock, limits, f"unix:{folder}/grpc")
        await server.check_exposure()
        work = (server.hub.run(), server.hub.canary.run(), store.sweeper.run())
        async with _background(*work):
            await server.start()
            try:
                await server.hub.heard()
                # It stops after the watches have ended, for it has some of them under way.
                server.http_port = await stack.enter_async_context(_http_face(config, server.local_target))
                async with _background(server.report_health()):
                    server.gate.open()
                    log.info(
                        "serving",
                        address=config.listen,
                        port=server.port,
                        http_port=server.http_port,
                        tls=config.tls_cert is not None,
                    )
                    yield server
            finally:
                await server.drain()


@asynccontextmanager
async def opened_store(config: Config, clock: Clock, limits: Limits) -> AsyncIterator[Store]:
    """The store that the configuration names; the embedded one is started and kept running."""
    async with AsyncExitStack() as stack:
        if config.mongodb_uri is not None:
            store = Store(config.mongodb_uri.get_secret_value(), config.mongodb_database, clock, limits)
            stack.callback(store.close)
        else:
            embedded = await stack.enter_async_context(EmbeddedStore(config.data_dir))
            store = Store(embedded.uri, config.mongodb_database, clock, limits)
            stack.callback(store.close)
            await stack.enter_async_context(_background(embedded.supervise(store.ping)))
        yield store


class Server:
    """The parts of one server, put together."""

    def __init__(
        self, config: Config, store: Store, deployment: Deployment, clock: Clock, limits: Limits, local_target: str
    ) -> None:
        self._config = config
        self.store = store
        self.api_keys = ApiKeys(store.keys, deployment.secrets, clock)
        self.hub = Hub(store, limits)
        self.gate = Gate()
        self.port = 0
        self.http_port: int | None = None
        self.local_target = local_target
        """Where this process reaches its own gRPC port, whatever TLS and addresses others have to use."""
        self._authenticator = Authenticator(store.keys, self.api_keys)
        self._admission = Admission(limits)
        self._health = health.aio.HealthServicer()
        interceptor = Interceptor(self.gate, self._authenticator, self._admission, Checker(limits, clock), limits)
        self._grpc = grpc.aio.server(interceptors=[interceptor], options=_OPTIONS)
        watches = Watches(self.hub, store, Tokens(deployment.secrets, deployment.name), clock, limits)
        page_tokens = PageTokens(deployment.secrets)
        events = EventService(store.events, watches, page_tokens, clock, limits)
        event_service_pb2_grpc.add_EventServiceServicer_to_server(events, self._grpc)
        task_service_pb2_grpc.add_TaskServiceServicer_to_server(TaskService(store.events, watches), self._grpc)
        missions = MissionService(store.missions, store.sweeper, page_tokens, clock, limits)
        mission_service_pb2_grpc.add_MissionServiceServicer_to_server(missions, self._grpc)
        runs = RunService(store.runs, watches, page_tokens, clock, limits)
        run_service_pb2_grpc.add_RunServiceServicer_to_server(runs, self._grpc)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._grpc)
        if config.reflection:
            names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, self._grpc)

    async def check_exposure(self) -> None:
        """Refuse to be open to a network without keys. Raises StartRefused."""
        if not await self._authenticator.is_open():
            return
        if not self._config.is_loopback:
            raise StartRefused(
                f"there is no API key, and without one Tidings does not listen on {self._config.listen}: "
                "create one with `tidings-server keys create --project NAME`, or listen on 127.0.0.1"
            )
        log.warning(
            "NO API KEYS: everybody on this machine may read and write everything; create one with "
            "`tidings-server keys create`",
            project=DEFAULT_PROJECT,
        )

    async def start(self) -> None:
        """Listen, and answer NOT_READY until the gate is open. Raises StartRefused if the address cannot be had."""
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        try:
            self.port = self._bind()
            self._grpc.add_insecure_port(self.local_target)
        except RuntimeError as error:
            raise StartRefused(f"cannot listen on {self._config.listen}: is the port taken?") from error
        await self._grpc.start()

    async def report_health(self) -> None:
        """Be SERVING while changes arrive from the store, until cancelled."""
        while True:
            serving = health_pb2.HealthCheckResponse.SERVING
            await self._set_health(serving if self.hub.is_live else health_pb2.HealthCheckResponse.NOT_SERVING)
            await asyncio.sleep(HEALTH_SECONDS)

    async def drain(self) -> None:
        """Refuse what is new, end the watches, let calls finish, and close."""
        log.info("draining")
        await self._health.enter_graceful_shutdown()
        self.gate.drain()
        stopped = asyncio.create_task(self._grpc.stop(self._config.drain_seconds))
        self.hub.drain()
        try:
            await self._finished(stopped)
        finally:  # also when somebody has no more patience
            await self._grpc.stop(None)
            await stopped
        log.info("stopped")

    async def _finished(self, stopped: asyncio.Task[None]) -> None:
        """Wait until our calls and watches have been answered, or the time for it is up."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._config.drain_seconds):
                await self._admission.idle.wait()
        # Streams of other services, such as the watches of health, would use up the whole of the time.
        await asyncio.wait([stopped], timeout=FLUSH_SECONDS)

    def _bind(self) -> int:
        config = self._config
        if config.tls_cert is None or config.tls_key is None:
            return self._grpc.add_insecure_port(config.listen)
        authority = config.tls_client_ca.read_bytes() if config.tls_client_ca else None
        pair = (config.tls_key.read_bytes(), config.tls_cert.read_bytes())
        credentials = grpc.ssl_server_credentials([pair], authority, require_client_auth=authority is not None)
        return self._grpc.add_secure_port(config.listen, credentials)

    async def _set_health(self, status: health_pb2.HealthCheckResponse.ServingStatus.ValueType) -> None:
        for service in ("", *SERVICES):
            await self._health.set(service, status)


@asynccontextmanager
async def _http_face(config: Config, target: str) -> AsyncIterator[int | None]:
    """Serve HTTP too, unless it is off; gives its port. Raises StartRefused if that cannot be had."""
    if config.http_port == "off":
        yield None
        return
    try:
        async with AsyncClient(target) as client, serve_http(create_app(client, config), config.host, config) as port:
            yield port
    except CannotListen as error:
        raise StartRefused(str(error)) from error


async def _prepared(store: Store, config: Config) -> Deployment:
    """The deployment, as soon as the store answers."""
    while True:
        try:
            deployment = await store.prepare()
        except Failure:
            log.warning("waiting for the store")
            await asyncio.sleep(PREPARE_RETRY_SECONDS)
        else:
            return deployment.with_secrets(config.secrets)


@asynccontextmanager
async def _background(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Do work that never ends until the context does."""
    tasks = [asyncio.create_task(each) for each in work]
    for task in tasks:
        task.add_done_callback(_log_failure)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("what should go on in the background has ended", exc_info=error)
