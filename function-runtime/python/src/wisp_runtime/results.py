"""What a handler returned, as bytes and headers that are safe to send.

Invariant: a value that isn't JSON (NaN, a set, bytes, a cycle, a lone surrogate) and a header that would break the
response's framing raise ``InvalidResultError`` here; no handler can end a header early or forge the runtime's marks.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from wisp_runtime.errors import InvalidResultError
from wisp_runtime.http1 import Reply

if TYPE_CHECKING:
    from collections.abc import Iterable

JSON_HEADER = ("content-type", "application/json")
# Framing is the front's; the marks are the runtime's.
_RESERVED = frozenset({
    "connection", "content-length", "date", "keep-alive", "trailer", "transfer-encoding", "upgrade",
    "wisp-function-error", "wisp-request-id",
})  # fmt: skip
_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")
_LEAST_STATUS, _MOST_STATUS = 200, 599
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def encode_json(value: Any) -> bytes:
    """Serialize a handler's value.

    Raises:
        InvalidResultError: It has no JSON form; named as Lambda names it.
    """
    try:
        return _encode(value).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidResultError("Runtime.MarshalError", f"Unable to marshal response: {error}") from None


def json_reply(value: Any) -> Reply:
    """Answer 200 with the value as JSON."""
    return Reply(200, [JSON_HEADER], encode_json(value))


def limited(reply: Reply, most: int) -> Reply:
    """Return a reply whose body has at most ``most`` bytes.

    Raises:
        InvalidResultError: It has more.
    """
    size = len(reply.body)
    if size > most:
        message = f"Response payload size ({size} bytes) exceeded maximum allowed payload size ({most} bytes)."
        raise InvalidResultError("Function.ResponseSizeTooLarge", message)
    return reply


def checked_status(value: Any) -> int:
    """Return a status code that a response can have.

    Raises:
        InvalidResultError: It isn't a whole number from 200 to 599.
    """
    try:
        status = int(value)
    except (TypeError, ValueError):
        status = 0
    if isinstance(value, bool) or not _LEAST_STATUS <= status <= _MOST_STATUS:
        raise InvalidResultError("Runtime.InvalidResponse", f"The status code must be 200 to 599, not {value!r:.60}")
    return status


def checked_headers(pairs: Iterable[tuple[Any, Any]]) -> list[tuple[str, str]]:
    """Return a handler's headers with lower-case names, without those that aren't its business.

    Raises:
        InvalidResultError: A name or value has characters that a header can't have.
    """
    headers = []
    for key, item in pairs:
        name = str(key).lower()
        value = str(item).lower() if isinstance(item, bool) else str(item)
        if not name or not _TOKEN.issuperset(name):
            raise InvalidResultError("Runtime.InvalidResponse", f"{name!r:.60} is no valid header name")
        if not value.isprintable() and any((char < " " and char != "\t") or char == "\x7f" for char in value):
            raise InvalidResultError("Runtime.InvalidResponse", f"Header {name!r} has a control character in its value")
        try:
            value.encode("latin-1")
        except UnicodeEncodeError:
            message = f"Header {name!r} has characters outside Latin-1; percent-encode them"
            raise InvalidResultError("Runtime.InvalidResponse", message) from None
        if name not in _RESERVED:
            headers.append((name, value))
    return headers
