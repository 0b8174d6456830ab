"""The way of log lines to the log stream, where they outlive the pod: the front's end of it, which never waits.

Invariant: nothing here waits or grows. What the process that sends the lines (``log_sender``) has no room for at once is
dropped and counted, and the stream itself says how much is missing as soon as it goes on. The sender is a fork of the
front, made before anything else is: it finds names and waits for answers, which the front must never do. One that has
died is started anew. What isn't sent when the container is killed is missing without a word.
"""

from __future__ import annotations

import _socket as socket
import errno

from wisp_runtime import journal
from wisp_runtime.logs import make_line
from wisp_runtime.loop import READ
from wisp_runtime.spawning import fork_sender

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from wisp_runtime.loop import Loop
    from wisp_runtime.settings import Settings

PIECE = 32 * 1024
ROOM = 1 << 20  # of the socket, as far as the system gives it (Linux: twice net.core.wmem_max, 416 KiB)
RESTART_SECONDS = 2.0
LAST_SECONDS = 2.0  # for what is on its way when the pod ends
_NOTE_SIZE = 4096


class LogStream:
    """Takes what the journal writes.

    Attributes:
        pid: Of the sender; 0 while there is none.
        dropped: Lines that were dropped, by whichever of the two.
    """

    def __init__(self, loop: Loop, settings: Settings) -> None:
        """Have no sender yet."""
        self.pid = 0
        self.dropped = 0
        self._loop = loop
        self._settings = settings
        self._socket: socket.socket | None = None
        self._missing = 0  # lines dropped since the last that was taken

    def start(self) -> None:
        """Fork the sender."""
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            for end in (ours, theirs):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ROOM)
            self.pid = fork_sender(self._loop, self._settings, theirs)
        except OSError as error:
            journal.emit("ERROR", f"The process that sends log lines can't be started: {error}")
            self._loop.after(RESTART_SECONDS, self.start)
            return
        theirs.close()
        ours.setblocking(False)  # noqa: FBT003 - socket's own signature
        self._socket = ours
        self._loop.watch(ours.fileno(), READ, self._on_event)

    def take(self, lines: bytes) -> None:
        """Hand lines to the sender, or drop them."""
        for piece in _pieces(lines):
            if self._missing:
                self._give(self._notice() + piece, piece, self._missing)
            else:
                self._give(piece, piece, 0)

    def close(self) -> None:
        """Wait a little for the sender to have sent what it has."""
        sock, self._socket = self._socket, None
        if sock is None:
            return
        try:
            if self._missing:
                sock.send(self._notice())
            sock.shutdown(socket.SHUT_WR)
            sock.settimeout(LAST_SECONDS)
            while sock.recv(_NOTE_SIZE):
                pass
        except OSError:
            pass  # it didn't end in time, or had ended
        sock.close()

    def failed(self, error: Exception) -> None:
        """Do without, after a fault of ours."""
        del error
        self._end()

    def _give(self, packet: bytes, lines: bytes, told: int) -> None:
        """Hand over a packet with these lines, which tells of lines that are missing before them."""
        try:
            if self._socket is not None:
                self._socket.send(packet)
                self._missing -= told
                return
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                self._end()
        count = lines.count(b"\n")
        self._missing += count
        self.dropped += count

    def _notice(self) -> bytes:
        return make_notice(self._missing, "more was logged than could be sent")

    def _on_event(self, events: int) -> None:
        """Take what the sender says, as ``<lines that it has dropped> <message or nothing>``, or its end."""
        del events
        try:
            note = self._socket.recv(_NOTE_SIZE) if self._socket is not None else b""
        except BlockingIOError:
            return
        except OSError:
            note = b""
        if not note:
            self._end()
            return
        count, _, message = note.decode("utf-8", "replace").partition(" ")
        self.dropped += int(count)
        if message:
            journal.emit("WARNING", message)

    def _end(self) -> None:
        """Let go of a sender that has ended, and start another soon."""
        sock, self._socket, self.pid = self._socket, None, 0
        if sock is None:
            return
        self._loop.forget(sock.fileno())
        sock.close()
        self._loop.after(RESTART_SECONDS, self.start)


def make_notice(count: int, reason: str) -> bytes:
    """Make the line that stands in the stream for those that are missing before it."""
    text = f"{count} lines of the log are not in the log stream: {reason}"
    if journal.plain():
        return f"[WARNING]\t{text}\n".encode()
    return make_line("WARNING", text, "", "", {"droppedLines": count})


def _pieces(lines: bytes) -> Iterator[bytes]:
    """Cut at the ends of lines."""
    start = 0
    while len(lines) - start > PIECE:
        end = lines.rfind(b"\n", start, start + PIECE) + 1 or lines.find(b"\n", start + PIECE) + 1 or len(lines)
        yield lines[start:end]
        start = end
    if start < len(lines):
        yield lines[start:]
