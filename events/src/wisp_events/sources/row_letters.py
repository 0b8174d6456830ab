"""Dead letters of a database's reader: changes that can't become events.

Invariant: a letter is in the log when `bury` returns, however long the log is away; only then may the change's position be confirmed.
"""

import asyncio
import logging
from datetime import UTC, datetime
from typing import Final, Protocol

import msgspec
import prometheus_client
from nats.js import JetStreamContext
from wisp_api.cloudevent import Event, encode
from wisp_api.route import DeadLetter

from wisp_events import log

logger = logging.getLogger(__name__)

INPUT_BYTES: Final = 4096
KEY_BYTES: Final = 1024 * 1024
DEAD_LETTERS = prometheus_client.Counter("wisp_reader_dead_letters", "Changes that could not become events", ["reason"])


class Owner(Protocol):
    """Whose changes they are."""

    @property
    def namespace(self) -> str:
        """The connection's."""

    @property
    def connection(self) -> str:
        """Its Secret's name."""

    @property
    def kind(self) -> str:
        """The source's."""


def letter(owner: Owner, reason: str, message: str, *, event: Event | None = None, payload: bytes = b"") -> DeadLetter:
    """What is to be said of a change: the event without its values, or the bytes that came."""
    return DeadLetter(
        reason=reason,
        message=message,
        time=datetime.now(UTC).isoformat(timespec="milliseconds"),
        namespace=owner.namespace,
        source=f"{owner.kind}/{owner.connection}",
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
    """The event with its data reduced to operation and key, so that a dead letter of a huge row is small.

    A huge key goes, too, from the partition key as well: a letter that the log can't take would wait for ever.
    """
    data = msgspec.json.decode(bytes(event.data or b"{}"), type=dict[str, msgspec.Raw])
    kept = msgspec.json.encode({name: data[name] for name in ("op", "key") if name in data})
    if len(kept) > KEY_BYTES:
        return msgspec.structs.replace(event, data=msgspec.Raw(b"{}"), partitionkey=None)
    return msgspec.structs.replace(event, data=msgspec.Raw(kept))
