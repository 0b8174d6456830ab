"""Answers that wait to be sent with the others of their round, where the process's end leaves them.

Who is answered one at a time is woken for each, which is a sixth of what an event costs; who gets all that a round has
answered at its end is woken once. Invariant: each answer is sent once: by the worker at the end of the round; by the front
where the worker has ended, or is at an event that takes longer than ``HELD_SECONDS``. That one takes hold of them first, and
looks whether the event still runs; the worker sends none before it has let go. Who has sent one takes it off the board.
"""

from __future__ import annotations

import os
import time
from _socket import SHUT_RDWR

from wisp_runtime.board import ANSWERED, BROKEN, CLEAN
from wisp_runtime.lean import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wisp_runtime.board import Answers, Board
    from wisp_runtime.lending import Lent
    from wisp_runtime.lent_connection import LentConnection
    from wisp_runtime.loop import Loop

HELD_SECONDS = 0.05
QUICK_SECONDS = 0.0005  # an event that is shorter is likely to be followed by one that is
PUT_OFF_SECONDS = 0.001  # at most, but for the event that begins then
MOST_SIZE = 4096  # bytes; a longer answer is worth a call of its own
_HOLD_SECONDS = 60.0  # within which the front has let go, unless it has gone
_PAUSE = 0.0002


class Round:
    """What the worker has answered in this round and not sent."""

    def __init__(self, answers: Answers, loop: Loop) -> None:
        """Have nothing."""
        self._answers = answers
        self._loop = loop
        self._unsent: list[tuple[LentConnection, bytes]] = []
        self._oldest = 0.0
        self.quick = False

    def put_off(self, connection: LentConnection, data: bytes) -> bool:
        """Take an answer, if the others of its round are likely to come at once."""
        if not self.quick or len(data) > MOST_SIZE or not self._answers.add(connection.slot, data):
            return False
        if not self._unsent:
            self._oldest = time.monotonic()
        self._unsent.append((connection, data))
        return True

    def begin(self, now: float) -> None:
        """Send all, where an event begins and they have waited long enough."""
        if self._unsent and now - self._oldest > PUT_OFF_SECONDS:
            self.send()

    def send(self) -> None:
        """Send all."""
        if not self._unsent:
            return
        until = time.monotonic() + _HOLD_SECONDS
        while self._answers.held and time.monotonic() < until:
            time.sleep(_PAUSE)
        for connection, data in self._unsent:
            self._loop.guard(connection.send, data)
        self._unsent.clear()
        self._answers.clear()


class Left:
    """The same to the front, which sends what the worker can't."""

    def __init__(self, board: Board, lent: dict[int, Lent], loop: Loop) -> None:
        """Know which connections are lent, by their places."""
        self._board = board
        self._lent = lent
        self._loop = loop
        self._watching = False

    def watch(self) -> None:
        """Look now and then, as long as events come."""
        if not self._watching:
            self._watching = True
            self._loop.after(HELD_SECONDS, self._look)

    def failed(self, error: Exception) -> None:
        """Look again after what is due, when a fault of ours has broken off looking."""
        del error
        self._board.answers.held = False
        self._loop.after(HELD_SECONDS, self._look)

    def _look(self) -> None:
        board = self._board
        begun, number = board.begun, board.number
        if 0.0 < begun < time.monotonic() - HELD_SECONDS:
            board.answers.held = True
            os.getpid()  # a call of the system's, lest the next look is older than what was just written
            if (board.begun, board.number) == (begun, number):
                self.send()
            board.answers.held = False
        self._watching = board.watched or board.begun > 0
        if self._watching:
            self._loop.after(HELD_SECONDS, self._look)

    def send(self) -> set[int]:
        """Send all; return whose. One that isn't taken whole is broken off."""
        slots, done = self._board.slots, set()
        for slot, data in self._board.answers:
            lent = self._lent.get(slot)
            if lent is None or slots[slot] != ANSWERED:
                continue
            done.add(slot)
            try:
                whole = lent.sock.send(data) == len(data)
            except OSError:  # the caller has gone, or reads nothing
                whole = False
            slots[slot] = CLEAN if whole else BROKEN
            if not whole:
                with suppress(OSError):
                    lent.sock.shutdown(SHUT_RDWR)
        return done
