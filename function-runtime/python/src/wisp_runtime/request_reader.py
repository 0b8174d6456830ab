"""HTTP/1.1 without sockets: bytes in, complete requests out.

Invariant: a request comes out only when it is complete, unambiguous and within the limits; everything else ends in one
``refusal``, after which no further byte of the connection is read as HTTP. llhttp (httptools) is strict: a
Content-Length beside a Transfer-Encoding, a repeated one, a bare LF or a folded line never reach a handler, so there is
nothing two parsers could read in two ways (RFC 9112, sections 6.1 and 11.2). Trailers are dropped, never merged, and what
is neither head nor body is bounded. What is held of a request, head and body, is taken from the budget of all connections
until it is answered.
"""

from __future__ import annotations

from wisp_runtime.budget import FREE, Budget, Share
from wisp_runtime.http1 import HttpRequest
from wisp_runtime.lean import deque
from wisp_runtime.llhttp import HttpParserCallbackError, HttpParserError, HttpParserUpgrade, HttpRequestParser

MAX_HEAD = 64 * 1024
MAX_HEADERS = 128
# A chunk of one byte takes six on the wire; beyond that, a body is padding.
MAX_FRAMING = 8
MAX_GAP = FREE  # bytes between two pieces of a body, or behind the last: a chunk's extensions, all trailers
MAX_PIPELINED = 32
SLICE = 4096  # bytes that are parsed at once: no more requests than these hold come out beyond what is wanted
_REQUEST_COST, _HEADER_COST = 1024, 128  # what a request and a header take beside their text


_methods = {name.encode(): name for name in ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")}
_names: dict[bytes, str] = {}  # as callers write them, and in lower case
_MOST_NAMES, _LONGEST_NAME = 512, 64


def _read_name(name: bytes) -> str:
    """Return a header's name in lower case, and keep it, unless somebody plays with us."""
    text = name.decode("latin-1").lower()
    if len(name) <= _LONGEST_NAME and len(_names) < _MOST_NAMES:
        _names[name] = text
    return text


class Refusal:
    """Why a connection's input is read no further: the status and the sentence its caller gets."""

    __slots__ = ("error_type", "headers", "message", "status")

    def __init__(self, status: int, error_type: str, message: str) -> None:
        """Name the HTTP status, the error type and what is wrong with the request."""
        self.status = status
        self.error_type = error_type
        self.message = message
        self.headers = [("retry-after", "1")] if status == 429 else []  # noqa: PLR2004 - too many requests


class RequestReader:
    """The reading side of one connection.

    Attributes:
        peer: The caller's address.
        ready: Complete requests not yet taken, oldest first.
        refusal: Set once the input turned out to be unusable; nothing is read after it.
        partial: Whether a request has begun that is not complete.
        continue_due: Whether the caller waits for ``100 Continue`` before it sends the body.
    """

    def __init__(self, peer: str, max_body: int, budget: Budget) -> None:
        """Read requests of ``peer`` whose bodies have at most ``max_body`` bytes and fit into the budget of all."""
        self._share = Share(budget)  # of what is not answered yet
        self._halted = False  # a WebSocket's handshake was read: what follows may be no HTTP
        self.ready: deque[HttpRequest] = deque()
        self.refusal: Refusal | None = None
        self.partial = False
        self.continue_due = False
        self.peer = peer
        self._max_body = max_body
        self._most_fed = MAX_HEAD + MAX_FRAMING * max_body
        self._parser = HttpRequestParser(self)
        self._unread = b""  # what came after more requests than are wanted at once
        self._start()

    @property
    def full(self) -> bool:
        """Whether more bytes should wait until a request has been taken."""
        return bool(self._unread) or len(self.ready) >= MAX_PIPELINED

    @property
    def empty(self) -> bool:
        """Whether nothing was read but the requests that were taken."""
        return not (self.partial or self.ready or self._unread or self.refusal)

    @property
    def rest(self) -> bytes:
        """What came after the handshake of a WebSocket."""
        return self._unread

    def take(self) -> HttpRequest | None:
        """Return the oldest complete request, if there is one."""
        if not self.ready:
            self._halted = False  # the handshake was answered in HTTP
            if self._unread:
                self.feed(b"")
        return self.ready.popleft() if self.ready else None

    def feed(self, data: bytes) -> None:
        """Take bytes from the connection; ``take`` and look at ``refusal`` afterwards."""
        if self._unread:
            data = self._unread + data
        at, size = 0, len(data)
        while at < size and self.refusal is None and not self._halted and len(self.ready) < MAX_PIPELINED:
            at += self._parse(data[at : at + SLICE])
        self._unread = data[at:] if at < size and self.refusal is None else b""

    def _parse(self, data: bytes) -> int:
        """Have so much parsed, and see whether what is not complete yet is too long; return how much was read."""
        read = len(data)
        self._fed += read
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade as upgrade:
            read = upgrade.args[0]
            self._ignore_upgrade()
        except HttpParserCallbackError:
            if self.refusal is None:  # a method or header that is no text can't come here; a bug of ours must not hang
                self._refuse(400, "BadRequest", "The request could not be read")
        except HttpParserError as error:
            if self.ready and not self.ready[-1].keep_alive:
                return read  # bytes after the last request: not ours to judge
            self._refuse(400, "BadRequest", f"The request is not valid HTTP/1.1: {error}")
        if self.partial and self._request is None:
            self._check_head()
            self._charge(_HEADER_COST * len(self._headers) + self._fed - self._charged)
        elif self._fed > self._most_fed:
            self._refuse_body()
        elif self._fed - self._last_fed > MAX_GAP:  # which llhttp's reader gathers, copying a trailer at each piece
            message = f"What frames the request's body, or follows it, has more than {MAX_GAP} bytes"
            self._refuse(431, "RequestHeaderFieldsTooLarge", message)
        return read

    def _ignore_upgrade(self) -> None:
        """Go on in HTTP/1.1, as RFC 9110, section 7.8 allows, where llhttp stops; it has skipped the request's body.

        Behind the handshake of a WebSocket nothing is read before that is answered.
        """
        self._parser = HttpRequestParser(self)
        if self._request is None:
            self._halted = self.ready[-1].asks_for_websocket
        else:
            length = self._request.fields.get("content-length")
            framing = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
            self._parser.feed_data(f"POST / HTTP/1.1\r\n{framing}\r\n\r\n".encode())  # which no callback takes note of

    def _start(self) -> None:
        """Forget the last message."""
        self._target = b""
        self._headers: list[tuple[str, str]] = []
        self._request: HttpRequest | None = None
        self._body: bytes | bytearray = b""
        self._fed = self._head_fed = 0  # bytes of the message that is being read, and those up to the end of its head
        self._last_fed = 0  # and those up to the end of its head, or of the last piece of its body
        self._charged = 0  # what is held of it
        self._body_follows = False  # llhttp will stop at an upgrade that has a body

    def release(self, size: int) -> None:
        """Give back what an answered request has taken."""
        self._share.add(-size)

    def drop(self) -> None:
        """Let go of all that is held: the connection has ended."""
        self._share.set(0)
        self.ready.clear()
        self._unread = b""
        self._start()

    def _charge(self, more: int) -> None:
        """Hold so much more of the message that is being read, or refuse it."""
        if self.refusal is not None:
            return
        if self._share.add(more):
            self._charged += more
        else:
            self._refuse(429, "TooManyRequests", "The requests in hand hold all the memory there is for them")

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
            self._headers.append((_names.get(name) or _read_name(name), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        """Check what the head alone decides: version, host, length, expectation."""
        if self._request is not None:
            return  # ``_ignore_upgrade``'s own
        parser = self._parser
        headers = self._headers
        method = parser.get_method()
        method = _methods.get(method) or method.decode("latin-1")
        request = self._request = HttpRequest(method, self._target.decode("latin-1"), headers, self.peer)
        request.version = parser.get_http_version()
        request.keep_alive = parser.should_keep_alive()
        length = int(request.fields.get("content-length", 0))  # llhttp has seen to it that it is a number
        self._last_fed = self._fed
        self._head_fed = self._fed or -1  # a piece that began with another message was charged to that
        if len(headers) > MAX_HEADERS:
            self._check_head()
        self._check_request(request, length)
        self._charge(_REQUEST_COST + _HEADER_COST * len(headers) + self._fed - self._charged)
        if self.refusal is not None:
            raise ValueError(self.refusal.message)  # makes httptools stop; feed() has the refusal
        if parser.should_upgrade():
            self._body_follows = length > 0 or "transfer-encoding" in request.fields
            request.upgrade = not self._body_follows

    def _check_request(self, request: HttpRequest, length: int) -> None:
        """Refuse a request that its head alone condemns."""
        headers, fields, version = request.headers, request.fields, request.version
        if "expect" in fields:
            self._expect(fields["expect"], version)
        if length > self._max_body:
            self._refuse_body()
        if version != "1.1" and version != "1.0":  # noqa: PLR1714 - at each request
            self._refuse(505, "HttpVersionNotSupported", f"HTTP/{version} is not spoken here: use HTTP/1.1")
        elif "host" not in fields and version == "1.1":
            self._refuse(400, "BadRequest", "An HTTP/1.1 request has a Host header")
        elif len(fields) != len(headers) and [name for name, _ in headers].count("host") > 1:
            self._refuse(400, "BadRequest", "A request has one Host header")
        elif request.method == "CONNECT":
            self._refuse(501, "NotImplemented", "CONNECT is for proxies")
        elif "transfer-encoding" in fields:
            self._check_coding(request)

    def _check_coding(self, request: HttpRequest) -> None:
        """Refuse a body that is more than chunked, or that another parser might delimit otherwise (RFC 9112, 6.1)."""
        values = [value for name, value in request.headers if name == "transfer-encoding"]
        codings = [coding.strip(" \t").lower() for coding in ",".join(values).split(",")]
        if request.version == "1.0":
            request.keep_alive = False  # who speaks it may have delimited the body otherwise
        if codings.pop() != "chunked" or "chunked" in codings or "identity" in codings:
            self._refuse(400, "BadRequest", "A Transfer-Encoding is chunked, once and at the end")
        elif codings:
            self._refuse(501, "NotImplemented", f"The only transfer coding understood is chunked, not {codings[0]:.40}")

    def on_body(self, body: bytes) -> None:
        """Take a part of the body; a body in many parts is gathered in place, lest small chunks cost 40 bytes each."""
        self._last_fed = self._fed
        gathered = self._body
        if len(gathered) + len(body) > self._max_body:
            self._refuse_body()
            raise ValueError(self._max_body)
        if self._fed != self._head_fed:  # else it came with the head, which was charged for both
            self._charge(len(body))
            if self.refusal is not None:
                raise ValueError(self.refusal.message)
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
        if self._body_follows:
            self._body_follows = False  # ``_ignore_upgrade`` is next
            return
        request.body = bytes(self._body)
        request.held = self._charged
        self.ready.append(request)
        self.partial = self.continue_due = False
        self._start()

    def _expect(self, value: str, version: str) -> None:
        """Note that the caller waits for 100 Continue; refuse any other expectation (RFC 9110, section 10.1.1)."""
        if value.lower() != "100-continue":
            self._refuse(417, "ExpectationFailed", "The only expectation understood is 100-continue")
        elif version == "1.1":
            self.continue_due = True

    def _check_head(self) -> None:
        if len(self._headers) > MAX_HEADERS:
            message = f"The request's head has more than {MAX_HEADERS} headers"
            self._refuse(431, "RequestHeaderFieldsTooLarge", message)
        elif self._request is None and self._fed > MAX_HEAD:
            self._refuse(431, "RequestHeaderFieldsTooLarge", f"The request's head has more than {MAX_HEAD} bytes")

    def _refuse_body(self) -> None:
        self._refuse(413, "RequestTooLarge", f"The request's body has more than {self._max_body} bytes")

    def _refuse(self, status: int, error_type: str, message: str) -> None:
        """Read no further; what was read of the message is let go."""
        if self.refusal is None:
            self.refusal = Refusal(status, error_type, message)
            self._share.add(-self._charged)
            self._charged = 0
            self._headers, self._body = [], b""
