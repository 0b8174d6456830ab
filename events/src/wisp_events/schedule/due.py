"""Which ticks are to be stored now. Pure.

A tick that could not be stored within GRACE of its time is missed; the Subscription's policy says what becomes of those.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import islice, takewhile
from typing import Final, NamedTuple

from wisp_api.timing import Timing

GRACE: Final = timedelta(seconds=60)
FUTURE: Final = timedelta(hours=1)
"""How far ahead of the clock a memory may be: more than this was written by a clock that was wrong."""
_WINDOWS: Final = tuple(timedelta(minutes=8**power) for power in range(9))
"""1 minute to 31 years: for the latest of many ticks without going through all of them."""


class Due(NamedTuple):
    """What to do about the ticks up to now."""

    ticks: list[datetime]
    """To be stored, oldest first."""
    upto: datetime | None
    """The last tick that is decided on by this; None: none was due."""
    left_out: datetime | None
    """The latest missed tick where it is left out for good."""


def due(timing: Timing, missed: str, last: datetime, now: datetime, limit: int) -> Due:
    """What of the ticks after `last` is to be stored at `now`, at most `limit` of them; the rest comes with the next call."""
    begin = last if missed == "all" else max(last, now - GRACE)
    ticks = list(islice(_until(timing, begin, now), limit))
    late = _latest(timing, last, now - GRACE) if begin > last else None
    upto = ticks[-1] if ticks else late
    if late and not ticks and missed == "once":
        ticks = [late]
    return Due(ticks, upto, late if late and late not in ticks and missed == "skip" else None)


def _latest(timing: Timing, last: datetime, end: datetime) -> datetime | None:
    """The latest tick after `last` and not after `end`."""
    for window in _WINDOWS:
        begin = max(last, end - window)
        latest = None
        for latest in _until(timing, begin, end):  # noqa: B007 - the last one is wanted
            pass
        if latest or begin == last:
            return latest
    return None


def _until(timing: Timing, begin: datetime, end: datetime) -> Iterator[datetime]:
    return takewhile(lambda tick: tick <= end, timing.after(begin))
