"""From what the command line and the environment say to a client of a server."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import grpc
import typer

from tidings import Client
from tidings._calls import channel_credentials
from tidings.cli.contexts import Contexts, Server
from tidings.cli.failures import Refused

DEFAULT_TARGET: Final = "127.0.0.1:50051"
NAME_VARIABLE: Final = "TIDINGS_CONTEXT"
KEY_VARIABLE: Final = "TIDINGS_API_KEY"


@dataclass(frozen=True)
class Choice:
    """What was said of the server before the command's name: the name of a context, or an address."""

    context: str = ""
    target: str = ""


def chosen(context: typer.Context) -> Server:
    """The server that the command is for, with the key from the environment if there is one there. Raises Refused."""
    choice = context.find_object(Choice) or Choice()
    if choice.context and choice.target:
        raise Refused("give either --context or --target")
    server = new_server(choice.target) if choice.target else _known(choice.context or os.environ.get(NAME_VARIABLE, ""))
    return replace(server, api_key=os.environ.get(KEY_VARIABLE) or server.api_key)


def new_server(target: str, *, tls: bool | None = None, ca_file: Path | None = None) -> Server:
    """A server at an address: with TLS unless it is on this machine, or as is said."""
    if tls is None:
        tls = ca_file is not None or channel_credentials(target, None, insecure=False) is not None
    return Server(target, tls=tls, ca_file=str(ca_file.absolute()) if ca_file else "")


def connect(context: typer.Context) -> Client:
    """A client of the chosen server, closed at the end of the command. Raises Refused."""
    server = chosen(context)
    return context.with_resource(
        Client(server.target, key=server.api_key or None, credentials=credentials(server), insecure=not server.tls)
    )


def credentials(server: Server) -> grpc.ChannelCredentials | None:
    """How to know the server; None for plain text. Raises Refused."""
    try:
        authority = Path(server.ca_file).read_bytes() if server.ca_file else None
    except OSError as error:
        raise Refused(f"the CA of {server.target} cannot be read: {error}") from error
    return grpc.ssl_channel_credentials(authority) if server.tls else None


def _known(name: str) -> Server:
    contexts = Contexts.load()
    name = name or contexts.current
    return contexts.find(name) if name else new_server(DEFAULT_TARGET)
