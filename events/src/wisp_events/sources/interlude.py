"""What is written into the log while a stream of changes stands still, at a place of it.

Invariants:
- Whoever asked for an interlude is told of its end once, with the Trouble that ended it; the stream goes on either way.
- It ends where the log takes nothing for a minute while the stream is on its way to the place: whoever found the place holds locks and
  old rows at the database for it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeAlias, TypeVar

from wisp_api import conditions
from wisp_api.cloudevent import Event

from wisp_events.sources.reader import Trouble

Put: TypeAlias = Callable[[list[tuple[str, Event]]], Awaitable[None]]
"""Queues (subject, event) for the log."""
Work: TypeAlias = Callable[[int, Put], Awaitable[None]]
"""Puts events; their places begin with the number, which is no transaction's."""
P = TypeVar("P")
STUCK_SECONDS: Final = 60.0
"""Behind an ALTER that waits for what is held waits everybody else."""
LOOK_SECONDS: Final = 1.0


class Interlude(Generic[P]):
    """Asked for by one part of a reader, played by its stream."""

    def __init__(self, place: Callable[[], Awaitable[P]], work: Work) -> None:
        """`place` finds the position, which is one to come; `work` puts events when the stream is there."""
        self._place = place
        self._work = work
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.position: P | None = None
        """None until it was found."""
        self._playing = False

    async def over(self, log_trouble: Callable[[], str]) -> None:
        """Return when it is; `log_trouble` tells why the log takes nothing, if it doesn't.

        Raises:
            Trouble: what ended it.
        """
        clock = asyncio.get_running_loop().time
        well = clock()
        try:
            while not self.done.done():
                await asyncio.wait([self.done], timeout=LOOK_SECONDS)
                if self.position is None or self._playing or not log_trouble():
                    well = clock()
                elif clock() - well > STUCK_SECONDS:
                    message = f"the log took nothing for {STUCK_SECONDS:.0f} s: {log_trouble()}; trying again"
                    self._end(Trouble(conditions.LOG_UNAVAILABLE, message))
            self.done.result()
        finally:
            self.done.cancel()  # nobody hears of it any more

    async def find(self) -> bool:
        """Find the position; without one the interlude is over."""
        try:
            self.position = await self._place()
        except Trouble as trouble:
            self._end(trouble)
            return False
        return True

    async def play(self, number: int, put: Put, flush: Callable[[], Awaitable[None]]) -> None:
        """Let the events be stored, all before them being in the log; it is over also where that failed, and nothing is done if it is."""
        if self.done.done():
            return
        self._playing = True
        failed: Trouble | None = None
        try:
            await self._work(number, put)
        except Trouble as trouble:
            failed = trouble
        await flush()
        self._end(failed)

    def _end(self, failed: Trouble | None) -> None:
        if self.done.done():
            return
        if failed:
            self.done.set_exception(failed)
        else:
            self.done.set_result(None)
