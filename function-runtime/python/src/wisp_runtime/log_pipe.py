"""The reading end of a worker's stdout and stderr.

Invariant: a line comes out whole, and with the invocation it belongs to where only one runs; a worker that logs without
end, or faster than stdout takes it, keeps nobody else waiting.
"""

from __future__ import annotations

import os

from wisp_runtime import journal
from wisp_runtime.logs import log_line
from wisp_runtime.loop import READ
from wisp_runtime.unread import unread_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wisp_runtime.board import Running
    from wisp_runtime.calls import Call
    from wisp_runtime.loop import Loop
    from wisp_runtime.workers import Writer

MAX_LINE = 256 * 1024
READ_SIZE = 64 * 1024  # all that a pipe holds
PART_SIZE = 4 * 1024  # as much as is wrapped in some 10 ms, when it is lines of one letter


class LogPipe:
    """A pipe whose writing end the worker has."""

    def __init__(self, loop: Loop, fd: int, worker: Writer) -> None:
        """Read a worker's pipe."""
        os.set_blocking(fd, False)
        self._loop = loop
        self._fd = fd
        self._worker = worker
        self._rest = b""
        self._open = True
        self._taken = 0  # bytes
        loop.watch(fd, READ, self._on_event)

    def read(self) -> None:
        """Log all that the pipe holds, an unfinished line too, because what it belongs to ends.

        What is written meanwhile is left for the next time, lest a process that writes without end keeps us here.
        """
        if self._open and not self._read(READ_SIZE):
            self.close()
        self.finish()

    def finish(self) -> None:
        """Log an unfinished line, because what it belongs to has ended."""
        if self._rest:
            self._take(b"\n", self._worker.only_call())

    def close(self) -> None:
        """Log what is left, an unfinished line too, and read no more."""
        if not self._open:
            return
        self._open = False
        self._loop.forget(self._fd)
        self._read(READ_SIZE)
        self.finish()
        os.close(self._fd)

    def _on_event(self, events: int) -> None:
        if journal.held() < journal.FULL:
            self._read_up_to(self._taken + unread_bytes(self._fd), ended=not events & READ)
        else:
            self._loop.forget(self._fd)
            self._loop.after(journal.RETRY_SECONDS, self._watch)

    def _read_up_to(self, end: int, *, ended: bool) -> None:
        """Read what there was before the worker's frames are, lest the lines of its next invocation go to the last."""
        if not self._worker.catch_up() or not self._open:
            return
        size = min(end - self._taken, PART_SIZE)
        if (size > 0 or ended) and not self._read(max(size, 1)):
            self.close()

    def _watch(self) -> None:
        if self._open:
            self._loop.watch(self._fd, READ, self._on_event)

    def _read(self, size: int) -> bool:
        """Read once; false at the pipe's end."""
        call = self._worker.only_call()  # before it is read: one that runs elsewhere may end as soon as it is
        try:
            data = os.read(self._fd, size)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if data:
            self._taken += len(data)
            self._take(data, call or self._worker.only_call())
        return bool(data)

    def _take(self, data: bytes, call: Call | Running | None) -> None:
        data = self._rest + data
        whole, newline, self._rest = data.rpartition(b"\n")
        if len(self._rest) > MAX_LINE:
            whole, newline, self._rest = self._rest[:MAX_LINE], b"\n", self._rest[MAX_LINE:]
        if not newline:
            return
        about = (call.id, call.trace) if call else ("", "")
        for line in whole.split(b"\n"):
            if not line:
                continue
            made = line + b"\n"
            if not (journal.plain() or line.startswith(b'{"time":')):
                made = log_line("INFO", line.decode("utf-8", "backslashreplace"), *about)
            journal.write(made)
            if call:
                call.keep(made)
