"""The README says what is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tidings_server.config import Config
from tidings_server.demo import __main__ as demo
from tidings_server.limits import KIB, Limits

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def settings_table() -> str:
    rows = []
    for name, field in Config.model_fields.items():
        default = "" if field.default is None else f"`{field.default}`"
        rows.append(f"| `--{name.replace('_', '-')}` | `TIDINGS_{name.upper()}` | {default} | {field.description} |")
    return "\n".join(rows)


def test_the_settings_are_those_of_the_code() -> None:
    assert settings_table() in README, f"put this into the README:\n{settings_table()}"


@pytest.mark.parametrize("target", ["run", "test", "help"])
def test_the_commands_are_targets_of_make(target: str) -> None:
    assert f"`make {target}`" in README or f"\nmake {target}\n" in README
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


def test_the_event_that_is_asked_for_is_a_sample() -> None:
    (event_id,) = re.findall(r'"event_id": "([^"]+)"', README)
    assert event_id in {request.event.event_id for request in demo.samples()}


def test_the_watch_is_of_the_type_that_the_demo_works_on() -> None:
    (type_,) = re.findall(r'"types": \["([^"]+)"\]', README)
    assert type_ == demo.TASK_TYPE


def test_the_limits_are_those_of_the_code() -> None:
    limits = Limits()
    facts = {
        "| request |": f"{limits.request_bytes_max // KIB // KIB} MiB",
        "| event |": f"{limits.event_bytes_max // KIB} KiB; its payload, metadata and results "
        f"{limits.payload_bytes_max // KIB} KiB each and {limits.payload_levels_max} levels deep",
        "| changes of state kept in an event |": f"{limits.transitions_max}",
        "| request ids remembered in an event |": f"{limits.remembered_requests_max}",
        "| calls under way in a project |": f"{limits.calls_per_project_max}",
        "| watches |": f"{limits.watches_per_project_max:,} in a project, {limits.watches_max:,} on a server",
    }
    for what, limit in facts.items():
        assert f"{what} {limit} |" in README


@pytest.mark.parametrize("language", ["go", "java"])
def test_the_programs_are_those_of_the_clients(language: str) -> None:
    """Which their own tests run."""
    program = re.compile(rf"```{language}\n(.*?)```", re.DOTALL)
    theirs = (ROOT / "clients" / language / "README.md").read_text(encoding="utf-8")
    assert program.findall(README) == program.findall(theirs)[:1]
