"""`asyncio.wait_for` as Python has it from 3.12 on: importing this puts it in the place of 3.11's.

Invariant: a cancelled task ends. 3.11's takes a cancellation that comes beside the result for the result, and the task goes on: whoever
cancels a loop and waits for its end waits for ever. nats-py waits for every answer by it, so that each of our loops could be met.
"""

import asyncio
import sys
from collections.abc import Awaitable
from typing import Any


async def wait_for(awaitable: Awaitable[Any], timeout: float | None) -> Any:  # noqa: ASYNC109 - the signature of asyncio's own
    """Wait for a result so many seconds at most; None: as long as it takes.

    Raises:
        TimeoutError: it did not come; what was waited for is cancelled.
    """
    if timeout is None or timeout > 0:
        async with asyncio.timeout(timeout):
            return await awaitable
    waited = asyncio.ensure_future(awaitable)
    if waited.done():
        return waited.result()
    waited.cancel()
    await asyncio.wait([waited])
    try:
        return waited.result()
    except asyncio.CancelledError as error:
        raise TimeoutError from error


if sys.version_info < (3, 12):
    asyncio.wait_for = wait_for  # type: ignore[assignment]
