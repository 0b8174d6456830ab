"""Cron expressions tick when Debian's cron would, through changes of the clock too, and mistakes are named."""

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise

import pytest
from wisp_api.timing import TimingError, parse

OSLO = "Europe/Oslo"  # 2026: 29 March 02:00 -> 03:00 (01:00Z), 25 October 03:00 -> 02:00 (01:00Z)


def ticks(cron: str, after: str, count: int, zone: str = OSLO) -> list[str]:
    """The first ticks after a moment, in UTC."""
    found = islice(parse(cron, zone, None).after(datetime.fromisoformat(after)), count)
    return [tick.strftime("%m-%dT%H:%M:%S") for tick in found]


@pytest.mark.parametrize(
    ("cron", "after", "wanted"),
    [
        ("*/5 * * * *", "2026-06-01T12:00:00Z", ["06-01T12:05:00", "06-01T12:10:00"]),
        ("0 2 * * *", "2026-06-01T00:00:00Z", ["06-02T00:00:00", "06-03T00:00:00"]),
        ("0 2 * * *", "2026-05-31T23:59:59.9Z", ["06-01T00:00:00", "06-02T00:00:00"]),
        ("*/20 * * * * *", "2026-06-01T12:00:05Z", ["06-01T12:00:20", "06-01T12:00:40", "06-01T12:01:00"]),
        ("15,45 0 9 * * MON-FRI", "2026-06-05T07:00:15Z", ["06-05T07:00:45", "06-08T07:00:15"]),
        ("0 0 L * *", "2026-02-01T00:00:00Z", ["02-27T23:00:00", "03-30T22:00:00"]),
        ("0 0 1 * MON", "2026-06-02T00:00:00Z", ["06-07T22:00:00", "06-14T22:00:00"]),
    ],
)
def test_ticks(cron: str, after: str, wanted: list[str]) -> None:
    """Fields mean what they mean in cron, in the schedule's own zone; a tick is strictly after the moment."""
    assert ticks(cron, after, len(wanted)) == wanted


@pytest.mark.parametrize(
    ("cron", "wanted"),
    [
        ("30 2 * * *", ["03-28T01:30:00", "03-29T01:00:00", "03-30T00:30:00"]),
        ("0 30 2 * * *", ["03-28T01:30:00", "03-29T01:00:00", "03-30T00:30:00"]),
        ("10,50 2 * * *", ["03-28T01:10:00", "03-28T01:50:00", "03-29T01:00:00", "03-30T00:10:00"]),
        ("0 2,3 * * *", ["03-28T01:00:00", "03-28T02:00:00", "03-29T01:00:00", "03-30T00:00:00"]),
        ("0 4 * * *", ["03-28T03:00:00", "03-29T02:00:00"]),
        ("30 * * * *", ["03-28T01:30:00", "03-28T02:30:00"]),
    ],
)
def test_a_skipped_time_ticks_once_at_the_shift(cron: str, wanted: list[str]) -> None:
    """On the day that has no 02:30 its tick comes at 03:00, once however many times were skipped, also with seconds."""
    assert (
        ticks(cron, "2026-03-28T01:00:00Z" if wanted[0] > "03-28T01:00:00" else "2026-03-28T00:59:59Z", len(wanted))
        == wanted
    )


@pytest.mark.parametrize(
    ("cron", "wanted"),
    [
        ("30 2 * * *", ["10-25T00:30:00", "10-26T01:30:00"]),
        ("20 30 2 * * *", ["10-25T00:30:20", "10-26T01:30:20"]),
        ("0 3 * * *", ["10-25T02:00:00", "10-26T02:00:00"]),
        ("30 * * * *", ["10-24T22:30:00", "10-24T23:30:00", "10-25T00:30:00", "10-25T01:30:00", "10-25T02:30:00"]),
        ("0 */30 2 * * *", ["10-25T00:00:00", "10-25T00:30:00", "10-25T01:00:00", "10-25T01:30:00", "10-26T01:00:00"]),
    ],
)
def test_a_repeated_time_ticks_once_unless_it_follows_the_clock(cron: str, wanted: list[str]) -> None:
    """02:30 that comes twice ticks at the first; what has `*` in minute or hour ticks whenever the clock shows it."""
    assert ticks(cron, "2026-10-24T22:00:00Z", len(wanted)) == wanted


def test_nothing_of_the_first_hour_ticks_again_in_the_second() -> None:
    """Asked within the repeated hour, the answer is the next day: the first hour's tick is over."""
    assert ticks("30 2 * * *", "2026-10-25T01:15:00Z", 1) == ["10-26T01:30:00"]


@pytest.mark.parametrize(
    "zone", [OSLO, "America/New_York", "Australia/Lord_Howe", "Africa/Cairo", "Asia/Kathmandu", "UTC"]
)
@pytest.mark.parametrize("cron", ["15 0 * * *", "30 1,2 * * *", "*/15 * * * *", "0 15 */2 * * *"])
def test_a_year_has_no_step_back_and_no_dependence_on_the_start(zone: str, cron: str) -> None:
    """In every zone ticks ascend, and a tick's successor is the same whether asked from the start or from the tick itself."""
    timing = parse(cron, zone, None)
    year = [
        tick
        for tick, _ in zip(timing.after(datetime(2026, 1, 1, tzinfo=UTC)), range(2000), strict=False)
        if tick.year == 2026
    ]
    assert all(before < after for before, after in pairwise(year))
    for before, after in list(pairwise(year))[::7]:
        assert next(timing.after(before)) == after
        assert next(timing.after(after - timedelta(microseconds=1))) == after


def test_one_time() -> None:
    """A single time ticks once, whatever offset it is written with."""
    timing = parse(None, "UTC", "2026-06-01T14:00:00+02:00")
    noon = datetime(2026, 6, 1, 12, tzinfo=UTC)
    assert list(timing.after(noon - timedelta(seconds=1))) == [noon]
    assert list(timing.after(noon)) == []


@pytest.mark.parametrize(
    ("cron", "zone", "at", "words"),
    [
        ("61 * * * *", "UTC", None, "cron: Bad minute in '61 [*] [*] [*] [*]'; write minute, hour"),
        ("99 * * * * *", "UTC", None, "cron: Bad second"),
        ("* * * *", "UTC", None, "cron: Wrong number of fields"),
        ("0 0 30 2 *", "UTC", None, "cron: Bad day-of-month"),
        ("@daily", "UTC", None, "cron: "),
        ("0 0 * * *", "Europe/Olso", None, "timezone: there is no time zone 'Europe/Olso'"),
        ("0 0 * * *", "Europe", None, "timezone: "),
        ("0 0 * * *", "../etc/passwd", None, "timezone: "),
        ("0 0 * * *", "", None, "timezone: "),
        (None, "UTC", "2026-02-30T00:00:00Z", "at: '2026-02-30T00:00:00Z' is no time"),
        (None, "UTC", "2026-02-03T00:00:00", "at: "),
    ],
)
def test_mistakes_name_the_field_and_the_cure(cron: str | None, zone: str, at: str | None, words: str) -> None:
    """What can't tick says which field it is and what to write."""
    with pytest.raises(TimingError, match=f"^{words}"):
        parse(cron, zone, at)


def test_a_day_that_never_comes_is_a_mistake() -> None:
    """An expression that no calendar satisfies is refused instead of waited for."""
    with pytest.raises(TimingError, match="names no day that ever comes"):
        parse("0 0 */20 * 1L", "UTC", None)
