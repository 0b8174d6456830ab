"""A connection to a target that may have several addresses: each is tried a moment after the one before it, and the first that answers is taken.

Invariant: of the attempts one connection is left, or none; a dead address costs a moment, where one after the other it would cost all the time there is.
"""

import asyncio
import functools
import ssl
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from wisp_events.router.lookup import Names
from wisp_events.router.reach import resolve
from wisp_events.router.request import Address

Made = TypeVar("Made", bound=asyncio.Protocol)
Connected = tuple[asyncio.Transport, Made]
Way = Callable[[], Coroutine[Any, Any, Connected[Made]]]

HEAD_START: Final = 0.3
"""Seconds that an address has before the next one is tried as well, unless it fails sooner."""


async def connect(to: Address, make: Callable[[], Made], names: Names) -> Made:
    """A new connection, of the first address that takes it.

    Raises:
        OSError: there is none.
        Unreachable: the name leads where no delivery may go.
    """
    loop, tls = asyncio.get_running_loop(), _trust() if to.tls else None
    name = to.host if tls else None
    ways: list[Way[Made]] = [
        functools.partial(loop.create_connection, make, address, to.port, ssl=tls, server_hostname=name)
        for address in await resolve(to, names)
    ]
    return (await _first(ways))[1]


async def _first(ways: list[Way[Made]]) -> Connected[Made]:
    """The first connection that is made."""
    attempts: list[asyncio.Task[Connected[Made]]] = []
    under_way: set[asyncio.Task[Connected[Made]]] = set()
    try:
        for way in ways:
            attempts.append(asyncio.create_task(way()))
            under_way.add(attempts[-1])
            while under_way:
                patience = HEAD_START if len(attempts) < len(ways) else None
                ended, under_way = await asyncio.wait(under_way, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
                for attempt in ended:
                    if attempt.exception() is None:
                        attempts.remove(attempt)
                        return attempt.result()
                if patience:
                    break
        return attempts[-1].result()  # raises what it failed with
    finally:
        for attempt in attempts:
            attempt.cancel()
            attempt.add_done_callback(_end)


def _end(attempt: asyncio.Task[Connected[Made]]) -> None:
    """Close what came too late."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result()[0].abort()


@functools.cache
def _trust() -> ssl.SSLContext:
    """The certificate authorities of the image, or those that SSL_CERT_FILE names."""
    return ssl.create_default_context()
