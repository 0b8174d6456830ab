"""Schedules of real ingest processes on a real NATS: each tick is in the log once, whoever dies when."""

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fixtures.dataplane import DataPlane, Part, data_plane
from fixtures.nats import NatsServer
from fixtures.process import free_port, wait_until
from wisp_api import cloudevent, names
from wisp_api.cloudevent import Event
from wisp_api.source import ScheduleConfig, ScheduleStatus
from wisp_events.schedule.ticker import tick_event

STREAM = "events_media_schedule_nightly_uid-1"
EVERY_SECOND = "* * * * * *"


@pytest.fixture
def plane(nats: NatsServer, tmp_path: Path) -> Iterator[DataPlane]:
    """The data plane's buckets, and the schedule's stream."""
    with data_plane(nats, tmp_path) as made:
        made.add_stream(STREAM, [f"wisp.events.media.schedule.{names.owned_source('nightly', 'uid-1')}.>"])
        yield made


class Replicas:
    """Ingest processes that a test starts and kills."""

    def __init__(self, plane: DataPlane) -> None:
        """None runs."""
        self._plane = plane
        self.running: list[Part] = []

    def start(self, count: int = 1) -> None:
        """Start some more; returns when they are ready."""
        new = [Part("ingest", self._plane, {"WISP_INGEST_PORT": str(free_port())}) for _ in range(count)]
        for part in new:
            part.start()
        self.running += new
        for part in new:
            part.wait_ready()

    def kill(self) -> None:
        """End all of them as a crash would."""
        while self.running:
            self.running.pop().kill()


@pytest.fixture
def replicas(plane: DataPlane) -> Iterator[Replicas]:
    """No ingest yet."""
    made = Replicas(plane)
    yield made
    made.kill()


def ago(**span: float) -> str:
    """A time in the past, to the second."""
    return (datetime.now(UTC) - timedelta(**span)).isoformat(timespec="seconds").replace("+00:00", "Z")


def write(plane: DataPlane, cron: str | None = EVERY_SECOND, generation: int = 1, **fields: Any) -> None:
    """Write the schedule as the operator does."""
    base = {"namespace": "media", "name": "nightly", "uid": "uid-1", "since": ago(seconds=1), "stream": STREAM}
    plane.put(
        names.KV_SCHEDULES,
        "media.nightly",
        ScheduleConfig(**(base | {"cron": cron, "generation": generation} | fields)),
    )


def remembered(plane: DataPlane) -> ScheduleStatus:
    """What the ingest remembers; generation 0 while that is nothing."""
    found = plane.get(names.KV_STATUS, "schedule.media.nightly", ScheduleStatus)
    return found or ScheduleStatus(uid="", generation=0, timing="", last="")


def remember(plane: DataPlane, last: str, timing: str) -> None:
    """Write what an ingest remembered at some time."""
    status = ScheduleStatus(uid="uid-1", generation=1, timing=timing, last=last)
    plane.put(names.KV_STATUS, "schedule.media.nightly", status)


def seconds(events: list[Event]) -> list[int]:
    """The ticks' times."""
    return [int(datetime.fromisoformat(event.time or "").timestamp()) for event in events]


def wait_ticks(plane: DataPlane, count: int) -> None:
    """Wait until this many ticks are in the log."""
    wait_until(lambda: len(plane.events(STREAM)) >= count, f"{count} ticks")


def assert_every_second_once(plane: DataPlane) -> list[Event]:
    """Every second from the first tick to the last stands in the log, once and in order."""
    events = plane.events(STREAM)
    found = seconds(events)
    assert found == list(range(found[0], found[-1] + 1))
    return events


def wait_decided(plane: DataPlane, generation: int) -> None:
    """Wait until the ingest has looked at this version of the schedule and has nothing to do."""

    def decided() -> bool:
        status = remembered(plane)
        return status.generation == generation and status.next > ago(seconds=0)

    wait_until(decided, f"generation {generation} is decided on")


def test_two_replicas_make_each_tick_once(plane: DataPlane, replicas: Replicas) -> None:
    """Two replicas and a tick a second: each second's tick is there once, with the id, time and data that it must have."""
    write(plane, data=msgspec.Raw(b'{"report":"sales"}'))
    replicas.start(2)
    wait_ticks(plane, 8)
    event = assert_every_second_once(plane)[0]
    assert event.id == hashlib.sha256(f"uid-1\0{event.time}".encode()).hexdigest()[:32]
    assert (event.source, event.type) == ("urn:wisp:schedule:media:nightly", "dev.wisp.schedule.tick")
    assert (event.subject, event.partitionkey, event.sequence) == ("nightly", "nightly", f"{seconds([event])[0]:016d}")
    assert bytes(event.data or b"") == b'{"report":"sales"}'


def test_a_killed_replica_loses_and_repeats_nothing(plane: DataPlane, replicas: Replicas) -> None:
    """Killed again and again at any moment, the ticks go on without a gap and without a repetition."""
    write(plane, missed="all")
    for goal in range(2, 14, 2):
        replicas.start()
        wait_ticks(plane, goal)
        replicas.kill()
    assert_every_second_once(plane)


def test_a_tick_in_the_log_that_was_not_remembered(plane: DataPlane, replicas: Replicas) -> None:
    """Killed between the log's answer and the memory, and back only after the duplicate window: the tick is not made again."""
    at = ago(seconds=20)
    write(plane, None, since=ago(minutes=1), at=at, missed="all")
    config = plane.get(names.KV_SCHEDULES, "media.nightly", ScheduleConfig)
    assert config
    tick = cloudevent.encode(tick_event(config, datetime.fromisoformat(at)))
    plane.publish(names.schedule_subject("media", "nightly", "uid-1"), cloudevent.encode_frame([tick]))
    remember(plane, ago(seconds=40), at)
    replicas.start()
    wait_until(lambda: remembered(plane).last == at, "the memory")
    assert len(plane.events(STREAM)) == 1


@pytest.mark.parametrize(("missed", "wanted"), [("skip", 0), ("once", 1), ("all", 12)])
def test_ticks_missed_in_a_downtime(plane: DataPlane, replicas: Replicas, missed: str, wanted: int) -> None:
    """Two hours away from a tick every 10 minutes: none, the latest, or all of them; and the next start adds nothing."""
    begin = datetime.now(UTC) - timedelta(hours=2)
    minute = (datetime.now(UTC) - timedelta(minutes=5)).minute % 10  # none is due now
    cron = f"{minute}-59/10 * * * *"
    remember(plane, begin.isoformat(), f"{cron} UTC")
    for generation in (1, 2):
        write(plane, cron, generation=generation, since=ago(days=30), missed=missed)
        replicas.start(2)
        wait_decided(plane, generation)
        found = plane.events(STREAM)
        replicas.kill()
        assert len(found) == wanted
    if missed == "once":
        assert found[0].time == max(event.time or "" for event in found)
        assert timedelta() < datetime.now(UTC) - datetime.fromisoformat(found[0].time or "") < timedelta(minutes=11)


def test_memory_outlives_purged_ticks(plane: DataPlane, replicas: Replicas) -> None:
    """Delivered ticks are purged; what was made stays known."""
    at = ago(seconds=5)
    write(plane, None, since=ago(minutes=1), at=at)
    replicas.start()
    wait_until(lambda: remembered(plane).last == at, "the memory")
    replicas.kill()
    assert len(plane.events(STREAM)) == 1
    plane.purge(STREAM)
    write(plane, None, generation=2, since=ago(minutes=1), at=at, missed="all")
    replicas.start()
    wait_until(lambda: remembered(plane).generation == 2, "the change is seen")
    assert plane.events(STREAM) == []


@pytest.mark.parametrize("how", ["kill", "pause"])
def test_nats_away(plane: DataPlane, nats: NatsServer, replicas: Replicas, how: str) -> None:
    """While the log is away ticks wait; when it is back each of them comes once, those of less than a minute ago whatever the policy."""
    write(plane)
    replicas.start(2)
    wait_ticks(plane, 2)
    getattr(nats, how)()
    until = datetime.now(UTC) + timedelta(seconds=4)
    wait_until(lambda: datetime.now(UTC) > until, "some seconds pass")
    getattr(nats, "start" if how == "kill" else "resume")()
    wait_until(lambda: seconds(plane.events(STREAM))[-1] >= until.timestamp() + 1, "ticks after")
    assert_every_second_once(plane)


def test_another_timing_begins_when_it_is_seen(plane: DataPlane, replicas: Replicas) -> None:
    """A changed expression owes nothing for the past, whatever the policy for missed ticks."""
    remember(plane, ago(days=2), "0 0 1 1 * UTC")
    write(plane, "* * * * *", generation=2, since=ago(days=3), missed="all")
    replicas.start()
    wait_decided(plane, 2)
    assert len(plane.events(STREAM)) <= 3  # one for each minute that has begun meanwhile


def test_suspended_makes_none_and_resumes_by_its_policy(plane: DataPlane, replicas: Replicas) -> None:
    """A suspended schedule makes no ticks; what it missed follows when it resumes, here all."""
    write(plane, "* * * * *", since=ago(minutes=10), missed="all", suspend=True)
    replicas.start()
    wait_until(lambda: remembered(plane).generation == 1, "the schedule is seen")
    assert plane.events(STREAM) == []
    assert remembered(plane).next == ""
    write(plane, "* * * * *", generation=2, since=ago(minutes=10), missed="all")
    wait_decided(plane, 2)
    assert 10 <= len(plane.events(STREAM)) <= 13  # one more for each minute that has begun meanwhile


def test_a_memory_from_a_wrong_clock(plane: DataPlane, replicas: Replicas) -> None:
    """A clock that was years ahead leaves no silence of years: such a memory is not believed."""
    remember(plane, "2099-01-01T00:00:00Z", f"{EVERY_SECOND} UTC")
    write(plane)
    replicas.start()
    wait_ticks(plane, 3)
    assert_every_second_once(plane)


def test_full_stream_holds_ticks_back(plane: DataPlane, replicas: Replicas) -> None:
    """A full stream is reported, and when there is room again the ticks are there without a gap."""
    stream = "events_media_schedule_nightly_uid-2"
    plane.add_stream(stream, ["wisp.events.media.schedule.nightly_uid-2.>"], max_bytes=3000)
    write(plane, uid="uid-2", stream=stream, missed="all")
    replicas.start()
    wait_until(lambda: remembered(plane).reason == "LogFull", "the full stream is reported")
    before = seconds(plane.events(stream))
    plane.purge(stream)
    wait_until(lambda: len(plane.events(stream)) >= 2, "ticks after")
    assert seconds(plane.events(stream))[0] == before[-1] + 1
    wait_until(lambda: remembered(plane).reason == "", "the report is well again")
