"""How far the event log is behind what a reader follows: a metric, and a sentence beside the report.

Invariant: it grows only while something waits, or nobody knows whether something does: the source can't be read, or gives nothing and does
not say that it has nothing. At rest sources say that every second, so at rest it is 0. Times of commits are the source's clock.
"""

import time
from collections.abc import Callable, Collection
from typing import Final

import prometheus_client

FRESH_SECONDS: Final = 15.0
"""Less than this since a source said that it has nothing more is no sign of anything."""
_STEPS: Final = ((86_400, "a day"), (3_600, "an hour"), (600, "10 minutes"), (60, "a minute"))
"""Few, so that a report that is still true is not written again."""


def _nothing() -> float:
    return 0


class Behind:
    """Of one stream of changes, whatever connections carry it one after the other."""

    def __init__(self) -> None:
        """Nothing was read yet, and who knows what there is."""
        self._oldest: Callable[[], float] = _nothing
        self._known = time.time()
        """All that was committed before is in the log, as far as the source tells."""

    def watch(self, oldest: Callable[[], float]) -> None:
        """`oldest` tells when the first transaction committed (Unix time) that was read and is not in the log; 0 without any."""
        self._known, self._oldest = self._oldest() or self._known, oldest

    def caught_up(self) -> None:
        """The source has nothing more than what was read."""
        self._known = self._oldest() or time.time()

    def stored(self, seconds: float) -> None:
        """What committed then is in the log, and all before."""
        self._known = max(self._known, min(seconds, time.time()))

    def seconds(self) -> float:
        """The age of the oldest change that is not in the log, or may not be; 0 where there is none."""
        oldest = self._oldest()
        age = time.time() - (oldest or self._known)
        return max(0.0, age) if oldest or age > FRESH_SECONDS else 0.0


_streams: dict[str, Behind] = {}


def of(stream: str) -> Behind:
    """That of a stream of this reader, the same one whenever it is asked for."""
    return _streams.setdefault(stream, Behind())


def only(streams: Collection[str]) -> None:
    """No other stream is followed any more."""
    for gone in _streams.keys() - set(streams):
        del _streams[gone]


def worst() -> float:
    """Of all streams."""
    return max((one.seconds() for one in list(_streams.values())), default=0.0)


def message() -> str:
    """What is to be told of it; empty while it is less than a minute."""
    seconds = worst()
    step = next((words for least, words in _STEPS if seconds >= least), "")
    return f"the event log is more than {step} behind the source" if step else ""


BEHIND: Final = prometheus_client.Gauge(
    "wisp_reader_behind_seconds", "Age of the oldest change that the event log has not, or may not have; 0 without any"
)
BEHIND.set_function(worst)
