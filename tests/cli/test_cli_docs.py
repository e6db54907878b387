"""docs/cli.md: what it shows works, and what it says of exit codes is so."""

from __future__ import annotations

import asyncio
import re
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

from command import TIDINGS, Tidings, end

from conftest import Start
from tidings.cli.connection import DEFAULT_TARGET
from tidings.cli.failures import STATUS_EXIT_CODE
from tidings.cli.task_commands import OUTCOME_EXIT_CODES, TIMEOUT_EXIT_CODE
from tidings.v1.task_pb2 import TaskState

PAGE = (Path(__file__).parent.parent.parent / "docs" / "cli.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```sh\n(tidings.*?)^```\n", re.MULTILINE | re.DOTALL)


async def test_what_is_shown_works(start: Start, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("tdg_0_x\n")
    async with start() as server:
        tidings = Tidings(tmp_path, PATH=f"{TIDINGS.parent}:/usr/bin:/bin")
        await tidings.done("context", "add", "here", server.target)
        for script in BLOCK.findall(PAGE):
            process = await asyncio.create_subprocess_exec(
                *("sh", "-euc", script.replace(DEFAULT_TARGET, server.target)),
                stdin=PIPE,
                stdout=PIPE,
                stderr=PIPE,
                cwd=tmp_path,
                env=tidings.environment,
            )
            result = await end(process)
            assert result.code == 0, (script, result.err)


def test_the_exit_codes_are_those_of_the_code() -> None:
    codes = dict(re.findall(r"^\| (\d+|64 \+ n) \| (.*) \|$", PAGE, re.MULTILINE))
    for state, code in OUTCOME_EXIT_CODES.items():
        assert TaskState.Name(state).removeprefix("TASK_STATE_") in codes[str(code)]
    assert "the time was up" in codes[str(TIMEOUT_EXIT_CODE)]
    assert codes[f"{STATUS_EXIT_CODE} + n"]


async def test_every_command_is_shown(tmp_path: Path) -> None:
    commands = (await Tidings(tmp_path).done("--help")).out.partition("Commands")[2]
    names = re.findall(r"^│ (\w+) ", commands, re.MULTILINE)
    assert {"get", "watch", "doctor"} <= set(names)
    assert [name for name in names if f"tidings {name}" not in PAGE] == []


async def test_what_to_install_is_told(tmp_path: Path) -> None:
    without = "import sys; sys.modules['typer'] = None; from tidings.cli import main; main()"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", without, stdin=PIPE, stdout=PIPE, stderr=PIPE)
    result = await end(process)
    assert (result.code, result.out) == (1, "")
    assert "typer is not installed: the command line needs `pip install 'tidings[cli]'`" in result.err
