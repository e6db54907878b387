"""`tidings doctor`: which of address, TLS, server, store, key and change stream is at fault, and how to mend it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Final

import typer

from tidings.cli import network
from tidings.cli.connection import chosen
from tidings.cli.contexts import Server
from tidings.cli.network import Fault
from tidings.cli.output import Output, OutputOption, plain, results
from tidings.cli.probe import Probe

STYLES: Final = {"ok": "green", "fail": "red", "skip": "dim"}


class Outcome(StrEnum):
    OK = "ok"
    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True)
class Finding:
    """What came of a check."""

    check: str
    outcome: Outcome
    message: str
    mend: str = ""


def doctor(context: typer.Context, output: OutputOption = Output.TEXT) -> None:
    """Find out what is wrong with the way to a server. Exits with 0 if nothing is."""
    well = True
    for finding in _findings(chosen(context)):
        well = well and finding.outcome is Outcome.OK
        _print(finding, output)
    raise typer.Exit(0 if well else 1)


def _findings(server: Server) -> Iterator[Finding]:
    """One for each check. After a fault what depends on it is not checked, and that is all that follows."""
    with Probe(server) as probe:
        checks = {
            "address": lambda: network.check_address(server),
            "TLS": lambda: network.check_tls(server),
            "server": probe.check_server,
            "store": probe.check_store,
            "key": probe.check_key,
            "change stream": probe.check_change_stream,
        }
        faulty = ""
        for name, check in checks.items():
            if faulty:
                yield Finding(name, Outcome.SKIP, f"not checked, because of the {faulty}")
                continue
            try:
                yield Finding(name, Outcome.OK, check())
            except Fault as fault:
                faulty = name
                yield Finding(name, Outcome.FAIL, str(fault), fault.mend)


def _print(finding: Finding, output: Output) -> None:
    if output is Output.JSON:
        typer.echo(json.dumps(asdict(finding)))
        return
    results.print(f"{finding.outcome:<6}", style=STYLES[finding.outcome], end="")
    results.print(f"{finding.check:<15}{plain(finding.message)}")
    if finding.mend:
        results.print(f"{'':<21}{plain(finding.mend)}")
