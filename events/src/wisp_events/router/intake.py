"""Reading a route's frames from its stream: an ephemeral consumer without acknowledgements, pulled as there is room.

Invariant: every frame that matches the route's subjects is handed over once, in the order of the log, from the position
asked for. JetStream numbers a consumer's deliveries: where one is missing (a lost connection, a slow client) the consumer
is made anew after the last frame handed over. A pull that neither delivers nor beats is dead (a restarted server, client
bugs) and treated the same. Nothing of the consumer is needed for the guarantee; the cursor is. A stream that ends before the
last frame handed over is another one, made anew: nothing of it is read by this position, which is `stale`.
"""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from wisp_events.router.bucket import LOG_ERRORS

if TYPE_CHECKING:
    from nats.aio.subscription import Subscription
    from nats.js import JetStreamContext

logger = logging.getLogger(__name__)

EXPIRES_SECONDS: Final = 60
BEAT_SECONDS: Final = 5
DEAD_SECONDS: Final = 12
"""A pull without message and heartbeat for this long is dead."""
INACTIVE_SECONDS: Final = 30
"""After which the server removes a consumer that nobody pulls."""
PULL_FRAMES: Final = 256
PULL_BYTES: Final = 4 * 1024 * 1024
LARGEST_PULL: Final = 8 * 1024 * 1024 + 64 * 1024
"""Of one frame, where it is too long for a usual pull: more than NATS' max_payload."""
RETRY_SECONDS: Final = 1.0

Frame = Callable[[int, bytes, float, str], None]
"""Takes stream sequence, content, Unix time of storing, subject."""


class Intake:
    """One route's reading position in its stream."""

    def __init__(  # noqa: PLR0917 - what to read, from where, and two callbacks
        self, client: Client, stream: str, subjects: list[str], after: int, frame: Frame, room: Callable[[], int]
    ) -> None:
        """Hand over to `frame` what comes after a stream sequence; `room` tells how many more frames may come now."""
        self._client = client
        self._js: JetStreamContext = client.jetstream()
        self._stream = stream
        self._subjects = subjects
        self._frame = frame
        self._room = room
        self.read = after
        """Stream sequence of the last frame handed over."""
        self.pending = 0
        """Frames in the stream that were not handed over yet, as of the last one."""
        self.trouble = ""
        """Why nothing is read now, in a sentence; empty while reading."""
        self.stale = False
        """Whether the stream was made anew, so that it has to be read from another position."""
        self._subscription: Subscription | None = None
        self._consumer = ""
        self._delivered = 0
        self._expected = 0  # frames that the pull under way may still bring
        self._asked = 0  # that it was to bring
        self._long = False  # the next frame is longer than a usual pull
        self._alive = 0.0
        self._opening: asyncio.Task[None] | None = None
        self._pulling: asyncio.Task[None] | None = None
        self._inbox = ""
        self._stopped = False

    def start(self) -> None:
        """Begin to read, or begin anew after the last frame handed over."""
        if not self._stopped and (self._opening is None or self._opening.done()):
            self._opening = asyncio.get_running_loop().create_task(self._open())

    async def stop(self) -> None:
        """Hand over nothing more."""
        self._stopped = True
        if self._opening:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        await self._close()

    def check(self, now: float) -> None:
        """Begin anew if the pull under way is dead; call it every second or so, with `time.monotonic()`."""
        if self._consumer and self._expected and now - self._alive > DEAD_SECONDS:
            logger.warning("reading %s: nothing heard for %d s; starting again", self._stream, DEAD_SECONDS)
            self.start()
        else:
            self.more()

    def more(self) -> None:
        """Pull if no pull is under way and there is room; call it when room was made."""
        if not self._consumer or self._expected or self._stopped:
            return
        room = self._room()
        if room > 0:
            self._asked = self._expected = 1 if self._long else min(room, PULL_FRAMES)
            self._alive = time.monotonic()
            self._pulling = asyncio.get_running_loop().create_task(self._pull(self._expected))

    def left_out(self) -> int:
        """How many events were not handed over because they are none of the route's, since this was asked before: none."""
        return 0

    async def caught_up(self) -> int | None:
        """A stream sequence up to which all matching frames were handed over, if the stream has no further ones.

        Raises:
            nats.errors.Error, OSError: unknown now.
        """
        if not self._consumer:
            return None
        stream = await self._js.stream_info(self._stream)
        info = await self._js.consumer_info(self._stream, self._consumer)
        delivered = info.delivered.consumer_seq if info.delivered else 0
        self.pending = info.num_pending or 0
        if info.num_pending or delivered != self._delivered:
            return None
        apart = stream.cluster and info.cluster and stream.cluster.leader != info.cluster.leader
        return None if apart and await self._holds_more(self.read) else stream.state.last_seq

    async def _holds_more(self, read: int) -> bool:
        """Whether the stream's leader has matching frames after this one: where the consumer is, they may be still to come."""
        for subject in self._subjects:
            with contextlib.suppress(nats.js.errors.NotFoundError):
                await self._js.get_msg(self._stream, read + 1, subject, next=True)
                return True
        return False

    async def _open(self) -> None:
        while not self._stopped:
            try:
                await self._close()
                if await self._is_anew():
                    self.stale, self.trouble = True, f"stream {self._stream} was made anew: reading begins again"
                    return
                await self._create()
            except (*LOG_ERRORS, ValueError) as error:
                away = isinstance(error, nats.js.errors.NotFoundError)
                self.trouble = f"stream {self._stream} does not exist yet" if away else f"NATS does not answer: {error}"
            else:
                self.trouble = ""
                self.more()
                return
            await asyncio.sleep(RETRY_SECONDS)

    async def _is_anew(self) -> bool:
        """Whether the stream ends before what was read; asked twice, as a leader that has just begun may not know its end."""
        for pause in (RETRY_SECONDS, 0):
            if not self.read or (await self._js.stream_info(self._stream)).state.last_seq >= self.read:
                return False
            await asyncio.sleep(pause)
        return True

    async def _create(self) -> None:
        inbox = self._client.new_inbox()
        self._subscription = await self._client.subscribe(inbox, cb=self._receive, pending_bytes_limit=0)
        config = ConsumerConfig(
            ack_policy=AckPolicy.NONE,
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=self.read + 1,
            filter_subjects=self._subjects,
            inactive_threshold=INACTIVE_SECONDS,
            mem_storage=True,
            num_replicas=1,
        )
        info = await self._js.add_consumer(self._stream, config)
        self._inbox, self._delivered, self._expected = inbox, 0, 0
        self.pending = info.num_pending or 0
        self._consumer = info.name

    async def _close(self) -> None:
        subscription, self._subscription = self._subscription, None
        consumer, self._consumer = self._consumer, ""
        if subscription:
            with contextlib.suppress(nats.errors.Error):
                await subscription.unsubscribe()
        if consumer and self._client.is_connected:
            with contextlib.suppress(*LOG_ERRORS):
                await self._js.delete_consumer(self._stream, consumer)

    async def _pull(self, frames: int) -> None:
        request = {
            "batch": frames,
            "max_bytes": LARGEST_PULL if self._long else PULL_BYTES,
            "expires": EXPIRES_SECONDS * 1_000_000_000,
            "idle_heartbeat": BEAT_SECONDS * 1_000_000_000,
        }
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._consumer}"
        with contextlib.suppress(*LOG_ERRORS):  # `check` notices that nothing comes
            await self._client.publish(subject, json.dumps(request).encode(), reply=self._inbox)

    async def _receive(self, message: Msg) -> None:
        """A frame, a heartbeat, or the end of a pull."""
        if self._stopped or not self._consumer or (message.subject != self._inbox and not message.reply):
            return
        self._alive = time.monotonic()
        if not message.reply:
            self._status(message.headers or {})
            return
        # $JS.ACK.[<domain>.<account>.]<stream>.<consumer>.<deliveries>.<stream seq>.<consumer seq>.<time>.<pending>[.<random>]
        tokens = message.reply.split(".")
        place = 4 if len(tokens) == 9 else 6  # noqa: PLR2004 - with domain and account hash
        consumer, sequence, delivered, stored, pending = (tokens[place - 1], *map(int, tokens[place + 1 : place + 5]))
        if consumer != self._consumer:
            return  # of a consumer before
        if delivered != self._delivered + 1:
            logger.warning("reading %s: delivery %d came after %d", self._stream, delivered, self._delivered)
            self.start()
            self._consumer = ""
            return
        self._delivered = delivered
        self._expected -= 1
        self._long = False
        try:
            self._frame(sequence, message.data, stored / 1e9, message.subject)
        except Exception as error:  # passing it over would lose it; ending the process would stop every route
            self._stopped = True
            self.trouble = f"reading has stopped at record {sequence}, a defect of the router: {error!r}"
            logger.exception("reading %s: record %d can't be taken", self._stream, sequence)
            return
        self.read, self.pending = sequence, pending
        self.more()

    def _status(self, headers: dict[str, str]) -> None:
        code, text = headers.get("Status", ""), headers.get("Description", "")
        if code == "100":
            return
        self._long = code == "409" and "MaxBytes" in text and self._expected == self._asked
        self._expected = 0
        if code in ("404", "408") or (code == "409" and ("MaxBytes" in text or "Batch Completed" in text)):
            self.more()
        else:  # 503 without responders, 409 consumer deleted, leadership change, server shutdown
            self._consumer = ""
            self.start()
