"""When a schedule ticks: a cron expression in a time zone, or one time. Pure, and the same in the control plane and the data plane.

Cron as Debian has it (the package cronsim), with an optional field for seconds in front. Where clocks change, an expression whose
minute and hour begin with no `*` ticks once for each time that it names: a time that the shift skips ticks right after the
shift, a time that comes twice ticks at the first. Any other follows the clock: none in a skipped hour, twice in a repeated one.
cronsim has that rule for five fields only, so seconds are laid over the minutes here.

Invariant: the ticks after a moment are strictly later than it, ascending, in UTC, and depend on nothing but the timing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

_FIELDS = 6
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class TimingError(ValueError):
    """Raised when something never ticks or can't be read; the message begins with the field and says what to write."""


@dataclass(frozen=True, slots=True)
class Timing:
    """A valid timing; `parse` makes one."""

    minutes: str
    """The expression without its seconds; empty where `at` is all."""
    seconds: tuple[int, ...]
    zone: ZoneInfo
    at: datetime | None

    def after(self, moment: datetime) -> Iterator[datetime]:
        """Its ticks after a moment, for ever or as long as there are any."""
        if self.at:
            return iter([self.at] if self.at > moment else [])
        return self._cron(moment)

    def _cron(self, moment: datetime) -> Iterator[datetime]:
        # From the start of the minute before: that minute's own seconds may still be to come.
        begin = datetime.fromtimestamp(moment.timestamp() // 60 * 60 - 1, self.zone)
        last = moment
        for minute in CronSim(self.minutes, begin):
            for second in self.seconds:
                tick = minute.replace(second=second).astimezone(UTC)
                if tick > last:  # in a repeated hour cronsim begins with the first one's minutes
                    last = tick
                    yield tick


def parse(cron: str | None, timezone: str, at: str | None) -> Timing:
    """Read a schedule's fields, of which exactly one of `cron` and `at` is given.

    Raises:
        TimingError: the first mistake.
    """
    zone = _zone(timezone)
    if cron is None:
        return Timing("", (), zone, _time(at or ""))
    fields = cron.split()
    seconds = fields[0] if len(fields) == _FIELDS else "0"
    minutes = " ".join(fields[1:] if len(fields) == _FIELDS else fields)
    try:
        spread = CronSim(f"{seconds} {minutes}", _EPOCH).seconds
        timing = Timing(minutes, tuple(sorted(spread)), zone, None)
        never = next(timing.after(_EPOCH), None) is None
    except CronSimError as error:
        raise TimingError(
            f"cron: {error} in {cron!r}; write minute, hour, day of month, month, day of week, as */5 * * * *, with seconds first if need be"
        ) from None
    if never:
        raise TimingError(f"cron: {cron!r} names no day that ever comes; write one that does")
    return timing


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # not found, no name at all, a folder
        raise TimingError(
            f"timezone: there is no time zone {name!r}; write a name of the tz database, as Europe/Oslo or UTC"
        ) from None


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
        if time.tzinfo:
            return time.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise TimingError(f"at: {text!r} is no time; write one as 2026-01-31T12:00:00Z")
