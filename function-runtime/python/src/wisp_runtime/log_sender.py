"""The process that sends log lines to the log stream: names, connections and answers are waited for here.

Invariant: it holds one batch, of at most ``BATCH`` bytes and a piece; while the stream does not take that, the rest waits
in the socket from the front, which drops what finds no room there. A batch is sent until it is taken, under one id, so that
the stream has it once; only what is refused for good is dropped, counted, and told in the next batch. When the front has
ended there are ``LAST_SECONDS``, and then this process ends, whatever is left.
"""

from __future__ import annotations

import gc
import os
import select
import time

from wisp_runtime.lean import connect, suppress
from wisp_runtime.log_stream import LAST_SECONDS, make_notice

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket as socket
    from typing import NoReturn

BATCH = 128 * 1024
GATHER_SECONDS = 1.0
PACKET = 512 * 1024
SECONDS = 5.0  # for a connection, and for an answer
PAUSES = 0.5, 1.0, 2.0, 5.0, 10.0
FINAL = frozenset({400, 403, 404, 405, 413})  # these don't get better by being asked again


def serve(sock: socket.socket, url: str, token_file: str) -> NoReturn:
    """Send until the front has ended."""
    gc.freeze()
    gc.enable()
    Sender(sock, url, token_file).run()
    os._exit(0)


class Sender:
    """The lines on their way, and the connection."""

    def __init__(self, sock: socket.socket, url: str, token_file: str) -> None:
        """Send what comes from a socket to an address."""
        self._source = sock
        self._token_file = token_file
        self._host, self._port, self._target = _read_url(url)
        self._poller = select.poll()
        self._poller.register(sock, select.POLLRDHUP)
        self._end: float | None = None  # by when to be done, once the front has ended
        self._name = f"{time.time_ns():x}"
        self._number = 0
        self._lost = 0
        self._trouble = ""
        self._connection: socket.socket | None = None

    def run(self) -> None:
        """Send batch after batch."""
        while lines := self._gather():
            if self._lost:
                lines = make_notice(self._lost, "the stream refused them") + lines
            if self._send(lines):
                self._lost = 0
            elif self._end is not None:
                return

    def _gather(self) -> bytes:
        """Wait for lines, and a moment for more; nothing at the end."""
        parts = [self._source.recv(PACKET)]
        size, until = len(parts[0]), time.monotonic() + GATHER_SECONDS
        while parts[-1] and size < BATCH and self._has_more(until):
            parts.append(self._source.recv(PACKET))
            size += len(parts[-1])
        if not parts[-1] and self._end is None:
            self._end = time.monotonic() + LAST_SECONDS
        return b"".join(parts)

    def _has_more(self, until: float) -> bool:
        return bool(select.select([self._source], [], [], max(0.0, until - time.monotonic()))[0])

    def _send(self, lines: bytes) -> bool:
        """Send a batch until it is taken; false when that is not to be."""
        self._number += 1
        attempt = 0
        while True:
            status, said = self._try(lines)
            if 200 <= status < 300:  # noqa: PLR2004
                self._trouble = ""
                return True
            final = status in FINAL
            self._tell(f"answered {status}: {said}" if status else said, lines.count(b"\n") if final else 0)
            if final:
                self._lost += lines.count(b"\n")
                return False
            if not self._may_wait(PAUSES[min(attempt, len(PAUSES) - 1)]):
                return False
            attempt += 1

    def _try(self, lines: bytes) -> tuple[int, str]:
        """Send once, on a new connection where the one that stood open is gone; the status (0: none) and what was said."""
        for _ in range(2):
            known = self._connection is not None
            try:
                return self._exchange(lines)
            except (OSError, ValueError) as error:
                self._drop_connection()
                if not known or isinstance(error, TimeoutError):
                    return 0, f"can't be reached ({error})"
        raise AssertionError

    def _exchange(self, lines: bytes) -> tuple[int, str]:
        with open(self._token_file, encoding="ascii") as file:  # noqa: PTH123 - anew each time: the kubelet renews it
            token = file.read().strip()
        if self._connection is None:
            self._connection = connect(self._host.encode("ascii"), self._port, self._seconds())
        self._connection.settimeout(self._seconds())
        head = (
            f"POST {self._target} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Type: application/x-ndjson\r\nWisp-Batch: {self._name}-{self._number}\r\n"
            f"Content-Length: {len(lines)}\r\n\r\n"
        )
        self._connection.sendall(head.encode("ascii") + lines)
        return self._read_answer(self._connection)

    def _read_answer(self, connection: socket.socket) -> tuple[int, str]:
        """Read an answer of known length.

        Raises:
            ValueError: It is none.
        """
        data = b""
        while b"\r\n\r\n" not in data:
            data += _some(connection)
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").lower().split("\r\n")
        fields = dict(line.split(":", 1) for line in lines)
        while len(body) < int(fields.get("content-length", "0")):
            body += _some(connection)
        if "close" in fields.get("connection", ""):
            self._drop_connection()
        return int(first.split(" ")[1]), body.decode("utf-8", "replace").strip()[:500]

    def _drop_connection(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _tell(self, reason: str, lost: int) -> None:
        """Have the front count what is lost, and say in its log that lines don't come through: once, since that is a line itself."""
        kind, text = reason[:40], ""
        if kind != self._trouble:
            text = f"The log stream at {self._host}:{self._port} does not take log lines: {reason}"
        if text or lost:
            with suppress(OSError):  # the front has ended
                self._source.send(f"{lost} {text}".encode()[:4000])
        self._trouble = kind

    def _seconds(self) -> float:
        """How long something may take."""
        return SECONDS if self._end is None else max(0.1, min(SECONDS, self._end - time.monotonic()))

    def _may_wait(self, seconds: float) -> bool:
        """Wait before the next attempt, unless the front ends; false when there is no more time."""
        if self._end is None and self._poller.poll(seconds * 1000):
            self._end = time.monotonic() + LAST_SECONDS
        elif self._end is not None:
            time.sleep(min(seconds, 0.2))
        return self._end is None or time.monotonic() < self._end


def _some(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise ConnectionResetError("the connection was closed")
    return data


def _read_url(url: str) -> tuple[str, int, str]:
    """Read host, port and path of ``http://host:port/path``; urllib would double this process's memory."""
    authority, _, path = url.removeprefix("http://").partition("/")
    host, _, port = authority.partition(":")
    return host, int(port or 80), f"/{path}"
