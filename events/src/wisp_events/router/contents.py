"""The content of large events: it stays in the log, and is fetched when its event is to be sent, buried or told of.

A window holds of an event over LARGE_BYTES the attributes alone, however long it waits. What needs more of it takes a turn, and gives it
back when the request is written, or the log has what comes of the event. A function's large answer takes one, too.

Invariant: at most AT_ONCE events of a process, AT_ONCE_OF_ONE of a route, have their content or answer in memory. Others wait. A small event
needs no turn; as many large ones as its route's parallelism, waiting for theirs, hold it up all the same. Who has a turn never waits for another.
How it could fail: the record is gone though its event is not done, because someone purged the stream. After GONE_SECONDS the event goes on
as its attributes, to be buried.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

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

    def __init__(self, js: JetStreamContext, stream: str, turns: asyncio.Semaphore) -> None:
        """`turns` are those of the process."""
        self._js = js
        self._stream = stream
        self._turns = turns
        self._own = asyncio.Semaphore(AT_ONCE_OF_ONE)
        self._over: dict[Item, asyncio.Future[None]] = {}  # of those that have a turn
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting = 0

    def __len__(self) -> int:
        """How many wait for a turn or their content."""
        return self._waiting

    def fetch(self, item: Item, then: Callable[[], None]) -> None:
        """Call `then` when the event has its content; `release` it afterwards."""
        self._start(item, then, load=True)

    def turn(self, item: Item, then: Callable[[], None]) -> None:
        """Call `then` when there is room for what comes of the event; `release` it afterwards."""
        self._start(item, then, load=False)

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
        self._waiting = 0

    def _start(self, item: Item, then: Callable[[], None], *, load: bool) -> None:
        self._waiting += 1
        task = asyncio.get_running_loop().create_task(self._go(item, then, load=load))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _go(self, item: Item, then: Callable[[], None], *, load: bool) -> None:
        if item in self._over:
            await self._make_ready(item, then, load=load)
            return
        async with self._own, self._turns:
            over = self._over[item] = asyncio.get_running_loop().create_future()
            await self._make_ready(item, then, load=load)
            await over

    async def _make_ready(self, item: Item, then: Callable[[], None], *, load: bool) -> None:
        try:
            if load:
                await self._load(item)
        finally:
            self._waiting -= 1
        try:
            then()
        except Exception:  # its turn would be lost to all others
            logger.exception("event %s of %s can't be taken further, a defect of the router", item.place, self._stream)
            self.release(item)

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
