"""Contexts: the servers that this person knows by name, kept in a file that nobody else may read."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Self

import typer

from tidings.cli.failures import Refused


@dataclass(frozen=True)
class Server:
    """How to reach a server."""

    target: str
    tls: bool = False
    ca_file: str = ""
    api_key: str = field(default="", repr=False)


@dataclass
class Contexts:
    """The contexts by name, and which one is used when none is named."""

    current: str = ""
    servers: dict[str, Server] = field(default_factory=dict)

    @classmethod
    def load(cls) -> Self:
        """What is in the file; nothing if there is none. Raises Refused."""
        try:
            stored = json.loads(path().read_text(encoding="utf-8"))
            return cls(stored["current"], {name: Server(**server) for name, server in stored["servers"].items()})
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise Refused(f"{path()} cannot be read; mend or remove it: {error}") from error

    def save(self) -> None:
        """Replace the file in one step. Only its owner may read it: it has keys. Raises Refused."""
        try:
            path().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with NamedTemporaryFile("w", dir=path().parent, encoding="utf-8", delete=False) as file:  # with mode 0600
                json.dump(asdict(self), file, indent=2)
            os.replace(file.name, path())
        except OSError as error:
            raise Refused(f"{path()} cannot be written: {error}") from error

    def find(self, name: str) -> Server:
        """Raises Refused if there is none."""
        if name not in self.servers:
            raise Refused(f'there is no context "{name}"; `tidings context list` shows those that there are')
        return self.servers[name]


def path() -> Path:
    """Where the contexts are kept: in the folder that the platform has for settings."""
    return Path(typer.get_app_dir("tidings")) / "contexts.json"
