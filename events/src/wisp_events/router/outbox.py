"""What has to be in the log before an event counts as done: dead letters, and what goes to a destination.

Invariant: `done` is called after the acknowledgement and only then; while the log is away all is sent again and again, and its
event stays undone. Only where the log is there, but a destination's stream is not, or is full, is that told after PATIENCE_SECONDS.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from nats.js import JetStreamContext
from wisp_api.route import DeadLetter

from wisp_events import log
from wisp_events.gather import Gatherer
from wisp_events.router.results import Parcel

RETRY_SECONDS: Final = 0.5
PATIENCE_SECONDS: Final = 30.0
"""Longer than a stream is without leader when a server of the log restarts."""

Told = TypeVar("Told")


class Outbox:
    """What one route has on its way into the log."""

    def __init__(self, js: JetStreamContext, gatherer: Gatherer, since: float) -> None:
        """Nothing yet; `since` is when the route began, or was moved back."""
        self._js = js
        self._since = since
        self._gatherer = gatherer
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        """How much is under way."""
        return len(self._tasks)

    def bury(self, letter: DeadLetter, done: Callable[[DeadLetter], None]) -> None:
        """Store a dead letter, then call `done` with it."""
        self._start(self._bury(letter), done)

    def send(self, parcel: Parcel, done: Callable[[str], None]) -> None:
        """Store what goes to a destination, then call `done` with an empty text, or with why it was not taken."""
        self._start(self._send(parcel), done)

    def _start(self, work: Coroutine[Any, Any, Told], done: Callable[[Told], None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)

        def stored(task: asyncio.Task[Told]) -> None:
            self._tasks.discard(task)
            if not task.cancelled():
                done(task.result())

        task.add_done_callback(stored)

    async def _bury(self, letter: DeadLetter) -> DeadLetter:
        while True:
            try:
                await log.dead_letter(self._js, letter, self._since)
            except log.LogUnavailable:
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return letter

    async def _send(self, parcel: Parcel) -> str:
        if not parcel.to.stream:
            return "there is none: " + parcel.advice
        since = 0.0
        while True:
            try:
                await self._gatherer.append(parcel.to.stream, parcel.entries)
            except (log.LogFull, log.LogMissing) as error:
                since = since or time.monotonic()
                if time.monotonic() - since > PATIENCE_SECONDS:
                    return str(error)
            except log.LogUnavailable:
                since = 0.0
            else:
                return ""
            await asyncio.sleep(RETRY_SECONDS)

    async def stop(self) -> None:
        """Store nothing more; `done` is not called."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
