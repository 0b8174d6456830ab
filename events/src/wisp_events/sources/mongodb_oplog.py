"""How far a server's oplog reaches back behind what the event log has, and the warning before it drops that.

An oplog has a size, so its oldest entry is as old as the deployment's writes let it be. Who may look at it has the role `read` on the
database `local`, which a reader need not have, and a `mongos` has none: then nothing is known, and nothing is said.

Invariant: what may be dropped unread is warned of while it still is there, whatever keeps the reader from storing it: the warning stands
beside the trouble, not instead of it.
"""

import contextlib
import math
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import prometheus_client
from pymongo.errors import PyMongoError

from wisp_events.sources.mongodb_session import Client

SAFE_SHARE: Final = 0.25
"""Of the time that the oplog covers: less than this left is a warning."""
FULL_SHARE: Final = 0.9
"""Of its size: below nothing is dropped soon, however young it is."""
_NAME: Final = "oplog.rs"
KEPT: Final = prometheus_client.Gauge(
    "wisp_reader_oplog_kept_seconds",
    "The time that the server's oplog covers; 0: nothing is dropped yet, or it can't be read",
)
LEFT: Final = prometheus_client.Gauge(
    "wisp_reader_oplog_left_seconds",
    "How much older than what the event log lacks the oldest entry of the server's oplog is, in seconds",
)
LEFT.set(math.nan)


class Oplog(NamedTuple):
    """What a server has of it."""

    oldest: int
    """Unix time of its first entry."""
    newest: int
    full: bool
    """An entry is dropped for each that is added, or soon will be."""


async def look(client: Client) -> Oplog | None:
    """The oplog as it is; None where it can't be read."""
    entries = client.local[_NAME]
    try:
        ends = [await entries.find_one({}, {"ts": 1}, sort=[("$natural", way)]) for way in (1, -1)]
    except (PyMongoError, OSError):
        return None
    oldest, newest = (end["ts"].time if end else 0 for end in ends)
    return Oplog(oldest, newest, await _full(client)) if oldest else None


async def _full(client: Client) -> bool:
    """Whether it drops something; where the server does not tell, it does."""
    told: dict[str, Any] = {}
    with contextlib.suppress(PyMongoError, OSError):
        told = await client.local.command("collStats", _NAME)
    return bool(told.get("size", 1) >= FULL_SHARE * told.get("maxSize", 0))


def warning(oplog: Oplog | None, tokens: Iterable[str]) -> str:
    """What threatens and what to do, in a sentence; empty while nothing does. `tokens` are those up to which the event log has each collection."""
    places = [place for token in tokens if (place := time_of(token))]
    if oplog is None or not places:
        KEPT.set(0)
        LEFT.set(math.nan)
        return ""
    kept, left = oplog.newest - oplog.oldest, max(0, min(places) - oplog.oldest)
    KEPT.set(kept if oplog.full else 0)
    LEFT.set(left)
    if not oplog.full or left >= SAFE_SHARE * kept:
        return ""
    return (
        "the server will soon drop from its oplog what the event log has not, and then changes are lost: mend what holds the events up, or make "
        "the oplog larger (replSetResizeOplog)"
    )


def time_of(token: str) -> int:
    """The Unix time that a resume token begins with; 0 where it does not. MongoDB promises no form, and nothing but the warning depends on it."""
    try:
        return int(token[2:10], 16) if token.startswith("82") and len(token) >= 10 else 0  # noqa: PLR2004
    except ValueError:
        return 0
