"""What of one shard of a route with windows may be sent next. Pure: the clock is the caller's.

Invariant: the schedule gives out of each shard one event, the first undone one. It stands in `head` until it is sent with those
behind it, which are in order and of one window.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from wisp_api.route import Batch

from wisp_events.router.cursor import Tumbling
from wisp_events.router.forming import BATCH_BYTES, EVENT_MARGIN
from wisp_events.router.schedule import Item, Schedule
from wisp_events.router.windows import TYPE

ENVELOPE_BYTES: Final = 1024
"""What a call has besides events and state, at most."""


@dataclass(slots=True)
class Shard:
    """One shard: what has its key's number."""

    name: str
    undone: int = 0
    head: Item | None = None
    """The first of the undone events, when nothing of the shard is under way."""
    since: float = 0
    """When it was found there."""
    busy: bool = False
    due: float = 0
    """Unix time before which nothing is sent, after a failure."""
    most: int = 0
    """Events of the next batch, where one that failed comes again, whole or in parts; 0: as the rule says."""
    until: tuple[int, int] = (0, 0)
    """Its last event."""
    early: bool = False
    """Its window has to end now: the state would become too large."""

    def over(self, window: Tumbling | None, seen: float) -> bool:
        """Whether the open window has to end: nothing more can belong to it, `seen` being the time up to which all was read."""
        if window is None or window.state is None:
            return False
        if self.early:
            return True
        if self.head:
            return self.head.stored >= window.end
        return not self.undone and seen >= window.end

    def gathered(self, rule: Batch, end: int, seen: float, now: float) -> bool:
        """Whether the next batch need not wait for more events of the window that ends then."""
        waited = now >= self.since + rule.window_seconds or self.most > 0
        return waited or self.undone >= rule.size or seen >= end

    def gather(  # noqa: PLR0917 - one call
        self, schedule: Schedule, head: Item, window: Tumbling, size: int, now: float, length: Callable[[Item], int]
    ) -> list[Item]:
        """The events that go together, from the first undone one on."""
        if self.until < (head.sequence, head.index):
            self.most = 0
        self.head = None
        items, room = [head], BATCH_BYTES - ENVELOPE_BYTES - length(head) - len(window.state or b"")
        schedule.open(head)
        while len(items) < (self.most or size) and (item := schedule.join(now)):
            room -= length(item) + EVENT_MARGIN
            beyond = self.most and (item.sequence, item.index) > self.until
            if room < 0 or item.burial or beyond or item.stored >= window.end or item.event.type == TYPE:
                schedule.unjoin(item)
                break
            items.append(item)
            schedule.open(item)
        schedule.close()
        return items

    def put_back(self, schedule: Schedule, items: list[Item]) -> None:
        """These events, which were sent, are the first undone ones again."""
        first, *later = items
        schedule.part(first, later)
        self.head, self.since = first, 0

    def repeat(self, items: list[Item], *, split: bool) -> None:
        """What is sent next are these events and no others, or their first half."""
        self.most = max(1, len(items) // 2) if split else len(items)
        self.until = (items[-1].sequence, items[-1].index)
