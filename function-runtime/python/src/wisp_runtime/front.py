"""The front: sockets, connections, health, the queue, and the loop over them.

Invariant: every complete request gets exactly one answer, in the order of its connection, or its connection ends.
``Front`` is used by one thread at a time, the holder of ``lock``: the main thread, which also runs the handler, or the
standby while the handler runs (see ``standby``). Nothing here blocks but ``poll``: sockets are non-blocking, a reader
that is slow costs its own connection one buffered reply, and a connection is read no further while it has one.

It knows of the function only that ``function.begin(request)`` makes an invocation whose ``run()`` gives a ``Reply``.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from wisp_runtime import logs
from wisp_runtime.http1 import HttpRequest, Reply, RequestReader, error_reply

if TYPE_CHECKING:
    from wisp_runtime.settings import Settings

HEALTH_PATH = "/_wisp/health"
MAX_CONNECTIONS = 1024
MAX_QUEUED = 256
MAX_PIPELINED = 32
READ_SIZE = 64 * 1024
STALL_SECONDS = 60.0  # for a request that doesn't arrive, a reply that isn't read
LINGER_SECONDS = 2.0  # for a refused caller to read why, before the connection is reset under it
DRAIN_GRACE_SECONDS = 0.25  # for requests already on the wire when the pod is told to stop

_OPEN = 0
_LAST = 1  # close once the buffered reply is written
_LINGER = 2  # written; discard input until the caller closes


class Connection:
    """One caller's connection: its socket, its reader and what is still to be written."""

    __slots__ = ("busy", "eof", "fd", "mask", "out", "reader", "sock", "state")

    def __init__(self, sock: socket.socket, reader: RequestReader) -> None:
        """Wrap an accepted, non-blocking socket."""
        self.sock = sock
        self.fd = sock.fileno()
        self.reader = reader
        self.out = b""
        self.mask = select.POLLIN
        self.busy = False  # one of its requests is queued or runs
        self.eof = False
        self.state = _OPEN


class Front:
    """The connections of the process and what waits in them."""

    def __init__(self, listener: socket.socket, settings: Settings) -> None:
        """Serve what arrives at a listening socket."""
        self.queue: deque[tuple[Connection, HttpRequest]] = deque()
        self.connections: dict[int, Connection] = {}
        self.draining = False
        self.listener: socket.socket | None = listener
        self._max_body = settings.max_body
        self._deadlines: dict[int, float] = {}  # by descriptor: when to give a stalled connection up
        self._grace_ends = 0.0  # while draining: the deadline of idle connections
        self._poller = select.epoll() if hasattr(select, "epoll") else _PollAdapter()
        self._wake_reader, self.wake_writer = os.pipe()
        for fd in (self._wake_reader, self.wake_writer):
            os.set_blocking(fd, False)
        listener.setblocking(False)  # noqa: FBT003 - socket's own signature
        self._poller.register(self._wake_reader, select.POLLIN)
        self._poller.register(listener.fileno(), select.POLLIN)

    # Called by the serving loop and the standby.

    def poll(self, timeout: float) -> None:
        """Wait for input for up to ``timeout`` seconds (-1: for ever), then read, answer health, and queue requests."""
        if self._deadlines:
            tick = 0.05 if self.draining else 1.0
            timeout = tick if timeout < 0 else min(timeout, tick)
        for fd, events in self._poller.poll(timeout):
            connection = self.connections.get(fd)
            if connection is not None:
                self._on_event(connection, events)
            elif self.listener is not None and fd == self.listener.fileno():
                self._accept()
            elif fd == self._wake_reader:
                _empty(fd)
        if self._deadlines:
            self._give_up_stalled()

    def wake(self) -> None:
        """End a ``poll`` that another thread stands in."""
        with suppress(BlockingIOError):  # full: it will wake anyway
            os.write(self.wake_writer, b"w")

    def answer(self, connection: Connection, request: HttpRequest, reply: Reply) -> None:
        """Write the reply of the connection's running request, then go on with what the connection sent meanwhile."""
        connection.busy = False
        if self._send(connection, request, reply):
            self._advance(connection)

    def drain(self) -> None:
        """Take what the kernel has already accepted for us, then no new connection; idle ones end after a short grace."""
        if self.draining:
            return
        self.draining = True
        self._accept()
        if self.listener is not None:
            self._poller.unregister(self.listener.fileno())
            self.listener.close()
            self.listener = None
        self._grace_ends = time.monotonic() + DRAIN_GRACE_SECONDS
        for connection in self.connections.values():
            if not (connection.busy or connection.out or connection.reader.partial):
                self._deadlines[connection.fd] = self._grace_ends

    def abandon(self, message: str) -> None:
        """Answer 503 to everything that still waits, write what can be written within a second, and leave it at that.

        The answers don't carry the function's mark: no code ran, a caller may send the request again.
        """
        for connection, request in self.queue:
            request.keep_alive = False
            self.answer(connection, request, error_reply(503, "ServiceUnavailable", message, [("retry-after", "1")]))
        self.queue.clear()
        until = time.monotonic() + 1.0
        while any(connection.out for connection in self.connections.values()) and time.monotonic() < until:
            self.poll(0.05)

    # Reading.

    def _accept(self) -> None:
        """Accept what waits, making room by closing the connection that has been idle longest."""
        while self.listener is not None:
            try:
                sock, address = self.listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:  # out of descriptors: the idle connections are ours to give up
                logs.emit("ERROR", f"accept failed: {error}")
                if not self._close_idlest():
                    time.sleep(0.01)
                return
            if len(self.connections) >= MAX_CONNECTIONS and not self._close_idlest():
                sock.close()
                continue
            sock.setblocking(False)  # noqa: FBT003 - socket's own signature
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer = address[0].removeprefix("::ffff:")
            connection = Connection(sock, RequestReader(peer, self._max_body))
            self.connections[connection.fd] = connection
            self._poller.register(connection.fd, select.POLLIN)

    def _on_event(self, connection: Connection, events: int) -> None:
        if events & select.POLLOUT:
            self._flush(connection)
        elif events & select.POLLIN:
            self._read(connection)
        elif connection.mask:
            self._read(connection)  # which finds out what went wrong
        else:
            self._close(connection)  # hung up, while its answer was still being made

    def _read(self, connection: Connection) -> None:
        """Read once and act on it."""
        try:
            data = connection.sock.recv(READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            self._close(connection)
            return
        if connection.state == _LINGER:
            if not data:
                self._close(connection)
            return
        reader = connection.reader
        if data:
            reader.feed(data)
        else:
            connection.eof = True  # half-closed: it may still wait for its answers
        if not connection.busy:
            self._advance(connection)
        elif connection.eof or len(reader.ready) > MAX_PIPELINED:
            self._watch(connection, 0)

    def _advance(self, connection: Connection) -> None:
        """Do what the connection's input asks for next, one request at a time."""
        reader = connection.reader
        while reader.ready:
            request = reader.ready.popleft()
            if request.target == HEALTH_PATH and request.method in ("GET", "HEAD"):
                reply = self._health()
            elif len(self.queue) >= MAX_QUEUED:
                retry = [("retry-after", "1")]
                reply = error_reply(429, "TooManyRequests", f"{MAX_QUEUED} requests wait already", retry)
            else:
                connection.busy = True
                self._deadlines.pop(connection.fd, None)
                self.queue.append((connection, request))
                return
            if not self._send(connection, request, reply):
                return
        if reader.refusal is not None:
            refusal = reader.refusal
            reply = error_reply(refusal.status, refusal.error_type, refusal.message)
            connection.state = _LINGER
            self._write(connection, reply.encode("GET", close=True))
        elif connection.eof:
            self._close(connection)
        else:
            self._wait_for_more(connection)

    def _wait_for_more(self, connection: Connection) -> None:
        """Go on reading; a request that has begun must be complete within a minute."""
        reader = connection.reader
        if connection.mask != select.POLLIN:
            self._watch(connection, select.POLLIN)
        if reader.partial:
            if self._deadlines.get(connection.fd, self._grace_ends) == self._grace_ends:
                self._deadlines[connection.fd] = time.monotonic() + STALL_SECONDS
            if reader.continue_due:
                reader.continue_due = False
                self._write(connection, b"HTTP/1.1 100 Continue\r\n\r\n")
        elif self.draining:
            self._deadlines[connection.fd] = self._grace_ends
        elif self._deadlines:
            self._deadlines.pop(connection.fd, None)

    def _health(self) -> Reply:
        """Say that the handler is imported and the process serves; a draining one asks to be left alone."""
        if self.draining:
            return error_reply(503, "ServiceUnavailable", "This instance is stopping")
        return Reply(200, [("content-type", "application/json")], b'{"status":"ok"}')

    # Writing.

    def _send(self, connection: Connection, request: HttpRequest, reply: Reply) -> bool:
        """Write a reply; true if the connection can go on with its next request at once."""
        if self.connections.get(connection.fd) is not connection:
            return False  # the caller is gone
        close = self.draining or not request.keep_alive
        if close:
            connection.state = _LAST
        self._write(connection, reply.encode(request.method, close=close))
        return connection.state == _OPEN and not connection.out and connection.fd in self.connections

    def _write(self, connection: Connection, data: bytes) -> None:
        """Write as much as the socket takes now; the rest when it can."""
        if connection.out:
            connection.out += data
            return
        try:
            sent = connection.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._close(connection)
            return
        if sent < len(data):
            connection.out = data[sent:]
            self._watch(connection, select.POLLOUT)
            self._deadlines[connection.fd] = time.monotonic() + STALL_SECONDS
        elif connection.state != _OPEN:
            self._written(connection)

    def _flush(self, connection: Connection) -> None:
        """Write more of what is buffered."""
        data, connection.out = connection.out, b""
        self._write(connection, data)
        if connection.out or connection.state != _OPEN or connection.fd not in self.connections:
            return
        self._deadlines.pop(connection.fd, None)
        if connection.busy:
            self._watch(connection, 0 if connection.eof else select.POLLIN)
        else:
            self._advance(connection)

    def _written(self, connection: Connection) -> None:
        """Close after the last reply; where input is still coming, only this side, lest a reset destroys the reply."""
        if connection.state == _LAST:
            self._close(connection)
            return
        try:
            connection.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(connection)
            return
        self._watch(connection, select.POLLIN)
        self._deadlines[connection.fd] = time.monotonic() + LINGER_SECONDS

    def _watch(self, connection: Connection, mask: int) -> None:
        connection.mask = mask
        self._poller.modify(connection.fd, mask)

    # Closing.

    def _close(self, connection: Connection) -> None:
        """End a connection, also for processes that a handler forked and that hold a copy of the socket."""
        if self.connections.pop(connection.fd, None) is None:
            return
        self._deadlines.pop(connection.fd, None)
        self._poller.unregister(connection.fd)
        with suppress(OSError):  # already gone
            connection.sock.shutdown(socket.SHUT_RDWR)
        connection.sock.close()
        connection.out = b""

    def _close_idlest(self) -> bool:
        """Close the oldest connection that waits for nothing; false if there is none."""
        for connection in self.connections.values():
            if not (connection.busy or connection.out or connection.reader.partial):
                self._close(connection)
                return True
        return False

    def _give_up_stalled(self) -> None:
        """Close connections whose time is up; tell a caller whose request never came in full."""
        now = time.monotonic()
        for fd in [fd for fd, deadline in self._deadlines.items() if deadline <= now]:
            connection = self.connections[fd]
            if connection.reader.partial and connection.state == _OPEN and not connection.out:
                connection.state = _LAST
                reply = error_reply(408, "RequestTimeout", "The request did not arrive in full in time")
                self._write(connection, reply.encode("GET", close=True))
            self._close(connection)


def _empty(fd: int) -> None:
    """Read away what woke us."""
    try:
        while os.read(fd, 4096):
            pass
    except BlockingIOError:
        pass


class _PollAdapter:
    """``select.poll`` with epoll's unit of time, for serving locally where there is no epoll."""

    def __init__(self) -> None:
        """Watch nothing yet."""
        self._poll = select.poll()
        self.register = self._poll.register
        self.modify = self._poll.modify
        self.unregister = self._poll.unregister

    def poll(self, timeout: float) -> list[tuple[int, int]]:
        """Wait for up to ``timeout`` seconds, -1 for ever."""
        return self._poll.poll(-1 if timeout < 0 else timeout * 1000)
