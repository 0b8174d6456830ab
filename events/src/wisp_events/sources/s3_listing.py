"""Giving a Subscription with `start: earliest` the objects that its bucket holds (docs/decisions/0061).

Invariants:
- A bucket is listed only when its rule was read back and the operator has told that its events are stored and that the route reads the
  listing: of what is uploaded from then on the server tells, all before is listed.
- Only the Subscription that asked reads it: it has a subject of its own. It gets it once, and
  what changed while nobody was told once more (docs/decisions/0072).
- A page is remembered when the log has it. Whoever dies in between repeats a page at most, under the same ids.
- A listing is never further ahead of its route than AHEAD_RECORDS: it shares the stream with the events of what is uploaded meanwhile, which
  would become dead letters if it filled it.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from http.client import FORBIDDEN
from typing import Final, NamedTuple

import msgspec
import nats.errors
import nats.js.errors
import prometheus_client
from nats.js import JetStreamContext
from nats.js.api import RawStreamMsg
from wisp_api import conditions, names
from wisp_api.source import BucketRule, ReaderStatus
from wisp_api.subscription import S3

from wisp_events import log
from wisp_events.sources import s3_objects
from wisp_events.sources.reader import Trouble, Wish
from wisp_events.sources.row_log import Kept
from wisp_events.sources.s3_client import Refused, S3Client
from wisp_events.sources.s3_rules import are_topics

logger = logging.getLogger(__name__)

LOOK_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 5.0
AHEAD_RECORDS: Final = 40
"""Of up to 256 objects each."""
LISTED = prometheus_client.Counter("wisp_reader_listed_objects", "Objects of listed buckets made into events")


class Progress(msgspec.Struct, rename="camel", frozen=True, omit_defaults=True):
    """How far one listing is in the log."""

    after: str = ""
    """The last key."""
    objects: int = 0
    """Events so far."""
    done: bool = False
    since: str = ""
    """Where it is not the first: of the objects that changed from then on alone."""

    def wanted(self, since: str) -> "Progress":
        """That of the listing which is to be done: this one until its end, then the one of what changed since."""
        return Progress(since=since) if self.done and self.since != since else self


class Remembered(msgspec.Struct, rename="camel", frozen=True, omit_defaults=True):
    """What is kept in the reader's key of the log."""

    listings: dict[str, Progress] = {}
    """By the uid of the Subscription."""


class _Cursor(msgspec.Struct, frozen=True):
    """What of a route's cursor tells how far it has read."""

    floor: int
    head: int = 0


class _Now(NamedTuple):
    """What is asked for, and where it can be had."""

    wish: Wish
    client: S3Client
    server: str
    ceph: bool
    rules: list[BucketRule]
    """Those that ask for a listing, of buckets that are followed."""


class Listings:
    """Lists the buckets of one connection, in turns a page each."""

    def __init__(self, js: JetStreamContext, changed: Callable[[], Awaitable[None]]) -> None:
        """`changed` is called when `message` has more to say than how many there are."""
        self._js = js
        self._changed = changed
        self._now: _Now | None = None
        self._kept: Kept[Remembered] | None = None
        self._known: dict[str, Progress] | None = None
        """As it was read or written last; None until then."""
        self._troubles: dict[str, str] = {}
        """What is in a listing's way, by uid."""
        self._resting: dict[str, float] = {}
        """When it is tried again."""
        self._said: dict[str, dict[str, str]] = {}
        """The state of each bucket's listings as `message` told it last."""

    def follow(self, wish: Wish, status: ReaderStatus) -> None:
        """List what this wish asks for of the buckets that the status says are followed."""
        config = wish.config.s3
        rules = [rule for rule in (config.rules if config else []) if rule.listing]
        server = next((one for one in (config.servers if config else []) if one.name == status.server), None)
        if wish.config.draining or server is None or not rules:
            self._now = None
            return
        ready = [rule for rule in rules if rule.bucket in status.items and status.items[rule.bucket].ready]
        self._now = _Now(wish, S3Client.of(wish), server.name, are_topics(server.notification_arns), ready)

    def message(self, bucket: str) -> str:
        """What is under way, or in the way, of a bucket's listings; empty when nothing is."""
        self._said[bucket] = state = self._state(bucket)
        told = []
        for rule in self._now.rules if self._now else []:
            if rule.listing in state:
                trouble, so_far = state[rule.listing], _progress(self._known, rule).objects
                how = f"are still to be listed: {trouble}" if trouble else "are being listed"
                told.append(f"the objects for Subscription {rule.subscription} {how} ({so_far} so far)")
        return "; ".join(told)

    def _state(self, bucket: str) -> dict[str, str]:
        """What is in the way of each of a bucket's listings that are not done, by uid."""
        rules = [rule for rule in (self._now.rules if self._now else []) if rule.bucket == bucket]
        return {
            rule.listing: self._troubles.get(rule.listing, "")
            for rule in rules
            if self._known is not None and not _progress(self._known, rule).done
        }

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            moved = await self._turn(self._now) if self._now else False
            buckets = {rule.bucket for rule in self._now.rules} if self._now else set()
            if any(self._state(bucket) != self._said.get(bucket, {}) for bucket in buckets):
                await self._changed()
            await asyncio.sleep(0 if moved else LOOK_SECONDS)

    async def _turn(self, now: _Now) -> bool:
        """A page of each listing; whether there was one."""
        try:
            known = await self._remembered(now)
        except Trouble as trouble:
            logger.warning("%s", trouble)
            return False
        moved = False
        for rule in now.rules:
            if _progress(known, rule).done or time.monotonic() < self._resting.get(rule.listing, 0):
                continue
            try:
                moved |= await self._go_on(now, rule)
            except log.Fenced as fenced:
                logger.warning("starting over: %s", fenced)
                self._known = None
                return False
            except Refused as refused:
                cure = f"; the key's policy must allow s3:ListBucket on arn:aws:s3:::{rule.bucket}"
                self._rest(rule, f"the server says {refused}{cure if refused.status == FORBIDDEN else ''}")
            except Trouble as trouble:
                self._rest(rule, trouble.message)
            except (log.LogUnavailable, ValueError) as error:
                self._rest(rule, f"{error}; trying again")
            else:
                self._troubles.pop(rule.listing, None)
        return moved

    def _rest(self, rule: BucketRule, trouble: str) -> None:
        if self._troubles.get(rule.listing) != trouble:
            logger.warning("the objects of bucket %s for %s: %s", rule.bucket, rule.subscription, trouble)
        self._troubles[rule.listing] = trouble
        self._resting[rule.listing] = time.monotonic() + RETRY_SECONDS

    async def _remembered(self, now: _Now) -> dict[str, Progress]:
        if self._kept is None:
            key = names.position_key(now.wish.config.namespace, S3, now.wish.config.connection)
            self._kept = Kept(self._js, key, Remembered)
        if self._known is None:
            self._known = (await self._kept.read() or Remembered()).listings
        return self._known

    async def _go_on(self, now: _Now, rule: BucketRule) -> bool:
        """Put the next page, unless the route has yet to read what was put; whether it was put."""
        namespace, source = now.wish.config.namespace, names.bucket_source(now.server, rule.bucket)
        stream = names.stream(namespace, S3, source)
        subject = names.listing_subject(namespace, now.server, rule.bucket, rule.listing)
        if await self._is_ahead(stream, subject, f"{namespace}.{rule.listing}"):
            return False
        progress = _progress(self._known, rule)
        answer = await asyncio.to_thread(now.client.list_objects, rule.bucket, rule.prefix, progress.after)
        page = s3_objects.read(answer, progress.after)
        wanted = [
            entry
            for entry in page.entries
            if entry.key.endswith(rule.suffix) and s3_objects.changed(entry, progress.since)
        ]
        made = list(s3_objects.events(now.server, rule.bucket, wanted, ceph=now.ceph))
        await log.append_once(self._js, stream, subject, made)
        LISTED.inc(len(made))
        after = page.entries[-1].key if page.entries else progress.after
        progress = Progress(after, progress.objects + len(made), not page.more, progress.since)
        await self._remember(now, (self._known or {}) | {rule.listing: progress})
        if progress.done:
            logger.info("%d objects of bucket %s listed for %s", progress.objects, rule.bucket, rule.subscription)
        return True

    async def _remember(self, now: _Now, known: dict[str, Progress]) -> None:
        """Keep it, without those who don't ask any more."""
        rules = now.wish.config.s3.rules if now.wish.config.s3 else []
        asked = {rule.listing for rule in rules}
        kept = {uid: progress for uid, progress in known.items() if uid in asked}
        assert self._kept  # noqa: S101 - it was read before
        await self._kept.write(Remembered(kept))
        self._known = kept

    async def _is_ahead(self, stream: str, subject: str, cursor_key: str) -> bool:
        """Whether the route has more than AHEAD_RECORDS to read before the listing's end in the log.

        Raises:
            Trouble: the log does not answer.
        """
        bucket = names.KV_CURSORS
        last = await self._last(stream, subject)
        if last is None:
            return False  # nothing was put, or it was purged, which only happens to what was read
        kept = await self._last(f"KV_{bucket}", f"$KV.{bucket}.{cursor_key}")
        try:
            cursor = msgspec.json.decode((kept and kept.data) or b"", type=_Cursor)
        except msgspec.DecodeError:
            return True  # the route goes, and with it the wish
        return (last.seq or 0) > max(cursor.floor, cursor.head) + AHEAD_RECORDS

    async def _last(self, stream: str, subject: str) -> RawStreamMsg | None:
        try:
            return await self._js.get_msg(stream, subject=subject, direct=True)
        except nats.js.errors.NotFoundError:
            return None
        except (nats.errors.Error, OSError) as error:
            raise Trouble(conditions.LOG_UNAVAILABLE, f"{log.describe(error)}; trying again") from None


def _progress(known: dict[str, Progress] | None, rule: BucketRule) -> Progress:
    """How far what a rule asks for is listed."""
    return (known or {}).get(rule.listing, Progress()).wanted(rule.since)
