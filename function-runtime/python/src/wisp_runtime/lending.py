"""Connections that the front lends to the worker that serves them: the handler in the serving process.

Invariant: each connection is served by one process at a time, and the front keeps a descriptor of each, so that a worker's
end costs the event that ran, which gets Lambda's error, and those that it had read from but not begun, which get 503
without the runtime's mark; all others go on with the next worker. A connection that begins with a question after our health
is the front's own: it is answered while the handler runs.
"""

from __future__ import annotations

import _socket as socket
import os
import time

from wisp_runtime import journal
from wisp_runtime.answers import Left
from wisp_runtime.board import BROKEN, CLEAN, HALF, SLOTS, Board
from wisp_runtime.calls import Call
from wisp_runtime.connection import HEALTH_PATH, LIFE_PATH, Connection
from wisp_runtime.frames import BACK, BUSY, DRAIN, LEND, pack
from wisp_runtime.http1 import HttpRequest, error_reply
from wisp_runtime.lean import deque, suppress
from wisp_runtime.log_pipe import LogPipe
from wisp_runtime.loop import READ
from wisp_runtime.request_reader import RequestReader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wisp_runtime.board import Running
    from wisp_runtime.front import Front
    from wisp_runtime.function import Function
    from wisp_runtime.settings import Settings
    from wisp_runtime.workers import Worker

RETRY_SECONDS = 0.02
_OURS = tuple(f"{method} {path} ".encode() for method in ("GET", "HEAD") for path in (HEALTH_PATH, LIFE_PATH))
_PEEK = max(map(len, _OURS))
_ENDED = "The function's process has ended; this request had not begun"


class Lent:
    """A connection that the front doesn't read: it waits for its first bytes, or for a worker, or a worker has it.

    Attributes:
        slot: Its place on the board while it waits for a worker or a worker has it; -1 before.
        lent: Whether a worker has it.
    """

    __slots__ = ("_lender", "fd", "lent", "peer", "slot", "sock")

    def __init__(self, lender: Lender, sock: socket.socket, peer: str) -> None:
        """Wait for an accepted connection's first bytes."""
        self._lender = lender
        self.sock = sock
        self.fd = sock.fileno()
        self.peer = peer
        self.slot = -1
        self.lent = False
        lender.front.loop.watch(self.fd, READ, self._on_event)

    @property
    def idle(self) -> bool:
        """Whether it waits for nothing, as far as can be seen."""
        return self.slot < 0 or (self.lent and self._lender.board.slots[self.slot] == CLEAN)

    @property
    def unfinished(self) -> bool:
        """Whether a request has begun that is not complete."""
        return self.lent and self._lender.board.slots[self.slot] == HALF

    def _on_event(self, events: int) -> None:
        """Look at its first bytes, and leave them where they are."""
        del events
        try:
            data = self.sock.recv(_PEEK, socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._lender.front.loop.forget(self.fd)
        self._lender.front.deadlines.pop(self.fd, None)
        if not data:
            self.close()
        elif data.startswith(_OURS):
            self._lender.keep(self)
        else:
            self._lender.queue(self)

    def go_away(self, reason: str) -> bool:
        """Wait for little more, because the process ends."""
        del reason
        if self.slot < 0:
            self._lender.front.deadlines[self.fd] = self._lender.front.grace_ends
        return False

    def give_up(self) -> None:
        """Close it because its time is up."""
        self.close()

    def close(self) -> None:
        """End it; a worker that has it finds that out."""
        self._lender.front.remove(self)
        if self.lent:
            with suppress(OSError):  # already gone
                self.sock.shutdown(socket.SHUT_RDWR)
            return
        self._lender.front.loop.forget(self.fd)
        self._lender.forget(self)
        self.sock.close()


class Lender:
    """Who has which connection.

    Attributes:
        board: What the worker tells without a message.
        worker: Who serves now.
        waiting: Connections that wait for a worker.
    """

    def __init__(self, front: Front, function: Function, settings: Settings, board: Board) -> None:
        """Lend a front's connections to a function's worker."""
        self.front = front
        self.board = board
        self.worker: Worker | None = None
        self.waiting: deque[Lent] = deque()
        self._function = function
        self._settings = settings
        self._lent: dict[int, Lent] = {}
        self._answers = Left(board, self._lent, front.loop)
        self._free = list(range(SLOTS))
        self._sweeping = self._retrying = False
        if settings.log_format == "json":
            board.out = self._open_log()
        self._seen = self._expired = 0  # the last invocation that was seen, and the one whose time was over

    def _open_log(self) -> int:
        """Have the worker write finished lines to where ours go; through us, where they go to the log stream, too."""
        if not self._settings.log_url:
            return os.dup(1)
        reader, writer = os.pipe()
        self._log = LogPipe(self.front.loop, reader, self)
        return writer

    def catch_up(self) -> bool:
        """Say that nothing has to be read before the worker's log."""
        return True

    def only_call(self) -> None:
        """Say that the lines need no invocation's name."""

    # Connections.

    def take(self, sock: socket.socket, peer: str) -> Lent:
        """Take an accepted connection."""
        return Lent(self, sock, peer)

    def keep(self, lent: Lent) -> None:
        """Serve a connection in the front itself."""
        self._adopt(lent)._read()  # noqa: SLF001 - what it would do at its next event

    def _adopt(self, lent: Lent) -> Connection:
        reader = RequestReader(lent.peer, self._settings.max_body, self.front.budget)
        connection = self.front.connections[lent.fd] = Connection(self.front, lent.sock, reader)
        return connection

    def queue(self, lent: Lent) -> None:
        """Have a connection served, as soon as a worker can."""
        if not self._free:
            lent.close()
            return
        lent.slot = self._free.pop()
        self.waiting.append(lent)
        self._lend()

    def forget(self, lent: Lent) -> None:
        """Let a slot be used again."""
        if lent in self.waiting:
            self.waiting.remove(lent)
        if lent.slot >= 0:
            self._lent.pop(lent.slot, None)
            self.board.slots[lent.slot] = CLEAN
            self._free.append(lent.slot)
            lent.slot = -1

    def _lend(self) -> None:
        """Lend what waits; what the worker's socket doesn't take, later."""
        worker = self.worker
        while self.waiting and worker is not None and not worker.gone:
            lent = self.waiting[0]
            init = {"init": worker.init_ms} if worker.init_ms else {}
            frame = pack(LEND, lent.slot, {"peer": lent.peer, **init})
            if not worker.lend(frame, lent.fd):
                if not self._retrying:
                    self._retrying = True
                    self.front.loop.after(RETRY_SECONDS, self._lend_again)
                return
            self.waiting.popleft()
            worker.init_ms = 0.0  # which the first REPORT tells
            lent.lent = worker.served = True
            self._lent[lent.slot] = lent

    def _lend_again(self) -> None:
        self._retrying = False
        self._lend()

    # What the worker says.

    def came(self, worker: Worker) -> None:
        """Lend to a worker from now on."""
        self.worker = worker
        worker.lender = self
        if self.front.draining:
            worker.send(DRAIN, 0, {})
        self._lend()

    def on_frame(self, kind: int, number: int) -> None:
        """Take a connection back, which has ended, or look after what runs."""
        if kind == BACK and (lent := self._lent.get(number)) is not None:
            self.front.remove(lent)
            self.forget(lent)
            lent.sock.close()
        elif kind == BUSY:
            self.board.watched = True
            self._function.memory.begin()
            self._answers.watch()
            if not self._sweeping:
                self._sweeping = True
                self._sweep()

    def drain(self) -> None:
        """Have the worker finish, because the process ends."""
        if self.worker is not None:
            self.worker.send(DRAIN, 0, {})

    # What runs.

    def active(self) -> bool:
        """Whether anything has run since this was asked last; if nothing has, the worker tells when it begins."""
        board = self.board
        if not board.begun and board.number == self._seen:
            board.watched = False
            if not board.begun and board.number == self._seen:
                return False
            board.watched = True
        self._seen = board.number
        return True

    def _sweep(self) -> None:
        """End the worker when the time of what runs is over; what begins later has at least as much time."""
        board, timeout = self.board, self._settings.timeout
        number, begun, now = board.number, board.begun, time.monotonic()
        self._sweeping = bool(begun) or board.watched
        if self._sweeping:  # first: a fault in what follows must not end the looking
            self.front.loop.after(max(0.01, (begun or now) + timeout - now), self._sweep)
        late = begun and now >= begun + timeout and (board.number, board.begun) == (number, begun)
        if late and self.worker is not None:
            self._expired = number
            self.worker.end_soon("timeout")

    # Its end.

    def left(self, worker: Worker) -> None:
        """Answer for a worker that has ended, and keep the rest for the next."""
        if worker is not self.worker:
            return
        self.worker = None
        board = self.board
        for lines in board.lines:
            journal.write(lines)
        board.lines.clear()
        running, worker.peak, board.peak = board.running(), max(worker.peak, board.peak), 0
        board.end()
        board.watched = False
        answered = self._answers.send()
        board.answers.clear()
        for lent in list(self._lent.values()):
            state = board.slots[lent.slot]
            ran = running if running and running.slot == lent.slot and lent.slot not in answered else None
            if state == CLEAN and not ran:
                lent.lent = False
                self.waiting.append(self._lent.pop(lent.slot))
                continue
            self.forget(lent)
            connection = self._adopt(lent)
            connection.request = request = HttpRequest("POST", "/", [], lent.peer)
            request.keep_alive = False
            if ran:
                self._fail(worker, connection, request, ran, streaming=state == BROKEN)
            elif state == BROKEN:
                connection.abort()
            else:
                connection.answer(error_reply(503, "ServiceUnavailable", _ENDED, [("retry-after", "1")]))

    def _fail(
        self, worker: Worker, connection: Connection, request: HttpRequest, ran: Running, *, streaming: bool
    ) -> None:
        """Answer for the invocation that ran, as for one that had a worker of its own."""
        call = connection.call = Call(connection, request)
        call.id, call.trace, call.xray = ran.id, ran.trace, ran.xray
        call.given = call.begun = ran.begun
        call.streaming = streaming
        exchange = self._function.exchange
        if worker.why == "timeout" and ran.number == self._expired:
            exchange.timed_out(worker, call)
        else:
            exchange.worker_ended(worker, call)
