"""What a PostgreSQL reader asks of the database and keeps in it: one slot and two publications.

Invariants:
- The publications exist before the slot and live as long as it: pgoutput stops for good at a change that was written
  before its publication was.
- No table is published in a way that makes the user's own UPDATE or DELETE fail: a table without replica identity is
  published for inserts only or not at all. Nothing else of the user's is altered.
- A slot that is not the one that the log followed (lost, dropped, or of a server whose positions went back) never passes
  for it: it starts a new epoch, written into the publication's comment before the slot is made, and the log says so
  first with gap events.
"""

import re
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

import psycopg2.errors
from psycopg2 import sql
from psycopg2.extensions import connection as Connection  # noqa: N812 - a class with a lower-case name
from wisp_api import conditions
from wisp_api.source import ItemStatus, PostgresConfig, TableConfig

from wisp_events.sources.postgres_events import Place, Table
from wisp_events.sources.postgres_session import connect, explained
from wisp_events.sources.reader import Trouble

STATEMENT_SECONDS: Final = 20
LOCK_SECONDS: Final = 10
POSTGRES_11: Final = 110000
POSTGRES_13: Final = 130000
_INSERT_ONLY: Final = frozenset({"insert"})
_EPOCH = re.compile(r"Wisp, epoch (\d+)")


@dataclass(frozen=True, slots=True)
class Prepared:
    """What streaming needs to know after `prepare`."""

    epoch: int
    tables: dict[str, Table]
    """Those that are published, by `schema.table`."""
    items: dict[str, ItemStatus]
    """Every table of the config."""
    gap: str = ""
    """Why changes may be missing before `position`; the slot is not made yet: write the gap events, then `make_slot`."""
    position: int = 0
    """The server's current position in its log (LSN)."""


def insert_only(slot: str) -> str:
    """Name of the second publication; the first bears the slot's name."""
    return f"{slot[:59]}_ins"


def prepare(dsn: str, config: PostgresConfig, held: Collection[Place]) -> Prepared:
    """Check the server, bring the publications in line with the wanted tables, and make the slot where there was none.

    `held` are the places of the last events that the log holds.

    Raises:
        Trouble: nothing can be followed now.
    """
    newer = max([int(time.time()), *(place.epoch + 1 for place in held)])
    with connect(dsn) as session, explained(), session.cursor() as cursor:
        session.autocommit = True
        cursor.execute(f"SET statement_timeout = '{STATEMENT_SECONDS}s'; SET lock_timeout = '{LOCK_SECONDS}s'")
        _check_server(cursor)
        tables, items = _check_tables(cursor, session.server_version, config.tables)
        comments = _comments(cursor, config.slot)
        gap = _gap(session, cursor, config.slot, comments)
        _make_publications(cursor, config.slot, session.server_version, newer, comments)
        items |= _publish(cursor, config.slot, tables)
        tables = {name: table for name, table in tables.items() if items[name].ready}
        position = _position(cursor)
        first = config.slot not in comments
        epoch = newer if first else _epoch(comments[config.slot])
        if not gap and any(place.epoch == epoch and place.commit_lsn > position for place in held):
            gap = "the server's log positions went back, as after a restore"
        if gap:
            return Prepared(max(newer, epoch + 1), tables, items, gap, position)
        if first:
            _create_slot(cursor, config.slot, newer)
        return Prepared(epoch, tables, items, "", position)


def _position(cursor: Any) -> int:
    cursor.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
    return int(cursor.fetchone()[0])


def _check_server(cursor: Any) -> None:
    cursor.execute("SELECT current_setting('wal_level'), pg_is_in_recovery()")
    level, standby = cursor.fetchone()
    if standby:
        raise Trouble(conditions.INVALID_CONNECTION, "the server is a standby; name the primary server in key dsn")
    if level != "logical":
        raise Trouble(
            conditions.LOGICAL_DECODING_OFF,
            f"wal_level is {level}; run ALTER SYSTEM SET wal_level = 'logical' and restart the server",
        )


_TABLES = """
SELECT n.nspname || '.' || c.relname, CASE WHEN c.oid::bigint < 16384 THEN 'system' ELSE c.relkind::text END, c.relpersistence::text, c.relreplident::text,
       ARRAY(SELECT a.attname::text FROM pg_index i
             CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, place)
             JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
             WHERE i.indrelid = c.oid AND i.indisprimary AND i.indimmediate ORDER BY k.place),
       EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisreplident),
       format('%%I.%%I', n.nspname, c.relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname || '.' || c.relname = ANY(%s)
"""


def _check_tables(
    cursor: Any, version: int, wanted: list[TableConfig]
) -> tuple[dict[str, Table], dict[str, ItemStatus]]:
    """The tables that can be published as wanted, and the state of all."""
    cursor.execute(_TABLES, ([table.name for table in wanted],))
    found = {row[0]: row[1:] for row in cursor.fetchall()}
    tables: dict[str, Table] = {}
    items: dict[str, ItemStatus] = {}
    for table in wanted:
        operations = frozenset(table.operations)
        reason, message = _unfit(table.name, found.get(table.name), operations, version)
        items[table.name] = ItemStatus(ready=not reason, reason=reason, message=message)
        if not reason:
            tables[table.name] = Table(operations, tuple(found[table.name][3]))
    return tables, items


def _unfit(  # noqa: PLR0911 - one return a reason
    name: str, found: tuple[Any, ...] | None, operations: frozenset[str], version: int
) -> tuple[str, str]:
    """Why a table can't be followed: reason and message, both empty when it can."""
    if found is None:
        return conditions.TABLE_NOT_FOUND, f"there is no table {name}; create it, or correct the name (schema.table)"
    kind, persistence, identity, primary_key, identity_index, quoted = found
    if kind == "system":  # below FirstNormalObjectId: publications take it without a word and never report it
        return (
            conditions.TABLE_NOT_FOUND,
            f"{name} is a system table, as are those made by `postgres --single`; make it anew in a running server",
        )
    if kind not in ("r", "p") or persistence != "p":
        return conditions.TABLE_NOT_FOUND, f"{name} is no ordinary, logged table; only those report row changes"
    if kind == "p" and version < POSTGRES_13:
        return conditions.TABLE_NOT_FOUND, f"{name} is partitioned; name its partitions, or use PostgreSQL 13 or newer"
    if operations <= _INSERT_ONLY:
        return "", ""
    has_identity = {"f": True, "d": bool(primary_key), "i": identity_index, "n": False}[identity]
    if has_identity and (kind == "r" or primary_key):
        return "", ""
    cure = (  # a partition made later has a replica identity only by a primary key
        f"ALTER TABLE {quoted} ADD PRIMARY KEY (...); or subscribe to insert only"
        if kind == "p"
        else f"ALTER TABLE {quoted} REPLICA IDENTITY FULL; or give it a primary key, or subscribe to insert only"
    )
    return conditions.NO_REPLICA_IDENTITY, (
        f"table {name} has no replica identity, so that UPDATE and DELETE on it would fail once published; run: {cure}"
    )


def _comments(cursor: Any, slot: str) -> dict[str, str]:
    """The comments on those of our publications that are there."""
    cursor.execute(
        "SELECT pubname::text, coalesce(obj_description(oid, 'pg_publication'), '') FROM pg_publication "
        "WHERE pubname IN (%s, %s)",
        (slot, insert_only(slot)),
    )
    return dict(cursor.fetchall())


def _epoch(comment: str) -> int:
    """The epoch that a publication's comment holds; 0 where it holds none."""
    found = _EPOCH.match(comment)
    return int(found[1]) if found else 0


def _make_publications(cursor: Any, slot: str, version: int, epoch: int, present: Collection[str]) -> None:
    """Make the publications that are missing, empty; the first one's comment holds the epoch."""
    if insert_only(slot) not in present:
        cursor.execute(_create_publication(insert_only(slot), version, "insert"))
    if slot not in present:
        actions = "insert, update, delete" + (", truncate" if version >= POSTGRES_11 else "")
        cursor.execute(sql.SQL("{}; {}").format(_create_publication(slot, version, actions), _comment(slot, epoch)))


def _publish(cursor: Any, slot: str, tables: dict[str, Table]) -> dict[str, ItemStatus]:
    """Make both publications hold what they are to hold; returns the tables that the server refused.

    Adds before it drops: a table that moves from one to the other is never in none.
    """
    wanted: dict[str, set[str]] = {slot: set(), insert_only(slot): set()}
    for name, table in tables.items():
        wanted[insert_only(slot) if table.operations <= _INSERT_ONLY else slot].add(name)
    cursor.execute(
        "SELECT pubname::text, schemaname || '.' || tablename FROM pg_publication_tables WHERE pubname = ANY(%s)",
        (list(wanted),),
    )
    held: dict[str, set[str]] = {publication: set() for publication in wanted}
    for publication, table in cursor.fetchall():
        held[publication].add(table)
    refused: dict[str, ItemStatus] = {}
    for publication, names in wanted.items():
        for name in sorted(names - held[publication]):
            try:
                with explained():
                    cursor.execute(_change(publication, "ADD", name))
            except Trouble as trouble:
                refused[name] = ItemStatus(ready=False, reason=trouble.reason, message=trouble.message)
    for publication, names in wanted.items():
        for name in sorted(held[publication] - names - refused.keys()):
            cursor.execute(_change(publication, "DROP", name))
    return refused


def _create_publication(name: str, version: int, actions: str) -> sql.Composable:
    root = ", publish_via_partition_root = true" if version >= POSTGRES_13 else ""
    options = sql.SQL(f"publish = '{actions}'{root}")
    return sql.SQL("CREATE PUBLICATION {} WITH ({})").format(sql.Identifier(name), options)


def _change(publication: str, verb: str, table: str) -> sql.Composable:
    schema, _, name = table.partition(".")
    return sql.SQL("ALTER PUBLICATION {} " + verb + " TABLE {}").format(
        sql.Identifier(publication), sql.Identifier(schema, name)
    )


def _comment(slot: str, epoch: int) -> sql.Composable:
    return sql.SQL("COMMENT ON PUBLICATION {} IS {}").format(sql.Identifier(slot), sql.Literal(f"Wisp, epoch {epoch}"))


def _gap(session: Connection, cursor: Any, slot: str, comments: dict[str, str]) -> str:
    """Why the slot does not continue what was followed before; empty when it does, or when nothing was.

    A slot without both its publications is of no use any more, and is dropped before they are made again: so a crash in
    between leaves publications without a slot, which is a gap as well.
    """
    status = "wal_status" if session.server_version >= POSTGRES_13 else "NULL"
    cursor.execute(
        f"SELECT {status}, database, current_database() FROM pg_replication_slots WHERE slot_name = %s",  # noqa: S608
        (slot,),
    )
    row = cursor.fetchone()
    if row is None:
        gone = f"replication slot {slot} is gone: it was dropped, or the server failed over to one without it"
        return gone if slot in comments else ""
    if row[1] != row[2]:
        raise Trouble(
            conditions.INVALID_CONNECTION,
            f"replication slot {slot} belongs to database {row[1]}, key dsn names {row[2]}; correct it, or drop the slot",
        )
    if row[0] == "lost":
        return f"the server removed log that replication slot {slot} still needed; raise max_slot_wal_keep_size"
    if slot not in comments or insert_only(slot) not in comments:
        _drop_slot(session, slot)
        return f"a publication of replication slot {slot} was dropped"
    return "" if _epoch(comments[slot]) else f"the comment on publication {slot} was changed"


def make_slot(dsn: str, slot: str, epoch: int) -> None:
    """Replace the slot by one at the current position that begins `epoch`.

    Raises:
        Trouble: it can't be done now.
    """
    with connect(dsn) as session, explained():
        session.autocommit = True
        _drop_slot(session, slot)
        with session.cursor() as cursor:
            cursor.execute(f"SET statement_timeout = '{STATEMENT_SECONDS}s'")
            _create_slot(cursor, slot, epoch)


def _create_slot(cursor: Any, slot: str, epoch: int) -> None:
    cursor.execute(_comment(slot, epoch))
    cursor.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (slot,))


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


def _drop_slot(session: Connection, slot: str) -> None:
    """Drop it, ending whoever holds it first."""
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
            except psycopg2.errors.ObjectInUse:
                pass
            time.sleep(0.1)  # in a thread of its own; the walsender needs a moment to end
    raise Trouble(conditions.SERVER_UNREACHABLE, f"replication slot {slot} stays in use; trying again")


def drop(dsn: str, slot: str) -> None:
    """Remove all that the reader made: slot and publications.

    Raises:
        Trouble: something is left.
    """
    with connect(dsn) as session, explained():
        session.autocommit = True
        _drop_slot(session, slot)
        with session.cursor() as cursor:
            for publication in (slot, insert_only(slot)):
                cursor.execute(sql.SQL("DROP PUBLICATION IF EXISTS {}").format(sql.Identifier(publication)))
