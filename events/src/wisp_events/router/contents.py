"""The content of large events: it stays in the log, and is fetched when its event is to be sent, buried or told of.

A window holds of an event over LARGE_BYTES the attributes alone, however long it waits. What needs more of it takes a turn, and gives it
back when the request is written, or the log has what comes of the event. A function's large answer takes one, too.

Invariant: at most AT_ONCE events of a process, AT_ONCE_OF_ONE of a route, have their content or answer in memory. Others wait, but no small
event does. Who has a turn never waits for another.
How it could fail: the record is gone though its event is not done, because someone purged the stream. After GONE_SECONDS the event goes on
as its attributes, to be buried.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

import nats.js.errors
from nats.js import JetStreamContext
from wisp_api import cloudevent
from wisp_api.cloudevent import LARGE_BYTES

from wisp_events.router.bucket import LOG_ERRORS
from wisp_events.router.schedule import Item

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
            over.set_result(None)

    async def stop(self) -> None:
        """Call nothing more and give all turns back."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, item: Item, then: Callable[[], None], *, load: bool) -> None:
        self._waiting += 1

        def ready() -> None:
            self._waiting -= 1
            then()

        task = asyncio.get_running_loop().create_task(self._go(item, ready, load=load))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _go(self, item: Item, ready: Callable[[], None], *, load: bool) -> None:
        if item in self._over:
            await self._make_ready(item, ready, load=load)
            return
        async with self._own, self._turns:
            over = self._over[item] = asyncio.get_running_loop().create_future()
            await self._make_ready(item, ready, load=load)
            await over

    async def _make_ready(self, item: Item, ready: Callable[[], None], *, load: bool) -> None:
        if load:
            await self._load(item)
        ready()

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
                item.remember(cloudevent.decode_frame(message.data or b"")[item.index])
                return
            await asyncio.sleep(RETRY_SECONDS)
