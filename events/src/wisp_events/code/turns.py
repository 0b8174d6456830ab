"""Whose archive the store takes now: a few at once, one of a namespace, the others wait in the order in which they came.

Each takes an archive's size of disk, and a processor while it is verified. Invariant: whoever waits gets a turn, however slowly others send:
what trickles, or has had its time, gives its turn to who waits, and is told to come again, behind them.
"""

import asyncio
import contextlib
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import IO, Final
from weakref import WeakValueDictionary

from wisp_events.web import Receive, Refusal

LARGEST: Final = 256 * 1024 * 1024
"""Bytes of an archive, packed."""
CHUNK_SECONDS: Final = 30
UPLOAD_SECONDS: Final = 120
"""A turn, where others wait for one."""
LONGEST_SECONDS: Final = 900
"""A turn at most: what a large archive takes over a slow line."""
UPLOADS: Final = 2
"""At once, of different namespaces."""
QUEUED: Final = 8
"""Of one namespace, under way and waiting: more would take the connections that pods fetch by."""
SLOWEST: Final = 64 * 1024
"""Bytes a second of an upload that others wait for, on average from GRACE_SECONDS on; less than slow lines have, or they end each other's for ever."""
GRACE_SECONDS: Final = 5
LOOK_SECONDS: Final = 1


class Turns:
    """The turns of one kind of callers."""

    def __init__(self) -> None:
        """All are free."""
        self._free = asyncio.Semaphore(UPLOADS)
        self._own: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """Of namespaces that have an upload under way: who holds or waits for a lock keeps it."""
        self._queued: Counter[str] = Counter()
        self._next: Counter[str] = Counter()
        """Of each namespace, uploads that wait for another of its own."""
        self._waiting = 0
        """Namespaces that wait for a turn."""

    @contextlib.asynccontextmanager
    async def turn(self, namespace: str) -> AsyncIterator[None]:
        """One of them, as long as the block lasts.

        Raises:
            Refusal: the namespace has too many waiting already.
        """
        with self.counted(namespace):
            async with self._after_own(namespace):
                await self._wait()
                try:
                    yield
                finally:
                    self._free.release()

    @contextlib.contextmanager
    def counted(self, namespace: str) -> Iterator[None]:
        """A place among what a namespace may have under way, without a turn.

        Raises:
            Refusal: it has too much already.
        """
        if self._queued[namespace] >= QUEUED:
            message = f"namespace {namespace} has {QUEUED} uploads under way: let them end first"
            raise Refusal(503, message, connection="close", retry_after="5")
        self._queued[namespace] += 1
        try:
            yield
        finally:
            self._queued[namespace] -= 1
            if not self._queued[namespace]:
                del self._queued[namespace]

    @contextlib.asynccontextmanager
    async def _after_own(self, namespace: str) -> AsyncIterator[None]:
        own = self._own.setdefault(namespace, asyncio.Lock())
        self._next[namespace] += 1
        try:
            await own.acquire()
        finally:
            self._next[namespace] -= 1
            if not self._next[namespace]:
                del self._next[namespace]
        try:
            yield
        finally:
            own.release()

    async def _wait(self) -> None:
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1

    async def take(self, namespace: str, receive: Receive, file: IO[bytes]) -> str:
        """Write the body to the file, its SHA-256; to be called in a turn of the namespace.

        Raises:
            Refusal: it is too large, stalled, was cut off, or has to make room.
        """
        loop = asyncio.get_running_loop()
        began, taking = loop.time(), asyncio.create_task(_receive(receive, file))
        try:
            while not (await asyncio.wait([taking], timeout=LOOK_SECONDS))[0]:
                self._make_room(namespace, loop.time() - began, file.tell())
            return taking.result()
        finally:
            taking.cancel()
            await asyncio.wait([taking])

    def _make_room(self, namespace: str, took: float, size: int) -> None:
        if took > LONGEST_SECONDS:
            raise Refusal(408, f"the body took longer than {LONGEST_SECONDS} s", connection="close")
        slow = took > GRACE_SECONDS and size < SLOWEST * took
        if (self._waiting or self._next[namespace]) and (slow or took > UPLOAD_SECONDS):
            message = "others wait, and the body comes too slowly; try again"
            raise Refusal(503, message, connection="close", retry_after="5")


async def _receive(receive: Receive, file: IO[bytes]) -> str:
    """Write the body to the file; its SHA-256.

    Raises:
        Refusal: it is too large, stalled, or was cut off.
    """
    found, more = hashlib.sha256(), True
    while more:
        try:
            async with asyncio.timeout(CHUNK_SECONDS):
                message = await receive()
        except TimeoutError:
            raise Refusal(408, f"nothing of the body came for {CHUNK_SECONDS} s") from None
        if message["type"] == "http.disconnect":
            raise Refusal(400, "the body was cut off")
        chunk, more = message.get("body", b""), message.get("more_body", False)
        found.update(chunk)
        file.write(chunk)
        if file.tell() > LARGEST:
            raise Refusal(413, f"CodeTooLarge: more than {LARGEST} bytes", connection="close")
    file.flush()
    return found.hexdigest()
