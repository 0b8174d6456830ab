"""What counts as behind: something that waits, or a source of which nobody knows; never that nothing happens."""

import time
from collections.abc import Iterator

import pytest
from wisp_events.sources import behind
from wisp_events.sources.behind import FRESH_SECONDS, Behind

HOUR = 3600.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """A clock that moves where a test moves it."""
    now = [1_000_000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    yield now
    behind.only(())


def test_nothing_that_happens_is_no_lag(clock: list[float]) -> None:
    """A source at rest says that it has nothing more, an hour long: it is 0 all the time."""
    one = Behind()
    one.stored(clock[0])
    for _ in range(3600):
        clock[0] += 1
        assert one.seconds() == 0
        one.caught_up()


def test_what_waits_is_as_old_as_its_commit(clock: list[float]) -> None:
    """A change that was read and is not in the log counts from its commit, though the source has nothing more."""
    waiting = [clock[0]]
    one = Behind()
    one.watch(lambda: waiting[0])
    clock[0] += 7
    one.caught_up()
    assert one.seconds() == 7
    waiting[0] = 0
    one.caught_up()
    assert one.seconds() == 0


def test_a_source_that_says_nothing_counts_from_its_last_word(clock: list[float]) -> None:
    """A reader that can't read, from its start on or later, may miss anything since; a moment's silence is no sign."""
    one = Behind()
    clock[0] += FRESH_SECONDS - 1
    assert one.seconds() == 0
    clock[0] += 2
    assert one.seconds() == FRESH_SECONDS + 1
    one.caught_up()
    clock[0] += HOUR
    assert one.seconds() == HOUR


def test_catching_up_is_seen_between_two_changes(clock: list[float]) -> None:
    """What was stored last is old: the next one is, too, until the source says that there is none."""
    one = Behind()
    clock[0] += HOUR
    one.watch(lambda: 0)
    one.stored(clock[0] - HOUR / 2)
    assert one.seconds() == HOUR / 2
    one.caught_up()
    assert one.seconds() == 0


def test_a_new_connection_begins_where_the_old_one_was(clock: list[float]) -> None:
    """What waited when the connection broke waits on, unread."""
    one = Behind()
    one.caught_up()
    one.watch(lambda: clock[0])
    broken_at = clock[0]
    one.watch(lambda: broken_at - 5)
    clock[0] += 60
    one.watch(lambda: 0)
    assert one.seconds() == 65


def test_the_worst_stream_counts_and_is_told(clock: list[float]) -> None:
    """A reader's metric is that of its stream furthest behind; the report names few steps; what is not followed counts no more."""
    behind.of("one").caught_up()
    behind.of("two").caught_up()
    assert behind.worst() == 0
    clock[0] += HOUR + 1
    behind.of("one").caught_up()
    assert behind.worst() == HOUR + 1
    assert behind.message() == "the event log is more than an hour behind the source"
    behind.only(["one"])
    assert behind.worst() == 0
    assert behind.message() == ""
