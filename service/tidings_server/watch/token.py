"""Resume tokens: a place in a watch, which only this deployment can read, and only for the same watch."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tidings.v1 import error_reason_pb2 as reasons
from tidings_server.change import Position
from tidings_server.errors import Failure
from tidings_server.sealing import BrokenSeal, Seal

_LAYOUT: Final = struct.Struct(">BIIiq")
_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Place:
    """Where a watch was: after a change of the deployment, or for one event after one of its revisions.

    Before the snapshot of a watch was complete it has no place yet: then both are None.
    """

    position: Position | None = None
    revision: int | None = None


NOWHERE: Final = Place()


class Tokens:
    """Makes and reads the tokens of one deployment."""

    def __init__(self, secret: bytes, deployment: str) -> None:
        self._seal = Seal(secret, "resume-token")
        self._deployment = deployment.encode()

    def write(self, place: Place, fingerprint: Sequence[bytes]) -> str:
        position = place.position or Position(0, 0, 0)
        revision = -1 if place.revision is None else place.revision
        content = _LAYOUT.pack(_VERSION, *position, revision)
        return self._seal.seal(content, [self._deployment, *fingerprint])

    def read(self, token: str, fingerprint: Sequence[bytes]) -> Place:
        """Raises Failure RESUME_TOKEN_INVALID if the token was not made here for this watch."""
        try:
            version, *position, revision = _LAYOUT.unpack(self._seal.open(token, [self._deployment, *fingerprint]))
        except (BrokenSeal, struct.error) as error:
            raise _invalid() from error
        if version != _VERSION:
            raise _invalid()
        return Place(Position(*position) if any(position) else None, None if revision < 0 else revision)


def _invalid() -> Failure:
    return Failure(
        reasons.ERROR_REASON_RESUME_TOKEN_INVALID,
        "the resume token was not issued for this project, scope and filter: begin without one",
    )
