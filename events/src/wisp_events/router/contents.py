"""The content of large events: it stays in the log, and is fetched when its event is to be sent, buried or told of.

A window holds of an event over LARGE_BYTES the attributes alone, however long it waits. What needs more of it takes a turn, and gives it
back when the request is written, or the log has what comes of the event. A function's large answer takes one, too.

Invariant: at most AT_ONCE events of a process, AT_ONCE_OF_ONE of a route, have their content or answer in memory. Others wait. A small event
needs no turn. While one event of a route waits for its turn, `queued`, the others stay in the schedule and hold no place among their route's
attempts; only those that the function has taken, and whose record is to be told of, wait beside it. Who has a turn never waits for another.
How it could fail: the record is gone though its event is not done, because someone purged the stream. After GONE_SECONDS the event goes on
as its attributes, to be buried. What nobody foresaw goes wrong: the event has no turn any more, and `faulted` is told.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

import nats.js.errors
from nats.js import JetStreamContext
from wisp_api import cloudevent
from wisp_api.cloudevent import LARGE_BYTES

from wisp_events.router.bucket import LOG_ERRORS
from wisp_events.router.schedule import Item

logger = logging.getLogger(__name__)

AT_ONCE: Final = 10
AT_ONCE_OF_ONE: Final = 4
GONE_SECONDS: Final = 30.0
"""Longer than a replica of the stream lags behind."""
RETRY_SECONDS: Final = 0.2


class Contents:
    """Turns of one route's large events."""

    def __init__(
        self,
        js: JetStreamContext,
        stream: str,
        turns: asyncio.Semaphore,
        faulted: Callable[[Item, Exception], None],
        freed: Callable[[], None],
    ) -> None:
        """`turns` are those of the process; `freed` is called when nothing is `queued` any more."""
        self._js = js
        self._stream = stream
        self._turns = turns
        self._own = asyncio.Semaphore(AT_ONCE_OF_ONE)
        self._over: dict[Item, asyncio.Future[None]] = {}  # of those that have a turn
        self._tasks: set[asyncio.Task[None]] = set()
        self._faulted = faulted
        self._freed = freed
        self._queued = 0
        self.fetching = 0
        """Events that wait for a turn or their content."""
        self.answers = 0
        """Large answers that wait for a turn."""

    @property
    def queued(self) -> bool:
        """Whether an event waits for a turn to have its content."""
        return self._queued > 0

    def fetch(self, item: Item, then: Callable[[], None]) -> None:
        """Call `then` when the event has its content; `release` it afterwards."""
        self.fetching += 1
        if item in self._over:
            self._start(self._content(item, then))
            return

        async def mine() -> None:
            self._queued -= 1
            asyncio.get_running_loop().call_soon(self._freed)
            await self._content(item, then)

        self._queued += 1
        self._start(self._in_turn(item, mine))

    def turn(self, item: Item, then: Callable[[], None]) -> None:
        """Call `then` when there is room for what comes of the event; `release` it afterwards."""

        async def mine() -> None:
            self.answers -= 1
            try:
                then()
            except Exception:  # its turn would be lost to all others
                logger.exception("the answer to event %s of %s: a defect of the router", item.place, self._stream)
                self.release(item)

        self.answers += 1
        self._start(mine() if item in self._over else self._in_turn(item, mine))

    def has_turn(self, item: Item) -> bool:
        """Whether an event has its turn."""
        return item in self._over

    def release(self, item: Item) -> None:
        """Forget the event's content and give its turn back, if it has one."""
        over = self._over.pop(item, None)
        if over:
            if len(item.raw) > LARGE_BYTES:
                item.forget()
            if not over.done():  # as after `stop`
                over.set_result(None)

    async def stop(self) -> None:
        """Call nothing more and give all turns back."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.fetching = self.answers = self._queued = 0

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _in_turn(self, item: Item, mine: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async with self._own, self._turns:
            over = self._over[item] = asyncio.get_running_loop().create_future()
            await mine()
            await over

    async def _content(self, item: Item, then: Callable[[], None]) -> None:
        try:
            try:
                await self._load(item)
            finally:
                self.fetching -= 1
            then()
        except Exception as error:  # noqa: BLE001 - whatever it is: the event has to go on, and its turn to others
            self.release(item)
            self._faulted(item, error)

    async def _load(self, item: Item) -> None:
        """Fetch the content, however long the log is away."""
        since = time.monotonic()
        while item.absent:
            try:
                message = await self._js.get_msg(self._stream, item.sequence, direct=True)
            except nats.js.errors.NotFoundError:
                if time.monotonic() - since > GONE_SECONDS:
                    gone = f"record {item.sequence} of {self._stream} was removed before its event was done"
                    item.burial, item.absent = ("RecordGone", gone), False
                    return
            except LOG_ERRORS:
                since = time.monotonic()
            else:
                self._remember(item, message.data or b"")
                return
            await asyncio.sleep(RETRY_SECONDS)

    def _remember(self, item: Item, frame: bytes) -> None:
        """Take an event's content out of its record, which was read once already."""
        try:
            item.remember(cloudevent.decode_frame(frame)[item.index])
        except (ValueError, LookupError, RecursionError) as error:
            logger.exception("event %s of %s can't be read again", item.place, self._stream)
            item.burial, item.absent = ("RecordGone", f"its record can't be read again: {error}"), False
