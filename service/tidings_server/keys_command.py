"""`tidings-server keys`: create, list and revoke API keys."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from pydantic import SecretStr

from tidings_server.auth import DEFAULT_PROJECT, SCOPES, ApiKeys
from tidings_server.clock import system_clock
from tidings_server.config import Config
from tidings_server.embedded import running_uri
from tidings_server.limits import Limits
from tidings_server.server import opened_store
from tidings_server.store import KeyStore, StoredKey

PROJECT_PATTERN: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


class Refused(Exception):
    """The command cannot be carried out. The text says why."""


def add_arguments(parser: argparse.ArgumentParser, add_settings: Callable[[argparse.ArgumentParser], None]) -> None:
    parser.set_defaults(command="keys")
    actions = parser.add_subparsers(title="actions", dest="action", required=True, metavar="")
    create = actions.add_parser("create", help="create a key and print it, this once")
    create.add_argument("--project", type=_project, default=DEFAULT_PROJECT, help="project that callers act in")
    create.add_argument("--scopes", type=_scopes, default=SCOPES, help="`read`, `write` or `read,write` (default)")
    revoke = actions.add_parser("revoke", help="revoke a key, for good")
    revoke.add_argument("key_id", help="id as `keys list` prints it, or the whole key")
    for each in (create, revoke, actions.add_parser("list", help="list the keys, without their secrets")):
        add_settings(each)


async def run(
    config: Config, action: str, project: str = "", scopes: frozenset[str] = SCOPES, key_id: str = ""
) -> None:
    """Raises Refused, and Failure STORE_UNAVAILABLE."""
    async with opened_store(_reachable(config), system_clock, Limits()) as store:
        deployment = (await store.prepare()).with_secrets(config.secrets)
        if action == "create":
            print(await ApiKeys(store.keys, deployment.secrets, system_clock).create(project, scopes))  # noqa: T201
        elif action == "list":
            await _print_keys(store.keys)
        else:
            await _revoke(store.keys, key_id)


def _reachable(config: Config) -> Config:
    """The configuration with which to reach the store of a server that may be running."""
    if config.mongodb_uri is not None:
        return config
    if config.data_dir is None:
        raise Refused("name the store of the server, with --mongodb-uri or --data-dir")
    if uri := running_uri(config.data_dir):
        return config.model_copy(update={"mongodb_uri": SecretStr(uri), "data_dir": None})
    return config


async def _print_keys(keys: KeyStore) -> None:
    print(f"{'KEY ID':<18}{'PROJECT':<24}{'SCOPES':<12}{'CREATED':<22}REVOKED")  # noqa: T201
    for key in await keys.list():
        print(_line(key))  # noqa: T201


def _line(key: StoredKey) -> str:
    scopes = ",".join(sorted(key.scopes))
    revoked = _time(key.revoke_time) if key.revoke_time else "-"
    return f"{key.key_id:<18}{key.project:<24}{scopes:<12}{_time(key.create_time):<22}{revoked}"


async def _revoke(keys: KeyStore, key_id: str) -> None:
    if key_id.startswith("tdg_"):
        key_id = key_id.split("_")[1]
    if not await keys.revoke(key_id, system_clock()):
        raise Refused(f'there is no key "{key_id}"')
    print(f"{key_id} revoked; servers refuse it within seconds")  # noqa: T201


def _project(text: str) -> str:
    if not PROJECT_PATTERN.fullmatch(text):
        raise argparse.ArgumentTypeError("a project is 1 to 63 lower-case letters, digits, `-` and `_`")
    return text


def _scopes(text: str) -> frozenset[str]:
    scopes = frozenset(text.split(","))
    if not scopes <= SCOPES:
        raise argparse.ArgumentTypeError("scopes are `read` and `write`")
    return scopes


def _time(millis: int) -> str:
    return datetime.fromtimestamp(millis / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
