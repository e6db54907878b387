"""Page tokens: where the next page of a list begins, valid only for the same list (https://google.aip.dev/158)."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence

from tidings.v1.event_service_pb2 import ListEventsRequest
from tidings.v1.mission_service_pb2 import ListMissionsRequest
from tidings.v1.run_service_pb2 import ListRunsRequest
from tidings_server.errors import Violation, invalid
from tidings_server.sealing import BrokenSeal, Seal
from tidings_server.store import Key

ListRequest = ListEventsRequest | ListMissionsRequest | ListRunsRequest


class PageTokens:
    """Makes and reads the tokens of one deployment."""

    def __init__(self, secrets: Sequence[bytes]) -> None:
        self._seal = Seal(secrets, "page-token")

    def write(self, key: Key | None, project: str, request: ListRequest) -> str:
        """The token of the page after a key; empty if there is none."""
        return self._seal.seal(json.dumps(key, ensure_ascii=False).encode(), _context(project, request)) if key else ""

    def read(self, token: str, project: str, request: ListRequest) -> Key | None:
        """Raises Failure INVALID_FIELD if the token was not issued for this list."""
        if not token:
            return None
        try:
            key: list[int | str] = json.loads(self._seal.open(token, _context(project, request)))
        except BrokenSeal as error:
            raise invalid([Violation("page_token", "was not issued for this list")]) from error
        return tuple(key)


def _context(project: str, request: ListRequest) -> list[bytes]:
    listed = copy.copy(request)
    for name in ("page_token", "page_size", "skip", "count_total"):
        listed.ClearField(name)
    return [project.encode(), request.DESCRIPTOR.full_name.encode(), listed.SerializeToString(deterministic=True)]
