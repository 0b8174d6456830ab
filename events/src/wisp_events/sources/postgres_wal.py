"""How much of its log a PostgreSQL server keeps for the reader's slot, and the warning before it drops it or its disk is full.

Invariant: a slot that the server may invalidate, or that may fill its disk, is warned of while it still loses nothing, whatever
keeps the reader from confirming: the warning stands beside the trouble, not instead of it.
"""

from typing import Any, Final, NamedTuple

import prometheus_client

from wisp_events.sources.postgres_slot import POSTGRES_13

SAFE_SHARE: Final = 0.25
"""Of what a server with a limit keeps for a slot: less than this left is a warning."""
UNLIMITED_BYTES: Final = 4 * 1024**3
"""A server without a limit keeps everything; more than this is a warning."""
_STATES: Final = ("unknown", "reserved", "extended", "unreserved", "lost")
STATUS: Final = prometheus_client.Enum(
    "wisp_reader_slot_wal_status", "The slot's wal_status; unknown before PostgreSQL 13", states=list(_STATES)
)
RETAINED: Final = prometheus_client.Gauge(
    "wisp_reader_slot_retained_bytes", "WAL that the server keeps for the slot, in bytes"
)
SAFE: Final = prometheus_client.Gauge(
    "wisp_reader_slot_safe_bytes",
    "WAL that can still be written before the slot may be lost, in bytes; -1 without a limit",
)
UNCONFIRMED: Final = prometheus_client.Gauge(
    "wisp_reader_unconfirmed_bytes",
    "From the position that the event log has to the newest that the server spoke of, in bytes of WAL",
)


class Retention(NamedTuple):
    """What the server keeps for a slot."""

    slot: str
    status: str
    """`wal_status`; unknown where the server doesn't tell."""
    retained: int
    """Bytes of WAL from the oldest that the slot needs to the newest."""
    safe: int | None
    """Bytes that can be written before the slot may be lost; None without a limit."""

    def warning(self) -> str:
        """What threatens and what to do, in a sentence; empty while nothing does."""
        if self.safe is None:
            if self.retained <= UNLIMITED_BYTES:
                return ""
            return (
                f"the server keeps more than {UNLIMITED_BYTES >> 30} GiB of WAL for replication slot {self.slot}, without a limit, until its "
                "disk is full: mend what holds the events up, or set max_slot_wal_keep_size"
            )
        if self.status != "unreserved" and self.safe > SAFE_SHARE * (self.safe + self.retained):
            return ""
        return (
            f"replication slot {self.slot} is near the server's max_slot_wal_keep_size, beyond which changes are lost: mend what holds the "
            "events up, or raise the setting"
        )

    def expose(self) -> None:
        """Set the metrics."""
        STATUS.state(self.status)
        RETAINED.set(self.retained)
        SAFE.set(-1 if self.safe is None else self.safe)


def retention(cursor: Any, slot: str) -> Retention | None:
    """What the server keeps for a slot now; None where there is none, or it is lost."""
    new = cursor.connection.server_version >= POSTGRES_13
    columns = "coalesce(wal_status, 'unknown'), safe_wal_size" if new else "'unknown', NULL"
    cursor.execute(
        f"SELECT {columns}, pg_current_wal_lsn() - restart_lsn FROM pg_replication_slots "  # noqa: S608
        "WHERE slot_name = %s AND restart_lsn IS NOT NULL",
        (slot,),
    )
    if (row := cursor.fetchone()) is None:
        return None
    status, safe, retained = row
    return Retention(
        slot, status if status in _STATES else "unknown", int(retained), None if safe is None else int(safe)
    )
