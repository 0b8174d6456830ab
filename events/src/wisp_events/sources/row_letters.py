"""Dead letters of a database's reader: changes that can't become events.

Invariant: a letter is in the log when `bury` returns, however long the log is away; only then may the change's position be confirmed.
"""

import asyncio
import logging
from datetime import UTC, datetime
from typing import Final

import msgspec
import prometheus_client
from nats.js import JetStreamContext
from wisp_api.cloudevent import EVENT_BYTES, Event, encode
from wisp_api.route import DeadLetter

from wisp_events import log
from wisp_events.sources.row_events import Mapper

logger = logging.getLogger(__name__)

INPUT_BYTES: Final = 4096
DEAD_LETTERS = prometheus_client.Counter("wisp_reader_dead_letters", "Changes that could not become events", ["reason"])


def letter(
    mapper: Mapper, reason: str, message: str, *, event: Event | None = None, payload: bytes = b""
) -> DeadLetter:
    """What is to be said of a change: the event without its values, or the bytes that came."""
    return DeadLetter(
        reason=reason,
        message=message,
        time=datetime.now(UTC).isoformat(timespec="milliseconds"),
        namespace=mapper.namespace,
        source=f"{mapper.kind}/{mapper.connection}",
        event=msgspec.Raw(encode(_without_values(event))) if event else None,
        input=payload[:INPUT_BYTES].decode(errors="replace") if payload else None,
    )


async def bury(js: JetStreamContext, one: DeadLetter) -> None:
    """Store a dead letter, however long the log is away."""
    while True:
        try:
            await log.dead_letter(js, one)
        except log.LogUnavailable as error:
            logger.warning("a dead letter waits: %s", error)
            await asyncio.sleep(1)
        else:
            logger.warning("dead letter: %s: %s", one.reason, one.message)
            DEAD_LETTERS.labels(one.reason).inc()
            return


def _without_values(event: Event) -> Event:
    """The event with its data reduced to operation and key, so that a dead letter of a huge row is small."""
    data = msgspec.json.decode(bytes(event.data or b"{}"), type=dict[str, msgspec.Raw])
    kept = msgspec.json.encode({name: data[name] for name in ("op", "key") if name in data})
    return msgspec.structs.replace(event, data=msgspec.Raw(kept if len(kept) < EVENT_BYTES else b"{}"))
