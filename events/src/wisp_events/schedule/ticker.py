"""One schedule against the log: which of its ticks stand there, storing those that are due, remembering it.

Invariants:
- A tick is stored once, though every replica of the ingest tries: each publish names the subject's last sequence, so one wins and
  the others find its tick there. Whoever stores it makes the same event of it: the id is that of (Subscription, tick).
- A tick is remembered only after the log has it. A crash in between is seen by the tick that stands in the log; the memory in
  KV_STATUS is needed because delivered ticks are purged.
- A replica that has an older configuration than the memory does nothing.

What could break them: a purge between reading and a publish that took longer. The stream's duplicate window takes that; beyond
it the tick is there twice, with one id.
"""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
import nats.errors
import nats.js.errors
import prometheus_client
from nats.js import JetStreamContext
from nats.js.api import Header
from wisp_api import cloudevent, conditions, names, timing
from wisp_api.cloudevent import FRAME_BYTES, FRAME_EVENTS, Event
from wisp_api.source import ScheduleConfig, ScheduleStatus

from wisp_events import log
from wisp_events.router import bucket
from wisp_events.schedule.due import FUTURE, due

TYPE: Final = "dev.wisp.schedule.tick"
_AGAIN: Final = timedelta(milliseconds=50)
_OUTDATED: Final = timedelta(seconds=1)
_FULL: Final = timedelta(seconds=5)
_ATTRIBUTES_BYTES: Final = 1024
_SEQUENCE_DIGITS: Final = 16
_WRONG_LAST_SEQUENCE: Final = (10071, 10164)

TICKS = prometheus_client.Counter("wisp_schedule_ticks", "Ticks stored")
LEFT_OUT = prometheus_client.Counter("wisp_schedule_left_out", "How often missed ticks were left out, by their policy")
DELAY = prometheus_client.Histogram(
    "wisp_schedule_delay_seconds",
    "From a tick's time to the log's acknowledgement",
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5, 60, 3600),
)


class Overtaken(Exception):  # noqa: N818 - states what was found
    """Raised when another replica stored a tick meanwhile."""


class Ticker:
    """One schedule, as one version of its Subscription has it."""

    def __init__(self, js: JetStreamContext, config: ScheduleConfig) -> None:
        """Nothing is read yet.

        Raises:
            timing.TimingError: it can't tick.
        """
        self._js = js
        self._config = config
        self._timing = timing.parse(config.cron, config.timezone, config.at)
        self._subject = names.schedule_subject(config.namespace, config.name, config.uid)
        self._key = f"schedule.{config.namespace}.{config.name}"
        self._limit = max(1, min(FRAME_EVENTS, FRAME_BYTES // (_ATTRIBUTES_BYTES + len(bytes(config.data or b"")))))

    async def step(self, now: datetime) -> datetime | None:
        """Store what is due and remember it; when to come again, None: never.

        Raises:
            log.LogUnavailable, nats.errors.Error, OSError: not done, or not known to be; come again.
        """
        entry = await bucket.read(self._js, names.KV_STATUS, self._key)
        memory = self._memory(entry)
        if memory and memory.generation > self._config.generation:
            return now + _OUTDATED
        last, trouble, again = self._last(memory, now), ("", ""), None
        if not self._config.suspend:
            try:
                last, again = await self._catch_up(last, now)
            except Overtaken:
                return now + _AGAIN
            except log.LogFull as error:
                trouble = (conditions.LOG_FULL, f"ticks wait until some are delivered or are dead letters: {error}")
                again = now + _FULL
        coming = None if self._config.suspend else next(self._timing.after(last), None)
        await self._remember(entry, memory, last, coming, trouble)
        return again or coming

    def _memory(self, entry: bucket.Entry | None) -> ScheduleStatus | None:
        """What is remembered of this very Subscription."""
        try:
            memory = msgspec.json.decode(entry.value, type=ScheduleStatus) if entry and entry.value else None
        except msgspec.DecodeError:
            return None
        return memory if memory and memory.uid == self._config.uid else None

    def _last(self, memory: ScheduleStatus | None, now: datetime) -> datetime:
        """The time after which ticks are to be made, as far as is remembered; a changed timing begins now."""
        if memory and memory.timing != self._config.timing:
            return now
        last = datetime.fromisoformat(memory.last if memory else self._config.since)
        return last if last <= now + FUTURE else now

    async def _catch_up(self, last: datetime, now: datetime) -> tuple[datetime, datetime | None]:
        """Store what is due; up to where ticks are decided now, and when to come again if more are due already."""
        sequence, stored = await self._end()
        if stored and last < stored <= now + FUTURE:
            last = stored
        found = due(self._timing, self._config.missed, last, now, self._limit)
        if found.ticks:
            await self._publish(found.ticks, sequence)
        if found.left_out:
            LEFT_OUT.inc()
        return found.upto or last, now if len(found.ticks) == self._limit else None

    async def _end(self) -> tuple[int, datetime | None]:
        """The subject's last sequence in the log, 0 without any, and the tick that stands there."""
        try:
            message = await self._js.get_msg(self._config.stream, subject=self._subject, direct=True)
        except nats.js.errors.NotFoundError:
            return 0, None
        event = cloudevent.decode(cloudevent.decode_frame(message.data or b"[]")[-1])
        return message.seq or 0, datetime.fromisoformat(event.time or "")

    async def _publish(self, ticks: list[datetime], sequence: int) -> None:
        """Store ticks as one frame behind the subject's last message.

        Raises:
            Overtaken: another message is the last.
            log.LogUnavailable: not acknowledged.
        """
        events = [tick_event(self._config, tick) for tick in ticks]
        headers = {
            Header.MSG_ID.value: log.fingerprint(self._config.stream, *(event.id for event in events)),
            Header.EXPECTED_LAST_SUBJECT_SEQUENCE.value: str(sequence),
        }
        frame = cloudevent.encode_frame([log.encode(event) for event in events])
        try:
            await self._js.publish(self._subject, frame, log.PUBLISH_SECONDS, self._config.stream, headers)
        except (nats.errors.Error, OSError) as error:
            if getattr(error, "err_code", None) in _WRONG_LAST_SEQUENCE:
                raise Overtaken from error
            raise log.describe(error) from error
        TICKS.inc(len(ticks))
        DELAY.observe(max(0.0, (datetime.now(UTC) - ticks[-1]).total_seconds()))

    async def _remember(
        self,
        entry: bucket.Entry | None,
        memory: ScheduleStatus | None,
        last: datetime,
        coming: datetime | None,
        trouble: tuple[str, str],
    ) -> None:
        """Write what changed, unless another replica has written meanwhile."""
        made = ScheduleStatus(
            uid=self._config.uid,
            generation=self._config.generation,
            timing=self._config.timing,
            last=rfc3339(last),
            next=rfc3339(coming) if coming else "",
            reason=trouble[0],
            message=trouble[1],
        )
        if made == memory:
            return
        revision = entry.revision if entry else 0
        try:
            await bucket.write(self._js, names.KV_STATUS, self._key, msgspec.json.encode(made), revision)
        except bucket.Changed:
            return


def tick_event(config: ScheduleConfig, tick: datetime) -> Event:
    """The event of a tick: the same whoever makes it, and whenever."""
    time = rfc3339(tick)
    return Event(
        id=hashlib.sha256(f"{config.uid}\0{time}".encode()).hexdigest()[:32],
        source=f"urn:wisp:schedule:{config.namespace}:{config.name}",
        type=TYPE,
        subject=config.name,
        time=time,
        datacontenttype="application/json" if config.data is not None else None,
        partitionkey=config.name,
        sequence=str(int(tick.timestamp())).zfill(_SEQUENCE_DIGITS),
        data=config.data,
    )


def rfc3339(moment: datetime) -> str:
    """A time in UTC, with fractions of a second only where there are any."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
