"""Which tables the two publications of a PostgreSQL reader hold, and what may be read of each.

Invariants:
- No table is published in a way that makes the user's own UPDATE or DELETE fail: a table without replica identity is
  published for inserts only or not at all. Nothing else of the user's is altered.
- What is published is followed, whatever was refused: what the reader takes of a table is read back from the publications.
- A table is added while nobody writes to it. A row that was written before it was published is never reported, so that
  one whose transaction commits afterwards would be missed.
- A publication holds tables by oid, a wish names them. The second publication's comment remembers the oid that was followed
  under each name, so that a table which another took the place of is noticed, also by the next reader. It is negative
  while a table that was followed in full is followed for inserts only.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec
from psycopg2 import sql
from wisp_api import conditions
from wisp_api.source import ItemStatus, TableConfig

from wisp_events.sources.postgres_session import blocker, connect, explained
from wisp_events.sources.postgres_slot import POSTGRES_13, insert_only
from wisp_events.sources.reader import Trouble
from wisp_events.sources.row_events import Table

POSTGRES_11: Final = 110000
WRITERS_MILLISECONDS: Final = 300
"""How long an attempt to add a table waits for its writers: meanwhile new ones wait behind it."""
_INSERT_ONLY: Final = frozenset({"insert"})
_MEMORY: Final = "Wisp, tables "

_TABLES = """
SELECT n.nspname || '.' || c.relname, CASE WHEN c.oid::bigint < 16384 THEN 'system' ELSE c.relkind::text END, c.relpersistence::text, c.relreplident::text,
       ARRAY(SELECT a.attname::text FROM pg_index i
             CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, place)
             JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
             WHERE i.indrelid = c.oid AND i.indisprimary AND i.indimmediate ORDER BY k.place),
       EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisreplident),
       format('%%I.%%I', n.nspname, c.relname), c.oid::bigint
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname || '.' || c.relname = ANY(%s)
"""
_PUBLISHED = """
SELECT p.pubname::text, n.nspname || '.' || c.relname, c.oid::bigint
FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE p.pubname = ANY(%s)
"""
_WRITERS = """
SELECT DISTINCT coalesce(pid, 0) FROM pg_locks
WHERE locktype = 'relation' AND granted AND mode NOT IN ('AccessShareLock', 'RowShareLock') AND pid IS DISTINCT FROM pg_backend_pid()
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND (relation = %(table)s::regclass OR relation IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = %(table)s::regclass))
"""


class _Found(NamedTuple):
    kind: str
    persistence: str
    identity: str
    primary_key: list[str]
    identity_index: bool
    quoted: str
    oid: int

    @property
    def identified(self) -> bool:
        """Whether UPDATE and DELETE work once they are published."""
        identity = {"f": True, "d": bool(self.primary_key), "i": self.identity_index, "n": False}[self.identity]
        return identity and (self.kind == "r" or bool(self.primary_key))


@dataclass(frozen=True, slots=True)
class Following:
    """What became of the wanted tables."""

    tables: dict[str, Table]
    """Those that are followed, by `schema.table`."""
    items: dict[str, ItemStatus]
    """All."""
    oids: dict[str, int]
    """Of those that are followed."""
    before: dict[str, int]
    """What the publications held before, by the names that the tables have now."""
    reduced: frozenset[str]
    """Tables that were followed for all operations until they lost their replica identity."""


def follow(cursor: Any, slot: str, wanted: list[TableConfig], *, lock: bool) -> Following:
    """Make the publications hold what they are to hold; what the server refuses stays as it was.

    `lock`: add a table only while nobody writes to it; needless where a slot is made afterwards, which waits for writers.

    Raises:
        Trouble: the server does not answer, or keeps a table published that must not be.
    """
    cursor.execute(_TABLES, ([table.name for table in wanted],))
    found = {row[0]: _Found(*row[1:]) for row in cursor.fetchall()}
    items: dict[str, ItemStatus] = {}
    into: dict[str, set[str]] = {slot: set(), insert_only(slot): set()}
    for table in wanted:
        reason, message = _unfit(table, found.get(table.name), cursor.connection.server_version)
        items[table.name] = ItemStatus(ready=not reason, reason=reason, message=message)
        if "insert" in table.operations and (reason == conditions.NO_REPLICA_IDENTITY or len(table.operations) == 1):
            into[insert_only(slot)].add(table.name)
        elif not reason:
            into[slot].add(table.name)
    before = _published(cursor, into)
    items |= _publish(cursor, into, before, found, lock=lock)
    after = _published(cursor, into)
    tables, oids = {}, {}
    for table in wanted:
        published = frozenset(table.operations) if table.name in after[slot] else _INSERT_ONLY
        operations = published & frozenset(table.operations)
        if operations and any(table.name in held for held in after.values()):
            tables[table.name] = Table(operations, tuple(found[table.name].primary_key))
            oids[table.name] = found[table.name].oid
            items[table.name].operations = sorted(operations)
    reduced = frozenset(
        name for name in before[slot] if name in tables and name in into[insert_only(slot)] and items[name].reason
    )
    return Following(
        tables, items, oids, {name: oid for held in before.values() for name, oid in held.items()}, reduced
    )


def _unfit(table: TableConfig, found: _Found | None, version: int) -> tuple[str, str]:
    """Why a table can't be followed as wanted: reason and message, both empty when it can."""
    name = table.name
    if found is None:
        return conditions.TABLE_NOT_FOUND, f"there is no table {name}; create it, or correct the name (schema.table)"
    if trouble := _no_table(name, found, version):
        return conditions.TABLE_NOT_FOUND, trouble
    if set(table.operations) <= _INSERT_ONLY or found.identified:
        return "", ""
    cure = (  # a partition made later has a replica identity only by a primary key
        f"ALTER TABLE {found.quoted} ADD PRIMARY KEY (...); or subscribe to insert only"
        if found.kind == "p"
        else f"ALTER TABLE {found.quoted} REPLICA IDENTITY FULL; or give it a primary key, or subscribe to insert only"
    )
    return conditions.NO_REPLICA_IDENTITY, (
        f"table {name} has no replica identity, so that UPDATE and DELETE on it would fail once published; run: {cure}"
    )


def _no_table(name: str, found: _Found, version: int) -> str:
    """Why this kind of table is never reported by the server; empty where it is."""
    if found.kind == "system":  # below FirstNormalObjectId: publications take it without a word and never report it
        return f"{name} is a system table, as are those made by `postgres --single`; make it anew in a running server"
    if found.kind not in ("r", "p") or found.persistence != "p":
        return f"{name} is no ordinary, logged table; only those report row changes"
    if found.kind == "p" and version < POSTGRES_13:
        return f"{name} is partitioned; name its partitions, or use PostgreSQL 13 or newer"
    return ""


def _published(cursor: Any, publications: Collection[str]) -> dict[str, dict[str, int]]:
    """What each publication holds: oids by the tables' present names."""
    cursor.execute(_PUBLISHED, (list(publications),))
    held: dict[str, dict[str, int]] = {publication: {} for publication in publications}
    for publication, table, oid in cursor.fetchall():
        held[publication][table] = oid
    return held


def _publish(
    cursor: Any, into: dict[str, set[str]], held: dict[str, dict[str, int]], found: dict[str, _Found], *, lock: bool
) -> dict[str, ItemStatus]:
    """Add and drop tables; returns those that the server refused to add.

    Adds before it drops: a table that moves from one to the other is never in none. What is refused stays where it is,
    unless that breaks the user's UPDATE.
    """
    all_operations, inserts = into
    refused: dict[str, ItemStatus] = {}
    for publication, names in into.items():
        for name in sorted(names - held[publication].keys()):
            reported = publication == inserts and name in held[all_operations]
            try:
                _add(cursor, publication, name, found[name].quoted, lock=lock and not reported)
            except Trouble as trouble:
                refused[name] = ItemStatus(ready=False, reason=trouble.reason, message=trouble.message)
    for publication, names in into.items():
        staying = {name for name in refused if publication == inserts or found[name].identified}
        for name in sorted(held[publication].keys() - names - staying):
            cursor.execute(_change(publication, "DROP", name))
    return refused


def _add(cursor: Any, publication: str, name: str, quoted: str, *, lock: bool) -> None:
    """Add a table to a publication, in one transaction with its lock.

    The weaker lock first, which blocks no writer: only after a second's wait does the server end an autovacuum for it.

    Raises:
        Trouble: the server refuses, or somebody writes to the table.
    """
    table = sql.Identifier(*name.split(".", 1))
    locks = sql.SQL(
        "LOCK TABLE {0} IN SHARE UPDATE EXCLUSIVE MODE; SET LOCAL lock_timeout = {1}; LOCK TABLE {0} IN SHARE ROW EXCLUSIVE MODE; "
    ).format(table, sql.Literal(WRITERS_MILLISECONDS))
    try:
        with explained():
            cursor.execute((locks if lock else sql.SQL("")) + _change(publication, "ADD", name))
    except Trouble as trouble:
        if trouble.reason != conditions.WAITING_FOR_TRANSACTIONS:
            raise
        cursor.execute(_WRITERS, {"table": quoted})
        cause = blocker(cursor, [row[0] for row in cursor.fetchall()]) or trouble.message
        raise Trouble(trouble.reason, f"to follow {name}, {cause}; trying again") from None


def create_publication(name: str, version: int, actions: str) -> sql.Composable:
    """The statement that makes an empty publication of some of insert, update, delete, truncate."""
    if version < POSTGRES_11:
        actions = actions.removesuffix(", truncate")
    root = ", publish_via_partition_root = true" if version >= POSTGRES_13 else ""
    options = sql.SQL(f"publish = '{actions}'{root}")
    return sql.SQL("CREATE PUBLICATION {} WITH ({})").format(sql.Identifier(name), options)


def _change(publication: str, verb: str, table: str) -> sql.Composable:
    schema, _, name = table.partition(".")
    return sql.SQL("ALTER PUBLICATION {} " + verb + " TABLE {}").format(
        sql.Identifier(publication), sql.Identifier(schema, name)
    )


def remembered(comment: str) -> dict[str, int]:
    """The oids in the second publication's comment; none where it is not ours."""
    try:
        return msgspec.json.decode(comment.removeprefix(_MEMORY), type=dict[str, int])
    except msgspec.DecodeError:
        return {}


def memory(slot: str, oids: dict[str, int]) -> sql.Composable:
    """The statement that writes that comment."""
    text = _MEMORY + msgspec.json.encode(oids, order="sorted").decode()
    return sql.SQL("COMMENT ON PUBLICATION {} IS {}").format(sql.Identifier(insert_only(slot)), sql.Literal(text))


def remember(dsn: str, slot: str, oids: dict[str, int]) -> None:
    """Remember which tables are followed, when the log holds the gap events of those that were replaced.

    Raises:
        Trouble: it can't be done now.
    """
    with connect(dsn) as session, explained(), session.cursor() as cursor:
        session.autocommit = True
        cursor.execute(memory(slot, oids))
