"""The addresses of targets' names, as the system's resolver has them: each name is looked up once at a time, in threads of this object's own.

Invariant: an answer comes with the name that it is of in the end, each family of addresses by itself. A name server may have kept the one
family of a name from before it became another name for something else, and not the other.
"""

import asyncio
import functools
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Final

_LOOKUPS: Final = 32
"""How many names are looked up at a time."""

Found = dict[str, str]
"""The addresses of a name, each with the name that has it: another one where the first is an alias."""


class Names:
    """Lookups apart from everything else's: one holds a thread for as long as the name's owner likes.

    One lookup of a name at a time, so that a name takes one of the threads however many events are for it.
    """

    def __init__(self) -> None:
        """No thread before the first lookup."""
        self._threads = ThreadPoolExecutor(_LOOKUPS, "names")
        self._under_way: dict[str, asyncio.Future[Found]] = {}

    async def look_up(self, host: str) -> Found:
        """Every address of a name.

        Raises:
            OSError: the name does not resolve.
        """
        lookup = self._under_way.get(host)
        if lookup is None:
            lookup = asyncio.get_running_loop().run_in_executor(self._threads, _look_up, host)
            self._under_way[host] = lookup
            lookup.add_done_callback(functools.partial(self._end, host))
        return await asyncio.shield(lookup)  # others may wait for it

    def _end(self, host: str, lookup: asyncio.Future[Found]) -> None:
        del self._under_way[host]
        if not lookup.cancelled():
            lookup.exception()  # nobody may be left who waits

    def close(self) -> None:
        """Begin no further lookup."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _look_up(host: str) -> Found:
    found: Found = {}
    trouble = OSError(f"{host} has no address")
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            answer = socket.getaddrinfo(host, None, family, socket.SOCK_STREAM, flags=socket.AI_CANONNAME)
        except UnicodeError as error:  # a label that is too long for a name
            raise OSError(f"{host} is no name: {error}") from error
        except OSError as error:
            trouble = error
            if error.errno == socket.EAI_AGAIN:
                break  # waited for already
        else:
            found |= {str(one[4][0]): answer[0][3] for one in answer}
    if not found:
        raise trouble
    return found
