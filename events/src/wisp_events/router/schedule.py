"""Which event may be attempted next. Pure: no clock, no I/O.

Invariant, where a route is ordered: of each key at most the earliest undone event is ready, in an attempt, or waiting for
its next one; the others stand behind it. An event without a key is a barrier for its lane (`delivery` gives all events of a
table, or of an object event's kind, one lane): it waits for all before it in the lane, and all after it wait for it.
Batches: several events of one key may be under way together, in one batch and nowhere else. While a batch forms its keys
are open: what stands behind in them may join. A key moves on when the last of its events in the batch is out.
Cost: constant per event; a retry costs a heap operation.
"""

import heapq
from collections import deque
from typing import TYPE_CHECKING, Final

import msgspec
from wisp_api import cloudevent
from wisp_api.cloudevent import Event

if TYPE_CHECKING:
    from wisp_events.router.request import Address
    from wisp_events.router.verdict import Outcome

_SINKS: Final = ("cluster", "public")
"""What `reach` says of targets that are no revision."""


class Item:
    """An event on its way, with what happened to it so far."""

    __slots__ = (
        "absent",
        "attempts",
        "burial",
        "due",
        "event",
        "first",
        "followed",
        "index",
        "key",
        "lane",
        "last",
        "raw",
        "sequence",
        "size",
        "stored",
        "to",
        "tries",
    )

    def __init__(  # noqa: PLR0917 - one call, on the hot path
        self, sequence: int, index: int, event: Event, raw: msgspec.Raw, stored: float, lane: str
    ) -> None:
        """The event at (sequence, index) of the log, stored there at this Unix time; `lane` is what barriers hold in."""
        self.sequence = sequence
        self.index = index
        self.event = event
        self.raw = raw
        """Its encoded form."""
        self.absent = False
        """Whether `event` and `raw` have no data: the log has it (see `contents`)."""
        self.size = len(raw)
        """Bytes that it holds while it waits."""
        self.stored = stored
        self.lane = lane
        self.key = event.partitionkey
        self.tries = 0
        self.attempts = 0
        self.first = 0.0
        self.due = 0.0
        self.followed = False
        """Whether a later event of its key is in the same batch."""
        self.last: Outcome | None = None
        """Of the last attempt in this session."""
        self.to: Address | None = None
        """Where that went."""
        self.burial: tuple[str, str] | None = None
        """Reason and message of the dead letter, where no attempt is due."""

    def forget(self) -> None:
        """Hold the attributes alone."""
        self.event = msgspec.structs.replace(self.event, data=None, data_base64=None)
        self.raw = msgspec.Raw(cloudevent.encode(self.event))
        self.absent = True

    def remember(self, raw: msgspec.Raw) -> None:
        """Hold all of it again, as the log has it."""
        trace = self.event.traceparent, self.event.tracestate
        self.event, self.raw, self.absent = cloudevent.decode(raw), raw, False
        self.event.traceparent, self.event.tracestate = trace

    @property
    def revision(self) -> str:
        """The Function's revision that the last attempt in this session went to, by whose name its host begins; empty for a sink's."""
        return self.to.host.partition(".")[0] if self.to and self.to.reach not in _SINKS else ""

    @property
    def place(self) -> str:
        """Its address in the stream, as the cursor names it."""
        return f"{self.sequence}.{self.index}"


class _Lane:
    __slots__ = ("barrier", "blocked", "open")

    def __init__(self) -> None:
        self.open = 0
        self.barrier = False
        self.blocked: deque[Item] = deque()

    def admits(self, item: Item) -> bool:
        return not self.barrier and not (item.key is None and self.open)


class Schedule:
    """The undone events of one route that have been read."""

    def __init__(self, *, ordered: bool) -> None:
        """`ordered`: one event at a time per key, in the order of `admit`."""
        self._ordered = ordered
        self._ready: deque[Item] = deque()
        self._passed: deque[Item] = deque()  # without content, over which smaller ones were taken
        self._later: list[tuple[float, int, int, Item]] = []
        self._keys: dict[str, deque[Item] | None] = {}
        self._lanes: dict[str, _Lane] = {}
        self._open: dict[str, Item] = {}  # keys of the batch that forms -> their last event in it
        self._joining: deque[str] = deque()  # open keys with events behind
        self.size = 0
        """Events admitted and not out."""

    @property
    def ready(self) -> int:
        """Events that could start now."""
        return len(self._ready) + len(self._passed)

    @property
    def passed(self) -> int:
        """Of these, events that were not taken because they are large."""
        return len(self._passed)

    @property
    def next_due(self) -> float | None:
        """When the first waiting event is due."""
        return self._later[0][0] if self._later else None

    def admit(self, item: Item) -> None:
        """Take an event, in the order of the log; one with a `due` time waits for it when its turn comes."""
        self.size += 1
        if not self._ordered:
            self._release(item)
            return
        lane = self._lanes.get(item.lane)
        if lane is None:
            lane = self._lanes[item.lane] = _Lane()
        if lane.blocked or not lane.admits(item):
            lane.blocked.append(item)
        else:
            self._enter(lane, item)

    def take(self, *, large: bool = True) -> Item | None:
        """The next event to attempt, without `large` the next that has its content; follow with `again` or `out`."""
        if large and self._passed:
            return self._passed.popleft()
        while self._ready:
            item = self._ready.popleft()
            if large or not item.absent:
                return item
            self._passed.append(item)
        return None

    def put_back(self, item: Item) -> None:
        """Undo `take`."""
        self._ready.appendleft(item)

    @property
    def held_up(self) -> bool:
        """Whether an event waits for all before it in its lane, or all after it wait for one."""
        return any(lane.blocked for lane in self._lanes.values())

    def open(self, item: Item) -> None:
        """An event joined the batch that forms: those behind it may, too, until `close`."""
        if not self._ordered or item.key is None:
            return
        self._open[item.key] = item
        if self._keys[item.key]:
            self._joining.append(item.key)

    def join(self, now: float) -> Item | None:
        """The next event behind one in the batch that forms, of each key in turn; follow with `open` or `unjoin`."""
        while self._joining:
            key = self._joining.popleft()
            behind = self._keys[key]
            if behind and not behind[0].burial and behind[0].due <= now:
                item = behind.popleft()
                self._open[key].followed = True
                return item
        return None

    def unjoin(self, item: Item) -> None:
        """Undo `join`, before anything else joined."""
        if item.key is not None:
            self._open[item.key].followed = False
            self._behind(item.key).appendleft(item)

    def close(self) -> None:
        """The batch is formed."""
        self._open.clear()
        self._joining.clear()

    def part(self, last: Item, later: list[Item]) -> None:
        """This event is the last of its key in its batch; later ones that were in it stand behind again."""
        last.followed = False
        for item in reversed(later):
            item.followed = False
            self._behind(item.key or "").appendleft(item)

    def again(self, item: Item, due: float) -> None:
        """An attempt failed: the event is ready again at `due`."""
        item.due = due
        heapq.heappush(self._later, (due, item.sequence, item.index, item))

    def wake(self, now: float) -> None:
        """Make the waiting events ready whose time has come."""
        while self._later and self._later[0][0] <= now:
            self._ready.append(heapq.heappop(self._later)[-1])

    def out(self, item: Item) -> None:
        """An event is done: what stood behind it moves up."""
        self.size -= 1
        if not self._ordered:
            return
        lane = self._lanes[item.lane]
        lane.open -= 1
        if item.key is None:
            lane.barrier = False
        elif not item.followed:
            behind = self._keys[item.key]
            if behind:
                self._release(behind.popleft())
            else:
                del self._keys[item.key]
        while lane.blocked and lane.admits(lane.blocked[0]):
            self._enter(lane, lane.blocked.popleft())
        if not lane.open:
            del self._lanes[item.lane]

    def _enter(self, lane: _Lane, item: Item) -> None:
        lane.open += 1
        key = item.key
        if key is None:
            lane.barrier = True
            self._release(item)
        elif key not in self._keys:
            self._keys[key] = None
            self._release(item)
        else:
            behind = self._behind(key)
            if not behind and key in self._open:
                self._joining.append(key)
            behind.append(item)

    def _behind(self, key: str) -> deque[Item]:
        behind = self._keys[key]
        if behind is None:
            behind = self._keys[key] = deque()
        return behind

    def _release(self, item: Item) -> None:
        if item.due:
            self.again(item, item.due)
        else:
            self._ready.append(item)
