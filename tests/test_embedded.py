"""The embedded store as a child process: started, killed, stopped, starved and left behind, each for real."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import tempfile
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from pymongo import AsyncMongoClient, MongoClient, WriteConcern
from structlog.testing import capture_logs

from tidings_server import embedded
from tidings_server.config import Config
from tidings_server.embedded import EmbeddedStore, EmbeddedStoreError, running_uri
from tidings_server.server import serve
from wire import Wire

PARENT = """
import asyncio, pathlib, sys
from tidings_server.embedded import EmbeddedStore

async def main():
    async with EmbeddedStore(pathlib.Path(sys.argv[1])) as store:
        print(store.pid, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@asynccontextmanager
async def connected(store: EmbeddedStore) -> AsyncIterator[AsyncMongoClient[dict[str, Any]]]:
    # With a timeout of its own the driver repeats a failed read until then, which outlasts a restart of the store.
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(store.uri, timeoutMS=20_000)
    async with client:
        yield client


def read_anew(uri: str) -> None:
    # A client that has seen the store down looks again after half a second only.
    with MongoClient[dict[str, Any]](uri, timeoutMS=500) as client:
        client.test.notes.find_one()


@asynccontextmanager
async def supervised(store: EmbeddedStore, probe: Any) -> AsyncIterator[None]:
    supervision = asyncio.create_task(store.supervise(probe))
    try:
        yield
        assert not supervision.done()
    finally:
        supervision.cancel()
        await asyncio.wait([supervision])


@contextmanager
def bound_socket(*, listening: bool) -> Iterator[int]:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        if listening:
            taken.listen()
        yield taken.getsockname()[1]


def is_gone(pid: int) -> bool:
    """Say whether the process has ended and was waited for: a zombie still takes signals."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@asynccontextmanager
async def ending(pid: int) -> AsyncIterator[None]:
    """Wait at the end of the block for the end of a process, which need not be our child."""
    loop, gone, process = asyncio.get_running_loop(), asyncio.Event(), os.pidfd_open(pid)
    loop.add_reader(process, gone.set)
    try:
        yield
        await asyncio.wait_for(gone.wait(), 10)
    finally:
        loop.remove_reader(process)
        os.close(process)


async def test_starts_and_answers_with_the_arguments_given() -> None:
    async with EmbeddedStore(None, arguments=["--enable-test-commands"]) as store, connected(store) as client:
        assert (await client.admin.command("ping"))["ok"] == 1
        assert (await client.admin.command("hello"))["setName"] == "secantus"
        await client.admin.command("configureFailPoint", "failCommand", mode="off")


async def test_several_stores_run_side_by_side() -> None:
    async with EmbeddedStore(None) as first, EmbeddedStore(None) as second:
        assert first.uri != second.uri
        async with connected(first) as client, supervised(first, client.test.notes.find_one):
            os.kill(first.pid, signal.SIGKILL)
            assert await client.test.notes.find_one() is None
        assert not is_gone(second.pid)
    assert is_gone(first.pid)
    assert is_gone(second.pid)


async def test_a_killed_store_comes_back_on_its_port_with_what_was_written(tmp_path: Path) -> None:
    async with EmbeddedStore(tmp_path) as store, connected(store) as client:
        # j=False, which promises less than we ask for: so it is the store that syncs every commit, asked or not.
        notes = client.test.get_collection("notes", write_concern=WriteConcern(w="majority", j=False))
        uri, pid = store.uri, store.pid
        for number in range(20):
            await notes.insert_one({"_id": number})
        async with supervised(store, notes.find_one):
            os.kill(pid, signal.SIGKILL)
            assert await notes.count_documents({}) == 20
        assert store.uri == uri == running_uri(tmp_path)
        assert store.pid != pid
        assert is_gone(pid)


async def test_a_store_that_hangs_is_killed_and_comes_back() -> None:
    async with EmbeddedStore(None, probe_interval_seconds=0.05) as store, connected(store) as client:
        pid = store.pid
        async with supervised(store, partial(asyncio.to_thread, read_anew, store.uri)):
            os.kill(pid, signal.SIGSTOP)
            assert await client.test.notes.find_one() is None
        assert is_gone(pid)


async def test_a_probe_that_hangs_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "PROBE_SECONDS", 0.05)
    never = asyncio.Event().wait
    async with EmbeddedStore(None, probe_interval_seconds=0.05) as store, supervised(store, never), ending(store.pid):
        pass


async def test_a_store_is_not_killed_for_a_few_failed_probes() -> None:
    probes, enough = iter([False, False, True] * 3), asyncio.Event()

    async def probe() -> None:
        answer = next(probes, None)
        if answer is None:
            enough.set()
        elif not answer:
            raise ConnectionError

    async with EmbeddedStore(None, probe_interval_seconds=0.01) as store:
        pid = store.pid
        async with supervised(store, probe):
            await asyncio.wait_for(enough.wait(), 10)
        assert store.pid == pid


async def test_a_store_that_cannot_start_is_tried_at_longer_and_longer_intervals(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(embedded, "BACKOFF_SECONDS_MIN", 0.01)
    monkeypatch.setattr(embedded, "BACKOFF_SECONDS_MAX", 0.05)
    program = embedded._program()
    failures = iter(range(5))

    def sometimes() -> str:
        if next(failures, None) is not None:
            raise EmbeddedStoreError("not yet")
        return program

    async with EmbeddedStore(None) as store, connected(store) as client:
        monkeypatch.setattr(embedded, "_program", sometimes)
        with capture_logs() as logs:
            async with supervised(store, client.test.notes.find_one):
                os.kill(store.pid, signal.SIGKILL)
                await client.test.notes.find_one()
    exits = [entry for entry in logs if entry["event"] == "embedded store exited, restarting"]
    assert [entry["delay_seconds"] for entry in exits] == [0.01, 0.02, 0.04, 0.05, 0.05, 0.05]
    assert exits[0]["exit_code"] == -signal.SIGKILL
    assert "not yet" in [entry.get("reason") for entry in logs]


async def test_a_slow_restart_is_told_and_left_to_the_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    async with EmbeddedStore(None) as store, connected(store) as client:
        monkeypatch.setattr(embedded, "START_SECONDS", 0.05)
        with capture_logs() as logs:
            async with supervised(store, client.test.notes.find_one):
                os.kill(store.pid, signal.SIGKILL)
                await client.test.notes.find_one()
    assert [entry["event"] for entry in logs[:2]] == [
        "embedded store exited, restarting",
        "embedded store did not start",
    ]
    assert "accepted no connection within" in logs[1]["reason"]


async def test_stopping_leaves_no_process_and_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    async with EmbeddedStore(None) as store:
        assert len(os.listdir(tmp_path)) == 1
    assert is_gone(store.pid)
    assert os.listdir(tmp_path) == []


async def test_a_store_that_does_not_stop_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "STOP_SECONDS", 0.1)
    async with EmbeddedStore(tmp_path) as store:
        os.kill(store.pid, signal.SIGSTOP)
    assert is_gone(store.pid)


async def test_the_store_stops_in_order() -> None:
    with capture_logs() as logs:
        async with EmbeddedStore(None) as store:
            await asyncio.to_thread(read_anew, store.uri)
    assert logs == []


async def test_a_store_that_misses_the_signal_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    terminate, missed = Process.terminate, iter([True])
    monkeypatch.setattr(Process, "terminate", lambda process: next(missed, None) or terminate(process))
    with capture_logs() as logs:
        async with EmbeddedStore(None):
            pass
    assert logs == []


async def test_a_server_starts_on_a_store_with_a_long_history() -> None:
    async with EmbeddedStore(None) as store, connected(store) as client:
        for _ in range(20):
            await client.test.notes.insert_many([{"number": number} for number in range(5_000)])
        config = Config(listen="127.0.0.1:0", http_port="off", mongodb_uri=SecretStr(store.uri))
        async with serve(config) as running, Wire(running) as wire:
            await wire.create()


async def test_a_data_directory_has_one_server(tmp_path: Path) -> None:
    async with EmbeddedStore(tmp_path) as store:
        with pytest.raises(EmbeddedStoreError, match=f"{tmp_path} is in use by another server: stop that one"):
            await EmbeddedStore(tmp_path).__aenter__()
        assert running_uri(tmp_path) == store.uri


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
async def test_the_store_holds_the_lock_too(tmp_path: Path) -> None:
    async with EmbeddedStore(tmp_path) as store:
        opened = f"/proc/{store.pid}/fd"
        assert str(tmp_path / "lock") in [os.readlink(f"{opened}/{number}") for number in os.listdir(opened)]


async def test_the_data_directory_is_made_for_us_alone(tmp_path: Path) -> None:
    data_dir = tmp_path / "deep" / "data"
    async with EmbeddedStore(data_dir):
        assert data_dir.stat().st_mode & 0o777 == 0o700
        assert (data_dir / "store").stat().st_mode & 0o777 == 0o700
        assert (data_dir / "store-uri").stat().st_mode & 0o777 == 0o600


async def test_a_data_directory_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddedStoreError, match=r"cannot be started: .*file"):
        await EmbeddedStore(tmp_path / "file").__aenter__()


async def test_the_uri_is_told_while_the_store_runs(tmp_path: Path) -> None:
    assert running_uri(tmp_path / "missing") is None
    async with EmbeddedStore(tmp_path) as store:
        assert running_uri(tmp_path) == store.uri
    assert running_uri(tmp_path) is None
    assert not (tmp_path / "store-uri").exists()


async def test_the_uri_of_a_killed_server_is_told_no_longer(tmp_path: Path) -> None:
    (tmp_path / "store-uri").write_text("mongodb://127.0.0.1:1/")
    with pytest.raises(EmbeddedStoreError):
        await EmbeddedStore(tmp_path, arguments=["--colour"]).__aenter__()
    assert not (tmp_path / "store-uri").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
async def test_the_store_ends_with_a_server_that_is_killed(tmp_path: Path) -> None:
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, tmp_path, stdout=asyncio.subprocess.PIPE
    )
    assert server.stdout is not None
    async with ending(int(await server.stdout.readline())):
        uri = running_uri(tmp_path)
        server.kill()
    await server.communicate()
    assert uri == (tmp_path / "store-uri").read_text()
    assert running_uri(tmp_path) is None
    async with EmbeddedStore(tmp_path) as store:
        assert running_uri(tmp_path) == store.uri


async def test_ctrl_c_in_the_terminal_is_not_for_the_store() -> None:
    async with EmbeddedStore(None) as store:
        assert os.getsid(store.pid) == store.pid


async def test_a_missing_program_is_told_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EmbeddedStoreError, match=r"pip install 'tidings-server\[embedded\]'.*TIDINGS_MONGODB_URI"):
        await EmbeddedStore(None).__aenter__()


async def test_a_failed_start_is_told_in_the_words_of_the_program() -> None:
    with pytest.raises(EmbeddedStoreError, match=r"exited with code 2 .* unrecognized arguments: --colour"):
        await EmbeddedStore(None, arguments=["--colour"]).__aenter__()


async def test_a_start_that_takes_too_long_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(embedded, "START_SECONDS", 0.05)
        with pytest.raises(EmbeddedStoreError, match="accepted no connection within"):
            await EmbeddedStore(tmp_path).__aenter__()
    async with EmbeddedStore(tmp_path):  # the lock is free only when the child is gone
        pass


async def test_a_start_that_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await EmbeddedStore(tmp_path).__aenter__()
    async with EmbeddedStore(tmp_path):
        pass


@pytest.mark.parametrize("listening", [True, False])
async def test_a_port_that_was_taken_meanwhile_is_given_up(listening: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    with bound_socket(listening=listening) as taken:
        reserve = embedded._reserve_port
        ports = iter([taken])
        monkeypatch.setattr(embedded, "_reserve_port", lambda entered: next(ports, None) or reserve(entered))
        async with EmbeddedStore(None) as store, connected(store) as client:
            assert f":{taken}/" not in store.uri
            assert (await client.admin.command("ping"))["ok"] == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a port be bound twice")
async def test_nobody_else_gets_the_port_while_the_store_is_down() -> None:
    async with EmbeddedStore(None) as store:
        async with ending(store.pid):
            os.kill(store.pid, signal.SIGKILL)
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", int(store.uri.split(":")[-1].split("/")[0])))


async def test_configuration_lying_about_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secantusd.toml").write_text("[server]\nauth = true\n")
    monkeypatch.chdir(tmp_path)
    async with EmbeddedStore(None) as store, connected(store) as client:
        await client.test.notes.insert_one({})


async def test_the_log_of_the_store_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "LOG_BYTES_MAX", 10)
    probes, probed_again = iter(range(1)), asyncio.Event()

    async def probe() -> None:
        if next(probes, None) is None:
            probed_again.set()

    async with EmbeddedStore(tmp_path, probe_interval_seconds=0.01) as store:
        assert (tmp_path / "store.log").stat().st_size > 10
        async with supervised(store, probe):
            await asyncio.wait_for(probed_again.wait(), 10)
        assert (tmp_path / "store.log").stat().st_size == 0
