"""Writing to the event log: group commit for sources that can be re-read, one frame for those that can't, dead letters.

Invariants:
- An event counts as acknowledged only when the server says that it is stored; with `sync_interval: always` a power cut
  can't take it back (docs/decisions/0001).
- A subject holds its source's events exactly once and in order, whatever restarts: every publish names the subject's
  last stream sequence, so that of two writers the second is refused (`Fenced`), and a new writer reads the subject's
  last event and skips what stands in the log already.
- What can't be stored now waits, in order, and in bounded memory: `room` holds the reader back.

What could break them: a publish whose answer is lost. It is sent again unchanged, with the same Nats-Msg-Id and the
same expected sequence, so it is stored once; where the server refuses it as out of order, the subject's last message
tells whether it is this frame (stored after all) or another writer's.
"""

import asyncio
import hashlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Generic, TypeVar

import msgspec
import nats.errors
import nats.js.errors
from nats.js import JetStreamContext
from nats.js.api import Header, RawStreamMsg
from wisp_api import cloudevent, names
from wisp_api.cloudevent import EVENT_BYTES, FRAME_BYTES, FRAME_EVENTS, PAYLOAD_BYTES, Event
from wisp_api.route import DeadLetter

logger = logging.getLogger(__name__)

PUBLISH_SECONDS: Final = 5.0
"""How long one attempt waits for the server's acknowledgement."""
RETRY_SECONDS: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
"""Pauses between attempts; the last one repeats."""
WAITING_BYTES: Final = 16 * 1024 * 1024

WRONG_LAST_SEQUENCE: Final = (10071, 10164)
_STORE_FAILED: Final = 10077
"""The server's code for a stream at its byte quota (discard: new)."""

Position = TypeVar("Position")


class LogUnavailable(Exception):  # noqa: N818 - names the state of the log
    """Raised when the log did not acknowledge in time; the event may be stored or not, so send it again."""


class LogFull(LogUnavailable):
    """Raised when the stream is at its byte quota; deliveries or the quota have to catch up first."""


class LogMissing(LogUnavailable):
    """Raised when nothing answers for the stream: it does not exist, or has no leader now."""


class EventTooLarge(ValueError):  # noqa: N818 - the reason that dead letters carry
    """Raised when an event's data is longer than PAYLOAD_BYTES, or all of it than EVENT_BYTES; or deeper than readers of the log follow."""


class Fenced(Exception):  # noqa: N818 - the term of the field
    """Raised when another writer wrote to a subject of ours; start over from what the log holds."""


def encode(event: Event) -> bytes:
    """Encode an event for the log.

    Raises:
        EventTooLarge: with its size and the limit, or because it nests too deeply: those who share its frame would be lost with it.
    """
    encoded = cloudevent.encode(event)
    if cloudevent.nests_too_deeply(encoded):
        raise EventTooLarge(f"event {event.id} nests too deeply for the log: carry what is so deep as a string")
    if len(encoded) > PAYLOAD_BYTES:
        payload = len(event.data_base64) * 3 // 4 - 2 if event.data_base64 else len(event.data or b"")
        if payload > PAYLOAD_BYTES:
            raise EventTooLarge(f"event {event.id} has {payload} bytes of data; the log takes {PAYLOAD_BYTES}")
        if len(encoded) > EVENT_BYTES:
            raise EventTooLarge(f"event {event.id} has {len(encoded)} bytes; the log takes {EVENT_BYTES}")
    return encoded


def split(encoded: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Cut encoded events into runs that fit a frame each, in order."""
    start, size = 0, 0
    for index, one in enumerate(encoded):
        if index > start and (index - start >= FRAME_EVENTS or size + len(one) > FRAME_BYTES):
            yield encoded[start:index]
            start, size = index, 0
        size += len(one) + 1
    if start < len(encoded):
        yield encoded[start:]


def describe(error: Exception) -> LogUnavailable:
    """Say in a sentence why the log did not take something."""
    if isinstance(error, nats.js.errors.APIError):
        if error.err_code == _STORE_FAILED:
            return LogFull(f"the stream is full ({error.description})")
        return LogUnavailable(f"NATS refused: {error.description} (code {error.err_code})")
    if isinstance(error, nats.errors.NoRespondersError | nats.js.errors.NoStreamResponseError):
        return LogMissing("the stream does not exist or has no leader now")
    return LogUnavailable(f"NATS did not acknowledge: {str(error) or type(error).__name__}")


async def append_once(js: JetStreamContext, stream: str, subject: str, events: Sequence[Event]) -> None:
    """Store events of one subject, without order against other writers; returns when the log has all of them.

    The same events sent again to the subject within the stream's duplicate window are stored once.

    Raises:
        EventTooLarge: nothing was stored.
        LogFull, LogUnavailable: some may be stored; send all of them again.
    """
    encoded = [encode(event) for event in events]
    start = 0
    for run in split(encoded):
        ids = [event.id for event in events[start : start + len(run)]]
        start += len(run)
        headers = {Header.MSG_ID.value: fingerprint(subject, *ids)}
        try:
            await js.publish(subject, cloudevent.encode_frame(run), PUBLISH_SECONDS, stream, headers)
        except (nats.errors.Error, OSError) as error:
            raise describe(error) from error


async def dead_letter(js: JetStreamContext, letter: DeadLetter, since: float = 0) -> None:
    """Store a dead letter; returns when it is stored. One of an event that was ordered to come again at a time, `since`, is another one.

    Raises:
        LogUnavailable: send it again (stored once within the stream's duplicate window).
    """
    origin, name = "subscription", letter.subscription or ""
    if letter.subscription is None:
        origin, _, name = (letter.source or "").partition("/")
    subject = names.dead_letter_subject(letter.namespace, origin, name)
    content = bytes(letter.event or b"") or (letter.input or "").encode()
    place = f"{letter.stream}:{letter.sequence}:{letter.index}"
    told = subject, place, letter.reason, str(since), content.decode(errors="replace")
    headers = {Header.MSG_ID.value: fingerprint(*told)}
    stream = names.dead_letter_stream(letter.namespace)
    try:
        await js.publish(subject, msgspec.json.encode(letter), PUBLISH_SECONDS, stream, headers)
    except (nats.errors.Error, OSError) as error:
        raise describe(error) from error


def rfc3339(seconds: float) -> str:
    """A Unix time in UTC, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def fingerprint(*parts: str) -> str:
    """A message id for the server's duplicate window: the same parts, the same id."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@dataclass(slots=True)
class _Waiting(Generic[Position]):
    """An event on its way into the log, or with no bytes a position to report when all before it is there."""

    position: Position
    sequence: str = ""
    encoded: bytes = b""
    done: bool = False


@dataclass(slots=True)
class _Lane(Generic[Position]):
    """What one subject has waiting, and where its end in the log is."""

    queue: "deque[_Waiting[Position]]" = field(default_factory=deque)
    added: str = ""
    """`sequence` of the last event added."""
    resumed: str = ""
    """`sequence` of the last event that the log held when this writer began; it and all before are skipped."""
    last: int | None = None
    """Stream sequence of the subject's last message; None until it was read."""
    pump: "asyncio.Task[None] | None" = None


class FrameWriter(Generic[Position]):
    """Writes one source's events: per subject one frame in flight, in which the next one gathers.

    Usage: `add` each event with its upstream position, `await room()` between reads, tell upstream what `acknowledged`
    is called with. A reader that goes back in its source closes the writer and makes a new one.
    """

    def __init__(
        self,
        js: JetStreamContext,
        stream: str,
        acknowledged: Callable[[Position], None],
        waiting_bytes: int = WAITING_BYTES,
    ) -> None:
        """`acknowledged` gets each position before and at which everything added is stored; positions come in the order of `add`."""
        self._js = js
        self._stream = stream
        self._acknowledged = acknowledged
        self._waiting_bytes = waiting_bytes
        self._bytes = 0
        self._order: deque[_Waiting[Position]] = deque()
        self._lanes: dict[str, _Lane[Position]] = {}
        self._moved = asyncio.Event()
        self._name = f"{time.time_ns():x}"
        self._frames = 0
        self._failure: Exception | None = None
        self.trouble = ""
        """Why the log takes nothing now, in a sentence; empty while it does."""

    def add(self, subject: str, event: Event, position: Position) -> None:
        """Queue an event. Its `sequence` must be greater than that of the subject's event before.

        Raises:
            EventTooLarge: the event was not queued; dead-letter it and `mark` its position.
            ValueError: `sequence` is absent or did not grow.
            Fenced: another writer is at work; also from `room` and `flush`.
        """
        self._raise_failure()
        encoded = encode(event)
        lane = self._lanes.get(subject)
        if lane is None:
            lane = self._lanes[subject] = _Lane()
        sequence = event.sequence or ""
        if sequence <= lane.added:
            raise ValueError(f"{subject}: sequence {sequence!r} of event {event.id} is not above {lane.added!r}")
        lane.added = sequence
        waiting = _Waiting(position, sequence, encoded)
        self._order.append(waiting)
        lane.queue.append(waiting)
        self._bytes += len(encoded)
        if lane.pump is None:
            lane.pump = asyncio.get_running_loop().create_task(self._pump(subject, lane))

    @property
    def first(self) -> Position | None:
        """The position of the first event that is not stored; None where all are."""
        return self._order[0].position if self._order else None

    def mark(self, position: Position) -> None:
        """Report this position, which has no event of its own, once everything added before is stored."""
        self._order.append(_Waiting(position, done=True))
        self._advance()

    async def room(self) -> None:
        """Return when another event may be added without exceeding the bound on waiting bytes.

        Raises:
            Fenced: another writer is at work.
        """
        await self._until(lambda: self._bytes < self._waiting_bytes)

    async def flush(self) -> None:
        """Return when all that was added is stored.

        Raises:
            Fenced: another writer is at work.
        """
        await self._until(lambda: not self._order)

    async def close(self) -> None:
        """Drop what waits. A frame in flight may still be stored."""
        pumps = [lane.pump for lane in self._lanes.values() if lane.pump]
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)

    async def _until(self, condition: Callable[[], bool]) -> None:
        self._raise_failure()
        while not condition():
            self._moved.clear()
            await self._moved.wait()
            self._raise_failure()

    def _raise_failure(self) -> None:
        if self._failure:
            raise self._failure

    def _advance(self) -> None:
        """Report the last position before which nothing is missing."""
        passed = None
        while self._order and self._order[0].done:
            passed = self._order.popleft()
        if passed:
            self._acknowledged(passed.position)
        self._moved.set()

    async def _pump(self, subject: str, lane: _Lane[Position]) -> None:
        """Publish a subject's queue, frame by frame, until it is empty."""
        try:
            if lane.last is None:
                await self._resume(subject, lane)
            while lane.queue:
                run = self._take(lane)
                new = [waiting.encoded for waiting in run if waiting.sequence > lane.resumed]
                if new:
                    lane.last = await self._publish(subject, lane, cloudevent.encode_frame(new))
                for waiting in run:
                    waiting.done = True
                    self._bytes -= len(waiting.encoded)
                self.trouble = ""  # also where an earlier attempt had stored it: nothing may come after it
                self._advance()
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller must see it instead of waiting for ever
            self._failure = error
            self._moved.set()
        finally:
            lane.pump = None

    @staticmethod
    def _take(lane: _Lane[Position]) -> list[_Waiting[Position]]:
        """Remove from the queue what fits into one frame, one event at least."""
        run = [lane.queue.popleft()]
        size = len(run[0].encoded)
        while lane.queue and len(run) < FRAME_EVENTS and size + len(lane.queue[0].encoded) < FRAME_BYTES:
            run.append(lane.queue.popleft())
            size += len(run[-1].encoded) + 1
        return run

    async def _resume(self, subject: str, lane: _Lane[Position]) -> None:
        """Find the subject's end in the log."""
        last = await self._last(subject)
        lane.last = last.seq or 0 if last else 0
        if last and last.data:
            lane.resumed = cloudevent.decode(cloudevent.decode_frame(last.data)[-1]).sequence or ""

    async def _last(self, subject: str) -> RawStreamMsg | None:
        """The last message of a subject; asks until the server answers."""
        for pause in self._pauses():
            try:
                return await self._js.get_msg(self._stream, subject=subject, direct=True)
            except nats.js.errors.NotFoundError:
                return None
            except (nats.errors.Error, OSError) as error:
                self._note(error)
            await asyncio.sleep(pause)
        raise AssertionError  # pauses never end

    async def _publish(self, subject: str, lane: _Lane[Position], frame: bytes) -> int:
        """Store a frame after the subject's last one, trying until the server acknowledges; returns its stream sequence."""
        self._frames += 1
        msg_id = f"{self._name}-{self._frames}"
        for pause in self._pauses():
            headers = {
                Header.MSG_ID.value: msg_id,
                Header.EXPECTED_LAST_SUBJECT_SEQUENCE.value: str(lane.last),
            }
            try:
                ack = await self._js.publish(subject, frame, PUBLISH_SECONDS, self._stream, headers)
            except (nats.errors.Error, OSError) as error:
                if getattr(error, "err_code", None) in WRONG_LAST_SEQUENCE:
                    if stored := await self._settle(subject, lane, msg_id):
                        return stored
                else:
                    self._note(error)
            else:
                return ack.seq
            await asyncio.sleep(pause)
        raise AssertionError  # pauses never end

    async def _settle(self, subject: str, lane: _Lane[Position], msg_id: str) -> int:
        """After a refusal as out of order: the sequence under which our frame was stored after all, or 0 to try again.

        Raises:
            Fenced: another writer's frame stands after our last one.
        """
        last = await self._last(subject)
        if last is None:
            lane.last = 0  # the janitor purged the delivered end of this subject
            return 0
        if (last.headers or {}).get(Header.MSG_ID.value) == msg_id:
            return last.seq or 0
        if (last.seq or 0) > (lane.last or 0):
            raise Fenced(f"{subject}: message {last.seq} of stream {self._stream} is another writer's")
        return 0  # a replica that lags answered

    def _note(self, error: Exception) -> None:
        """Remember, and once per outage log, why the log takes nothing."""
        reason = str(describe(error))
        if reason != self.trouble:
            logger.warning("the event log does not take events of %s: %s; trying again", self._stream, reason)
        self.trouble = reason

    @staticmethod
    def _pauses() -> Iterator[float]:
        yield from RETRY_SECONDS
        while True:
            yield RETRY_SECONDS[-1]
