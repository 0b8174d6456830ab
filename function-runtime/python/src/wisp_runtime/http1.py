"""HTTP/1.1 without sockets: bytes in, complete requests out; replies in, bytes out.

Invariant: a request comes out only when it is complete, unambiguous and within the limits; everything else ends in one
``refusal``, after which no further byte of the connection is read as HTTP. llhttp (httptools) is strict: a
Content-Length beside a Transfer-Encoding, a repeated one, a bare LF or a folded line never reach a handler, so there is
nothing two parsers could read in two ways (RFC 9112, sections 6.1 and 11.2). Trailers are dropped, never merged.
"""

from __future__ import annotations

import json
import time
from collections import deque

from httptools import HttpParserCallbackError, HttpParserError, HttpParserUpgrade, HttpRequestParser

MAX_HEAD = 64 * 1024
# A chunk of one byte takes six on the wire; beyond that, a body is padding or endless trailers.
MAX_FRAMING = 8

_PHRASES = {
    200: "OK", 201: "Created", 202: "Accepted", 204: "No Content", 301: "Moved Permanently", 302: "Found",
    303: "See Other", 304: "Not Modified", 307: "Temporary Redirect", 308: "Permanent Redirect", 400: "Bad Request",
    401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed", 408: "Request Timeout",
    409: "Conflict", 413: "Content Too Large", 415: "Unsupported Media Type", 417: "Expectation Failed",
    422: "Unprocessable Content", 429: "Too Many Requests", 431: "Request Header Fields Too Large",
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
        peer: The caller's IP address.
        keep_alive: Whether the caller wants the connection kept.
        version: ``1.0`` or ``1.1``.
    """

    __slots__ = ("body", "fields", "headers", "keep_alive", "method", "peer", "target", "version")

    def __init__(self, method: str, target: str, headers: list[tuple[str, str]], peer: str) -> None:
        """Make a request whose body is still to come."""
        self.method = method
        self.target = target
        self.headers = headers
        self.fields = dict(headers)
        self.peer = peer
        self.body = b""
        self.keep_alive = True
        self.version = "1.1"


class Reply:
    """A status, headers and a body, still to be framed for its request."""

    __slots__ = ("body", "fields", "headers", "status")

    def __init__(self, status: int, headers: list[tuple[str, str]], body: bytes = b"") -> None:
        """Take header names in lower case; framing headers are not the caller's business."""
        self.status = status
        self.headers = headers
        self.body = body

    def encode(self, method: str, *, close: bool) -> bytes:
        """Frame the reply: status line, headers, date, length, and the body unless the method is HEAD."""
        status = self.status
        bodyless = status in (204, 304)
        length = "" if bodyless else f"content-length: {len(self.body)}\r\n"
        connection = "connection: close\r\n" if close else ""
        fields = "".join([f"{name}: {value}\r\n" for name, value in self.headers])
        phrase = _PHRASES.get(status, "")
        head = f"HTTP/1.1 {status} {phrase}\r\n{fields}{_date()}{length}{connection}\r\n".encode("latin-1", "replace")
        return head if bodyless or method == "HEAD" else head + self.body


def error_reply(status: int, error_type: str, message: str, headers: list[tuple[str, str]] | None = None) -> Reply:
    """Make the JSON answer of an error that isn't the function's own."""
    body = json.dumps({"errorType": error_type, "errorMessage": message}).encode()
    return Reply(status, [("content-type", "application/json"), *(headers or [])], body)


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_date_cache = (0, "")


def _date() -> str:
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


class Refusal:
    """Why a connection's input is read no further: the status and the sentence its caller gets."""

    __slots__ = ("error_type", "message", "status")

    def __init__(self, status: int, error_type: str, message: str) -> None:
        """Name the HTTP status, the error type and what is wrong with the request."""
        self.status = status
        self.error_type = error_type
        self.message = message


class RequestReader:
    """The reading side of one connection.

    Attributes:
        ready: Complete requests not yet taken, oldest first.
        refusal: Set once the input turned out to be unusable; nothing is read after it.
        partial: Whether a request has begun that is not complete.
        continue_due: Whether the caller waits for ``100 Continue`` before it sends the body.
    """

    def __init__(self, peer: str, max_body: int) -> None:
        """Read requests of ``peer`` whose bodies have at most ``max_body`` bytes."""
        self.ready: deque[HttpRequest] = deque()
        self.refusal: Refusal | None = None
        self.partial = False
        self.continue_due = False
        self._peer = peer
        self._max_body = max_body
        self._parser = HttpRequestParser(self)
        self._fed = 0  # bytes of the message that is being read
        self._start()

    def feed(self, data: bytes) -> None:
        """Take bytes from the connection; look at ``ready`` and ``refusal`` afterwards."""
        if self.refusal is not None:
            return
        fed_before = self._fed
        self._fed = fed_before + len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            pass  # answered as an ordinary request, after which the connection closes
        except HttpParserCallbackError:
            if self.refusal is None:  # a method or header that is no text can't come here; a bug of ours must not hang
                self.refusal = Refusal(400, "BadRequest", "The request could not be read")
        except HttpParserError as error:
            if not (self.ready and not self.ready[-1].keep_alive):  # bytes after the last request: not ours to judge
                self.refusal = Refusal(400, "BadRequest", f"The request is not valid HTTP/1.1: {error}")
        if self.partial and self._request is None and self._fed > MAX_HEAD:
            self._refuse_head()
        elif self._fed > MAX_HEAD + MAX_FRAMING * self._max_body:
            self._refuse_body()

    def _start(self) -> None:
        """Forget the last message."""
        self._target = b""
        self._headers: list[tuple[str, str]] = []
        self._request: HttpRequest | None = None
        self._body: bytes | bytearray = b""
        self._fed = 0

    # httptools calls these.

    def on_message_begin(self) -> None:
        """Begin a request."""
        self.partial = True

    def on_url(self, url: bytes) -> None:
        """Take the target, or a part of it."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; what comes after the head is a trailer, and dropped."""
        if self._request is None:
            self._headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        """Check what the head alone decides: version, host, length, expectation."""
        parser = self._parser
        headers = self._headers
        method = parser.get_method().decode("latin-1")
        request = self._request = HttpRequest(method, self._target.decode("latin-1"), headers, self._peer)
        request.version = version = parser.get_http_version()
        request.keep_alive = parser.should_keep_alive() and not parser.should_upgrade()
        fields = request.fields
        if "expect" in fields:
            self._expect(fields["expect"], version)
        if int(fields.get("content-length", 0)) > self._max_body:  # llhttp has seen to it that it is a number
            self._refuse_body()
        if version not in ("1.1", "1.0"):
            self._refuse(505, "HttpVersionNotSupported", f"HTTP/{version} is not spoken here: use HTTP/1.1")
        elif "host" not in fields and version == "1.1":
            self._refuse(400, "BadRequest", "An HTTP/1.1 request has a Host header")
        elif len(fields) != len(headers) and [name for name, _ in headers].count("host") > 1:
            self._refuse(400, "BadRequest", "A request has one Host header")
        elif method == "CONNECT":
            self._refuse(501, "NotImplemented", "CONNECT is for proxies")
        if self.refusal is not None:
            raise ValueError(self.refusal.message)  # makes httptools stop; feed() has the refusal

    def on_body(self, body: bytes) -> None:
        """Take a part of the body; a body in many parts is gathered in place, lest small chunks cost 40 bytes each."""
        gathered = self._body
        if len(gathered) + len(body) > self._max_body:
            self._refuse_body()
            raise ValueError(self._max_body)
        if not gathered:
            self._body = body
        elif isinstance(gathered, bytearray):
            gathered += body
        else:
            self._body = bytearray(gathered + body)

    def on_message_complete(self) -> None:
        """Hand out the request."""
        request = self._request
        if request is None:
            raise ValueError("complete without a head")
        request.body = bytes(self._body)
        self.ready.append(request)
        self.partial = self.continue_due = False
        self._start()

    def _expect(self, value: str, version: str) -> None:
        """Note that the caller waits for 100 Continue; refuse any other expectation (RFC 9110, section 10.1.1)."""
        if value.lower() != "100-continue":
            self._refuse(417, "ExpectationFailed", "The only expectation understood is 100-continue")
        elif version == "1.1":
            self.continue_due = True

    def _refuse_head(self) -> None:
        self._refuse(431, "RequestHeaderFieldsTooLarge", f"The request's head has more than {MAX_HEAD} bytes")

    def _refuse_body(self) -> None:
        self._refuse(413, "RequestTooLarge", f"The request's body has more than {self._max_body} bytes")

    def _refuse(self, status: int, error_type: str, message: str) -> None:
        if self.refusal is None:
            self.refusal = Refusal(status, error_type, message)
