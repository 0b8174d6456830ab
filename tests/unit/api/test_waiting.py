"""Waiting for a result with a limit: what Python 3.11 gets wrong."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from wisp_api import waiting


@pytest.mark.parametrize("wait_for", [asyncio.wait_for, waiting.wait_for])
async def test_a_cancellation_beside_the_result_is_not_lost(wait_for: Callable[..., Awaitable[Any]]) -> None:
    """A task that is cancelled just when its result has come ends: whoever cancels it waits for that."""

    async def work() -> None:
        await wait_for(result, 60)
        await asyncio.sleep(3600)

    result = asyncio.get_running_loop().create_future()
    working = asyncio.create_task(work())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    result.set_result(None)
    working.cancel()
    await asyncio.wait([working], timeout=30)
    ended = working.cancelled()
    working.cancel()
    assert ended


async def test_a_limit_that_is_over() -> None:
    """What does not come in time is cancelled, and what is there already is the result, with no time left, too."""
    for seconds in (0.01, 0, -1):
        slow = asyncio.get_running_loop().create_future()
        with pytest.raises(TimeoutError):
            await waiting.wait_for(slow, seconds)
        assert slow.cancelled()
    there = asyncio.get_running_loop().create_future()
    there.set_result(1)
    assert [await waiting.wait_for(there, seconds) for seconds in (None, 1, 0)] == [1, 1, 1]
