"""HTTP/1.1 on loopback, as much of it as the clients of Lambda's APIs speak.

Invariant: each request gets one answer before the next of its connection is looked at. A request that comes earlier ends
the connection, so what is kept of a client is one head and one body of at most the exchange's ``limit`` bytes.
"""

from __future__ import annotations

import json
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import httptools

from wisp_runtime.loop import READ, WRITE

if TYPE_CHECKING:
    from collections.abc import Callable

    from wisp_runtime.loop import Loop

MAX_HEAD = 2 << 20  # bytes; a runtime may describe an error's cause in a header of 1 MiB
MAX_DOCUMENT = 1 << 20  # bytes of a body that nobody has given another limit
READ_SIZE = 64 * 1024
_REASONS = {
    200: "OK",
    202: "Accepted",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Request Entity Too Large",
}


class Exchange:
    """A request, and the way to answer it.

    Attributes:
        method: In upper case.
        path: Without the query.
        headers: By lower-case name; once the body is whole, its trailers too.
        body: What is kept of it: at most ``limit`` bytes.
        size: Bytes that have come, kept or not.
        receive: Takes the body's pieces as they come, instead of ``body``.
        complete: Called when the body is whole; answers now or later.
        broken: Called when the client has gone before it was answered.
    """

    __slots__ = ("_connection", "body", "broken", "complete", "headers", "limit", "method", "path", "receive", "size")

    def __init__(self, connection: _Connection, method: str, path: str, headers: dict[str, str]) -> None:
        """Wrap a request's head."""
        self._connection = connection
        self.method = method
        self.path = path
        self.headers = headers
        self.body = bytearray()
        self.limit = MAX_DOCUMENT
        self.size = 0
        self.receive: Callable[[bytes], None] | None = None
        self.complete: Callable[[Exchange], None] = refuse(404, "NotFound", "404 page not found")
        self.broken: Callable[[Exchange], None] | None = None

    def answer(self, status: int, document: Any, headers: dict[str, str] | None = None) -> None:
        """Answer with a JSON document."""
        fields = {"Content-Type": "application/json", **(headers or {})}
        self.answer_bytes(status, json.dumps(document, separators=(",", ":")).encode(), fields)

    def answer_bytes(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        """Answer."""
        self._connection.answer(self, status, body, headers)

    def accept(self) -> None:
        """Say that it was taken."""
        self.answer(202, {"status": "OK"})

    def refuse(self, status: int, error_type: str, message: str) -> None:
        """Answer with an error document as Lambda writes them."""
        self.answer(status, {"errorMessage": message, "errorType": error_type})

    def pause(self) -> None:
        """Read no more of its body until ``resume``."""
        self._connection.watch(0)

    def resume(self) -> None:
        """Read on."""
        self._connection.watch(READ)


def refuse(status: int, error_type: str, message: str) -> Callable[[Exchange], None]:
    """Make a ``complete`` that refuses."""
    return lambda exchange: exchange.refuse(status, error_type, message)


class Server:
    """The listening socket and its connections."""

    def __init__(self, loop: Loop, listener: socket.socket, begin: Callable[[Exchange], None]) -> None:
        """Accept; ``begin(exchange)`` is told of each request when its head is there."""
        self._loop = loop
        self._begin = begin
        self._socket = listener
        self._socket.setblocking(False)  # noqa: FBT003 - socket's own signature
        self.address: str = "%s:%d" % self._socket.getsockname()  # noqa: UP031 - a pair fits it best
        loop.watch(self._socket.fileno(), READ, self._accept)

    def _accept(self, events: int) -> None:
        del events
        with suppress(BlockingIOError, ConnectionAbortedError):
            sock, _ = self._socket.accept()
            sock.setblocking(False)  # noqa: FBT003 - socket's own signature
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _Connection(self._loop, sock, self._begin)


class _Connection:
    """One client's connection. The parser's callbacks only note what came; acting on it is left to ``_advance``."""

    __slots__ = (
        "_begin", "_closed", "_exchange", "_fd", "_fields", "_head", "_head_size", "_keep", "_loop", "_out", "_parser",
        "_pieces", "_socket", "_target", "_too_early", "_whole",
    )  # fmt: skip

    def __init__(self, loop: Loop, sock: socket.socket, begin: Callable[[Exchange], None]) -> None:
        self._loop = loop
        self._socket = sock
        self._fd = sock.fileno()
        self._begin = begin
        self._parser = httptools.HttpRequestParser(self)
        self._exchange: Exchange | None = None
        self._out = b""
        self._keep = True
        self._closed = False
        self._too_early = False
        self._forget_request()
        loop.watch(self._fd, READ, self._on_event)

    def _forget_request(self) -> None:
        self._target = b""
        self._fields: dict[str, str] = {}
        self._head_size = 0
        self._head = self._whole = False
        self._pieces: list[bytes] = []

    # What the parser calls.

    def on_message_begin(self) -> None:
        """Note a request that came before the last one was answered."""
        self._too_early = self._head

    def on_url(self, url: bytes) -> None:
        """Note a part of the target."""
        self._target += url
        self._head_size += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note a header or a trailer."""
        self._head_size += len(name) + len(value)
        if self._head_size <= MAX_HEAD:
            self._fields[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Note the end of the head."""
        self._head = True
        self._keep = self._parser.should_keep_alive()

    def on_body(self, data: bytes) -> None:
        """Note a piece of the body."""
        self._pieces.append(data)

    def on_message_complete(self) -> None:
        """Note the end."""
        self._whole = True

    # Reading.

    def _on_event(self, events: int) -> None:
        if events & WRITE:
            self._write(b"")
        elif events & READ:
            self._read()
        else:
            self._close()  # reset

    def _read(self) -> None:
        try:
            data = self._socket.recv(READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._too_early = True
        if self._too_early or self._head_size > MAX_HEAD:
            self._close()
        elif self._head:
            self._advance()

    def _advance(self) -> None:
        """Hand on what has come of the request."""
        exchange = self._exchange
        if exchange is None:
            method = self._parser.get_method().decode()
            path = self._target.partition(b"?")[0].decode("latin-1")
            exchange = self._exchange = Exchange(self, method, path, self._fields)
            self._begin(exchange)
            if self._fields.get("expect", "").lower() == "100-continue" and not self._whole:
                self._write(b"HTTP/1.1 100 Continue\r\n\r\n")
        pieces, self._pieces = self._pieces, []
        for piece in pieces:
            exchange.size += len(piece)
            if exchange.receive is not None:
                exchange.receive(piece)
            elif len(exchange.body) < exchange.limit:
                exchange.body += piece[: exchange.limit - len(exchange.body)]
        if self._whole:
            exchange.complete(exchange)

    # Answering.

    def answer(self, exchange: Exchange, status: int, body: bytes, headers: dict[str, str]) -> None:
        """Write the answer to the request that waits; the next one may come."""
        if self._closed or exchange is not self._exchange:
            return  # its client has gone
        self._exchange = None
        lines = [f"HTTP/1.1 {status} {_REASONS[status]}", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if not self._keep:
            lines.append("Connection: close")
        self._forget_request()
        self._write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)

    def watch(self, mask: int) -> None:
        """Wait for something else, if it is still open."""
        if not self._closed:
            self._loop.change(self._fd, mask)

    def _write(self, data: bytes) -> None:
        """Write as much as the socket takes now; the rest when it can."""
        waited, self._out = bool(self._out), self._out + data
        try:
            sent = self._socket.send(self._out)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._close()
            return
        self._out = self._out[sent:]
        if bool(self._out) != waited:
            self.watch(READ | WRITE if self._out else READ)
        if not self._out and not self._keep and self._exchange is None:
            self._close()

    def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._loop.forget(self._fd)
        self._socket.close()
        exchange, self._exchange = self._exchange, None
        if exchange is not None and exchange.broken is not None:
            exchange.broken(exchange)
