"""The worker's own front: the handler runs in the process that reads its callers' requests and writes the answers.

Invariant: one invocation runs at a time, on the main thread, and what it means to its caller ``exchange`` decides, as for
any worker. The board knows of it from before the handler is called until its answer is written; it knows of a
connection from before it is read until all that was read is answered. What waits, waits in the kernel, where this
process's end leaves it.
"""

from __future__ import annotations

import os
import select
import time
from _socket import socket

from wisp_runtime import identity, journal, logs, trace
from wisp_runtime.answers import QUICK_SECONDS, Round
from wisp_runtime.board import UNANSWERED
from wisp_runtime.calls import Call, deadline_ms
from wisp_runtime.cloudevent import percent_encode
from wisp_runtime.connection import STALL_SECONDS
from wisp_runtime.errors import BadRequestError
from wisp_runtime.exchange import Exchange
from wisp_runtime.frames import (
    BUSY,
    DRAIN,
    END,
    ERROR,
    LEND,
    READY,
    RESULT,
    STOP,
    FrameReader,
    pack,
    too_large,
)
from wisp_runtime.front import Front
from wisp_runtime.lean import receive_one
from wisp_runtime.lent_connection import LentConnection
from wisp_runtime.loop import READ, Loop
from wisp_runtime.memory import used_mib
from wisp_runtime.metrics import Counts
from wisp_runtime.unread import watch_unread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wisp_runtime.board import Board
    from wisp_runtime.frames import Channel
    from wisp_runtime.http1 import HttpRequest
    from wisp_runtime.invocation import Handler

UNREAD_SECONDS = 2.0  # for the front to have read what other programs wrote to the log
_UNREAD_PAUSE = 0.0002
FINISH_SECONDS = 1.0  # for requests that are half read, where no connection can be lent any more


class Here:
    """This process in the place of a worker."""

    def __init__(self, board: Board) -> None:
        """Run nothing yet."""
        self._board = board
        self._peak = board.peak
        self.pid = os.getpid()
        self.calls: dict[int, Call] = {}
        self.log = self
        self.quick = False
        self.init_ms = self.measured = 0.0
        # Plain lines are in the same pipe as ours.
        self.is_unread = _never if journal.plain() else watch_unread(logs.output())

    @property
    def peak(self) -> int:
        """The most MiB that it was seen to have."""
        return self._peak

    @peak.setter
    def peak(self, value: int) -> None:
        self._peak = self._board.peak = value

    def read(self) -> None:
        """Let the front read what children and C libraries have written, which is this invocation's."""
        if not self.is_unread():
            return
        until = time.monotonic() + UNREAD_SECONDS
        while self.is_unread() and time.monotonic() < until:
            time.sleep(_UNREAD_PAUSE)

    def finish(self) -> None:
        """Do nothing: Python's own lines are complete."""

    def hold(self, call: Call) -> None:
        """Wait for a caller that reads slowly, until it has read what is buffered or is given up."""
        connection: Any = call.connection
        poller = select.poll()
        poller.register(connection.fd, select.POLLOUT)
        while connection.out and not connection.closed:
            if poller.poll(STALL_SECONDS * 1000):
                connection._flush()  # noqa: SLF001 - what its next event would do
            else:
                connection.close()

    def resume(self, call: Call) -> None:
        """Do nothing: who was held goes on by itself."""

    def caller_left(self, call: Call) -> None:
        """Do nothing: what runs goes on."""


class Serving:
    """The process: its loop, its connections, and the handler. To its front and to ``exchange`` it is the function.

    Attributes:
        signature: The handler's.
        processes: Who knows that signature.
    """

    def __init__(self, channel: Channel, handler: Handler, board: Board) -> None:
        """Serve with a handler what the front lends through a channel."""
        self.settings = handler.settings
        self.signature = handler.signature
        self.processes = self
        self.board = board
        self.counts = Counts(board.counts, board.seconds)
        self.loop = Loop()
        self.front = Front(self.loop, self, self.settings)
        self.here = Here(board)
        self.exchange = Exchange(self)  # type: ignore[arg-type]
        self._handler = handler
        self._plain = journal.plain()
        self._channel = channel
        self._frames = FrameReader()
        self._patience = 0.0  # with requests that are half read; none while there is no reason to end
        self._call: Call | None = None
        self.round = Round(board.answers, self.loop)
        journal.keep_on(board.lines, board.out)
        identity.renew()
        trace.renew()
        logs.use_sink(self._log)
        os.register_at_fork(after_in_child=lambda: logs.use_sink(None))  # the board has one writer

    def serve(self) -> None:
        """Serve until the front has had enough, or has gone."""
        self._channel.send(READY, 0, {"signature": self.signature, "concurrency": 1, "pid": self.here.pid})
        sock = self._channel.sock
        sock.setblocking(False)  # noqa: FBT003 - socket's own signature
        self.loop.watch(sock.fileno(), READ, self._on_event)
        while not self._patience:
            self._turn()
        self._finish()
        logs.use_sink(None)
        journal.finish()

    def _finish(self) -> None:
        """Answer what was read before, and serve all until then; what was not read is in the kernel, for the next process."""
        begun = time.monotonic()
        for seconds in (FINISH_SECONDS, STALL_SECONDS):
            self.loop.after(seconds, lambda: None)
        held: Any = self.front.connections
        while any(self.board.slots[one.slot] for one in held.values()) and time.monotonic() < begun + self._patience:
            if self._patience == FINISH_SECONDS:
                self.loop.forget(self._channel.sock.fileno())
            self._turn()

    def _turn(self) -> None:
        """Do what has come."""
        journal.flush()
        self.loop.run_once()
        self.round.send()

    def tell(self, kind: int, number: int) -> None:
        """Tell the front."""
        sock = self._channel.sock
        sock.setblocking(True)  # noqa: FBT003 - socket's own signature
        try:
            sock.sendall(pack(kind, number, {}))
        except OSError:
            self._patience = FINISH_SECONDS
        sock.setblocking(False)  # noqa: FBT003 - socket's own signature

    def _on_event(self, events: int) -> None:
        """Take what the front says."""
        del events
        try:
            data, descriptors = receive_one(self._channel.sock, 4096)
        except BlockingIOError:
            return
        except OSError:
            data, descriptors = b"", []
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)  # noqa: FBT003 - os's own signature
        for kind, number, head, _ in self._frames.feed(data):
            if kind == LEND and not descriptors:  # there was no room for it: the next process gets it, and has room
                journal.emit("ERROR", "The function's process has no descriptor left for a connection, and is replaced")
                self._patience = FINISH_SECONDS
                break
            if kind == LEND:
                sock = socket(fileno=descriptors.pop(0))
                sock.setblocking(False)  # noqa: FBT003 - socket's own signature
                self.here.init_ms = head.get("init", 0.0) or self.here.init_ms
                connection = LentConnection(self, sock, head["peer"], number)
                self.front.connections[connection.fd] = connection
            elif kind == DRAIN:
                self.front.drain()
            elif kind == STOP:
                self._patience = self._patience or STALL_SECONDS
        if not data:
            self._patience = FINISH_SECONDS

    # What the front's connections call.

    def submit(self, connection: Any, request: HttpRequest) -> None:
        """Run a request's handler, now."""
        self.board.slots[connection.slot] = UNANSWERED  # what was answered before it is written
        call = connection.call = Call(connection, request)
        try:
            call.prepare(self.signature)
        except BadRequestError as error:
            call.refuse(error)
            return
        deadline = deadline_ms(self.settings.timeout)
        head = {**call.head, "id": call.id, "trace": call.trace, "xray": call.xray, "deadline": deadline}
        if call.trace_state:
            head["tracestate"] = call.trace_state
        body, call.head, call.body = call.body, {}, b""
        call.given = call.begun = time.monotonic()
        self.round.begin(call.begun)
        watched = self.board.begin(connection.slot, call)
        journal.start(call, self.settings.revision)
        if not watched:
            self.tell(BUSY, 0)
        if self._plain:
            journal.flush()  # what the handler writes then goes there by itself
        call.worker, call.number = self.here, 1  # type: ignore[assignment]
        self.here.calls[1] = call
        self._call = call
        try:
            self._handler.run(head, body, self._answer)
        finally:
            self._call = None
            self.board.end()
        if self.front.deadlines or self.front.draining:
            self.front.excuse(time.monotonic() - call.begun)

    def withdraw(self, call: Call) -> None:
        """Do nothing: nothing waits here."""

    def _answer(self, kind: int, head: dict[str, Any], body: bytes) -> None:
        """Hand on what the handler answers."""
        call = self._call
        here = self.here
        if call is None or os.getpid() != here.pid:  # the handler forked, and the child came back here
            os._exit(0)
        if kind in (RESULT, ERROR, END):
            here.read()
            call.quiet = True  # there is nothing left to read
        plain = kind == RESULT and not head and call.takes_value and self.signature == "lambda"
        if plain and len(body) <= self.settings.max_body and not self.front.draining:
            self._answer_value(call, body)
            return
        if len(body) > self.settings.max_body and (error := too_large(kind, len(body), self.settings.max_body)):
            kind, head, body = ERROR, error, b""
        self.exchange.on_frame(self.here, call, kind, head, body)  # type: ignore[arg-type]

    def _answer_value(self, call: Call, body: bytes) -> None:
        """Do what ``exchange`` does with nearly all results, at a third of the cost."""
        here, settings = self.here, self.settings
        call.ended = time.monotonic()
        init_ms, here.init_ms = here.init_ms, 0.0
        used = used_mib(here, call.ended)  # type: ignore[arg-type]
        self.counts.end("success", call.ended - call.begun, used)
        journal.end(call, settings.memory, used, init_ms, "success")
        call.worker = None
        self.round.quick = call.ended - call.begun < QUICK_SECONDS
        connection: Any = call.connection
        connection.answer_value(f"wisp-request-id: {percent_encode(call.id)}\r\ntraceparent: {call.trace}\r\n", body)

    def _log(self, line: bytes) -> None:
        """Log what the handler says, at once."""
        journal.write(line)
        if self._call is not None:
            self._call.keep(line)
        journal.flush()

    # What ``exchange`` calls.

    def free(self, worker: Any, answered: Call | None = None) -> None:
        """Do nothing: the next request is read when this one is answered."""

    def retire(self, worker: Any) -> None:
        """Do nothing: only programs end after an answer."""


def _never() -> bool:
    return False


def serve_in_place(channel: Channel, handler: Handler, board: Board) -> None:
    """Serve until the front has had enough."""
    Serving(channel, handler, board).serve()
