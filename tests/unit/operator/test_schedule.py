"""A Subscription with a schedule: what the ingest is told, what goes with it, and what its status says."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from fixtures.objects import deleted, make_subscription, schedule
from wisp_api.source import ScheduleConfig, ScheduleStatus
from wisp_operator.config import OperatorConfig
from wisp_operator.event_plane import Plan, View, leftovers, plan
from wisp_operator.schedule import make_schedule, schedule_aspect, schedule_mistake
from wisp_operator.sources import Wish, decode, stream_bytes

CONFIG = OperatorConfig(namespace="wisp-system", runtimes={}, events_image="e", nats_url="nats://n")
STREAM = "events_media_schedule_nightly_uid-of-nightly"
NOW = datetime(2026, 1, 2, 2, 1, tzinfo=UTC)


def wish(*source: Any, **spec: Any) -> Wish:
    """The Subscription `nightly`; `source` as in `schedule`."""
    fields = spec.pop("fields", {})
    return decode(make_subscription("nightly", source=schedule(*source, **fields), **spec))


def made(*wishes: Wish, **view: Any) -> Plan:
    """The plan for a namespace with these."""
    return plan(View("media", list(wishes), **view), CONFIG, "cluster")


def test_schedule_stream_and_route() -> None:
    """It needs no reader: the ingest is told of it, it has a stream of its own, and its route begins with the stream."""
    found = made(wish(fields={"timezone": "Europe/Oslo", "data": {"report": "sales"}}))
    assert found.readers == {}
    assert found.streams == {STREAM: "wisp.events.media.schedule.nightly_uid-of-nightly.>"}
    task = found.schedules["nightly"]
    assert (task.cron, task.timezone, task.missed, task.stream) == ("0 2 * * *", "Europe/Oslo", "skip", STREAM)
    assert (task.since, bytes(task.data or b"")) == ("2026-01-01T00:00:00Z", b'{"report":"sales"}')
    route = found.routes["nightly"]
    assert (route.stream, route.start, route.order) == (STREAM, "earliest", "none")
    assert route.subjects[:-1] == ["wisp.events.media.schedule.nightly_uid-of-nightly.tick"]


def test_a_single_time_that_is_missed_still_ticks() -> None:
    """`missed` is skip for cron and once for a single time, unless it is written."""
    assert make_schedule(wish(None, fields={"at": "2026-02-01T00:00:00Z"})).missed == "once"
    assert make_schedule(wish(None, fields={"at": "2026-02-01T00:00:00Z", "missed": "skip"})).missed == "skip"


def test_many_schedules_fit() -> None:
    """A schedule's stream reserves little of the log; other kinds' quota is the chart's."""
    assert stream_bytes(STREAM) == 4 * 1024 * 1024
    assert stream_bytes("events_media_postgres_schedule") > 2**40


def test_deleted_leaves_nothing() -> None:
    """Of a Subscription that is being deleted nothing is wanted, its memory and cursor are left over, and it may go at once."""
    gone = decode(deleted(make_subscription("nightly", source=schedule())))
    report = ScheduleStatus(uid="uid-of-nightly", generation=1, timing="", last="")
    view = View("media", [gone], schedule_reports={"nightly": report}, cursors={"uid-of-nightly"})
    found = plan(view, CONFIG, "cluster")
    assert (found.schedules, found.streams, found.routes) == ({}, {}, {})
    assert found.released == {"nightly"}
    assert set(leftovers(view, found)) == {
        ("wisp-status", "schedule.media.nightly"),
        ("wisp-cursors", "media.uid-of-nightly"),
    }


def test_made_anew_it_shares_nothing() -> None:
    """A Subscription of the same name with another uid has another stream, and no last good schedule to go on with."""
    before = make_schedule(wish())
    again = make_subscription("nightly", source=schedule("61 * * * *"))
    again["metadata"]["uid"] = "another"
    found = made(decode(again), schedules={"nightly": before})
    assert list(found.streams) == ["events_media_schedule_nightly_another"]
    assert found.schedules == {}


def test_after_a_mistake_the_last_good_schedule_goes_on() -> None:
    """A wrong time zone keeps what ticked before, as a wrong filter keeps its route."""
    good = make_schedule(wish())
    found = made(wish(fields={"timezone": "Europe/Olso"}), schedules={"nightly": good})
    assert found.schedules == {"nightly": good}


def test_without_its_stream_nothing_ticks() -> None:
    """Where the log refuses the stream the ingest is told nothing."""
    found = made(wish())
    found.without_streams([STREAM])
    assert (found.schedules, found.routes) == ({}, {})


def nested(levels: int) -> dict[str, Any]:
    """An object of so many levels."""
    below: Any = [["x"]]
    for _ in range(levels - 2):
        below = {"a": below}
    return dict(below)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"cron": "61 * * * *"}, "spec.source.schedule.cron: Bad minute"),
        ({"cron": "0 0 * * *", "timezone": "Europe/Olso"}, "spec.source.schedule.timezone: there is no time zone"),
        ({"cron": None, "at": "2025-12-31T23:00:00Z"}, "spec.source.schedule.at: 2025-12-31T23:00:00Z was over"),
        ({"cron": "0 0 * * *", "data": {"a": "x" * 70000}}, "spec.source.schedule.data: 70008 bytes"),
        ({"cron": "0 0 * * *", "data": nested(65)}, "spec.source.schedule.data: more than 64 levels"),
        ({"cron": "0 0 * * *", "data": nested(64)}, ""),
        ({"cron": None, "at": "2026-01-01T00:00:01Z"}, ""),
    ],
)
def test_mistakes(source: dict[str, Any], words: str) -> None:
    """What the schema can't see is a condition that names the field and what to write."""
    found = wish(fields=source)
    assert schedule_mistake(found).startswith(words)
    aspect = schedule_aspect(found, None, NOW)
    assert (aspect.status, aspect.reason) == (("False", "InvalidSchedule") if words else ("Unknown", "SchedulePending"))


@pytest.mark.parametrize(
    ("report", "wanted"),
    [
        ({}, ("True", "AsWanted")),
        ({"next": "2026-01-02T02:00:00Z"}, ("True", "AsWanted")),
        ({"next": "2026-01-02T01:58:59Z"}, ("Unknown", "ScheduleLate")),
        ({"generation": 0}, ("Unknown", "SchedulePending")),
        ({"uid": "of another"}, ("Unknown", "SchedulePending")),
        ({"reason": "LogFull", "message": "full"}, ("False", "LogFull")),
    ],
)
def test_source_ready(report: dict[str, Any], wanted: tuple[str, str]) -> None:
    """Ready is what the ingest has taken up, is not late and can store."""
    base = ScheduleStatus(uid="uid-of-nightly", generation=1, timing="", last="2026-01-02T02:00:00Z")
    found = schedule_aspect(wish(), msgspec.structs.replace(base, **report), NOW)
    assert (found.status, found.reason) == wanted


def test_what_is_stored_is_what_is_compared() -> None:
    """Read back from the log, a schedule equals the one that is made anew, so that nothing is written twice."""
    task = make_schedule(wish(fields={"data": {"a": [1, 2.5, None]}}))
    assert msgspec.json.decode(msgspec.json.encode(task), type=ScheduleConfig) == task
