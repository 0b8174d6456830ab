"""Which events of a route go together in a request. Pure: the clock is the caller's.

A batch forms until it has `size` events or BATCH_BYTES, or its first event has waited `window_seconds`. Events of one key
stand in it in order, and in no other batch at that time. What failed is sent again together, not mixed with new events,
so that a poison event spoils no others.

Invariant: an event that the schedule gave out stands in the forming batch, in one that waits, or in one that was taken.
"""

import heapq
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Final

from wisp_api.route import Batch

from wisp_events.router.batch import groups
from wisp_events.router.schedule import Item, Schedule

BATCH_BYTES: Final = 6 * 1024 * 1024
"""As Lambda's, and what the runtime takes."""
EVENT_MARGIN: Final = 32
"""What an event in a batch may take beyond its encoded form: a comma and the counted hop."""


class Forming:
    """The batch that forms, and those that wait for their next attempt."""

    def __init__(self, schedule: Schedule, rule: Batch, length: Callable[[Item], int] | None = None) -> None:
        """Take events out of this schedule."""
        self._schedule = schedule
        self.rule = rule
        self.length = length
        """Bytes of an event where it does not go as the log has it."""
        self._items: list[Item] = []
        self._bytes = 0
        self._since = 0.0
        self._closed = False  # it is full, or its first event is one to bury
        self._later: list[tuple[float, int, list[Item]]] = []
        self._number = count()
        self._ready: deque[list[Item]] = deque()

    def take(self, now: float, *, hurry: bool) -> list[Item] | None:
        """A batch to send; `hurry`: without waiting for its window."""
        if self._ready:
            return self._ready.popleft()
        self._fill(now)
        if not self._items:
            return None
        waited = now >= self._since + self.rule.window_seconds
        if not (self._closed or waited or hurry or self._schedule.held_up):
            return None
        return self._close()

    def again(self, items: list[Item], due: float) -> None:
        """Attempts failed: the batch is ready again at `due`."""
        for item in items:
            item.due = due
        heapq.heappush(self._later, (due, next(self._number), items))

    def wake(self, now: float) -> None:
        """Make the waiting batches ready whose time has come."""
        while self._later and self._later[0][0] <= now:
            self._ready.append(heapq.heappop(self._later)[-1])

    def next_due(self, now: float) -> float | None:
        """When a waiting batch is due, or the forming one's window will be over."""
        later = [self._later[0][0]] if self._later else []
        over = self._since + self.rule.window_seconds
        return min(later + ([over] if self._items and over > now else []), default=None)

    @property
    def ready(self) -> bool:
        """Whether something could start now or soon."""
        return bool(self._ready or self._items)

    def dissolve(self, *, ordered: bool) -> None:
        """Give what forms and what is ready back to the schedule."""
        held = [*self._ready, *([self._close()] if self._items else [])]
        self._ready.clear()
        for items in reversed(held):
            for first, *later in reversed(groups(items, ordered=ordered)):
                self._schedule.part(first, later)
                self._schedule.put_back(first)

    def _fill(self, now: float) -> None:
        schedule = self._schedule
        while not self._closed:
            item = schedule.take()
            joined = item is None
            if item is None:
                item = schedule.join(now)
            if item is None:
                return
            size = (self.length(item) if self.length else len(item.raw)) + EVENT_MARGIN
            if self._items and (item.burial or self._bytes + size > BATCH_BYTES):
                self._closed = True
                (schedule.unjoin if joined else schedule.put_back)(item)
                return
            self._since = self._since if self._items else now
            self._items.append(item)
            self._bytes += size
            self._closed = len(self._items) >= self.rule.size or item.burial is not None
            if not self._closed:
                schedule.open(item)

    def _close(self) -> list[Item]:
        items, self._items = self._items, []
        self._bytes, self._closed = 0, False
        self._schedule.close()
        items.sort(key=lambda item: (item.sequence, item.index))
        return items
