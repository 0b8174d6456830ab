"""One caller's connection: bytes in, requests to the function one at a time, replies out in their order.

Invariant: every complete request gets exactly one answer, in the order of its connection, or the connection ends. A
caller that reads slowly costs its own connection a bounded buffer: it is read no further while a reply waits, and who
streams is told to pause. The front knows what all such buffers hold, and lets go of the oldest where that is too much.
"""

from __future__ import annotations

import _socket as socket

from wisp_runtime.http1 import LAST_CHUNK, Reply, chunk, error_reply
from wisp_runtime.lean import suppress
from wisp_runtime.loop import READ, WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wisp_runtime.calls import Call
    from wisp_runtime.front import Front
    from wisp_runtime.http1 import HttpRequest
    from wisp_runtime.request_reader import RequestReader

HEALTH_PATH, LIFE_PATH = "/_wisp/health", "/_wisp/life"
READ_SIZE = 64 * 1024
STREAM_BUFFER = 256 * 1024
STALL_SECONDS = 60.0  # for a request that doesn't arrive, a reply that isn't read
LINGER_SECONDS = 2.0  # for a refused caller to read why, before the connection is reset under it

_OPEN = 0
_LAST = 1  # close once the buffered reply is written
_LINGER = 2  # written; discard input until the caller closes
_CLOSED = 3


class Connection:
    """A connection's socket, its reader and what is still to be written.

    Attributes:
        call: What the function makes of the request that waits or runs; None while there is none.
        request: That request.
    """

    __slots__ = (
        "_advancing", "_chunked", "_eof", "_mask", "_muted", "call", "fd", "front", "out", "reader", "request", "sock",
        "state",
    )  # fmt: skip

    def __init__(self, front: Front, sock: socket.socket, reader: RequestReader) -> None:
        """Wrap an accepted, non-blocking socket."""
        self.front = front
        self.sock = sock
        self.fd = sock.fileno()
        self.reader = reader
        self.out = b""
        self.request: HttpRequest | None = None
        self.call: Call | None = None
        self.state = _OPEN
        self._mask = READ
        self._eof = self._chunked = self._muted = self._advancing = False
        front.loop.watch(self.fd, READ, self._on_event)

    @property
    def idle(self) -> bool:
        """Whether it waits for nothing."""
        return self.request is None and not self.out and not self.reader.partial

    @property
    def unfinished(self) -> bool:
        """Whether a request has begun that is not complete, or is never to be read."""
        return self.request is None and not self.out and self.reader.partial

    @property
    def peer(self) -> str:
        """The caller's address."""
        return self.reader.peer

    @property
    def closed(self) -> bool:
        """Whether there is nobody to answer any more."""
        return self.state == _CLOSED

    @property
    def full(self) -> bool:
        """Whether a streamed reply should pause."""
        return len(self.out) > STREAM_BUFFER

    # Answering: what the function calls for the request that runs.

    def answer(self, reply: Reply) -> None:
        """Write the running request's reply, then go on with what the connection sent meanwhile."""
        request, self.request, self.call = self.request, None, None
        if request is not None:
            self._send(request, reply)
            self._advance()

    def start(self, reply: Reply) -> None:
        """Begin a streamed reply: its head, and the first of its body."""
        request = self.request
        if request is None or self.state == _CLOSED:
            return
        self._muted = reply.bodyless or request.method == "HEAD"
        self._chunked = request.version == "1.1" and not self._muted
        if self.front.draining or not (self._chunked or self._muted):
            request.keep_alive = False
        self._write(reply.encode_head(close=not request.keep_alive, chunked=self._chunked))
        self.stream(reply.body)

    def stream(self, data: bytes) -> None:
        """Write more of a streamed reply."""
        request = self.request
        if data and request is not None and self.state == _OPEN and not self._muted:
            self._write(chunk(data) if self._chunked else data)

    def take(self, kind: int, head: dict[str, Any], body: bytes) -> None:
        """Ignore what only a WebSocket has."""

    def finish(self) -> None:
        """End a streamed reply."""
        request, self.request, self.call = self.request, None, None
        if request is None or self.state == _CLOSED:
            return
        self.reader.release(request.held)
        if not request.keep_alive:
            self.state = _LAST
        self._write(LAST_CHUNK if self._chunked else b"")
        self._advance()

    def abort(self) -> None:
        """Break a streamed reply off, so that its caller sees that it is not whole."""
        self.request = self.call = None
        self.close()

    def hand_over(self) -> tuple[socket.socket, bytes]:
        """Give the socket to who speaks another protocol on it, with what the caller has already sent of that."""
        rest = self.reader.rest
        self.state = _CLOSED
        self.front.remove(self)
        self.front.loop.forget(self.fd)
        self.reader.drop()
        self.call = self.request = None
        return self.sock, rest

    # Reading.

    def _on_event(self, events: int) -> None:
        if events & WRITE:
            self._flush()
        elif events & READ or self._mask:
            self._read()  # which finds out what went wrong, if something did
        else:
            self.close()  # hung up, while its answer was still being made

    def _read(self) -> None:
        """Read once and act on it."""
        try:
            data = self.sock.recv(READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if self.state == _LINGER:
            if not data:
                self.close()
            return
        reader = self.reader
        if data:
            reader.feed(data)
        else:
            self._eof = True  # half-closed: it may still wait for its answers
            if self.call is not None and self.call.streaming:
                self.call.caller_left()  # more likely it has gone; what is still sent will tell
        if self.request is None:
            self._advance()
        elif self._eof or reader.full:
            self._watch(0)

    def _advance(self) -> None:
        """Do what the connection's input asks for next, one request at a time.

        A request that is answered at once, from within, is followed by the next in this loop, not by recursion.
        """
        if self._advancing:
            return
        self._advancing = True
        reader = self.reader
        while self.request is None and self.state == _OPEN and not self.out:
            request = reader.take()
            if request is None:
                break
            if request.target in (HEALTH_PATH, LIFE_PATH) and request.method in ("GET", "HEAD"):
                front = self.front
                request.keep_alive = request.keep_alive and front.lender is None
                self._send(request, front.health() if request.target == HEALTH_PATH else front.life())
                continue
            front = self.front
            if front.deadlines:
                front.deadlines.pop(self.fd, None)
            self.request = request
            try:
                front.function.submit(self, request)
            except Exception as error:  # noqa: BLE001 - lest the one whose answer led here is blamed for it
                front.loop.blame(self._advance, error)
        self._advancing = False
        if self.request is None and self.state == _OPEN and not self.out:
            self._go_on()

    def _go_on(self) -> None:
        """Do what remains when no request is there to be answered."""
        reader = self.reader
        if reader.refusal is not None:
            refusal = reader.refusal
            reply = error_reply(refusal.status, refusal.error_type, refusal.message, refusal.headers)
            self.state = _LINGER
            self._write(reply.encode("GET", close=True))
        elif self._eof:
            self.close()
        else:
            self._wait_for_more()

    def _wait_for_more(self) -> None:
        """Go on reading; a request that has begun must be complete within a minute."""
        reader, front = self.reader, self.front
        if self._mask != READ:
            self._watch(READ)
        if reader.partial:
            if front.deadlines.get(self.fd, front.grace_ends) == front.grace_ends:
                front.give_time(self.fd, STALL_SECONDS)
            if reader.continue_due:
                reader.continue_due = False
                self._write(b"HTTP/1.1 100 Continue\r\n\r\n")
        elif front.draining:
            front.deadlines[self.fd] = front.grace_ends
        elif front.deadlines:
            front.deadlines.pop(self.fd, None)

    def failed(self, error: Exception) -> None:
        """End it because of a fault of ours: 500 where no answer has begun."""
        del error  # which the loop has logged
        call, self.call, self.request = self.call, None, None
        if call is not None:
            call.caller_left()
        if self.state != _OPEN or self.out or (call is not None and call.streaming):
            self.close()
            return
        self.state = _LINGER
        reply = error_reply(500, "Runtime.Fault", "The runtime failed at this request: see the function's log")
        self._write(reply.encode("GET", close=True))

    # Writing.

    def _send(self, request: HttpRequest, reply: Reply) -> None:
        """Write a reply."""
        if self.state == _CLOSED:
            return  # the caller is gone
        self.reader.release(request.held)
        close = self.front.draining or not request.keep_alive
        if close:
            self.state = _LAST
        self._write(reply.encode(request.method, close=close))

    def _write(self, data: bytes) -> None:
        """Write as much as the socket takes now; the rest when it can."""
        if self.out:
            self.out += data
            self.front.note_unread(self.fd, len(self.out))
            return
        try:
            sent = self.sock.send(data) if data else 0
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return
        if sent < len(data):
            self.out = data[sent:]
            self._watch(WRITE)
            self.front.give_time(self.fd, STALL_SECONDS)
            self.front.note_unread(self.fd, len(self.out))
        elif self.state != _OPEN:
            self._written()

    def _flush(self) -> None:
        """Write more of what is buffered."""
        data, self.out = self.out, b""
        self._write(data)
        if self.out or self.state == _CLOSED:
            return
        self.front.note_unread(self.fd, 0)
        if self.state != _OPEN:
            return
        self.front.deadlines.pop(self.fd, None)
        if self.request is None:
            self._advance()
            return
        self._watch(0 if self._eof else READ)
        if self.call is not None:
            self.call.resume()

    def _written(self) -> None:
        """Close after the last reply; where input is still coming, only this side, lest a reset destroys the reply."""
        if self.state == _LAST:
            self.close()
            return
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()
            return
        self._watch(READ)
        self.front.give_time(self.fd, LINGER_SECONDS)

    def _watch(self, mask: int) -> None:
        self._mask = mask
        self.front.loop.change(self.fd, mask)

    # Closing.

    def go_away(self, reason: str) -> bool:
        """Wait for little more, because the process ends; false: what runs goes on."""
        del reason  # which HTTP has no place for
        if self.idle:
            self.front.deadlines[self.fd] = self.front.grace_ends
        return False

    def close(self) -> None:
        """End it; what runs for it has nobody to answer any more."""
        if self.state == _CLOSED:
            return
        self.state = _CLOSED
        self.front.remove(self)
        self.front.loop.forget(self.fd)
        with suppress(OSError):  # already gone
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
        self.out = b""
        self.reader.drop()
        call, self.call, self.request = (
            self.call,
            None,
            None,
        )  # each holds the other: the bodies would wait for the collector
        if call is not None:
            call.caller_left()

    def give_up(self) -> None:
        """Close it because its time is up; tell a caller whose request never came in full."""
        if self.reader.partial and self.state == _OPEN and not self.out:
            self.state = _LAST
            reply = error_reply(408, "RequestTimeout", "The request did not arrive in full in time")
            self._write(reply.encode("GET", close=True))
        self.close()
