"""The command line `tidings`: what people type to see, move and follow work.

Data goes to stdout and everything said to people to stderr. A folder of short modules: one for each group of commands
(`*_commands.py`, `doctor.py`), and beside them what they share.
"""

from __future__ import annotations

import sys
from typing import Final, NoReturn

EXTRA: Final = frozenset({"grpc_health", "rich", "typer"})


def main() -> NoReturn:
    """Run the command line. The packages that only it needs are the extra `cli`."""
    try:
        from tidings.cli.app import run
    except ModuleNotFoundError as error:
        if error.name not in EXTRA:
            raise
        sys.exit(f"tidings: {error.name} is not installed: the command line needs `pip install 'tidings[cli]'`")
    run()
