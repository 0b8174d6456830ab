"""From a notification's body to the log of every namespace that is bound to its bucket.

Invariants:
- `receive` returns only when each event is in the log of each namespace bound to its bucket, or a dead letter is; until
  then the sender keeps the notification and sends it again, and what is stored already is stored once.
- Nothing malformed or too large is ever refused: the sender would repeat it for ever, and all behind it would wait.
- One namespace's full stream holds up the others, who share the sender's queue, for FULL_SECONDS at most; then its
  events become dead letters.
- Bindings are read for each record, never remembered: a bucket bound a moment ago has its first event delivered, and one
  whose binding was withdrawn delivers nothing more.
"""

import asyncio
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from typing import Final

import msgspec
import nats.errors
import prometheus_client
from nats.aio.client import Client
from wisp_api import names
from wisp_api.cloudevent import encode
from wisp_api.route import DeadLetter
from wisp_api.source import BucketBinding

from wisp_events import log
from wisp_events.ingest import s3

logger = logging.getLogger(__name__)

FULL_SECONDS: Final = 60.0
"""How long a full stream pushes back before its events become dead letters."""
BINDING_SECONDS: Final = 3.0
INPUT_BYTES: Final = 4096

EVENTS = prometheus_client.Counter("wisp_ingest_events", "Object events stored, once for each namespace", ["server"])
UNBOUND = prometheus_client.Counter(
    "wisp_ingest_unbound", "Object events of buckets that nobody is bound to", ["server"]
)
DEAD_LETTERS = prometheus_client.Counter(
    "wisp_ingest_dead_letters", "Notifications that could not become events", ["reason"]
)


@dataclass
class _Full:
    """A stream that was full; it is no more once it takes events for FULL_SECONDS, for one that hovers there would push back for ever."""

    since: float
    last: float
    took: bool = False
    """An event, after the last that it didn't."""


class Receiver:
    """Stores notifications; holds nothing of them between two calls."""

    def __init__(self, client: Client, system_namespace: str) -> None:
        """`system_namespace` gets the dead letters that belong to no bucket anybody is bound to."""
        self._client = client
        self._js = client.jetstream()
        self._system_namespace = system_namespace
        self._full: dict[str, _Full] = {}

    async def receive(self, server: str, body: bytes) -> None:
        """Store all records of a notification.

        Raises:
            LogUnavailable: not all are stored; the sender is to send all of them again.
        """
        if not self._client.is_connected:
            raise log.LogUnavailable("NATS is away")  # at once: an upload may be waiting for this answer
        try:
            found = s3.records(body)
        except s3.Malformed as error:
            await self._bury(self._letter(server, self._system_namespace, "Malformed", str(error), body))
            return
        for raw in found:
            await self._receive_record(server, raw)

    async def refuse(self, server: str, start: bytes, size: int, limit: int) -> None:
        """Make a dead letter of a notification that is too long to be read.

        Raises:
            LogUnavailable: the sender is to send it again.
        """
        message = f"a notification of at least {size} bytes; the ingest takes {limit}"
        await self._bury(self._letter(server, self._system_namespace, "EventTooLarge", message, start))

    async def _receive_record(self, server: str, raw: msgspec.Raw) -> None:
        try:
            found = s3.object_event(server, raw)
        except s3.Malformed as error:
            bound = await self._bound(server, s3.bucket_of(raw)) or [self._system_namespace]
            for namespace in bound:
                await self._bury(self._letter(server, namespace, "Malformed", str(error), bytes(raw)))
            return
        bound = await self._bound(server, found.bucket)
        if not bound:
            UNBOUND.labels(server).inc()
        await asyncio.gather(*(self._store(server, namespace, found) for namespace in bound))

    async def _store(self, server: str, namespace: str, found: s3.ObjectEvent) -> None:
        """Store an event for one namespace."""
        stream = names.stream(namespace, "s3", names.bucket_source(server, found.bucket))
        lane = names.lane(found.event.partitionkey or "")
        subject = names.object_subject(namespace, server, found.bucket, found.name, lane)
        try:
            await log.append_once(self._js, stream, subject, [found.event])
        except log.EventTooLarge as error:
            letter = self._letter(server, namespace, "EventTooLarge", str(error), bytes(found.event.data or b""))
        except log.LogFull as error:
            if self._is_full(stream) < FULL_SECONDS:
                raise
            letter = self._letter(server, namespace, "LogFull", f"{error} for over {FULL_SECONDS:.0f} s")
            letter.event = msgspec.Raw(encode(found.event))
        else:
            if full := self._full.get(stream):
                full.took = True
            EVENTS.labels(server).inc()
            return
        await self._bury(letter)

    def _is_full(self, stream: str) -> float:
        """For how many seconds a stream has been full that just was."""
        now = monotonic()
        full = self._full.get(stream)
        if full is None or (full.took and now - full.last >= FULL_SECONDS):
            full = self._full[stream] = _Full(now, now)
        full.last, full.took = now, False
        return now - full.since

    async def _bound(self, server: str, bucket: str) -> list[str]:
        """The namespaces that receive a bucket's events.

        Raises:
            LogUnavailable: nobody answers.
        """
        key = f"bucket.{names.token(server)}.{names.token(bucket)}"
        subject = f"$JS.API.DIRECT.GET.KV_{names.KV_SOURCES}.$KV.{names.KV_SOURCES}.{key}"
        try:
            answer = await self._client.request(subject, b"", BINDING_SECONDS)
        except (nats.errors.Error, OSError) as error:
            raise log.LogUnavailable(f"the bindings can't be read: {error or type(error).__name__}") from error
        status = (answer.headers or {}).get("Status")
        if status and status != "404":
            raise log.LogUnavailable(f"the bindings can't be read: status {status}")
        return msgspec.json.decode(answer.data, type=BucketBinding).namespaces if answer.data else []

    def _letter(self, server: str, namespace: str, reason: str, message: str, content: bytes = b"") -> DeadLetter:
        return DeadLetter(
            reason=reason,
            message=message,
            time=datetime.now(UTC).isoformat(timespec="milliseconds"),
            namespace=namespace,
            source=f"s3/{server}",
            input=content[:INPUT_BYTES].decode(errors="replace") or None,
        )

    async def _bury(self, letter: DeadLetter) -> None:
        await log.dead_letter(self._js, letter)
        DEAD_LETTERS.labels(letter.reason).inc()
        logger.warning("dead letter: %s: %s", letter.reason, letter.message)
