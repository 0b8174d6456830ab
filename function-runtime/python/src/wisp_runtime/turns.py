"""A worker's invocations, one after the other; the front may send the next while one runs.

Invariant: an invocation begins when the one before is answered, and its time with it. What has been logged by then the
front reads before it hears of anything that belongs to the next: where the pipe isn't empty we wait for its GO.
"""

from __future__ import annotations

import os
from time import monotonic_ns, time

from wisp_runtime import logs
from wisp_runtime.frames import END, ERROR, GO, INVOKE, READY, RESULT, STOP
from wisp_runtime.unread import is_unread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wisp_runtime.frames import Channel, Frame
    from wisp_runtime.invocation import Handler

AHEAD = 8


class Turns:
    """The invocations of a worker that runs one at a time."""

    def __init__(self, channel: Channel, handler: Handler) -> None:
        """Run what comes through a channel."""
        self._channel = channel
        self._handler = handler
        self._process = os.getpid()
        self._timeout_ms = handler.settings.timeout * 1000
        self._number = self._begun = 0
        self._waits = False  # for the front to have read the log

    def serve(self) -> None:
        """Run them until the front has had enough.

        Raises:
            OSError: The front has gone.
        """
        channel = self._channel
        head = {
            "signature": self._handler.signature,
            "concurrency": 1,
            "ahead": AHEAD,
            "pid": self._process,
            "spare": True,
        }
        channel.send(READY, 0, head)
        waiting: list[Frame] = []
        stopping = False
        while not (stopping and not waiting) and (frame := channel.receive()) is not None:
            kind, number, head, _ = frame
            stopping = stopping or kind == STOP
            if (
                kind == GO and number == self._number
            ) or "deadline" in head:  # given when nothing ran: the front has read all
                self._waits = False
            if kind == INVOKE:
                waiting.append(frame)
            while waiting and not self._waits:
                self._run(*waiting.pop(0)[1:])

    def _run(self, number: int, head: dict[str, Any], body: bytes) -> None:
        self._number = number
        self._begun = monotonic_ns()
        if "deadline" not in head:
            head["deadline"] = int(time() * 1000 + self._timeout_ms)
        self._handler.run(head, body, self._send)

    def _send(self, kind: int, head: dict[str, Any], body: bytes) -> None:
        if os.getpid() != self._process:  # the handler forked, and the child came back here
            os._exit(0)
        if kind in (RESULT, ERROR, END):
            head["took"] = max(1, (monotonic_ns() - self._begun) // 1000)
            if kind == END or is_unread(logs.output()):  # of a stream the front may still have parts to read
                head["waits"] = self._waits = True
        self._channel.send(kind, self._number, head, body)
