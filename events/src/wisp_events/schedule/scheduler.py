"""All schedules of the cluster, in every replica of the ingest: each is stepped when it is due.

Which replica stores a tick is nobody's decision: all try, the log takes one (see `ticker`). The wall clock is looked at anew at
least once a second, and a clock that was set makes every schedule look again, so nothing sleeps past its time.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import msgspec
from nats.js import JetStreamContext
from wisp_api import names
from wisp_api.source import ScheduleConfig
from wisp_api.timing import TimingError

from wisp_events.log import LogUnavailable
from wisp_events.router import bucket
from wisp_events.schedule.ticker import Ticker

logger = logging.getLogger(__name__)

POLL_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 1.0
CONCURRENT: Final = 64
_CLOCK_SET_SECONDS: Final = 1.0
_NEVER: Final = float("inf")


@dataclass(slots=True)
class _Schedule:
    """One schedule and when it is next looked at, in Unix seconds."""

    ticker: Ticker
    wake: float = 0.0
    stepping: "asyncio.Task[None] | None" = None


class Scheduler:
    """Follows the schedules that the operator wrote and steps each when its time has come."""

    def __init__(self, js: JetStreamContext, clock: Callable[[], float] = time.time) -> None:
        """Nothing is read yet; `clock` tells Unix seconds."""
        self._js = js
        self._clock = clock
        self._schedules: dict[str, _Schedule] = {}
        self._revision = 0
        self._turn = asyncio.Semaphore(CONCURRENT)
        self._stepped = asyncio.Event()
        self._trouble = ""

    async def run(self) -> None:
        """Work until cancelled; a log that is away is waited for."""
        before = self._clock() - time.monotonic()
        polled = -POLL_SECONDS
        while True:
            if time.monotonic() - polled >= POLL_SECONDS:
                await self._poll()
                polled = time.monotonic()
            drift = self._clock() - time.monotonic()
            if abs(drift - before) > _CLOCK_SET_SECONDS:
                logger.warning("the clock was set by %+.1f s: looking at every schedule again", drift - before)
                for schedule in self._schedules.values():
                    schedule.wake = 0
            before = drift
            self._start_due(self._clock())
            await self._pause(polled + POLL_SECONDS - time.monotonic())

    async def _pause(self, longest: float) -> None:
        """Wait until a schedule is due or was stepped, at most this many seconds."""
        coming = min((one.wake for one in self._schedules.values() if not one.stepping), default=_NEVER)
        self._stepped.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, min(longest, coming - self._clock()))):  # wait_for loses cancellations
                await self._stepped.wait()

    def _start_due(self, now: float) -> None:
        for key, schedule in self._schedules.items():
            if schedule.wake <= now and schedule.stepping is None:
                schedule.stepping = asyncio.get_running_loop().create_task(self._step(key, schedule))

    async def _poll(self) -> None:
        """Take up what the operator changed; after trouble everything is read again."""
        try:
            changes = await bucket.changes(self._js, names.KV_SCHEDULES, self._revision)
        except bucket.LOG_ERRORS as error:
            self._note(f"schedules can't be read: {error or type(error).__name__}")
            self._revision = 0
            return
        if self._revision == 0:
            self._note("")
            kept = {change.key for change in changes}
            self._schedules = {key: one for key, one in self._schedules.items() if key in kept}
        for change in changes:
            self._revision = change.revision
            self._schedules.pop(change.key, None)
            if change.value is not None and (ticker := self._ticker(change.key, change.value)):
                self._schedules[change.key] = _Schedule(ticker)

    def _ticker(self, key: str, value: bytes) -> Ticker | None:
        try:
            return Ticker(self._js, msgspec.json.decode(value, type=ScheduleConfig))
        except (msgspec.DecodeError, TimingError):
            logger.exception("schedule %s does not tick: the operator is of another version", key)
            return None

    async def _step(self, key: str, schedule: _Schedule) -> None:
        try:
            async with self._turn:
                coming = await schedule.ticker.step(datetime.fromtimestamp(self._clock(), UTC))
            schedule.wake = coming.timestamp() if coming else _NEVER
        except (*bucket.LOG_ERRORS, LogUnavailable) as error:
            self._note(f"schedule {key} waits for the log: {error or type(error).__name__}")
            schedule.wake = self._clock() + RETRY_SECONDS
        except Exception:
            logger.exception("schedule %s failed, a defect", key)
            schedule.wake = self._clock() + 60 * RETRY_SECONDS
        finally:
            schedule.stepping = None
            self._stepped.set()

    def _note(self, trouble: str) -> None:
        """One line for each new trouble."""
        if trouble and trouble != self._trouble:
            logger.warning("%s", trouble)
        self._trouble = trouble
