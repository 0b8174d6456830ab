"""A queue of keys to reconcile: each key at most once in it, and never worked on twice at the same time.

Invariant: a key that is added while it is being worked on is worked on again afterwards, so that no change is missed; a key
whose work raised comes again, 1 s later at first, at most 60 s. Of the keys that are due each owner has one worked on in turn: who has a thousand,
or such that take long, holds another's up no longer than the work that is under way takes.
"""

import asyncio
import contextlib
import heapq
import itertools
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from typing import Final, Generic, TypeVar

import prometheus_client

_BACKOFF_LIMIT: Final = 60.0
_runs = prometheus_client.Counter("wisp_operator_reconciles", "Reconciliations", ["queue", "outcome"])
_seconds = prometheus_client.Histogram("wisp_operator_reconcile_seconds", "Duration of a reconciliation", ["queue"])
_log = logging.getLogger(__name__)

Key = TypeVar("Key")


class WorkQueue(Generic[Key]):
    """Keys that wait for `work`, which is called with one and says by returning a number of seconds that it wants it again."""

    def __init__(
        self, name: str, work: Callable[[Key], Awaitable[float | None]], owner: Callable[[Key], Hashable] | None = None
    ) -> None:
        """`name` stands in metrics and logs; `owner` tells who shares a turn, without it each key has its own."""
        self._name = name
        self._work = work
        self._owner = owner
        self._due: dict[Key, float] = {}
        self._heap: list[tuple[float, int, Key]] = []
        """What is to come, the earliest first; an entry whose time is not in `_due` any more is skipped."""
        self._ready: dict[Hashable, deque[Key]] = {}
        """What is due, by owner, whose turn it is first."""
        self._count = itertools.count()
        self._held: set[Key] = set()
        """Due again while they are worked on."""
        self._running: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._changed = asyncio.Event()

    def add(self, key: Key, after: float = 0) -> None:
        """Want the key worked on, `after` seconds from now at the latest."""
        due = time.monotonic() + after
        if due < self._due.get(key, float("inf")):
            self._push(key, due)
            self._changed.set()

    async def run(self, workers: int) -> None:
        """Work until cancelled, on `workers` keys at once at most."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._changed.clear()
                now = time.monotonic()
                while len(self._running) < workers and (key := self._next(now)) is not None:
                    self._running.add(key)
                    tasks.create_task(self._one(key))
                full = len(self._running) >= workers or not self._heap
                with contextlib.suppress(TimeoutError):  # not wait_for: Python 3.11's takes a cancellation for a change
                    async with asyncio.timeout(_BACKOFF_LIMIT if full else self._heap[0][0] - now):
                        await self._changed.wait()

    def _sort(self, now: float) -> None:
        """Give the keys that are due to their owners."""
        while self._heap and self._heap[0][0] <= now:
            due, _, key = heapq.heappop(self._heap)
            if self._due.get(key) != due:
                continue
            if key in self._running:
                self._held.add(key)
            else:
                self._ready.setdefault(self._owner(key) if self._owner else key, deque()).append(key)

    def _push(self, key: Key, due: float) -> None:
        self._due[key] = due
        heapq.heappush(self._heap, (due, next(self._count), key))

    def _next(self, now: float) -> Key | None:
        """Take the earliest key that is due and not being worked on, of the owner whose turn it is; None where there is none."""
        self._sort(now)
        if not self._ready:
            return None
        owner = next(iter(self._ready))
        keys = self._ready.pop(owner)
        key = keys.popleft()
        if keys:
            self._ready[owner] = keys  # behind the others
        del self._due[key]
        return key

    async def _one(self, key: Key) -> None:
        started = time.monotonic()
        try:
            again = await self._work(key)
        except Exception as error:  # noqa: BLE001 - whatever it is, this key is tried again and the others go on
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            delay = min(2.0 ** (failures - 1), _BACKOFF_LIMIT)
            _log.warning("%s %s: %s; again in %s s", self._name, key, error, delay, exc_info=_unexpected(error))
            _runs.labels(self._name, "failed").inc()
            self.add(key, delay)
        else:
            self._failures.pop(key, None)
            _runs.labels(self._name, "done").inc()
            if again is not None:
                self.add(key, again)
        finally:
            _seconds.labels(self._name).observe(time.monotonic() - started)
            self._running.discard(key)
            if key in self._held:
                self._held.discard(key)
                self._push(key, self._due[key])
            self._changed.set()


def _unexpected(error: Exception) -> bool:
    """Whether a traceback helps: errors of the network and of the other side speak for themselves."""
    return not isinstance(error, OSError | TimeoutError) and type(error).__module__.split(".")[0] not in {
        "nats",
        "wisp_operator",
        "aiohttp",
    }
