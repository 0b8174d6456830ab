"""Storing a route's cursor: soon after each change, not once per change, and never over another replica's.

Invariant: every write names the revision that this session wrote last. A write whose answer was lost is recognized by
the session it holds; any other change means that the route was taken over or deleted, and `lost` stays set.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

import msgspec
from nats.js import JetStreamContext
from wisp_api import names

from wisp_events.router import bucket
from wisp_events.router.cursor import Cursor

SAVE_SECONDS: Final = 0.1
"""At most so often the cursor is written; what a crash repeats is what was done since."""
MAX_SAVE_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 0.5


class Keeper:
    """Keeps one cursor stored."""

    def __init__(
        self, js: JetStreamContext, key: str, session: str, revision: int, snapshot: Callable[[], bytes]
    ) -> None:
        """`snapshot` returns the encoded cursor as it is to be stored at that moment."""
        self._js = js
        self._key = key
        self._session = session
        self._revision = revision
        self._snapshot = snapshot
        self._dirty = False
        self._task: asyncio.Task[None] | None = None
        self._stopped = False
        self.lost = False
        """The cursor is no longer this session's, or of a stream that is gone."""

    def touch(self) -> None:
        """Have the cursor stored soon."""
        self._dirty = True
        if (self._task is None or self._task.done()) and not (self.lost or self._stopped):
            self._task = asyncio.get_running_loop().create_task(self._save_while_dirty())

    async def stop(self) -> None:
        """Store nothing more but by `flush`."""
        self._stopped = True
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def flush(self, seconds: float) -> bool:
        """Store the cursor as it is now; False where that did not succeed in time."""
        self._dirty = True
        try:
            async with asyncio.timeout(seconds):
                await self._save()
        except TimeoutError:
            return False
        return not self.lost

    async def _save_while_dirty(self) -> None:
        pause = SAVE_SECONDS
        while self._dirty and not self.lost:
            await asyncio.sleep(pause)
            began = time.monotonic()
            await self._save()
            pause = min(MAX_SAVE_SECONDS, max(SAVE_SECONDS, 10 * (time.monotonic() - began)))

    async def _save(self) -> None:
        """Store it; returns when it is stored or was found to be another's."""
        while self._dirty and not self.lost:
            self._dirty = False
            try:
                value = self._snapshot()
                self._revision = await bucket.write(self._js, names.KV_CURSORS, self._key, value, self._revision)
            except bucket.Changed:
                self._dirty = True
                await self._settle()
            except bucket.LOG_ERRORS:
                self._dirty = True
                await asyncio.sleep(RETRY_SECONDS)

    async def _settle(self) -> None:
        """The cursor is at another revision: by a write of ours whose answer was lost, or by another's."""
        try:
            entry = await bucket.read(self._js, names.KV_CURSORS, self._key)
        except bucket.LOG_ERRORS:
            await asyncio.sleep(RETRY_SECONDS)
            return
        if entry and entry.value and msgspec.json.decode(entry.value, type=Cursor).session == self._session:
            self._revision = entry.revision
        else:
            self.lost = True
