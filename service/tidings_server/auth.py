"""From a credential to a caller: API keys, what is stored of them, and what they allow.

A key is `tdg_<key id>_<secret>`. The store has a keyed hash of the secret only. Project and scopes come from
the key, never from a request.
"""

from __future__ import annotations

import base64
import hmac
import secrets
from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from time import monotonic
from typing import Final

from tidings.v1 import error_reason_pb2 as reasons
from tidings_server.clock import Clock
from tidings_server.errors import Failure
from tidings_server.sealing import derived_key
from tidings_server.store import KeyStore, StoredKey

READ: Final = "read"
WRITE: Final = "write"
SCOPES: Final = frozenset({READ, WRITE})
DEFAULT_PROJECT: Final = "default"

PREFIX: Final = "tdg"
CACHE_SECONDS: Final = 5.0
"""How long a revoked key may still be accepted."""
CACHE_ENTRIES_MAX: Final = 10_000

Metadata = Iterable[tuple[str, str | bytes]]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: the project that they act in, and what they may do there."""

    project: str
    scopes: frozenset[str]

    def require(self, scope: str) -> None:
        """Raise Failure PERMISSION_DENIED without the scope."""
        if scope not in self.scopes:
            raise Failure(
                reasons.ERROR_REASON_PERMISSION_DENIED,
                f'the API key does not have the scope "{scope}"',
                metadata={"scope": scope},
            )


CALLER: Final[ContextVar[Caller]] = ContextVar("caller")
"""Who made the call that is being served. Set by the interceptor."""


class ApiKeys:
    """Makes keys and hashes their secrets with the deployment's own."""

    def __init__(self, store: KeyStore, secrets_: Sequence[bytes], clock: Clock) -> None:
        self._store = store
        self._hash_keys = [derived_key(secret, "api-keys", 32) for secret in secrets_]
        self._clock = clock

    async def create(self, project: str, scopes: frozenset[str]) -> str:
        """Store a new key and return it: the only time that its secret is seen."""
        key_id, secret = secrets.token_hex(8), _random_text(32)
        await self._store.add(StoredKey(key_id, project, scopes, _hash(self._hash_keys[0], secret), self._clock()))
        return f"{PREFIX}_{key_id}_{secret}"

    def matches(self, secret: str, stored: bytes) -> bool:
        """Whether a stored hash is of this secret, in a time that does not tell how much of it is."""
        return any(hmac.compare_digest(_hash(hash_key, secret), stored) for hash_key in self._hash_keys)


class Authenticator:
    """Tells who calls. While no key was ever created every caller is the default project: see `is_open`."""

    def __init__(self, store: KeyStore, keys: ApiKeys) -> None:
        self._store = store
        self._keys = keys
        self._cache: dict[str, tuple[float, StoredKey | None]] = {}
        self._open_until = 0.0
        self._closed = False

    async def is_open(self) -> bool:
        """Whether calls need no credential, because no key was ever created."""
        if not self._closed and monotonic() >= self._open_until:
            self._closed = await self._store.exist()
            self._open_until = monotonic() + CACHE_SECONDS
        return not self._closed

    async def authenticate(self, metadata: Metadata) -> Caller:
        """Raises Failure: UNAUTHENTICATED, STORE_UNAVAILABLE."""
        if await self.is_open():
            return Caller(DEFAULT_PROJECT, SCOPES)
        key_id, secret = _parts(_credential(metadata))
        key = await self._find(key_id)
        # The comparison is made for unknown keys too, so that they take as long to refuse.
        matches = self._keys.matches(secret, key.secret_hash if key else bytes(32))
        if key is None or not matches or key.revoke_time is not None:
            raise _unauthenticated("the API key is not valid")
        return Caller(key.project, key.scopes)

    async def _find(self, key_id: str) -> StoredKey | None:
        expiry, key = self._cache.get(key_id, (0.0, None))
        if monotonic() < expiry:
            return key
        key = await self._store.find(key_id)
        if len(self._cache) >= CACHE_ENTRIES_MAX:
            self._cache.clear()
        self._cache[key_id] = (monotonic() + CACHE_SECONDS, key)
        return key


def _hash(hash_key: bytes, secret: str) -> bytes:
    return hmac.digest(hash_key, secret.encode(), "sha256")


def _credential(metadata: Metadata) -> str:
    headers = {name: value for name, value in metadata if isinstance(value, str)}
    scheme, _, credential = headers.get("authorization", "").partition(" ")
    if scheme.lower() in {"bearer", "token"} and credential:
        return credential.strip()
    if "x-api-key" in headers:
        return headers["x-api-key"].strip()
    raise _unauthenticated("no API key: send it as `authorization: Bearer KEY` or `x-api-key: KEY`")


def _parts(credential: str) -> tuple[str, str]:
    prefix, _, rest = credential.partition("_")
    key_id, _, secret = rest.partition("_")
    if prefix != PREFIX or not key_id or not secret:
        raise _unauthenticated("the API key is not valid")
    return key_id, secret


def _random_text(length: int) -> str:
    return base64.b32encode(secrets.token_bytes(length)).decode().rstrip("=").lower()


def _unauthenticated(sentence: str) -> Failure:
    return Failure(reasons.ERROR_REASON_UNAUTHENTICATED, sentence)
