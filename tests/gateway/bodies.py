"""Request bodies that no dialect takes, whatever it asks for."""

from __future__ import annotations

DEEP = 5_000

UNFIT: dict[str, bytes] = {
    "empty": b"",
    "no JSON": b"{",
    "no object": b"[]",
    "a text": b'"text"',
    "null": b"null",
    "no UTF-8": b'{"messages": "\xff"}',
    "not a number": b'{"messages": NaN}',
    "endless": b'{"messages": 1e999}',
    "half a pair": rb'{"messages": "\ud800"}',
    "too deep to read": b'{"messages": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    "nothing of what is needed": b"{}",
}

HEADERS = {"content-type": "application/json"}
