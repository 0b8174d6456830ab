"""The addresses of targets' names, as the system's resolver has them: each name is looked up once at a time, in threads of this object's own.

Invariant: an answer comes with the name that it is of in the end, each family of addresses by itself. A name server may have kept the one
family of a name from before it became another name for something else, and not the other. An address that was found is not lost because the
name server says nothing of the other family.
"""

import asyncio
import functools
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Final

_LOOKUPS: Final = 64
"""How many are under way at a time, of each name one for each family."""
_OTHER_SECONDS: Final = 1.0
"""For the other family, once there are addresses: who waits has some seconds to be connected."""

Found = dict[str, str]
"""The addresses of a name, each with the name that has it: another one where the first is an alias."""


class Names:
    """Lookups apart from everything else's: one holds a thread for as long as the name's owner likes.

    One lookup of a name and family at a time, so that a name takes two of the threads however many events are for it.
    """

    def __init__(self) -> None:
        """No thread before the first lookup."""
        self._threads = ThreadPoolExecutor(_LOOKUPS, "names")
        self._under_way: dict[tuple[str, int], asyncio.Future[Found]] = {}

    async def look_up(self, host: str) -> Found:
        """Every address of a name.

        Raises:
            OSError: the name does not resolve.
        """
        lookups = [self._begin(host, family) for family in (socket.AF_INET, socket.AF_INET6)]
        await asyncio.wait(lookups, return_when=asyncio.FIRST_COMPLETED)  # which leaves them to others who wait
        await asyncio.wait(lookups, timeout=_OTHER_SECONDS if any(map(_has_found, lookups)) else None)
        found: Found = {}
        for lookup in filter(_has_found, lookups):
            found |= lookup.result()
        return found or lookups[0].result()

    def _begin(self, host: str, family: int) -> asyncio.Future[Found]:
        """The lookup that is under way, or a new one."""
        key = host, family
        lookup = self._under_way.get(key)
        if lookup is None:
            lookup = asyncio.get_running_loop().run_in_executor(self._threads, _look_up, host, family)
            self._under_way[key] = lookup
            lookup.add_done_callback(functools.partial(self._end, key))
        return lookup

    def _end(self, key: tuple[str, int], lookup: asyncio.Future[Found]) -> None:
        del self._under_way[key]
        if not lookup.cancelled():
            lookup.exception()  # nobody may be left who waits

    def close(self) -> None:
        """Begin no further lookup."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _look_up(host: str, family: int) -> Found:
    try:
        answer = socket.getaddrinfo(host, None, family, socket.SOCK_STREAM, flags=socket.AI_CANONNAME)
    except UnicodeError as error:  # a label that is too long for a name
        raise OSError(f"{host} is no name: {error}") from error
    return {str(one[4][0]): answer[0][3] for one in answer}


def _has_found(lookup: asyncio.Future[Found]) -> bool:
    return lookup.done() and not lookup.cancelled() and lookup.exception() is None
