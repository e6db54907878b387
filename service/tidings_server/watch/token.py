"""Resume tokens: a place in a watch, which only this deployment can read, and only for the same watch."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from tidings.v1 import error_reason_pb2 as reasons
from tidings.v1.event_service_pb2 import WatchEventResponse
from tidings_server.change import Position
from tidings_server.errors import Failure, Violation
from tidings_server.sealing import BrokenSeal, Seal
from tidings_server.store import Key

_LAYOUT: Final = struct.Struct(">BIIiqqqq")
_VERSION: Final = 2
_NONE: Final = -1
REMEMBERED_TOKENS: Final = 256


class Place(NamedTuple):
    """Where a watch was: after a change of the deployment, or for one event or run after one of its revisions."""

    position: Position | None = None
    revision: int | None = None
    create_time: int | None = None
    """Of the one event, in milliseconds: another event with its id has another."""
    told_up_to: Key | None = None
    """How far the snapshot had been told at the position; None when it was complete, or there was none."""


NOWHERE: Final = Place()


class Tokens:
    """Makes and reads the tokens of one deployment."""

    def __init__(self, secrets: Sequence[bytes], deployment: str) -> None:
        self._seal = Seal(secrets, "resume-token")
        self._deployment = deployment.encode()
        # Those who watch the same thing are told the same change with the same token.
        self.field: Final = lru_cache(REMEMBERED_TOKENS)(self._field)

    def _field(self, place: Place, fingerprint: tuple[bytes, ...]) -> bytes:
        """The token of a place, as the encoded `resume_token` that the messages of all watches have."""
        return WatchEventResponse(resume_token=self.write(place, fingerprint)).SerializeToString()

    def write(self, place: Place, fingerprint: tuple[bytes, ...]) -> str:
        position = place.position or Position(0, 0, 0)
        create_time, sequence, document_id = place.told_up_to or (_NONE, _NONE, "")
        of_event = (_NONE if each is None else each for each in (place.revision, place.create_time))
        content = _LAYOUT.pack(_VERSION, *position, *of_event, create_time, sequence) + str(document_id).encode()
        return self._seal.seal(content, [self._deployment, *fingerprint])

    def read(self, token: str, fingerprint: tuple[bytes, ...]) -> Place:
        """Raises Failure RESUME_TOKEN_INVALID if the token was not made here for this watch."""
        try:
            content = self._seal.open(token, [self._deployment, *fingerprint])
            version, *numbers = _LAYOUT.unpack_from(content)
        except (BrokenSeal, struct.error) as error:
            raise _invalid() from error
        if version != _VERSION:
            raise _invalid()
        seconds, increment, ordinal, revision, create_time, *key = numbers
        return Place(
            Position(seconds, increment, ordinal) if seconds else None,
            None if revision == _NONE else revision,
            None if create_time == _NONE else create_time,
            None if key[1] == _NONE else (*key, content[_LAYOUT.size :].decode()),
        )


def _invalid() -> Failure:
    reason, rule = reasons.ERROR_REASON_RESUME_TOKEN_INVALID, "was not issued for this project, scope and filter"
    violations = [Violation("resume_token", rule, reason)]
    return Failure(reason, f"the resume token {rule}: begin without one", violations=violations)
