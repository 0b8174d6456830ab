"""A connection that the front has lent, in the worker that serves it.

Invariant: its place on the board says more than nothing from before it is read until all that was read is answered, so
that the front never hands it on where bytes of a request are lost with this process. An answer that isn't sent at once
stands on the board, and nothing of its connection is read before it is sent.
"""

from __future__ import annotations

from wisp_runtime.board import ANSWERED, BROKEN, CLEAN, HALF, UNANSWERED
from wisp_runtime.connection import Connection
from wisp_runtime.frames import BACK
from wisp_runtime.http1 import date
from wisp_runtime.loop import WRITE
from wisp_runtime.request_reader import RequestReader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from typing import Any

    from wisp_runtime.http1 import Reply
    from wisp_runtime.in_place import Serving


class LentConnection(Connection):
    """A connection that the front has lent."""

    __slots__ = ("_serving", "_slots", "slot")

    def __init__(self, serving: Serving, sock: socket, peer: str, slot: int) -> None:
        """Serve it from now on."""
        self._serving = serving
        self._slots = serving.board.slots
        self.slot = slot
        front = serving.front
        super().__init__(front, sock, RequestReader(peer, serving.settings.max_body, front.budget))

    def _read(self) -> None:
        self._slots[self.slot] = UNANSWERED
        super()._read()

    def _wait_for_more(self) -> None:
        if self._slots[self.slot] != ANSWERED:
            self._slots[self.slot] = HALF if self.reader.partial else CLEAN
        super()._wait_for_more()

    def _watch(self, mask: int) -> None:
        if mask == WRITE:
            self._slots[self.slot] = BROKEN
        super()._watch(mask)

    def answer(self, reply: Reply) -> None:
        """Answer the request that runs."""
        self._slots[self.slot] = BROKEN
        super().answer(reply)

    def answer_value(self, marks: str, body: bytes) -> None:
        """Answer with a JSON value, now or with the others of this round."""
        request, self.request, self.call = self.request, None, None
        if request is None:  # the caller has gone
            return
        reader = self.reader
        reader.release(request.held)
        head = (
            f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{marks}{date()}content-length: {len(body)}\r\n\r\n"
        )
        data = head.encode("latin-1", "replace") + body
        if reader.empty and not self._eof and self._serving.round.put_off(self, data):
            self._slots[self.slot] = ANSWERED
        else:
            self._slots[self.slot] = BROKEN
            self._write(data)

    def send(self, data: bytes) -> None:
        """Send an answer that was put off, unless the front has."""
        if self.closed or self._slots[self.slot] != ANSWERED:
            return
        self._slots[self.slot] = BROKEN
        self._write(data)
        if not self.out:
            self._slots[self.slot] = CLEAN

    def start(self, reply: Any) -> None:
        """Begin a streamed reply."""
        self._slots[self.slot] = BROKEN
        super().start(reply)

    def close(self) -> None:
        """End it, and let the front know."""
        if not self.closed:
            super().close()
            self._serving.tell(BACK, self.slot)
