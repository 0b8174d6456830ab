"""What every door of the ingest shares: how a request is refused, and how much of its body is held.

Invariant: bodies under way hold at most as many bytes as their `Room` has, and one caller at most a share of it; a request is let in
by the length that it announces (without one: by `unannounced`, the longest that it may then have) before a byte of its body is read.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final

from wisp_events.web import Receive, Refusal

Headers = Sequence[tuple[bytes, bytes]]

BODY_SECONDS: Final = 20
_LEAST_BYTES: Final = 16 * 1024
"""What even an empty request counts for."""


@dataclass(slots=True)
class Answer:
    """What a request is answered with."""

    status: int
    body: bytes
    headers: dict[str, str]


def header(headers: Headers, name: bytes) -> bytes:
    """A header's value, empty where it is absent."""
    return next((value for key, value in headers if key == name), b"")


async def chunks(receive: Receive) -> AsyncGenerator[bytes, None]:
    """A body's parts as they come.

    Raises:
        Refusal: it stalled or was cut off.
    """
    more = True
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Refusal(400, "the body was cut off")
                more = message.get("more_body", False)
                yield message.get("body", b"")
    except TimeoutError:
        raise Refusal(408, f"the body did not arrive within {BODY_SECONDS} s") from None


async def read(receive: Receive, limit: int) -> bytes:
    """A whole body.

    Raises:
        Refusal: it is longer than `limit`, stalled or was cut off.
    """
    parts: list[bytes] = []
    size = 0
    async with contextlib.aclosing(chunks(receive)) as coming:
        async for part in coming:
            size += len(part)
            if size > limit:
                message = (
                    f"a body of more than {limit} bytes: send less at once, or say how long it is (content-length)"
                )
                raise Refusal(413, message, connection="close")
            parts.append(part)
    return b"".join(parts)


class Room:
    """The bytes that bodies may hold together."""

    def __init__(self, limit: int, share: int) -> None:
        """`share`: how much of it the requests of one caller may hold."""
        self._free = limit
        self._share = share
        self._held: dict[str, int] = {}
        self._freed = asyncio.Event()

    @contextlib.asynccontextmanager
    async def hold(
        self, caller: str, headers: Headers, longest: int, unannounced: int | None = None
    ) -> AsyncIterator[int]:
        """Room for one request until the block ends; waits for it behind other callers. Gives how long the body may be.

        Raises:
            Refusal: it is too long, or the caller holds its share already.
        """
        length = header(headers, b"content-length")
        if length.isdigit() and int(length) > longest:
            raise Refusal(413, f"a body of {int(length)} bytes; at most {longest} are taken at once")
        most = int(length) if length.isdigit() else unannounced or longest
        size = max(most, _LEAST_BYTES)
        if self._held.get(caller, 0) + size > self._share:
            raise Refusal(429, f"namespace {caller} has too much under way here: wait for answers", retry_after="1")
        self._held[caller] = self._held.get(caller, 0) + size
        try:
            while self._free < size:
                self._freed.clear()
                await self._freed.wait()
            self._free -= size
            try:
                yield most
            finally:  # without a wait, so that it is given back also where the request is ended here
                self._free += size
                self._freed.set()
        finally:
            self._held[caller] -= size
            if not self._held[caller]:
                del self._held[caller]
