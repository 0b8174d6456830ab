"""What a PostgreSQL reader asks of the database and keeps in it: one slot and two publications.

Invariant: the publications exist before the slot and live as long as it: pgoutput stops for good at a change that was
written before its publication was. Of the slot `postgres_slot` takes care, of the tables `postgres_tables`.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from psycopg2 import sql
from wisp_api import conditions
from wisp_api.source import ItemStatus, PostgresConfig

from wisp_events.sources import postgres_slot, postgres_tables, postgres_wal
from wisp_events.sources.postgres_session import connect, explained
from wisp_events.sources.postgres_slot import FOLLOWED, NEW_SLOT, Progress, insert_only
from wisp_events.sources.postgres_values import UserType
from wisp_events.sources.postgres_wal import Retention
from wisp_events.sources.reader import Trouble
from wisp_events.sources.row_events import Place, Table

STATEMENT_SECONDS: Final = 20
LOCK_SECONDS: Final = 10


@dataclass(frozen=True, slots=True)
class Prepared:
    """What streaming needs to know after `prepare`."""

    progress: Progress
    """How far the slot is; unless it is followed, that has to be carried on first."""
    tables: dict[str, Table]
    """Those that are followed, by `schema.table`."""
    items: dict[str, ItemStatus]
    """Every table of the config."""
    replaced: frozenset[str]
    """Followed tables of which changes before `position` are missing: gap events have to say so, then `oids` be remembered."""
    oids: dict[str, int]
    """Of every table of the config that was ever followed."""
    position: int
    """Of the server's log (LSN)."""
    retention: Retention | None
    """What of its log the server keeps for the slot; None before there is one."""


def prepare(dsn: str, config: PostgresConfig, held: Collection[Place]) -> Prepared:
    """Check the server and bring the publications in line with the wanted tables.

    `held` are the places of the last events that the log holds.

    Raises:
        Trouble: nothing can be followed now.
    """
    with connect(dsn) as session, explained(), session.cursor() as cursor:
        session.autocommit = True
        cursor.execute(f"SET statement_timeout = '{STATEMENT_SECONDS}s'; SET lock_timeout = '{LOCK_SECONDS}s'")
        _check_server(cursor)
        comments = _comments(cursor, config.slot)
        progress = postgres_slot.progress(cursor, config.slot, comments, held)
        _make_publications(cursor, config.slot, comments, progress)
        following = postgres_tables.follow(cursor, config.slot, config.tables, lock=progress.stage != NEW_SLOT)
        memory = postgres_tables.remembered(comments.get(insert_only(config.slot), ""))
        known = {table.name: memory[table.name] for table in config.tables if table.name in memory}
        oids, changed = _compare(known, following)
        replaced = changed if progress.stage == FOLLOWED else frozenset()  # a new epoch's gap events tell of all tables
        now = oids | {name: known[name] for name in replaced}
        if now != memory:
            cursor.execute(postgres_tables.memory(config.slot, now))
        position, kept = postgres_slot.position(cursor), postgres_wal.retention(cursor, config.slot)
        return Prepared(progress, following.tables, following.items, replaced, oids, position, kept)


def _compare(known: dict[str, int], following: postgres_tables.Following) -> tuple[dict[str, int], frozenset[str]]:
    """What to remember of the tables, and those of which changes are missing since that was `known`."""
    oids = known | following.oids
    for name in following.oids:
        if not following.items[name].ready and (name in following.reduced or known.get(name, 0) < 0):
            oids[name] *= -1
    return oids, frozenset(
        name
        for name in known.keys() & following.tables.keys()
        if abs(known[name]) != following.before.get(name) or known[name] < 0 < oids[name]
    )


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


def _comments(cursor: Any, slot: str) -> dict[str, str]:
    """The comments on those of our publications that are there."""
    cursor.execute(
        "SELECT pubname::text, coalesce(obj_description(oid, 'pg_publication'), '') FROM pg_publication "
        "WHERE pubname IN (%s, %s)",
        (slot, insert_only(slot)),
    )
    return dict(cursor.fetchall())


def _make_publications(cursor: Any, slot: str, comments: dict[str, str], progress: Progress) -> None:
    """Write down how far the slot is, and make the publications that are missing, empty; in an order that bears a crash."""
    version = cursor.connection.server_version
    if slot not in comments:
        made = postgres_tables.create_publication(slot, version, "insert, update, delete, truncate")
        cursor.execute(sql.SQL("{}; {}").format(made, postgres_slot.comment(slot, progress)))
    elif comments[slot] != str(progress):
        cursor.execute(postgres_slot.comment(slot, progress))
    if insert_only(slot) not in comments:
        cursor.execute(postgres_tables.create_publication(insert_only(slot), version, "insert"))


_TYPES = """
WITH RECURSIVE used (oid) AS (
  SELECT %s::oid UNION SELECT CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.typelem END FROM used JOIN pg_type t ON t.oid = used.oid)
SELECT t.oid::bigint, (CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.typelem END)::bigint, t.typtype <> 'd'
FROM used JOIN pg_type t ON t.oid = used.oid LEFT JOIN pg_type e ON e.oid = t.typelem
WHERE t.typtype = 'd' OR (t.typlen = -1 AND e.typdelim = ',')
"""


def types(dsn: str, oid: int) -> dict[int, UserType]:
    """A type of the database's own and those that it is made of, as far as they are domains and arrays.

    Raises:
        Trouble: the server does not answer.
    """
    with connect(dsn) as session, explained(), session.cursor() as cursor:
        return types_of(cursor, oid)


def types_of(cursor: Any, oid: int) -> dict[int, UserType]:
    """The same in a session that is open."""
    cursor.execute(_TYPES, (oid,))
    return {found: UserType(of, array) for found, of, array in cursor.fetchall()}


def drop(dsn: str, slot: str) -> None:
    """Remove all that the reader made: slot and publications.

    Raises:
        Trouble: something is left.
    """
    with connect(dsn) as session, explained():
        session.autocommit = True
        postgres_slot.drop_slot(session, slot)
        with session.cursor() as cursor:
            for publication in (slot, insert_only(slot)):
                cursor.execute(sql.SQL("DROP PUBLICATION IF EXISTS {}").format(sql.Identifier(publication)))
