"""A process of the function as the front sees it: its socket, its log, what runs in it, and its end.

Invariant: nothing here waits. What a process sends is handed to its owner frame by frame; its end is told once, after
everything it sent and logged has been read, whatever told us first: the end of its socket or its exit status. Whatever
it sends or does, and whatever goes wrong with it, costs it alone.
"""

from __future__ import annotations

import _socket as socket
import os
import time

from wisp_runtime import journal
from wisp_runtime.frames import CANCEL, PAUSE, RESUME, FrameReader, pack
from wisp_runtime.lean import send_one, send_two, signal, suppress
from wisp_runtime.log_pipe import LogPipe
from wisp_runtime.loop import READ, WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from wisp_runtime.board import Running
    from wisp_runtime.calls import Call
    from wisp_runtime.lending import Lender
    from wisp_runtime.loop import Loop, Timer
    from wisp_runtime.settings import Settings

    class Owner(Protocol):
        """Who is told what a process does."""

        settings: Settings

        def on_frame(self, worker: Worker, kind: int, number: int, head: dict[str, Any], body: bytes) -> None:
            """Take a frame."""

        def on_end(self, worker: Worker) -> None:
            """Take note that the process has ended; ``worker.status`` says how, if that is known."""

    class Writer(Protocol):
        """Whose log is read."""

        def catch_up(self) -> bool:
            """Read what was sent before it; false where a part is still to come."""

        def only_call(self) -> Call | Running | None:
            """Return the invocation that its lines belong to."""


READ_SIZE = 64 * 1024  # more would be mapped and unmapped by malloc each time
STATUS_SECONDS = 1.0  # how long to wait for the exit status of a process whose socket has ended
LAST_READS = 64  # of what a process sent before its end: more than the socket holds, but not what goes on and on


class Worker:
    """A worker, or the zygote: whatever is joined to us by a socket and a log.

    Attributes:
        pid: Its process id; 0 until the zygote has told it.
        calls: What runs in it, by number.
        concurrency: How many may.
        ahead: How many more it takes, which it begins in their order when it has answered those before.
        cancels: Whether it wants to know that a caller has left.
        ready: Whether it takes invocations.
        zygote: Whether it forks the workers instead of being one.
        init_timer: What ends it when its initialization takes too long.
        gone: Whether it is no longer counted on: killed, or ended.
        status: How it ended, as ``os.waitpid`` says it, once that is known.
        why: Why we killed it, if we did.
        begun: When it was started, on the monotonic clock.
        init_ms: What its initialization took, until that has been reported.
        quick: Whether its last invocation was short, so that another may well wait in it for the next.
        served: Whether anything ever ran in it.
        lender: Who has lent it connections.
        peak: The most MiB that it was seen to have.
        measured: When that was looked at.
        log: What it writes to its stdout and stderr.
    """

    def __init__(self, loop: Loop, owner: Owner, sock: socket.socket, pipe: int, pid: int = 0) -> None:
        """Take our ends of its socket and of its log."""
        sock.setblocking(False)  # noqa: FBT003 - socket's own signature
        self.pid = pid
        self.sock = sock
        self.calls: dict[int, Call] = {}
        self.concurrency = 1
        self.ahead = 0
        self.ready = self.gone = self.served = self.cancels = self.zygote = self.quick = False
        self.init_timer: Timer | None = None
        self.status: int | None = None
        self.why = ""
        self.begun = time.monotonic()
        self.init_ms = 0.0
        self.peak = 0
        self.lender: Lender | None = None
        self.measured = 0.0
        self._loop = loop
        self._owner = owner
        self._fd = sock.fileno()
        self._frames = FrameReader(owner.settings.max_body)
        self._out = b""
        self._number = 0
        self._ended = False
        self._watching = True
        self._holding = False
        self._ahead: list[bytes] = []  # frames of this round, not sent yet
        self.log = LogPipe(loop, pipe, self)
        loop.watch(self._fd, READ, self._on_event)

    # Invocations.

    @property
    def has_room_ahead(self) -> bool:
        """Whether an invocation may wait in it for the one that runs, which is likely to be short."""
        return self.quick and self.ready and len(self.calls) <= self.ahead

    def give(self, call: Call) -> None:
        """Send it an invocation: at once if nothing runs before it, else with the others of this round.

        Raises:
            BadRequestError: No frame can be made of it; nothing was sent.
        """
        number = (self._number + 1) & 0xFFFFFFFF or 1
        data = call.frame(number)
        self._number = number
        self.calls[number] = call
        self.served = True
        call.worker, call.number, call.given = self, number, time.monotonic()
        if call.due_ms:
            self._send(data)
            return
        if not self._ahead:
            self._loop.soon(self._send_ahead)
        self._ahead.append(data)

    def _send_ahead(self) -> None:
        if not self._ahead:
            return
        data = b"".join(self._ahead)
        self._ahead.clear()
        self._send(data)

    def hold(self, call: Call) -> None:
        """Let it write no further: the caller reads slowly."""
        if self.concurrency > 1:
            self.send(PAUSE, call.number, {})
        else:
            self._holding = True
            self._watch(0)

    def resume(self, call: Call) -> None:
        """Let it write on."""
        if self.concurrency > 1:
            self.send(RESUME, call.number, {})
        else:
            self._let_go_on()

    def caller_left(self, call: Call) -> None:
        """Spare it work for nobody, if it can be; a worker of one runs on, as in AWS Lambda."""
        if self.cancels:
            self.send(CANCEL, call.number, {"reason": "gone"})
        if self.concurrency == 1 and call.begun:
            self._let_go_on()

    def _let_go_on(self) -> None:
        self._holding = False
        self._watch(READ)

    # Its socket.

    def lend(self, frame: bytes, fd: int) -> bool:
        """Send a frame with a descriptor; false if it takes none now."""
        if self._out or self.gone:
            return False
        try:
            send_one(self.sock, frame, fd)
        except OSError:
            return False
        return True

    def send(
        self, kind: int, number: int, head: dict[str, Any], body: bytes = b"", fds: tuple[int, int] | None = None
    ) -> None:
        """Send a frame, as soon as it takes it; what was given before comes first, lest STOP overtakes it."""
        self._send_ahead()
        self._send(pack(kind, number, head, body), fds)

    def _send(self, data: bytes, fds: tuple[int, int] | None = None) -> None:
        if self.gone:
            return
        if self._out:
            self._out += data
            return
        try:
            sent = send_two(self.sock, data, fds) if fds else self.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # it has ended, which is told elsewhere
        if sent < len(data):
            self._out = data[sent:]
            self._watch(READ | WRITE)

    def read(self) -> bool:
        """Hand on what it has sent; false at the end of its socket."""
        try:
            data = self.sock.recv(READ_SIZE)
        except BlockingIOError:
            return True
        except OSError:
            data = b""
        if not data:
            return False
        try:
            for frame in self._frames.feed(data):
                if not self.gone:
                    self._owner.on_frame(self, *frame)
        except Exception as error:  # noqa: BLE001 - nonsense fails in many ways, none of which is the pod's
            journal.fault("A worker broke the protocol and is replaced", error, "Runtime.ProtocolError")
            self._on_eof()
        return True

    def catch_up(self) -> bool:
        """Read what it has sent, if it begins its invocations by itself; false where a part is still to come."""
        if not (self.ahead and self._watching) or self._holding:
            return True
        if not self.read():
            self._on_eof()
        return not self._frames.partial

    def _on_event(self, events: int) -> None:
        if events & WRITE and self._out:
            data, self._out = self._out, b""
            with suppress(OSError):
                self._out = data[self.sock.send(data) :]
            if not self._out:
                self._watch(READ)
        if events & ~WRITE and not self.read():
            self._on_eof()

    def _on_eof(self) -> None:
        """Its socket has ended, so it has, or no longer talks to us, which is as good; its status is on its way.

        As long as its pid is not known it is the zygote's word that counts, or the zygote's end: it may never have been forked.
        """
        self._stop_watching()
        self.signal_group()
        if self.status is not None:
            self.end()
        elif self.pid:
            self._loop.after(STATUS_SECONDS, self.end)

    def failed(self, error: Exception) -> None:
        """Be replaced, after a fault of our own with it."""
        del error
        self._on_eof()

    def _stop_watching(self) -> None:
        if self._watching:
            self._watching = False
            self._loop.forget(self._fd)

    def _watch(self, mask: int) -> None:
        if self._watching:
            self._loop.change(self._fd, mask | (WRITE if self._out else 0))

    def only_call(self) -> Call | Running | None:
        """Return what runs in it if that is one invocation; what waits in it comes behind."""
        if self.lender is not None:
            return self.lender.board.running()
        return (
            next(iter(self.calls.values())) if len(self.calls) == 1 or (self.calls and self.concurrency == 1) else None
        )

    @property
    def busy(self) -> bool:
        """Whether anything runs in it."""
        return bool(self.calls) or (self.lender is not None and self.lender.active())

    # Its end.

    def take_pid(self, pid: int) -> None:
        """Take its pid; what has ended before, or has hung up, is killed now."""
        self.pid = pid
        if self.gone:
            self.signal_group()
        elif not self._watching:
            self._on_eof()

    def end_soon(self, why: str) -> None:
        """End it now; it counts until it can't do anything any more."""
        self.why = self.why or why
        self.signal_group()

    def kill(self, why: str) -> None:
        """End it now, with all that it has started; it counts no longer."""
        self.why = self.why or why
        self.signal_group()
        self.let_go()

    def signal_group(self) -> None:
        """Send SIGKILL to it and its group; before its pid is known, later."""
        if self.pid and self.status is None:
            with suppress(OSError):
                os.kill(self.pid, signal.SIGKILL)
        if self.pid:
            with suppress(OSError):
                os.killpg(self.pid, signal.SIGKILL)

    def let_go(self) -> None:
        """Close our ends."""
        if self.gone:
            return
        self.gone = True
        self._stop_watching()
        self.sock.close()
        self._frames, self._out = FrameReader(), b""
        if self.init_timer is not None:
            self.init_timer.cancel()
        self.log.close()

    def on_exit(self, status: int) -> None:
        """Take its exit status; what it sent before comes first."""
        self.status = status
        for _ in range(LAST_READS):
            if not (self._watching and self.read_ahead()):
                break
        self.signal_group()
        self.end()

    def read_ahead(self) -> bool:
        """Read on as long as there is something."""
        try:
            waits = bool(self.sock.recv(1, socket.MSG_PEEK))
        except OSError:
            return False
        return waits and self.read()

    def end(self) -> None:
        """Tell that it has ended, once."""
        if self._ended:
            return
        self._ended = True
        if not self.gone:
            self.log.read()
        self._loop.guard(self._owner.on_end, self)
        self.let_go()
