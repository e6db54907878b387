"""Resume tokens: a place in a watch, which only this deployment can read, and only for the same watch."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tidings.v1 import error_reason_pb2 as reasons
from tidings_server.change import Position
from tidings_server.errors import Failure, Violation
from tidings_server.sealing import BrokenSeal, Seal

_LAYOUT: Final = struct.Struct(">BIIiqq")
_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Place:
    """Where a watch was: after a change of the deployment, or for one event after one of its revisions.

    Before the snapshot of a watch was complete it has no place yet: then all are None.
    """

    position: Position | None = None
    revision: int | None = None
    create_time: int | None = None
    """Of the one event, in milliseconds: another event with its id has another."""


NOWHERE: Final = Place()


class Tokens:
    """Makes and reads the tokens of one deployment."""

    def __init__(self, secret: bytes, deployment: str) -> None:
        self._seal = Seal(secret, "resume-token")
        self._deployment = deployment.encode()

    def write(self, place: Place, fingerprint: Sequence[bytes]) -> str:
        position = place.position or Position(0, 0, 0)
        of_event = (-1 if each is None else each for each in (place.revision, place.create_time))
        content = _LAYOUT.pack(_VERSION, *position, *of_event)
        return self._seal.seal(content, [self._deployment, *fingerprint])

    def read(self, token: str, fingerprint: Sequence[bytes]) -> Place:
        """Raises Failure RESUME_TOKEN_INVALID if the token was not made here for this watch."""
        try:
            version, *content = _LAYOUT.unpack(self._seal.open(token, [self._deployment, *fingerprint]))
        except (BrokenSeal, struct.error) as error:
            raise _invalid() from error
        if version != _VERSION:
            raise _invalid()
        *position, revision, create_time = content
        return Place(Position(*position) if any(position) else None, *_none_if_negative(revision, create_time))


def _none_if_negative(*numbers: int) -> Iterator[int | None]:
    return (None if number < 0 else number for number in numbers)


def _invalid() -> Failure:
    reason, rule = reasons.ERROR_REASON_RESUME_TOKEN_INVALID, "was not issued for this project, scope and filter"
    violations = [Violation("resume_token", rule, reason)]
    return Failure(reason, f"the resume token {rule}: begin without one", violations=violations)
