"""HTTP/1.1's messages without sockets: a request as it was read, a reply as it is written.

Invariant: what ``encode`` returns is framed for its request, whatever the reply's headers say. ``request_reader`` makes
the requests.
"""

from __future__ import annotations

import time

from wisp_runtime.encoding import write_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PHRASES = {
    101: "Switching Protocols",
    200: "OK", 201: "Created", 202: "Accepted", 204: "No Content", 301: "Moved Permanently", 302: "Found",
    303: "See Other", 304: "Not Modified", 307: "Temporary Redirect", 308: "Permanent Redirect", 400: "Bad Request",
    401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed", 408: "Request Timeout",
    409: "Conflict", 413: "Content Too Large", 415: "Unsupported Media Type", 417: "Expectation Failed",
    422: "Unprocessable Content", 426: "Upgrade Required", 429: "Too Many Requests", 431: "Request Header Fields Too Large",
    500: "Internal Server Error", 501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable",
    504: "Gateway Timeout", 505: "HTTP Version Not Supported",
}  # fmt: skip


class HttpRequest:
    """One complete request.

    Attributes:
        method: Upper-case method.
        target: Request target as sent: path and query, still percent-encoded.
        headers: Names in lower case with values, in the order sent, repeated names kept.
        fields: The same by name; of a repeated one, the last.
        body: The whole body.
        held: Bytes that its connection gives back to the budget when it is answered.
        peer: The caller's IP address.
        keep_alive: Whether the caller wants the connection kept.
        version: ``1.0`` or ``1.1``.
        upgrade: Whether it asks for another protocol, in the right form and without a body.
        jwt: The caller's verified ``claims`` and ``scopes``, None where the Function doesn't ask for them.
    """

    __slots__ = (
        "body", "fields", "headers", "held", "jwt", "keep_alive", "method", "peer", "target", "upgrade", "version",
    )  # fmt: skip

    def __init__(self, method: str, target: str, headers: list[tuple[str, str]], peer: str) -> None:
        """Make a request whose body is still to come."""
        self.method = method
        self.target = target
        self.headers = headers
        self.fields = dict(headers)
        self.peer = peer
        self.body = b""
        self.held = 0
        self.keep_alive = True
        self.upgrade = False
        self.version = "1.1"
        self.jwt: dict[str, Any] | None = None

    @property
    def asks_for_websocket(self) -> bool:
        """Whether it is the handshake of a WebSocket; llhttp has seen to it that ``connection`` says upgrade."""
        upgrade = self.fields.get("upgrade", "").lower()
        return self.upgrade and upgrade == "websocket" and self.method == "GET" and self.version == "1.1"


class Reply:
    """A status, headers and a body, still to be framed for its request."""

    __slots__ = ("body", "fields", "headers", "status")

    def __init__(self, status: int, headers: list[tuple[str, str]], body: bytes = b"") -> None:
        """Take header names in lower case; framing headers are not the caller's business."""
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def bodyless(self) -> bool:
        """Whether its status says that no body follows, nor any framing of one (RFC 9110, section 6.4.1)."""
        return self.status in (204, 304)

    def encode(self, method: str, *, close: bool) -> bytes:
        """Frame the reply: status line, headers, date, length, and the body unless the method is HEAD."""
        bodyless = self.bodyless
        head = self._head("" if bodyless else f"content-length: {len(self.body)}\r\n", close=close)
        return head if bodyless or method == "HEAD" else head + self.body

    def encode_head(self, *, close: bool, chunked: bool) -> bytes:
        """Frame the beginning of a streamed reply, whose body follows in chunks or ends with the connection."""
        return self._head("transfer-encoding: chunked\r\n" if chunked else "", close=close)

    def _head(self, framing: str, *, close: bool) -> bytes:
        connection = "connection: close\r\n" if close else ""
        fields = "".join([f"{name}: {value}\r\n" for name, value in self.headers])
        phrase = _PHRASES.get(self.status, "")
        text = f"HTTP/1.1 {self.status} {phrase}\r\n{fields}{date()}{framing}{connection}\r\n"
        return text.encode("latin-1", "replace")


LAST_CHUNK = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """Frame a part of a streamed body, which is not empty."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def error_reply(status: int, error_type: str, message: str, headers: list[tuple[str, str]] | None = None) -> Reply:
    """Make the JSON answer of an error that isn't the function's own."""
    body = write_json({"errorType": error_type, "errorMessage": message}).encode()
    return Reply(status, [("content-type", "application/json"), *(headers or [])], body)


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_date_cache = (0, "")


def date() -> str:
    """Return the Date header, made once a second (RFC 9110, section 6.6.1)."""
    global _date_cache  # noqa: PLW0603 - a cache of one value
    second, text = _date_cache
    now = int(time.time())
    if now != second:
        at = time.gmtime(now)
        day = _DAYS[at.tm_wday]
        month = _MONTHS[at.tm_mon - 1]
        clock = f"{at.tm_hour:02d}:{at.tm_min:02d}:{at.tm_sec:02d}"
        text = f"date: {day}, {at.tm_mday:02d} {month} {at.tm_year} {clock} GMT\r\n"
        _date_cache = (now, text)
    return text
