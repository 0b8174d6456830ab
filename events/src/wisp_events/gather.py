"""Many writers' events into one stream: what comes while a frame is on its way is the next frame.

One event at a time would cost a disk's fsync each; here the ones of concurrent requests share it (group commit, as `log.FrameWriter`
does for readers), and a lone one waits for nobody.

Invariants:
- `append` returns when the log has all its events; an event is acknowledged only by the server's own answer.
- Events with one partition key stand in the stream in the order in which they were given: they share a queue, and no later one
  overtakes. Where one can't be stored, those that wait behind it with its key are not either: it will come after them.
- The same event (by `same`) given again within REMEMBERED_SECONDS is stored once: a frame is sent again under its own message id until
  the server answers, and what was stored lately is remembered. After a failure, or by another process, it may be there twice, with one id.
"""

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import nats.errors
from nats.js import JetStreamContext
from nats.js.api import Header
from wisp_api import cloudevent
from wisp_api.cloudevent import FRAME_BYTES, FRAME_EVENTS

from wisp_events import log

PATIENCE_SECONDS: Final = 6.0
"""How long a frame is sent again before those who wait for it are told."""
REMEMBERED_SECONDS: Final = 120.0
REMEMBERED: Final = 50_000
_SCANNED: Final = 4 * FRAME_EVENTS


@dataclass(slots=True)
class Entry:
    """One event to store."""

    subject: str
    lane: int
    """Events of one lane are written one frame after the other."""
    key: str | None
    """Its partition key."""
    same: str
    """A fingerprint: equal for the same event given again."""
    encoded: bytes


_Waiting = tuple[Entry, "asyncio.Future[None]"]


class Gatherer:
    """Stores events of concurrent callers."""

    def __init__(self, js: JetStreamContext, patience: float = PATIENCE_SECONDS) -> None:
        """Nothing waits yet."""
        self._js = js
        self._patience = patience
        self._queues: dict[tuple[str, int], deque[_Waiting]] = {}
        self._pumps: set[asyncio.Task[None]] = set()
        self._under_way: dict[str, asyncio.Future[None]] = {}
        self._stored: dict[str, float] = {}

    async def append(self, stream: str, entries: Sequence[Entry]) -> None:
        """Store events; returns when the log has all of them.

        Raises:
            log.LogFull, log.LogUnavailable: some may be stored; give all of them again.
        """
        self._forget(time.monotonic())
        waits = {future for entry in entries if (future := self._add(stream, entry))}
        if waits:
            done, _ = await asyncio.wait(waits)
            failures = [error for future in done if (error := future.exception())]
            if failures:
                raise failures[0]

    def _add(self, stream: str, entry: Entry) -> "asyncio.Future[None] | None":
        """Queue an event, unless it is there already or on its way."""
        if entry.same in self._stored:
            return None
        if future := self._under_way.get(entry.same):
            return future
        future = self._under_way[entry.same] = asyncio.get_running_loop().create_future()
        place = stream, entry.lane
        if place in self._queues:
            self._queues[place].append((entry, future))
            return future
        self._queues[place] = deque([(entry, future)])
        pump = asyncio.get_running_loop().create_task(self._pump(place))
        self._pumps.add(pump)
        pump.add_done_callback(self._pumps.discard)
        return future

    async def _pump(self, place: tuple[str, int]) -> None:
        """Write a queue, frame by frame, until it is empty."""
        queue = self._queues[place]
        while queue:
            run = take(queue)
            failure: Exception | None = None
            try:
                await self._publish(place[0], [entry for entry, _ in run])
            except Exception as error:  # noqa: BLE001 - whoever waits has to be told
                failure = error
                run += _take_behind(queue, run)
            self._settle(run, failure)
        del self._queues[place]

    def _settle(self, run: list[_Waiting], failure: Exception | None) -> None:
        now = time.monotonic()
        for entry, future in run:
            del self._under_way[entry.same]
            if failure:
                future.set_exception(failure)
            else:
                self._stored[entry.same] = now
                future.set_result(None)

    async def _publish(self, stream: str, run: list[Entry]) -> None:
        frame = cloudevent.encode_frame([entry.encoded for entry in run])
        headers = {Header.MSG_ID.value: log.fingerprint(stream, *(entry.same for entry in run))}
        deadline = time.monotonic() + self._patience
        for pause in itertools.chain(log.RETRY_SECONDS, itertools.repeat(log.RETRY_SECONDS[-1])):
            try:
                await self._js.publish(run[0].subject, frame, log.PUBLISH_SECONDS, stream, headers)
            except (nats.errors.Error, OSError) as error:
                failure = log.describe(error)
                if isinstance(failure, log.LogFull) or time.monotonic() + pause > deadline:
                    raise failure from error
            else:
                return
            await asyncio.sleep(pause)

    def _forget(self, now: float) -> None:
        """Forget what was stored long ago, and the oldest of too many."""
        while self._stored:
            oldest, when = next(iter(self._stored.items()))
            if now - when < REMEMBERED_SECONDS and len(self._stored) <= REMEMBERED:
                return
            del self._stored[oldest]


def _take_behind(queue: "deque[_Waiting]", run: list[_Waiting]) -> list[_Waiting]:
    """Remove what has a key of these."""
    keys = {entry.key for entry, _ in run} - {None}
    behind = [waiting for waiting in queue if waiting[0].key in keys]
    left = [waiting for waiting in queue if waiting[0].key not in keys]
    queue.clear()
    queue.extend(left)
    return behind


def take(queue: "deque[_Waiting]") -> list[_Waiting]:
    """Remove what the next frame holds: events of the first one's subject, none past an earlier one with its key."""
    run: list[_Waiting] = []
    left: list[_Waiting] = []
    passed: set[str | None] = set()
    size = 0
    subject = queue[0][0].subject
    for _ in range(min(len(queue), _SCANNED)):
        waiting = queue.popleft()
        entry = waiting[0]
        fits = not run or (len(run) < FRAME_EVENTS and size + len(entry.encoded) < FRAME_BYTES)
        if fits and entry.subject == subject and (entry.key is None or entry.key not in passed):
            run.append(waiting)
            size += len(entry.encoded) + 1
        else:
            passed.add(entry.key)
            left.append(waiting)
    queue.extendleft(reversed(left))
    return run
