"""Purging what every route has passed: the event log itself deletes nothing.

Invariant: a record is purged only if the cursor of every route on its stream has passed it, and it is older than the
retention or the stream is filled above HIGH_WATER. Routes and cursors are read to their end first, cursors before routes'
absence counts; if anything can't be read or decoded, or a route has no cursor yet, nothing is purged.
"""

import logging
import time
from datetime import UTC, datetime
from typing import Final

import msgspec
from nats.aio.client import Client
from wisp_api import names

from wisp_events.router import bucket, metrics
from wisp_events.router.cursor import Cursor
from wisp_events.router.ownership import owner
from wisp_events.router.replay import first_since

logger = logging.getLogger(__name__)

HIGH_WATER: Final = 0.8
LOW_WATER: Final = 0.6


class _Route(msgspec.Struct):
    """What the janitor needs of a route: another version's other fields are no hindrance."""

    namespace: str
    uid: str
    stream: str


async def floors(client: Client) -> dict[str, int]:
    """For each stream with routes, the sequence that all of them have passed.

    Raises:
        nats.errors.Error, OSError, ValueError: something could not be read; purge nothing.
    """
    js = client.jetstream()
    routes = [msgspec.json.decode(e.value, type=_Route) for e in await bucket.changes(js, names.KV_ROUTES) if e.value]
    cursors = {e.key: e.value for e in await bucket.changes(js, names.KV_CURSORS)}
    passed: dict[str, int] = {}
    for route in routes:
        value = cursors.get(f"{route.namespace}.{route.uid}")
        floor = msgspec.json.decode(value, type=Cursor).floor if value else 0
        passed[route.stream] = min(floor, passed.get(route.stream, floor))
    return passed


async def clean(client: Client, me: str, alive: list[str], retention_seconds: float) -> None:
    """Purge this replica's share of the streams once.

    Raises:
        nats.errors.Error, OSError, ValueError: something could not be read.
    """
    for stream, floor in (await floors(client)).items():
        if floor and owner(stream, alive) == me:
            await _purge(client, stream, floor, retention_seconds)


async def _purge(client: Client, stream: str, floor: int, retention_seconds: float) -> None:
    js = client.jetstream()
    info = await js.stream_info(stream)
    state, quota = info.state, info.config.max_bytes or 0
    if not state.messages:
        return
    since = datetime.fromtimestamp(max(0.0, time.time() - retention_seconds), UTC)
    keep_from = await first_since(client, stream, since) or state.last_seq + 1
    if quota > 0 and state.bytes > HIGH_WATER * quota:
        surplus = (state.bytes - LOW_WATER * quota) / (state.bytes / state.messages)
        keep_from = max(keep_from, state.first_seq + int(surplus))
    keep_from = min(keep_from, floor + 1)
    if keep_from > state.first_seq:
        await js.purge_stream(stream, seq=keep_from)
        metrics.PURGED.inc(keep_from - state.first_seq)
        logger.info("purged delivered records of %s before %d", stream, keep_from)
