"""`tidings keys`: keys are made where the store is, so this hands over to the server's own command."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import typer

from tidings.cli.failures import Refused


def keys(context: typer.Context) -> None:
    """Create, list and revoke API keys, with `tidings-server keys` beside the server's store."""
    command = shutil.which("tidings-server") or shutil.which("tidings-server", path=Path(sys.executable).parent)
    if command is None:
        raise Refused(
            "the service has no call that makes keys: run `tidings-server keys` on a machine that has the server "
            "and reaches its store"
        )
    os.execv(command, [command, "keys", *context.args])  # noqa: S606 (its own arguments, and no shell)
