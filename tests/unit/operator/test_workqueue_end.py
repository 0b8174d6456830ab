"""The end of a queue's work."""

import asyncio

from wisp_operator.workqueue import WorkQueue


async def test_a_cancellation_beside_a_change_is_not_lost() -> None:
    """Cancelled while a key is added the queue ends: whoever cancels it waits for its end, and cancels once."""

    async def work(key: str) -> None:
        del key

    queue = WorkQueue[str]("test", work)
    running = asyncio.create_task(queue.run(1))
    await asyncio.sleep(0)
    queue.add("a")
    await asyncio.sleep(0)
    running.cancel()
    ended, _ = await asyncio.wait([running], timeout=30)
    running.cancel()
    assert ended
