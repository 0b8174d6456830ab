"""What a worker answered, as a reply that is safe to send.

Invariant: a status or header that would break the response's framing raises ``InvalidResultError`` here, and headers
that aren't a handler's business are dropped: no function can end a header early or forge the runtime's marks.
"""

from __future__ import annotations

from wisp_runtime.cloudevent import percent_encode
from wisp_runtime.errors import InvalidResultError
from wisp_runtime.http1 import Reply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

JSON_HEADER = ("content-type", "application/json")
# Framing is the front's; the marks are the runtime's.
_RESERVED = frozenset({
    "connection", "content-length", "date", "keep-alive", "traceparent", "trailer", "transfer-encoding", "upgrade",
    "wisp-function-error", "wisp-request-id",
})  # fmt: skip
_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")
_LEAST_STATUS, _MOST_STATUS = 200, 599


def make_reply(head: dict[str, Any], body: bytes, signature: str) -> Reply:
    """Make the reply of a result frame, as far as that alone decides it.

    Raises:
        InvalidResultError: Its status or headers can't be sent.
    """
    if not head:
        if signature == "cloudevent" and body == b"null":
            return Reply(204, [])
        return Reply(200, [JSON_HEADER], body)
    if "attributes" in head:
        pairs = [(f"ce-{name}", percent_encode(str(value))) for name, value in head["attributes"].items()]
        if head.get("contentType"):
            pairs.append(("content-type", head["contentType"]))
        return Reply(200, checked_headers(pairs), body)
    return Reply(checked_status(head.get("status")), checked_headers(head.get("headers") or []), body)


def checked_status(value: Any) -> int:
    """Return a status code that a response can have.

    Raises:
        InvalidResultError: It isn't a whole number from 200 to 599.
    """
    try:
        status = int(value)
    except (TypeError, ValueError, OverflowError):  # 1e999 is infinite
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
