"""The process that has imported the handler, and that a worker is forked from in milliseconds.

Invariant: the front learns of each worker that it is there, and then how it ended, however the two fall together. A signal
that comes just before a call that waits doesn't end the wait, so the interpreter writes each to a pipe that is waited for.
"""

from __future__ import annotations

import _socket as socket
import os
import select
import sys

from wisp_runtime import logs
from wisp_runtime.children import buried
from wisp_runtime.frames import EXITED, FORK, FORKED, STOP, ZYGOTE, Channel, FrameReader
from wisp_runtime.lean import receive_two, signal, suppress
from wisp_runtime.spawning import take_log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn


class Zygote:
    """Who forks a worker whenever the front asks for one, and tells how each ends."""

    def __init__(self, sock: socket.socket, signature: str, run: Callable[[socket.socket], NoReturn]) -> None:
        """Talk to the front; a worker runs with a socket of its own."""
        self._sock = sock
        self._channel = Channel(sock)
        self._signature = signature
        self._run = run
        self._workers: set[int] = set()
        self._stopping = False
        self._bell, ringer = os.pipe()
        for fd in (self._bell, ringer):
            os.set_blocking(fd, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # without which nothing is written
        signal.set_wakeup_fd(ringer, warn_on_full_buffer=False)

    def serve(self) -> NoReturn:
        """Do as the front says until it has had enough, or is gone."""
        self._channel.send(ZYGOTE, 0, {"signature": self._signature})
        waiter = select.poll()
        waiter.register(self._sock.fileno(), select.POLLIN)
        waiter.register(self._bell, select.POLLIN)
        reader = FrameReader()
        while not (self._stopping and not self._workers):
            ready = [fd for fd, _ in waiter.poll()]
            if self._bell in ready:
                self._bury()
            if self._sock.fileno() in ready:
                self._read(reader)
        os._exit(0)

    def _read(self, reader: FrameReader) -> None:
        try:
            data, descriptors = receive_two(self._sock, 4096)
        except OSError:
            data, descriptors = b"", []
        if not data:
            self._end_all()  # the front was killed: nobody else will end what runs
        for kind, number, _, _ in reader.feed(data):
            self._stopping = (
                self._stopping or kind == STOP
            )  # it ends after its workers: nobody else can tell how they do
            if kind == FORK:
                self._fork(number, descriptors)

    def _bury(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._bell, 4096)
        for pid, status in buried():
            self._workers.discard(pid)
            self._channel.send(EXITED, 0, {"pid": pid, "status": status})

    def _end_all(self) -> NoReturn:
        """Kill them with all that they have started, and end."""
        for pid in self._workers:
            with suppress(OSError):
                os.killpg(pid, signal.SIGKILL)
        os._exit(0)

    def _fork(self, number: int, descriptors: list[int]) -> None:
        """Fork a worker and add it to the others; in the child, serve."""
        fd, log = descriptors
        pid = os.fork()
        if pid:
            os.close(fd)
            os.close(log)
            self._workers.add(pid)
            self._channel.send(FORKED, number, {"pid": pid})
            return
        try:
            os.setpgid(0, 0)
            os.close(signal.set_wakeup_fd(-1))
            os.close(self._bell)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._sock.close()
            take_log(log)
            os.close(log)
            logs.reopen()
            _seed_anew()
            self._run(socket.socket(fileno=fd))
        finally:
            os._exit(1)


def _seed_anew() -> None:
    """Draw new random numbers: ``random`` sees to itself, NumPy's global state doesn't."""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()
