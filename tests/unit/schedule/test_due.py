"""What is stored of the ticks up to now, by each policy for missed ones."""

from datetime import UTC, datetime, timedelta

import pytest
from wisp_api.timing import parse
from wisp_events.schedule.due import due

NOW = datetime(2026, 6, 1, 12, 0, 30, tzinfo=UTC)
HOURLY, MINUTELY, YEARLY = "0 * * * *", "* * * * *", "15 10 1 1 *"


def at(text: str) -> datetime:
    """A time of that day, or a whole date."""
    return datetime.fromisoformat(f"{text}Z" if "T" in text else f"2026-06-01T{text}Z")


@pytest.mark.parametrize(
    ("cron", "missed", "last", "ticks", "upto", "left_out"),
    [
        (HOURLY, "skip", "11:30:00", ["12:00:00"], "12:00:00", None),
        (HOURLY, "skip", "09:30:00", ["12:00:00"], "12:00:00", "11:00:00"),
        (HOURLY, "once", "09:30:00", ["12:00:00"], "12:00:00", None),
        (HOURLY, "all", "09:30:00", ["10:00:00", "11:00:00", "12:00:00"], "12:00:00", None),
        (HOURLY, "skip", "12:00:00", [], None, None),
        (HOURLY, "all", "12:00:00", [], None, None),
        ("20 * * * *", "skip", "09:30:00", [], "11:20:00", "11:20:00"),
        ("20 * * * *", "once", "09:30:00", ["11:20:00"], "11:20:00", None),
        ("20 * * * *", "all", "09:30:00", ["10:20:00", "11:20:00"], "11:20:00", None),
        (YEARLY, "once", "2003-01-02T00:00:00", ["2026-01-01T10:15:00"], "2026-01-01T10:15:00", None),
        (YEARLY, "skip", "2003-01-02T00:00:00", [], "2026-01-01T10:15:00", "2026-01-01T10:15:00"),
        ("*/20 * * * * *", "skip", "11:59:50", ["12:00:00", "12:00:20"], "12:00:20", None),
        ("*/20 * * * * *", "skip", "11:58:00", ["11:59:40", "12:00:00", "12:00:20"], "12:00:20", "11:59:20"),
    ],
)
def test_policies(cron: str, missed: str, last: str, ticks: list[str], upto: str | None, left_out: str | None) -> None:
    """What is at most a minute late is stored; of what is later, nothing, the latest if nothing newer is there, or all."""
    found = due(parse(cron, "UTC", None), missed, at(last), NOW, 100)
    assert found == ([at(tick) for tick in ticks], upto and at(upto), left_out and at(left_out))


@pytest.mark.parametrize(("missed", "count"), [("skip", 0), ("once", 1), ("all", 1)])
def test_a_single_time_that_was_missed(missed: str, count: int) -> None:
    """A single time is missed like any other."""
    found = due(parse(None, "UTC", "2026-06-01T10:00:00Z"), missed, at("09:00:00"), NOW, 100)
    assert len(found.ticks) == count
    assert found.upto == at("10:00:00")


@pytest.mark.parametrize("missed", ["skip", "once", "all"])
def test_portions_make_the_whole(missed: str) -> None:
    """Taken in portions of two, the ticks are those of one large portion, none twice."""
    timing, last, taken = parse("*/7 * * * * *", "UTC", None), at("11:58:00"), []
    whole = due(timing, missed, last, NOW, 10_000).ticks
    while (found := due(timing, missed, last, NOW, 2)).upto:
        taken += found.ticks
        last = found.upto
    assert taken == whole


@pytest.mark.parametrize("missed", ["skip", "once"])
def test_a_long_downtime_costs_little(missed: str) -> None:
    """Ten years of a tick a second are not gone through one by one."""
    timing, begin = parse("* * * * * *", "UTC", None), datetime.now(UTC)
    due(timing, missed, NOW - timedelta(days=3650), NOW, 256)
    assert datetime.now(UTC) - begin < timedelta(seconds=30)
