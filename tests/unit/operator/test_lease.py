"""The Lease in virtual time: who takes over, when, and that no two ever act at once."""

import asyncio
import copy
from types import SimpleNamespace
from typing import cast

import pytest
from fixtures.virtual_time import run
from wisp_operator import lease
from wisp_operator.api import Api, ApiError, Object
from wisp_operator.lease import Lease

PHASES = [step / 10 for step in range(0, 21, 3)]
"""Moments between two renewals."""


class Cluster:
    """The Lease at the API server; `slow`: seconds that a request takes."""

    def __init__(self) -> None:
        """There is none."""
        self.stored: Object | None = None
        self.slow = 0.01

    async def get(self, *_: object) -> Object | None:
        """As it is stored."""
        await asyncio.sleep(self.slow)
        return copy.deepcopy(self.stored)

    async def create(self, _: object, __: str, item: Object) -> Object:
        """Store the first."""
        return await self.replace(None, "", item)

    async def replace(self, _: object, __: str, item: Object) -> Object:
        """Store it, unless somebody has in between."""
        await asyncio.sleep(self.slow)
        version = self.stored["metadata"]["resourceVersion"] if self.stored else 0
        if item["metadata"].get("resourceVersion", 0) != version:
            raise ApiError(409, b"{}")
        self.stored = copy.deepcopy(item)
        self.stored["metadata"]["resourceVersion"] = version + 1
        return copy.deepcopy(self.stored)


class Way:
    """An operator's way to the API server, which may be cut: requests fail then, or never end."""

    def __init__(self, cluster: Cluster) -> None:
        """It is open."""
        self.cluster = cluster
        self.cut = ""

    def __getattr__(self, name: str) -> object:
        """The cluster's request of that name."""

        async def request(*arguments: object) -> object:
            if self.cut == "hangs":
                await asyncio.Event().wait()
            if self.cut:
                raise OSError(self.cut)
            return await getattr(self.cluster, name)(*arguments)

        return request


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop's clock is the Lease's."""
    monkeypatch.setattr(lease, "time", SimpleNamespace(monotonic=lambda: asyncio.get_running_loop().time()))


def held_by(way: Way, name: str) -> Lease:
    """An operator's Lease."""
    return Lease(cast("Api", way), "wisp-system", name)


@pytest.mark.parametrize("phase", PHASES)
def test_another_takes_over_within_15_seconds_of_a_kill(phase: float) -> None:
    """At whatever moment between two renewals the holder is killed, and with requests of half a second."""

    async def scene() -> float:
        cluster, loop = Cluster(), asyncio.get_running_loop()
        first, second = (held_by(Way(cluster), name) for name in ("a", "b"))
        await first.acquire()
        keeping = asyncio.create_task(first.keep())
        waiting = asyncio.create_task(second.acquire())
        await asyncio.sleep(20 + phase)
        assert not waiting.done()
        cluster.slow = 0.5
        keeping.cancel()
        killed = loop.time()
        await waiting
        return loop.time() - killed

    assert run(scene()) <= 15


@pytest.mark.parametrize("cut", ["hangs", "refused"])
@pytest.mark.parametrize("phase", PHASES)
def test_a_holder_that_is_cut_off_has_ended_before_another_acts(phase: float, cut: str) -> None:
    """Whether its requests fail or hang: it ends by itself, and only then another holds the Lease."""

    async def scene() -> tuple[float, float]:
        cluster, loop = Cluster(), asyncio.get_running_loop()
        way = Way(cluster)
        first, second = held_by(way, "a"), held_by(Way(cluster), "b")
        await first.acquire()
        keeping = asyncio.create_task(first.keep())
        waiting = asyncio.create_task(second.acquire())
        await asyncio.sleep(20 + phase)
        way.cut = cut
        await keeping
        ended = loop.time()
        assert not waiting.done()
        await waiting
        return ended, loop.time()

    ended, taken = run(scene())
    assert taken - ended >= 1


def test_a_released_lease_is_taken_in_the_next_turn() -> None:
    """Who stops in an orderly way keeps nobody waiting."""

    async def scene() -> float:
        cluster, loop = Cluster(), asyncio.get_running_loop()
        first, second = (held_by(Way(cluster), name) for name in ("a", "b"))
        await first.acquire()
        waiting = asyncio.create_task(second.acquire())
        await asyncio.sleep(20)
        await first.release()
        released = loop.time()
        await waiting
        return loop.time() - released

    assert run(scene()) <= lease.RETRY_SECONDS + 1


def test_of_two_that_try_at_once_one_holds_it() -> None:
    """The API's resourceVersion decides, and the other goes on waiting."""

    async def scene() -> list[bool]:
        cluster = Cluster()
        tries = [asyncio.create_task(held_by(Way(cluster), name).acquire()) for name in ("a", "b")]
        await asyncio.sleep(5)
        done = [one.done() for one in tries]
        for one in tries:
            one.cancel()
        return done

    assert sorted(run(scene())) == [False, True]
