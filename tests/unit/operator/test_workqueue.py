"""The queue works on each key once at a time, never misses a change, and tries again what failed."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from wisp_operator.workqueue import WorkQueue


@contextlib.asynccontextmanager
async def running(work: Callable[[str], Awaitable[float | None]]) -> AsyncIterator[WorkQueue[str]]:
    """A queue with two workers."""
    queue: WorkQueue[str] = WorkQueue("test", work)
    task = asyncio.ensure_future(queue.run(2))
    try:
        yield queue
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_change_during_work_is_worked_on_again() -> None:
    """A key added while its work runs is run once more afterwards, and not at the same time."""
    seen: list[str] = []
    first, other, gate, second = (asyncio.Event() for _ in range(4))

    async def work(key: str) -> None:
        seen.append(f"start {key}")
        if key == "b":
            other.set()
        elif first.is_set():
            second.set()
        else:
            first.set()
            await gate.wait()
            seen.append("end a")

    async with running(work) as queue:
        queue.add("a")
        await asyncio.wait_for(first.wait(), 60)
        for key in "aaab":
            queue.add(key)
        await asyncio.wait_for(other.wait(), 60)  # whatever was due has been looked at
        gate.set()
        await asyncio.wait_for(second.wait(), 60)
    assert seen == ["start a", "start b", "end a", "start a"]


async def test_failed_work_comes_again_and_others_go_on() -> None:
    """A key that raises is tried again; another key does not wait for it."""
    tries: list[str] = []
    healed = asyncio.Event()

    async def work(key: str) -> None:
        tries.append(key)
        if key == "bad" and tries.count("bad") == 1:
            raise OSError("away")
        if key == "bad":
            healed.set()

    async with running(work) as queue:
        queue.add("bad")
        queue.add("good")
        await asyncio.wait_for(healed.wait(), 60)
    assert tries == ["bad", "good", "bad"]


async def test_work_may_ask_to_be_called_again() -> None:
    """A returned number of seconds brings the key back without any event."""
    calls = 0
    twice = asyncio.Event()

    async def work(_: str) -> float | None:
        nonlocal calls
        calls += 1
        if calls == 2:
            twice.set()
            return None
        return 0.01

    async with running(work) as queue:
        queue.add("a")
        await asyncio.wait_for(twice.wait(), 60)


async def test_sooner_wins() -> None:
    """Adding a key for later does not put off what is due earlier."""
    done = asyncio.Event()

    async def work(_: str) -> None:
        done.set()

    async with running(work) as queue:
        queue.add("a", 3600)
        queue.add("a")
        queue.add("a", 3600)
        await asyncio.wait_for(done.wait(), 60)


async def test_who_has_many_keys_holds_nobody_up() -> None:
    """Owners take turns: another one's key is next, whatever the first has waiting, and his own stay in their order."""
    begun: list[str] = []
    full, gate, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work(key: str) -> None:
        begun.append(key)
        if len(begun) == 2:
            full.set()
        await gate.wait()
        if len(begun) == 103:
            done.set()

    queue: WorkQueue[str] = WorkQueue("test", work, lambda key: key[0])
    task = asyncio.ensure_future(queue.run(2))
    many = [f"a{number}" for number in range(101)]
    for key in many:
        queue.add(key)
    await asyncio.wait_for(full.wait(), 60)
    queue.add("b1")
    queue.add("b2")
    gate.set()
    await asyncio.wait_for(done.wait(), 60)
    task.cancel()
    await asyncio.wait([task])
    assert [key for key in begun if key[0] == "a"] == many
    assert {"b1", "b2"} <= set(begun[:7])
