"""The front: the port, the connections, health, and the end of all that.

Invariant: it runs no user code and never blocks. It knows of the function only ``submit(connection, request)``, which
answers through the connection, and ``busy``; so a pod may hold several functions behind one front.
"""

from __future__ import annotations

import _socket as socket
import time

from wisp_runtime import journal
from wisp_runtime.budget import Budget, Unread
from wisp_runtime.connection import STREAM_BUFFER, Connection
from wisp_runtime.errors import InitError
from wisp_runtime.http1 import Reply, error_reply
from wisp_runtime.lean import accept
from wisp_runtime.loop import READ
from wisp_runtime.request_reader import RequestReader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from wisp_runtime.calls import Call
    from wisp_runtime.elsewhere import Elsewhere
    from wisp_runtime.http1 import HttpRequest
    from wisp_runtime.lending import Lender, Lent
    from wisp_runtime.loop import Loop
    from wisp_runtime.settings import Settings
    from wisp_runtime.websocket_connection import WebSocketConnection

    class Submits(Protocol):
        """What the front needs of a function."""

        def submit(self, connection: Connection, request: HttpRequest) -> None:
            """Answer the request, now or later, through the connection."""

        def withdraw(self, call: Call) -> None:
            """Forget a call whose caller has gone, if it waits still."""


BACKLOG = 1024
MAX_CONNECTIONS = 1024
TICK_SECONDS = 1.0
DRAIN_TICK_SECONDS = 0.05
DRAIN_GRACE_SECONDS = 0.25  # for requests already on the wire when the pod is told to stop
DRAIN_STALL_SECONDS = 5.0  # as STALL_SECONDS, when the pod is told to stop
DRAIN_MARGIN_SECONDS = 0.5  # for the answers of invocations whose time is over at the very end

_WITHIN = frozenset(("127.0.0.1", "::1"))  # the pod

OK = Reply(200, [("content-type", "application/json")], b'{"status":"ok"}')


class Front:
    """The connections of the process."""

    def __init__(self, loop: Loop, function: Submits, settings: Settings, elsewhere: Elsewhere | None = None) -> None:
        """Serve a function, whose code may run elsewhere; nothing listens yet."""
        self.loop = loop
        self.function = function
        self.connections: dict[int, Connection | WebSocketConnection | Lent] = {}
        self.deadlines: dict[int, float] = {}  # by descriptor: when to give a stalled connection up
        self.draining = False
        self.grace_ends = 0.0  # while draining: the deadline of idle connections
        self._drain_ends = 0.0  # and of all
        self._overdue = False  # whether that has been seen
        self.listener: socket.socket | None = None
        self._elsewhere = elsewhere
        self._settings = settings
        self.budget = Budget(settings.max_buffered)
        self._unread = Unread(settings.max_buffered)
        self._ticking = False
        self.lender: Lender | None = None  # where another process serves the connections

    def listen(self, port: int) -> int:
        """Open a port, 0 for any; return its number.

        Raises:
            InitError: It can't be opened.
        """
        listener = self.listener = open_port(self._settings.host, port)
        self.loop.watch(listener.fileno(), READ, self._accept)
        opened: int = listener.getsockname()[1]
        return opened

    def health(self) -> Reply:
        """Say that the handler is imported and the process serves; a draining one asks to be left alone."""
        if self.draining:
            return error_reply(503, "ServiceUnavailable", "This instance is stopping")
        if self._elsewhere is not None and not self._elsewhere.here:
            return error_reply(503, "ServiceUnavailable", "The runtime has not asked for an event")
        return OK

    def life(self) -> Reply:
        """Say whether the code's container may live on."""
        if self._elsewhere is not None and not self._elsewhere.alive():
            return error_reply(503, "ServiceUnavailable", "The runtime is at an event whose time is over")
        return OK

    def drain(self) -> None:
        """Take what the kernel has already accepted for us, then no new connection; idle ones end after a short grace.

        What runs has its time, which is shorter than the pod's grace period; who stalls, and what still waits then, is
        given up before the kernel ends the workers without a word.
        """
        if self.draining:
            return
        self.draining = True
        self._accept(READ)
        if self.listener is not None:
            self.loop.forget(self.listener.fileno())
            self.listener.close()
            self.listener = None
        now = time.monotonic()
        self.grace_ends = now + DRAIN_GRACE_SECONDS
        self._drain_ends = now + self._settings.timeout + DRAIN_MARGIN_SECONDS
        for fd, deadline in self.deadlines.items():
            self.deadlines[fd] = min(deadline, now + DRAIN_STALL_SECONDS)
        for connection in list(self.connections.values()):
            connection.go_away("This instance is stopping")
        if self.lender is not None:
            self.lender.drain()
        self.loop.after(DRAIN_TICK_SECONDS, self._tick)

    def give_time(self, fd: int, seconds: float) -> None:
        """Give a connection so much time to get on."""
        self.deadlines[fd] = time.monotonic() + (min(seconds, DRAIN_STALL_SECONDS) if self.draining else seconds)
        if not self._ticking:
            self._ticking = True
            self.loop.after(TICK_SECONDS, self._tick)

    def excuse(self, seconds: float) -> None:
        """Put all deadlines off, because for so long nothing was read: what came meanwhile is still in the kernel."""
        self.grace_ends += seconds
        self._drain_ends += seconds
        for fd in self.deadlines:
            self.deadlines[fd] += seconds

    def note_unread(self, fd: int, size: int) -> None:
        """Take note of how much a connection's caller has not read, and let go of others' where all is too much."""
        self._unread.set(fd, size)
        if self._unread.over:
            self.loop.soon(self._let_go)

    def _let_go(self) -> None:
        """Give up those who have let answers lie for longest, until the rest may be kept."""
        while self._unread.over:
            fd = self._unread.first(STREAM_BUFFER)
            text = "An answer was given up before its caller had read it: those that callers let lie hold all the memory there is for them"
            journal.emit("WARNING", text)
            self._unread.set(fd, 0)
            self.connections[fd].give_up()

    def remove(self, connection: Connection | WebSocketConnection | Lent) -> None:
        """Forget a connection that closes."""
        self.connections.pop(connection.fd, None)
        self.deadlines.pop(connection.fd, None)
        self._unread.set(connection.fd, 0)

    def _accept(self, events: int) -> None:
        """Accept what waits, making room where there is none."""
        del events
        while self.listener is not None:
            try:
                sock, address = accept(self.listener)
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:  # out of descriptors: the idle connections are ours to give up
                journal.emit("ERROR", f"accept failed: {error}")
                if not self._make_room():
                    time.sleep(0.01)
                return
            if len(self.connections) >= MAX_CONNECTIONS and not self._make_room():
                sock.close()
                continue
            sock.setblocking(False)  # noqa: FBT003 - socket's own signature
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._serve(sock, address[0].removeprefix("::ffff:"))

    def _serve(self, sock: socket.socket, peer: str) -> None:
        """Read an accepted connection, or have it read."""
        if self.lender is not None:
            self.connections[sock.fileno()] = self.lender.take(sock, peer)
            return
        reader = RequestReader(peer, self._settings.max_body, self.budget)
        self.connections[sock.fileno()] = Connection(self, sock, reader)

    def _make_room(self) -> bool:
        """Close the oldest connection that waits for nothing, or else the oldest whose request has not come in full.

        Knative's proxy, which is within the pod, sends what it has read the head of; who goes round it may have no request
        at all, and goes first. False if all wait for answers, or have unread ones.
        """
        connections = self.connections.values()
        found = next((one for one in connections if one.idle), None)
        if found is None:
            unfinished = [one for one in connections if one.unfinished]
            found = next((one for one in unfinished if one.peer not in _WITHIN), unfinished[0] if unfinished else None)
        if found is not None:
            found.close()
        return found is not None

    def _tick(self) -> None:
        """Close connections whose time is up."""
        now = time.monotonic()
        if self.draining and self._drain_ends <= now:
            if (
                self._overdue
            ):  # not at once: where we stood still, the answers of invocations whose time is over come first
                self.deadlines = dict.fromkeys(self.connections, now)
            self._overdue = True
        for fd in [fd for fd, deadline in self.deadlines.items() if deadline <= now]:
            connection = self.connections.get(fd)
            if connection is not None:
                self.loop.guard(connection.give_up)
        self._ticking = bool(self.deadlines) or self.draining
        if self._ticking:
            self.loop.after(DRAIN_TICK_SECONDS if self.draining else TICK_SECONDS, self._tick)


def open_port(host: str, port: int) -> socket.socket:
    """Listen on a port, on IPv6 and IPv4 where no host is given and the machine has both.

    Raises:
        InitError: It can't be opened.
    """
    tries = [(socket.AF_INET6, "::"), (socket.AF_INET, "0.0.0.0")]  # noqa: S104 - a pod's port is for the cluster
    if host:
        tries = [(socket.AF_INET6 if ":" in host else socket.AF_INET, host)]
    for family, address in tries:
        try:
            listener = socket.socket(family, socket.SOCK_STREAM)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6 and address == "::":
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            listener.bind((address, port))
            listener.listen(BACKLOG)
            listener.setblocking(False)  # noqa: FBT003 - socket's own signature
        except OSError as error:
            problem = error
        else:
            return listener
    raise InitError("Runtime.PortError", f"Port {port} can't be opened: {problem.strerror}")
