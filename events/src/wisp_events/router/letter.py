"""Dead letters of a Subscription: what they say, and storing them until the log has them.

Invariant: `done` is called after the acknowledgement and only then; while the log is away the letter is sent again and
again, and its event stays undone.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from nats.js import JetStreamContext
from wisp_api.route import DeadLetter, Route

from wisp_events import log
from wisp_events.router.schedule import Item
from wisp_events.router.verdict import Answer

RETRY_SECONDS: Final = 0.5
INPUT_BYTES: Final = 4096


def of_event(route: Route, reason: str, message: str, item: Item) -> DeadLetter:
    """An event that was not delivered, with the story of its attempts."""
    letter = _letter(route, reason, message, item.sequence, item.index)
    letter.event = item.raw
    letter.attempts = item.tries
    letter.first_attempt = log.rfc3339(item.first) if item.first else None
    if isinstance(item.last, Answer):
        letter.last_status = item.last.status
        letter.last_response = item.last.body.decode(errors="replace")
    return letter


def of_input(route: Route, message: str, sequence: int, index: int, content: bytes) -> DeadLetter:
    """What stands in the log and is no event."""
    letter = _letter(route, "Malformed", message, sequence, index)
    letter.input = content[:INPUT_BYTES].decode(errors="replace")
    return letter


def _letter(route: Route, reason: str, message: str, sequence: int, index: int) -> DeadLetter:
    return DeadLetter(
        reason=reason,
        message=message,
        time=log.rfc3339(time.time()),
        namespace=route.namespace,
        subscription=None if route.function else route.name,
        source=f"function/{route.function}" if route.function else None,
        stream=route.stream,
        sequence=sequence,
        index=index,
    )


class Letters:
    """The dead letters of one route that the log does not have yet."""

    def __init__(self, js: JetStreamContext) -> None:
        """None yet."""
        self._js = js
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """How many are under way."""
        return len(self._tasks)

    def store(self, letter: DeadLetter, done: Callable[[DeadLetter], None]) -> None:
        """Store a letter, then call `done` with it."""
        task = asyncio.get_running_loop().create_task(self._store(letter))
        self._tasks.add(task)

        def stored(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if not task.cancelled():
                task.result()
                done(letter)

        task.add_done_callback(stored)

    async def _store(self, letter: DeadLetter) -> None:
        while True:
            try:
                await log.dead_letter(self._js, letter)
            except log.LogUnavailable:
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return

    async def stop(self) -> None:
        """Store nothing more; `done` is not called."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
