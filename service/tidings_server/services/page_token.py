"""Page tokens: where the next page of a list begins, valid only for the same list (https://google.aip.dev/158)."""

from __future__ import annotations

import json

from tidings.v1.event_service_pb2 import ListEventsRequest
from tidings_server.errors import Violation, invalid
from tidings_server.sealing import BrokenSeal, Seal
from tidings_server.store import Key


class PageTokens:
    """Makes and reads the tokens of one deployment."""

    def __init__(self, secret: bytes) -> None:
        self._seal = Seal(secret, "page-token")

    def write(self, key: Key | None, project: str, request: ListEventsRequest) -> str:
        """The token of the page after a key; empty if there is none."""
        return self._seal.seal(json.dumps(key, ensure_ascii=False).encode(), _context(project, request)) if key else ""

    def read(self, token: str, project: str, request: ListEventsRequest) -> Key | None:
        """Raises Failure INVALID_FIELD if the token was not issued for this list."""
        if not token:
            return None
        try:
            time, event_id = json.loads(self._seal.open(token, _context(project, request)))
        except BrokenSeal as error:
            raise invalid([Violation("page_token", "was not issued for this list")]) from error
        return time, event_id


def _context(project: str, request: ListEventsRequest) -> list[bytes]:
    listed = ListEventsRequest()
    listed.CopyFrom(request)
    listed.ClearField("page_token")
    listed.ClearField("page_size")
    return [project.encode(), listed.SerializeToString(deterministic=True)]
