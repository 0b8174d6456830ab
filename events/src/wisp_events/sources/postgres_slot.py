"""The replication slot of a PostgreSQL reader, and how far the replacement of a lost one has come.

Invariant: a slot that is not the one that the log followed (lost, dropped, or of a server whose positions went back) never
passes for it. It begins a new epoch, and what the log says first of an epoch is a gap event for each table. How far that is
stands in the first publication's comment, so that whoever dies on the way is continued:

    Wisp, epoch N, new slot: why      whatever slot there is will be replaced; the log holds nothing of this epoch
    Wisp, epoch N, gap pending: why   the slot is the epoch's, and nothing was read from it; gap events may be in the log
    Wisp, epoch N                     the slot is followed
"""

import re
import time
from collections.abc import Collection
from typing import Any, Final, NamedTuple

import psycopg2.errors
from psycopg2 import sql
from psycopg2.extensions import connection as Connection  # noqa: N812 - a class with a lower-case name
from wisp_api import conditions

from wisp_events.sources.postgres_session import blocker, connect, explained
from wisp_events.sources.reader import Trouble
from wisp_events.sources.row_events import Place

NEW_SLOT: Final = "new slot"
GAP_PENDING: Final = "gap pending"
FOLLOWED: Final = ""
CREATE_SECONDS: Final = 60
"""How long the making of a slot waits for open transactions before it begins anew."""
POSTGRES_12: Final = 120000
POSTGRES_13: Final = 130000
POSTGRES_17: Final = 170000
_COMMENT = re.compile(rf"Wisp, epoch (\d+)(?:, ({NEW_SLOT}|{GAP_PENDING}): (.*))?", re.DOTALL)


class Progress(NamedTuple):
    """What a publication's comment tells."""

    epoch: int
    stage: str
    gap: str = ""
    """Why changes from before the epoch may be missing; empty where nothing was followed before it."""

    def __str__(self) -> str:
        """The comment."""
        return f"Wisp, epoch {self.epoch}" + (f", {self.stage}: {self.gap}" if self.stage else "")

    @classmethod
    def parse(cls, comment: str) -> "Progress | None":
        """What a comment says, if it is ours."""
        found = _COMMENT.fullmatch(comment)
        return cls(int(found[1]), found[2] or FOLLOWED, found[3] or "") if found else None


def insert_only(slot: str) -> str:
    """Name of the second publication; the first bears the slot's name."""
    return f"{slot[:59]}_ins"


def position(cursor: Any) -> int:
    """Up to where the server has stored its log (LSN)."""
    cursor.execute("SELECT pg_current_wal_flush_lsn() - '0/0'::pg_lsn")
    return int(cursor.fetchone()[0])


def progress(cursor: Any, slot: str, comments: dict[str, str], held: Collection[Place]) -> Progress:
    """How far the slot is: what the comment says, or the beginning of a new epoch, not yet written down.

    `comments` are those on our publications that are there, `held` the places of the last events that the log holds.

    Raises:
        Trouble: the slot is another database's.
    """
    known = Progress.parse(comments.get(slot, ""))
    slot_status = _slot_status(cursor, slot)
    if known and known.stage == NEW_SLOT:
        return known
    why = _broken(slot, slot_status, comments, known)
    newest = max((place.commit_lsn for place in held if known and place.epoch == known.epoch), default=0)
    if not why and newest > position(cursor):
        why = "the server's log positions went back, as after a restore"
    if known and not why:
        return known
    first = not comments and slot_status is None
    epoch = max([int(time.time()), *(place.epoch + 1 for place in held), known.epoch + 1 if known else 0])
    return Progress(epoch, NEW_SLOT, "" if first else why)


def _slot_status(cursor: Any, slot: str) -> str | None:
    """`wal_status` of the slot, empty where the server has none; None where there is no slot."""
    status = "wal_status" if cursor.connection.server_version >= POSTGRES_13 else "NULL"
    cursor.execute(
        f"SELECT {status}, database, current_database() FROM pg_replication_slots WHERE slot_name = %s",  # noqa: S608
        (slot,),
    )
    row = cursor.fetchone()
    if row is None:
        return None
    if row[1] != row[2]:
        raise Trouble(
            conditions.INVALID_CONNECTION,
            f"replication slot {slot} belongs to database {row[1]}, key dsn names {row[2]}; correct it, or drop the slot",
        )
    return row[0] or ""


def _broken(slot: str, slot_status: str | None, comments: dict[str, str], known: Progress | None) -> str:
    """Why the slot does not continue what was followed before; empty when it does."""
    if slot not in comments or insert_only(slot) not in comments:
        return f"a publication of replication slot {slot} was dropped"
    if known is None:
        return f"the comment on publication {slot} was changed"
    if slot_status is None:
        return f"replication slot {slot} is gone: it was dropped, or the server failed over to one without it"
    if slot_status == "lost":
        return f"the server removed log that replication slot {slot} still needed; raise max_slot_wal_keep_size"
    return ""


def comment(slot: str, at: Progress) -> sql.Composable:
    """The statement that writes down how far the slot is."""
    return sql.SQL("COMMENT ON PUBLICATION {} IS {}").format(sql.Identifier(slot), sql.Literal(str(at)))


def creation(version: int) -> str:
    """The statement that makes the slot; where the server can carry it to its standbys, such that it does."""
    beyond = ", failover => true" if version >= POSTGRES_17 else ""
    return f"SELECT pg_create_logical_replication_slot(%s, 'pgoutput'{beyond})"


def make_slot(dsn: str, slot: str, begun: Progress) -> Progress:
    """Replace whatever slot there is by one at the current position; waits for transactions that are open.

    Raises:
        Trouble: it can't be done now.
    """
    with connect(dsn) as session, explained():
        session.autocommit = True
        drop_slot(session, slot)
        made = begun._replace(stage=GAP_PENDING if begun.gap else FOLLOWED)
        with session.cursor() as cursor:
            cursor.execute(f"SET statement_timeout = '{CREATE_SECONDS}s'")
            cursor.execute(creation(session.server_version), (slot,))
            cursor.execute(comment(slot, made))
        return made


def write(dsn: str, slot: str, at: Progress) -> None:
    """Write down how far the slot is.

    Raises:
        Trouble: it can't be done now.
    """
    with connect(dsn) as session, explained(), session.cursor() as cursor:
        session.autocommit = True
        cursor.execute(comment(slot, at))


def held_up_by(dsn: str, slot: str) -> str:
    """The transaction that `make_slot` waits for, in a sentence; empty when it waits for none.

    Raises:
        Trouble: the server does not answer.
    """
    with connect(dsn) as session, explained(), session.cursor() as cursor:
        cursor.execute(
            "SELECT unnest(pg_blocking_pids(active_pid)) FROM pg_replication_slots WHERE slot_name = %s", (slot,)
        )
        return blocker(cursor, [row[0] for row in cursor.fetchall()])


def release_slot(dsn: str, slot: str) -> None:
    """End the connection that still holds the slot: a predecessor that the server takes for alive.

    Raises:
        Trouble: it can't be done now.
    """
    with connect(dsn) as session, explained():
        session.autocommit = True
        with session.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = %s AND active_pid IS NOT NULL",
                (slot,),
            )


def drop_slot(session: Connection, slot: str) -> None:
    """Drop it, ending whoever holds it first.

    Raises:
        Trouble: it stays in use.
    """
    with session.cursor() as cursor:
        for _ in range(50):
            cursor.execute("SELECT active_pid FROM pg_replication_slots WHERE slot_name = %s", (slot,))
            row = cursor.fetchone()
            if row is None:
                return
            try:
                if row[0] is None:
                    cursor.execute("SELECT pg_drop_replication_slot(%s)", (slot,))
                    return
                cursor.execute("SELECT pg_terminate_backend(%s)", (row[0],))
            except (psycopg2.errors.ObjectInUse, psycopg2.errors.UndefinedObject):
                pass
            time.sleep(0.1)  # in a thread of its own; the walsender needs a moment to end
    raise Trouble(conditions.SERVER_UNREACHABLE, f"replication slot {slot} stays in use; trying again")
