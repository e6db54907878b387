"""`tidings context`: add, choose, list and remove the servers that are known by name."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final

import typer

from tidings.cli.connection import KEY_VARIABLE, new_server
from tidings.cli.contexts import Contexts
from tidings.cli.failures import Refused
from tidings.cli.output import Output, OutputOption, print_rows, say

app: Final = typer.Typer(no_args_is_help=True, help="Know several servers by name.")


def complete_name() -> list[str]:
    """The names that a shell may complete."""
    try:
        return list(Contexts.load().servers)
    except Refused:
        return []


Name = Annotated[str, typer.Argument(metavar="NAME", autocompletion=complete_name)]


@app.command()
def add(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    target: Annotated[str, typer.Argument(metavar="HOST:PORT")],
    tls: Annotated[
        bool | None, typer.Option("--tls/--plaintext", help="By default TLS, but for addresses of this machine.")
    ] = None,
    ca: Annotated[
        Path | None, typer.Option(help="PEM file with the CA of the server; by default those of the system.")
    ] = None,
    key_stdin: Annotated[bool, typer.Option("--key-stdin", help="Read the API key from stdin.")] = False,
) -> None:
    """Add a server or replace it, and use it if it is the first.

    The API key is that in TIDINGS_API_KEY; otherwise, on a terminal, you are asked for it.
    """
    server = new_server(target, tls=tls, ca_file=ca)
    contexts = Contexts.load()
    contexts.servers[name] = replace(server, api_key=_read_key(from_stdin=key_stdin))
    contexts.current = contexts.current or name
    contexts.save()
    say(f"{name} is {target}, {'with TLS' if server.tls else 'in plain text'}")


@app.command()
def use(name: Name) -> None:
    """Use a server from now on, where no other is named."""
    contexts = Contexts.load()
    contexts.find(name)
    contexts.current = name
    contexts.save()


@app.command("list")
def list_(output: OutputOption = Output.TEXT) -> None:
    """List the servers, without their keys."""
    contexts = Contexts.load()
    if output is Output.JSON:
        for name, server in contexts.servers.items():
            shown = {
                "target": server.target,
                "tls": server.tls,
                "caFile": server.ca_file,
                "hasKey": bool(server.api_key),
            }
            typer.echo(json.dumps({"name": name, "current": name == contexts.current, **shown}))
        return
    rows = [
        ("*" if name == contexts.current else "", name, server.target, _yes(server.tls), _yes(bool(server.api_key)))
        for name, server in contexts.servers.items()
    ]
    print_rows(("", "NAME", "ADDRESS", "TLS", "KEY"), rows)


@app.command()
def remove(name: Name) -> None:
    """Forget a server and its key."""
    contexts = Contexts.load()
    contexts.find(name)
    del contexts.servers[name]
    if contexts.current == name:
        contexts.current = ""
    contexts.save()


def _yes(is_so: bool) -> str:
    return "yes" if is_so else "no"


def _read_key(*, from_stdin: bool) -> str:
    """Never from an argument: everybody on the machine can read those."""
    if key := os.environ.get(KEY_VARIABLE):
        return key
    if from_stdin:
        return sys.stdin.readline().strip()
    if sys.stdin.isatty():
        answer: str = typer.prompt(
            "API key (empty for none)", default="", hide_input=True, show_default=False, err=True
        )
        return answer.strip()
    return ""
