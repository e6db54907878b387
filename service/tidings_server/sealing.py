"""Tokens that callers carry for us: they cannot read them, change them, or use them for anything else."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from contextlib import suppress

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


class BrokenSeal(Exception):
    """The token was not sealed here for this context."""


def derived_key(secret: bytes, purpose: str, length: int) -> bytes:
    """A key for one purpose only (HKDF, RFC 5869)."""
    return HKDF(hashes.SHA256(), length, salt=None, info=f"tidings/{purpose}".encode()).derive(secret)


class Seal:
    """Encrypts and authenticates small texts together with the context in which they are valid.

    AES-SIV (RFC 5297) needs no nonce, so there is none to repeat however many tokens are made.
    """

    def __init__(self, secrets: Sequence[bytes], purpose: str) -> None:
        """Seals with the first secret and opens with any."""
        self._ciphers = [AESSIV(derived_key(secret, purpose, 64)) for secret in secrets]

    def seal(self, content: bytes, context: Sequence[bytes]) -> str:
        return base64.urlsafe_b64encode(self._ciphers[0].encrypt(content, list(context))).decode().rstrip("=")

    def open(self, token: str, context: Sequence[bytes]) -> bytes:
        """What was sealed. Raises BrokenSeal if it was not sealed with these secrets, purpose and context."""
        try:
            sealed = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError) as error:
            raise BrokenSeal from error
        for cipher in self._ciphers:
            with suppress(ValueError, InvalidTag):
                return cipher.decrypt(sealed, list(context))
        raise BrokenSeal
