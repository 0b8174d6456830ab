"""A clock that is set while the scheduler runs, on a real NATS; only the clock is the test's."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import nats
import pytest
from fixtures.dataplane import DataPlane, data_plane
from fixtures.nats import NatsServer
from wisp_api import names
from wisp_api.source import ScheduleConfig
from wisp_events.schedule.scheduler import Scheduler

STREAM = "events_media_schedule_hourly_uid-1"
START = datetime(2026, 6, 1, 12, 59, 58, tzinfo=UTC)


class Clock:
    """Runs like the real one, from START on, and can be set."""

    def __init__(self) -> None:
        """It is START."""
        self.set(START)

    def set(self, moment: datetime) -> None:
        """It is this time now."""
        self.offset = moment.timestamp() - time.time()

    def __call__(self) -> float:
        """Unix seconds."""
        return time.time() + self.offset


@pytest.fixture
def plane(nats: NatsServer, tmp_path: Path) -> Iterator[DataPlane]:
    """An hourly schedule that makes all missed ticks."""
    with data_plane(nats, tmp_path) as made:
        made.add_stream(STREAM, ["wisp.events.media.schedule.hourly_uid-1.>"])
        config = ScheduleConfig(
            namespace="media",
            name="hourly",
            uid="uid-1",
            generation=1,
            since="2026-06-01T12:30:00Z",
            stream=STREAM,
            cron="0 * * * *",
            missed="all",
        )
        made.put(names.KV_SCHEDULES, "media.hourly", config)
        yield made


@contextlib.asynccontextmanager
async def scheduler(server: NatsServer, clock: Clock) -> AsyncIterator[None]:
    """The scheduler at work by this clock."""
    client = await nats.connect(server.url)
    working = asyncio.create_task(Scheduler(client.jetstream(timeout=60), clock).run())
    try:
        yield
    finally:
        working.cancel()
        await client.close()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, at most a minute."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - NATS and the clock change what is asked
            await asyncio.sleep(0.05)


async def ticks(plane: DataPlane, count: int) -> list[str]:
    """The ticks in the log, once there are this many."""
    await until(lambda: len(plane.events(STREAM)) >= count)
    return [(event.time or "")[5:] for event in plane.events(STREAM)]


async def test_set_forward_and_back(plane: DataPlane) -> None:
    """Set 3 hours forward, the hours between follow at once; set back before an hour that has ticked, it doesn't tick twice."""
    clock = Clock()
    async with scheduler(plane.server, clock):
        assert await ticks(plane, 1) == ["06-01T13:00:00Z"]
        clock.set(START + timedelta(hours=3, seconds=10))
        assert (await ticks(plane, 4))[1:] == ["06-01T14:00:00Z", "06-01T15:00:00Z", "06-01T16:00:00Z"]
        clock.set(START + timedelta(hours=3))
        await until(lambda: clock() > (START + timedelta(hours=3, seconds=4)).timestamp())
        clock.set(START + timedelta(hours=4))
        assert (await ticks(plane, 5))[4:] == ["06-01T17:00:00Z"]


async def test_a_day_ahead_and_back(plane: DataPlane) -> None:
    """A clock that was a day ahead and is put right: the hours go on at once instead of a day later."""
    clock = Clock()
    async with scheduler(plane.server, clock):
        await ticks(plane, 1)
        clock.set(START + timedelta(days=1, seconds=10))
        assert (await ticks(plane, 25))[24] == "06-02T13:00:00Z"
        clock.set(START + timedelta(hours=1))
        assert (await ticks(plane, 26))[25] == "06-01T14:00:00Z"
