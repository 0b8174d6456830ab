"""How far a route has come: which events of the log are done, and what is remembered of those that fail.

Everything up to `floor` is done. Between `floor` and `head` everything is done but the frames in `parked` ranges and the
undone events of `partial` frames. Beyond `head` nothing is known, so nothing is done.

Invariant: a stored cursor never says done of an event that is not, and forgets no done event, even where it is written
while a restarted replica has not read up to the old head again.
Size: bounded by the window (`delivery`), some 100 KB at worst, some 100 bytes when nothing fails.
"""

import bisect
from collections.abc import Iterator

import msgspec
from wisp_api.cloudevent import OptionalRaw
from wisp_api.route import ReplayReport


class Trouble(msgspec.Struct, rename="camel", omit_defaults=True):
    """What is remembered of an event whose attempts failed."""

    tries: int = 0
    """Attempts of any outcome."""
    attempts: int = 0
    """Those that count against maxAttempts."""
    first: float = 0
    """Unix time of the first attempt."""
    due: float = 0
    """Unix time before which the next one does not start."""


class Tumbling(msgspec.Struct, rename="camel", omit_defaults=True, kw_only=True):
    """The window of one shard that is open, or the last one that was."""

    start: int
    """Unix time."""
    end: int
    state: OptionalRaw = None
    """What the function made of the events that are done; absent: the window is over, and nothing is to be said of it."""
    ending: Trouble = msgspec.field(default_factory=Trouble)
    """Of its last call."""


class Cursor(msgspec.Struct, rename="camel", omit_defaults=True, kw_only=True):
    """The stored form. Key: `<namespace>.<subscription uid>` in KV_CURSORS."""

    floor: int
    started: float
    """Unix time of the first cursor; no event's age counts from before."""
    head: int = 0
    parked: list[tuple[int, int]] = []
    """Ranges of stream sequences, ends included, whose frames are wholly undone."""
    partial: dict[str, str] = {}
    """Stream sequence -> bits of done events, in hexadecimal."""
    troubles: dict[str, Trouble] = {}
    """`sequence.index` of a failing event -> what is remembered."""
    delivered: int = 0
    failed: int = 0
    dead_lettered: int = 0
    last_delivery: float = 0
    """Unix time."""
    owner: str = ""
    """The replica that serves the route; empty: released."""
    session: str = ""
    """The owner's process: a restarted replica is another session under the same name."""
    replay: ReplayReport | None = None
    """The last order to move back that was carried out or refused."""
    windows: dict[str, Tumbling] = {}
    """Shard -> its window: in the same record as what is done, so that an event is in a state exactly if it is done."""

    def rewind(self, position: int, now: float) -> bool:
        """Forget what is done after a stream sequence; False where nothing was. Never forward: what is undone stays so.

        Ages count from now on, or what comes again would be too old at once.
        """
        if position >= max(self.floor, self.head):
            return False
        self.started = now
        if position < self.floor:
            self.floor, self.head, self.parked, self.partial, self.troubles = position, 0, [], {}, {}
            return True
        self.head = position
        self.parked = [(first, min(last, position)) for first, last in self.parked if first <= position]
        self.partial = {place: bits for place, bits in self.partial.items() if int(place) <= position}
        self.troubles = {
            place: kept for place, kept in self.troubles.items() if int(place.partition(".")[0]) <= position
        }
        return True

    def done(self, sequence: int, size: int) -> int:
        """Bits of the done events of a frame of `size` events."""
        if sequence > max(self.floor, self.head):
            return 0
        full = (1 << size) - 1
        if sequence <= self.floor:
            return full
        if bits := self.partial.get(str(sequence)):
            return int(bits, 16) & full
        place = bisect.bisect_right(self.parked, (sequence, 1 << 63)) - 1
        return 0 if place >= 0 and sequence <= self.parked[place][1] else full


class _Frame:
    __slots__ = ("done", "full", "ordinal", "stored")

    def __init__(self, ordinal: int, done: int, full: int, stored: float) -> None:
        self.ordinal = ordinal
        self.done = done
        self.full = full
        self.stored = stored


class Window:
    """The undone events between floor and read position, in memory."""

    def __init__(self, cursor: Cursor) -> None:
        """Continue from a stored cursor."""
        self._old = cursor
        self._frames: dict[int, _Frame] = {}  # undone ones, in the order of the log
        self._ordinal = 0
        self.read = cursor.floor
        """Every matching frame up to here has been seen."""

    def open(self, sequence: int, size: int, stored: float) -> int:
        """Note a frame read from the log, in order, stored at this Unix time; returns the bits of its events that are done already."""
        self.read = sequence
        self._ordinal += 1
        done = self._old.done(sequence, size)
        full = (1 << size) - 1
        if done != full:
            self._frames[sequence] = _Frame(self._ordinal, done, full, stored)
        return done

    def mark(self, sequence: int, index: int) -> None:
        """Note that an event is done."""
        frame = self._frames[sequence]
        frame.done |= 1 << index
        if frame.done == frame.full:
            del self._frames[sequence]

    def skip_to(self, sequence: int) -> None:
        """Note that up to here the log holds no further frame for this route."""
        if sequence > self.read:
            self.read = sequence
            self._ordinal += 1

    def trouble(self, sequence: int, index: int) -> Trouble | None:
        """What an earlier session remembered of an event."""
        return self._old.troubles.get(f"{sequence}.{index}")

    @property
    def floor(self) -> int:
        """Everything up to here is done."""
        return next(iter(self._frames)) - 1 if self._frames else self.read

    @property
    def oldest(self) -> float:
        """Unix time at which the oldest undone frame was stored; 0 without any."""
        return next(iter(self._frames.values())).stored if self._frames else 0.0

    def store(self, into: Cursor, troubles: dict[str, Trouble]) -> None:
        """Write the positions into a cursor, with what is remembered of events read in this session."""
        old = self._old
        into.floor = self.floor
        into.head = max(self.read, old.head)
        into.parked = list(self._ranges())
        into.partial = {str(sequence): f"{frame.done:x}" for sequence, frame in self._frames.items() if frame.done}
        into.troubles = dict(troubles)
        if self.read < old.head:
            into.parked += [(max(first, self.read + 1), last) for first, last in old.parked if last > self.read]
            into.partial |= {sequence: bits for sequence, bits in old.partial.items() if int(sequence) > self.read}
            late = {place: kept for place, kept in old.troubles.items() if int(place.partition(".")[0]) > self.read}
            into.troubles |= late

    def _ranges(self) -> Iterator[tuple[int, int]]:
        """Runs of wholly undone frames with no other frame of this route between them."""
        first = last = ordinal = 0
        for sequence, frame in self._frames.items():
            if frame.done:
                continue
            if first and frame.ordinal == ordinal + 1:
                last = sequence
            else:
                if first:
                    yield first, last
                first = last = sequence
            ordinal = frame.ordinal
        if first:
            yield first, last
