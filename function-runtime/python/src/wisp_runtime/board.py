"""What the front and the worker that serves its callers both see: memory that outlives the worker.

Invariant: wherever the worker dies, the board tells the front whose event ran, which connections have something that is
not answered, and which answers are not sent and log lines not written. The worker alone writes to it, and the front once
that has ended; both count, and both may take ``watched`` back.
"""

from __future__ import annotations

from _struct import Struct
from mmap import mmap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from wisp_runtime.calls import Call

SLOTS = 2048  # connections that can be lent at once, those included that are on their way back
# A connection: nothing was read of it; something was; an answer is half written; it stands on the board; half a request was read.
CLEAN, UNANSWERED, BROKEN, ANSWERED, HALF = 0, 1, 2, 3, 4
_MOST_TEXT = 4096  # of what an invocation is called: its trace, then its id, which may be any text
_NUMBERS, _SLOTS_AT, _TEXT_AT = 80, 512, 512 + SLOTS
_LINES_AT = _TEXT_AT + _MOST_TEXT
_LINES_SIZE = 256 * 1024
_ANSWERS_AT = _LINES_AT + _LINES_SIZE
_ANSWERS_SIZE = 64 * 1024
_ENTRY = Struct("=II")  # whose connection's answer, and its size


class Running:
    """The invocation that the worker runs, as the front sees it.

    Attributes:
        number: Which one it is since the start.
        slot: Whose connection it came through.
        begun: When, on the monotonic clock.
        id: Its id, cut if it is endless.
        trace: Its ``traceparent``.
        xray: The same for AWS's X-Ray.
    """

    def __init__(self, number: int, slot: int, begun: float, text: str) -> None:
        """Take what stands on the board."""
        self.number = number
        self.slot = slot
        self.begun = begun
        self.trace, self.xray, self.id = (*text.split("\0", 2), "", "")[:3]  # cut, where it died at writing this

    def keep(self, line: bytes) -> None:
        """Leave the log's tail to the worker."""


class Board:
    """The shared memory.

    Attributes:
        slots: A state for each connection that is lent.
        counts: Room for the figures of ``metrics.Counts``.
        seconds: The same, for the sum of durations.
        lines: The log lines that are not written yet.
        answers: The answers that are not sent yet.
        out: Where the worker writes its lines to.
    """

    def __init__(self) -> None:
        """Share it with all processes that are forked from now on."""
        self._memory = mmap(-1, _ANSWERS_AT + _ANSWERS_SIZE)
        view = memoryview(self._memory)
        self._begun: Any = view[0:8].cast("d")
        self._about: Any = view[8:48].cast("Q")  # number, slot, size of its text, whether it is watched, most MiB
        self.seconds: Any = view[48:56].cast("d")
        self._used: Any = view[56:64].cast("Q")
        self.counts: Any = view[_NUMBERS:_SLOTS_AT].cast("Q")
        self.slots: Any = view[_SLOTS_AT:_TEXT_AT]
        self.out = 1
        self.lines = Lines(self._memory, self._used)
        self.answers = Answers(view[_ANSWERS_AT:], view[64:80].cast("Q"))

    # The worker's.

    def begin(self, slot: int, call: Call) -> bool:
        """Say which invocation runs from now on; false if the front doesn't look after it."""
        about = self._about
        text = f"{call.trace}\0{call.xray}\0{call.id}".encode("utf-8", "replace")
        size = len(text)
        if size > _MOST_TEXT:
            text = text[:_MOST_TEXT]
            size = _MOST_TEXT
        self._memory[_TEXT_AT : _TEXT_AT + size] = text
        about[0] += 1
        about[1] = slot
        about[2] = size
        self._begun[0] = call.begun
        return bool(about[3])

    def end(self) -> None:
        """Say that none runs."""
        self._begun[0] = 0.0

    # The front's.

    @property
    def begun(self) -> float:
        """When what runs has begun; 0 where nothing runs."""
        return self._begun[0]  # type: ignore[no-any-return]

    @property
    def number(self) -> int:
        """How many invocations have begun."""
        return self._about[0]  # type: ignore[no-any-return]

    @property
    def watched(self) -> bool:
        """Whether the front looks after what runs; else the worker tells it when something does."""
        return self._about[3] == 1  # type: ignore[no-any-return]

    @watched.setter
    def watched(self, value: bool) -> None:
        self._about[3] = int(value)

    @property
    def peak(self) -> int:
        """The most MiB that the worker was seen to have."""
        return self._about[4]  # type: ignore[no-any-return]

    @peak.setter
    def peak(self, value: int) -> None:
        self._about[4] = value

    def running(self) -> Running | None:
        """Return what runs."""
        begun = self._begun[0]
        if not begun:
            return None
        number, slot, size, _, _ = self._about
        text = self._memory[_TEXT_AT : _TEXT_AT + size].decode("utf-8", "replace")
        return Running(number, slot, begun, text)


class Lines:
    """Log lines that wait to be written, as ``journal`` keeps them, but where they outlive the process."""

    def __init__(self, memory: mmap, used: Any) -> None:
        """Have none."""
        self._memory = memory
        self._used = used
        self._beyond: list[bytes] = []
        self.on_full: Callable[[], None] | None = None

    def __bool__(self) -> bool:
        """Whether there are any."""
        return self._used[0] > 0 or bool(self._beyond)

    def __iter__(self) -> Iterator[bytes]:
        """Give all of them."""
        yield bytes(self._memory[_LINES_AT : _LINES_AT + self._used[0]])
        yield from self._beyond

    def append(self, data: bytes) -> None:
        """Add one, having those before written where there is no room."""
        used = self._used
        begin: int = _LINES_AT + used[0]
        end = begin + len(data)
        if end > _LINES_AT + _LINES_SIZE:
            self._make_room(data)
            return
        self._memory[begin:end] = data
        used[0] = end - _LINES_AT

    def _make_room(self, data: bytes) -> None:
        if self._used[0] and self.on_full is not None:
            self.on_full()
        if len(data) <= _LINES_SIZE - self._used[0]:
            self.append(data)
        else:
            self._beyond.append(data)

    def clear(self) -> None:
        """Have none any more."""
        self._used[0] = 0
        self._beyond.clear()


class Answers:
    """Answers that wait to be sent: what ``answers`` says of them, both see."""

    def __init__(self, memory: memoryview, state: Any) -> None:
        """Have none."""
        self._memory = memory
        self._state = state  # bytes used; whether the front holds them

    @property
    def held(self) -> bool:
        """Whether the front is about to send them."""
        return bool(self._state[1])

    @held.setter
    def held(self, value: bool) -> None:
        self._state[1] = int(value)

    def add(self, slot: int, data: bytes) -> bool:
        """Add one; false where there is no room for it."""
        begin: int = self._state[0]
        middle = begin + _ENTRY.size
        end = middle + len(data)
        if end > _ANSWERS_SIZE:
            return False
        _ENTRY.pack_into(self._memory, begin, slot, len(data))
        self._memory[middle:end] = data
        self._state[0] = end
        return True

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """Give all of them, each with the place of its connection."""
        at, end = 0, self._state[0]
        while at < end:
            slot, size = _ENTRY.unpack_from(self._memory, at)
            at += _ENTRY.size + size
            yield slot, bytes(self._memory[at - size : at])

    def clear(self) -> None:
        """Have none any more."""
        self._state[0] = 0
