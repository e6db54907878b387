"""`tidings-server`: the command line becomes a Config, and that a running server or an administration command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, Final, NoReturn

from pydantic import ValidationError

from tidings_server import keys_command
from tidings_server.config import Config, GatewayConfig, HttpConfig
from tidings_server.embedded import EmbeddedStoreError
from tidings_server.errors import Failure
from tidings_server.gateway import command as gateway_command
from tidings_server.gateway.http_server import CannotListen
from tidings_server.logs import configure_logs
from tidings_server.runner import run
from tidings_server.server import StartRefused, serve
from tidings_server.stopping import StoppedAtOnce, stop_signals
from tidings_server.store import StoreRefused

STORE_SETTINGS: Final = ("mongodb_uri", "mongodb_database", "data_dir", "secret")
REFUSALS: Final = (
    StartRefused,
    StoreRefused,
    EmbeddedStoreError,
    CannotListen,
    keys_command.Refused,
    gateway_command.Refused,
    Failure,
)
"""What a command raises when it cannot do what it should, for reasons that its text tells."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command; exits 0 when it did what it should, 1 when it could not, 2 when the command line is wrong."""
    parser = _parser()
    options = vars(parser.parse_args(arguments))
    command = options.pop("command")
    action: dict[str, Any] = {
        name: options.pop(name) for name in ("action", "project", "scopes", "key_id") if name in options
    }
    try:
        work = _work(command, options, action)
    except ValidationError as error:
        parser.error("; ".join(_sentence(each) for each in error.errors()))
    try:
        run(work)
    except REFUSALS as error:
        sys.exit(f"tidings-server: {error}")
    except StoppedAtOnce:
        sys.exit(130)
    sys.exit(0)


def _work(command: str, options: dict[str, Any], action: dict[str, Any]) -> Coroutine[Any, Any, None]:
    """What the command does. Raises ValidationError if the options are no settings for it."""
    if command == "gateway":
        gateway_config = GatewayConfig(**options)
        configure_logs(gateway_config.log_format)
        return _serve_http(gateway_config)
    config = Config(**options)
    configure_logs(config.log_format)
    return _serve(config) if command == "serve" else keys_command.run(config, **action)


async def _serve(config: Config) -> None:
    """Serve until SIGTERM or SIGINT, then stop in order; a second signal stops at once."""
    async with stop_signals() as stop_asked, serve(config):
        await stop_asked()


async def _serve_http(config: GatewayConfig) -> None:
    async with stop_signals() as stop_asked:
        await gateway_command.run(config, stop_asked)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tidings-server", description="Follow long-running work: a gRPC service over MongoDB."
    )
    parser.set_defaults(command="serve")
    _add_settings(parser, Config, Config.model_fields)
    commands = parser.add_subparsers(title="commands", metavar="")
    keys = commands.add_parser("keys", help="create, list and revoke API keys")
    keys_command.add_arguments(keys, lambda each: _add_settings(each, Config, STORE_SETTINGS))
    gateway = commands.add_parser("gateway", help="serve HTTP alone, for a gRPC port that is somewhere else")
    gateway.set_defaults(command="gateway")
    _add_settings(gateway, GatewayConfig, GatewayConfig.model_fields)
    return parser


def _add_settings(parser: argparse.ArgumentParser, settings: type[HttpConfig], names: Iterable[str]) -> None:
    for name in names:
        field = settings.model_fields[name]
        default = "" if field.default is None else f" (default: {field.default})"
        options: dict[str, Any] = {"action": argparse.BooleanOptionalAction} if field.annotation is bool else {}
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            default=argparse.SUPPRESS,
            help=f"{field.description}{default} [TIDINGS_{name.upper()}]",
            **options,
        )


def _sentence(error: Any) -> str:
    name = "--" + "-".join(str(part) for part in error["loc"]).replace("_", "-") if error["loc"] else ""
    return f"{name}: {error['msg']}".removeprefix(": ").replace("Value error, ", "")


if __name__ == "__main__":
    main()
