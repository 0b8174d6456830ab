"""A caller's connection after its handshake: WebSocket frames on one side, the invocation's messages on the other.

Invariant: one connection is one invocation, which ends when the function says so, whatever the caller does; the
connection is known to the front until both have ended. Neither side can make us hold more than it may: of messages that
the function has not taken, ``WINDOW`` bytes and one message, paid from the budget of all connections; of what the caller
doesn't read, what a stream may have, then the function is told to pause. Who breaks the protocol gets the code that says
how, once, and is heard no further.
"""

from __future__ import annotations

import _socket as socket

from wisp_runtime import websocket
from wisp_runtime.budget import Share
from wisp_runtime.connection import LINGER_SECONDS, READ_SIZE, STALL_SECONDS, STREAM_BUFFER
from wisp_runtime.frames import INPUT, INPUT_END, MESSAGE, TAKEN
from wisp_runtime.lean import deque, suppress
from wisp_runtime.loop import READ, WRITE
from wisp_runtime.websocket import WebSocketError, WebSocketReader, encode, encode_close

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wisp_runtime.calls import Call
    from wisp_runtime.connection import Connection
    from wisp_runtime.http1 import Reply

WINDOW = 64 * 1024
MESSAGE_COST = 512  # what a message takes beside its bytes
CLOSE_SECONDS = 5.0  # for the caller to answer our close frame

_OPEN = 0
_CLOSING = 1  # our close frame is sent: only the caller's is waited for
_LAST = 2  # nothing more is heard: once all is written, only the end is waited for
_ENDED = 3  # the connection has; the invocation hasn't
_FORGOTTEN = 4


class WebSocketConnection:
    """A WebSocket and the invocation that speaks through it; it stands in the place of the ``Connection`` it comes from."""

    def __init__(self, connection: Connection, call: Call, reply: Reply, max_message: int) -> None:
        """Take over the connection of a request, and answer its handshake."""
        self.front = front = connection.front
        self.sock, rest = connection.hand_over()
        self.fd = self.sock.fileno()
        self.call: Call | None = call
        self.out = b""
        self.state = _OPEN
        self._share = Share(front.budget)
        self._reader = WebSocketReader(max_message)
        self._untaken: deque[int] = deque()  # sizes of the messages that the function hasn't taken
        self._untaken_size = 0
        self._mask = READ
        front.connections[self.fd] = self
        front.loop.watch(self.fd, READ, self._on_event)
        self._write(reply.encode_head(close=False, chunked=False))
        self._reader.feed(rest)
        self._hear()
        if front.draining:
            self.go_away("This instance is stopping")

    idle = unfinished = False
    peer = ""

    @property
    def closed(self) -> bool:
        """Whether there is nobody to answer any more."""
        return self.state >= _ENDED

    @property
    def full(self) -> bool:
        """Whether the function should pause."""
        return len(self.out) > STREAM_BUFFER

    # What the function says.

    def take(self, kind: int, head: dict[str, Any], body: bytes) -> None:
        """Take one of the frames that only a WebSocket's invocation has."""
        if kind == TAKEN:
            if self._untaken:
                self._untaken_size -= self._untaken.popleft()
            self._hear()
        elif self.state != _OPEN:
            pass  # nobody hears it
        elif kind == MESSAGE:
            self._write(encode(websocket.BINARY if head.get("binary") else websocket.TEXT, body))
        else:
            code = head.get("code")
            self._part(code if isinstance(code, int) else websocket.NORMAL, str(head.get("reason") or ""))

    def answer(self, reply: Reply) -> None:
        """Ignore an HTTP response: its place is over."""

    start = answer

    def stream(self, data: bytes) -> None:
        """Ignore its parts."""

    def finish(self) -> None:
        """Take note that the invocation has ended."""
        self._end_call(websocket.NORMAL, "")

    def abort(self) -> None:
        """Take note that it has failed."""
        self._end_call(websocket.INTERNAL_ERROR, "The function failed")

    def _end_call(self, code: int, reason: str) -> None:
        self.call = None
        self._untaken.clear()
        self._untaken_size = 0
        if self.state == _OPEN:
            self._part(code, reason)
        elif self.state == _ENDED:
            self.close()

    def go_away(self, reason: str) -> bool:
        """Tell both that the time of this connection is over; false if it has ended, or they know."""
        if self.state != _OPEN:
            return False
        self._tell_end(websocket.GOING_AWAY, reason)
        self._part(websocket.GOING_AWAY, reason)
        return True

    def _tell_end(self, code: int, reason: str) -> None:
        """Tell the function that it will hear nothing more."""
        if self.call is not None and self.call.worker is not None:
            self.call.worker.send(INPUT_END, self.call.number, {"code": code, "reason": reason})

    def _part(self, code: int, reason: str) -> None:
        """Send our close frame, the last one; the caller has a little time to answer it."""
        self.state = _CLOSING
        self._write(encode_close(code, reason))
        if self.state == _CLOSING:
            self.front.give_time(self.fd, CLOSE_SECONDS)
            self._watch()

    # What the caller says.

    def _on_event(self, events: int) -> None:
        if events & WRITE:
            self._flush()
        if events & READ and self._mask & READ:
            self._read()
        elif events & ~(READ | WRITE):
            self.lose()

    def _read(self) -> None:
        try:
            data = self.sock.recv(READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.lose()
        elif self.state != _LAST:
            self._reader.feed(data)
            self._hear()

    def _hear(self) -> None:
        """Hand on what has come, as far as there is room for it, and go on reading if there is for more."""
        try:
            while self.state in (_OPEN, _CLOSING) and self._has_room and (message := self._reader.take()) is not None:
                self._act(*message)
        except WebSocketError as error:
            self._break_off(error.code, error.reason)
        if self.state >= _LAST:
            return
        if not self._share.set(self._reader.held + self._untaken_size):
            self._break_off(websocket.TRY_LATER, "The connections hold all the memory there is for them")
        else:
            self._watch()

    @property
    def _has_room(self) -> bool:
        """Whether the caller may say more: the function has taken what it said, and it reads what it is told."""
        return self.state != _OPEN or (self._untaken_size < WINDOW and not self.full)

    def _act(self, opcode: int, payload: bytes) -> None:
        """Do what a message or control frame asks for."""
        if opcode == websocket.CLOSE:
            code, reason = websocket.decode_close(payload)
            if self.state == _CLOSING:
                self._close_when_written()
            else:
                self._tell_end(code, reason)
                self.state = _LAST
                self._write(encode_close(code))
                self._close_when_written()
        elif self.state == _CLOSING:
            pass  # it has crossed our close frame
        elif opcode == websocket.PING:
            self._write(encode(websocket.PONG, payload))
        elif opcode != websocket.PONG and self.call is not None and self.call.worker is not None:
            self._untaken.append(len(payload) + MESSAGE_COST)
            self._untaken_size += len(payload) + MESSAGE_COST
            head = {"binary": True} if opcode == websocket.BINARY else {}
            self.call.worker.send(INPUT, self.call.number, head, payload)

    def _break_off(self, code: int, reason: str) -> None:
        """Close because the caller can't be heard any further."""
        if self.state == _OPEN:
            self._tell_end(code, reason)
            self.state = _LAST
            self._write(encode_close(code, reason))
        self._close_when_written()

    # Writing.

    def _write(self, data: bytes) -> None:
        """Write as much as the socket takes now; the rest when it can."""
        if self.state >= _ENDED:
            return
        if self.out:
            self.out += data
            self.front.note_unread(self.fd, len(self.out))
            return
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.lose()
            return
        if sent < len(data):
            self.out = data[sent:]
            self.front.give_time(self.fd, CLOSE_SECONDS if self.state == _CLOSING else STALL_SECONDS)
            self.front.note_unread(self.fd, len(self.out))
            self._watch()

    def _flush(self) -> None:
        """Write more of what is buffered; once all is, the function may go on."""
        data, self.out = self.out, b""
        self._write(data)
        if self.out or self.state >= _ENDED:
            return
        self.front.note_unread(self.fd, 0)
        if self.state == _LAST:
            self._linger()
            return
        if self.state == _OPEN:
            self.front.deadlines.pop(self.fd, None)
            if self.call is not None:
                self.call.resume()
        self._hear()

    def _watch(self) -> None:
        mask = (READ if self._has_room else 0) | (WRITE if self.out else 0)
        if mask != self._mask and self.state < _ENDED:
            self._mask = mask
            self.front.loop.change(self.fd, mask)

    # The end.

    def _close_when_written(self) -> None:
        """End the connection: no more is heard."""
        if self.state >= _ENDED:
            return
        self.state = _LAST
        self._reader = WebSocketReader(0)
        self._share.set(0)
        if not self.out:
            self._linger()
        self._watch()

    def _linger(self) -> None:
        """Close our side; the other must come first, for a reset, which unread input causes, could destroy our close frame."""
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)
        self.front.give_time(self.fd, LINGER_SECONDS)

    def lose(self) -> None:
        """Take note that the connection has ended; the invocation ends when the function has learnt of it."""
        if self.state >= _ENDED:
            return
        self.state = _ENDED
        self.out = b""
        self.front.note_unread(self.fd, 0)
        self.front.loop.forget(self.fd)
        self.front.deadlines.pop(self.fd, None)
        self._share.set(0)
        self._reader = WebSocketReader(0)
        with suppress(OSError):  # already gone
            self.sock.shutdown(socket.SHUT_RDWR)
        if self.call is None:
            self.close()
        else:
            self.call.caller_left()

    def give_up(self) -> None:
        """End what has had its time: the connection, then, when all has to end, the invocation's place."""
        if self.state == _ENDED:
            self.close()
        else:
            self.lose()

    def close(self) -> None:
        """End it for good."""
        self.lose()
        if self.state == _FORGOTTEN:
            return
        self.state = _FORGOTTEN
        self.call = None
        self.front.remove(self)
        self.sock.close()
