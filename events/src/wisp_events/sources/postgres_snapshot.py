"""The rows that tables have at one place of a PostgreSQL server's log. All of it blocks, and runs in a thread.

A temporary slot of its own tells the place and exports the snapshot that belongs to it, as PostgreSQL's own table synchronization does:
a transaction is in the snapshot exactly if its commit stands before the place.

Invariant: values are the texts that pgoutput sends of the same rows, column for column.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import psycopg2
from nats.js import JetStreamContext
from psycopg2 import sql
from psycopg2.extensions import BYTES
from psycopg2.extensions import connection as Connection  # noqa: N812 - a class with a lower-case name
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - as well
from psycopg2.extras import LogicalReplicationConnection
from wisp_api import names
from wisp_api.source import ReaderConfig

from wisp_events.sources import postgres_catalog
from wisp_events.sources.interlude import Work
from wisp_events.sources.postgres_connection import SESSION
from wisp_events.sources.postgres_session import explained, open_session
from wisp_events.sources.postgres_slot import POSTGRES_12
from wisp_events.sources.postgres_stream import Stream
from wisp_events.sources.postgres_values import UserType, converter
from wisp_events.sources.reader import Trouble
from wisp_events.sources.row_events import Table
from wisp_events.sources.row_fill import ROWS, rows_at_once
from wisp_events.sources.row_given import Given, anew
from wisp_events.sources.row_log import Kept
from wisp_events.sources.rows import Column, Relation, Value

WAIT_SECONDS: Final = 1
"""How long the making of a slot waits for a transaction that is open, and a table for who alters it: the stream stands still meanwhile."""
_PATIENT: Final = (
    "SET statement_timeout = 0",
    "SET idle_in_transaction_session_timeout = 0",
    f"SET lock_timeout = '{WAIT_SECONDS}s'",
)
_SAVE: Final = "SAVEPOINT wisp"
_BACK: Final = "ROLLBACK TO SAVEPOINT wisp"
_BUILT_IN: Final = 16384
_COLUMNS: Final = """
SELECT c.oid::bigint, c.relkind::text, c.relreplident::text, a.attname::text, a.atttypid::bigint,
       EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND a.attnum = ANY(i.indkey::int2[])
               AND CASE c.relreplident WHEN 'd' THEN i.indisprimary AND i.indimmediate WHEN 'i' THEN i.indisreplident ELSE false END)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
WHERE n.nspname = %s AND c.relname = %s AND a.attnum > 0 AND NOT a.attisdropped {} ORDER BY a.attnum
"""


class Snapshot:
    """What the tables held at `position`; close it."""

    def __init__(self, position: int, session: Connection) -> None:
        """`session` is in a transaction that sees it."""
        self.position = position
        """Of the server's log (LSN)."""
        self.refused: dict[str, Trouble] = {}
        """Tables that can't be read, though others can."""
        self._session = session
        self._rows: Any = None
        self._count = ROWS[1]

    def hold(self, tables: Iterable[str]) -> None:
        """Have nobody alter these tables (`schema.table`) from now on: what is rewritten after the snapshot seems empty in it."""
        for table in tables:
            try:
                self._hold(table)
            except Trouble as trouble:
                self.refused[table] = trouble

    def _hold(self, table: str) -> None:
        with explained(), self._session.cursor() as cursor:
            try:
                _try(cursor, table)
            except psycopg2.Error:
                cursor.execute(_BACK)
                raise
            cursor.execute(_SAVE)

    def give_up(self) -> None:
        """End the table that is open, after Trouble with it.

        Raises:
            Trouble: the connection broke.
        """
        with explained(), self._session.cursor() as cursor:
            cursor.execute(_BACK)

    def open(self, table: str) -> Relation | None:
        """Begin with a table (`schema.table`); None where there is none.

        Raises:
            Trouble: it can't be read.
        """
        schema, _, name = table.partition(".")
        self._session.string_types.clear()  # of the table before
        with explained(), self._session.cursor() as cursor:
            generated = "AND a.attgenerated = ''" if self._session.server_version >= POSTGRES_12 else ""
            cursor.execute(_COLUMNS.format(generated), (schema, name))
            found = cursor.fetchall()
            types: dict[int, UserType] = {}
            for own in {row[4] for row in found if row[4] >= _BUILT_IN}:
                types |= postgres_catalog.types_of(cursor, own)
        if not found:
            return None
        oid, kind, identity = found[0][:3]
        columns = tuple(
            Column(row[3], row[5], msgspec.json.encode(row[3]) + b":", converter(row[4], types)) for row in found
        )
        self._select(sql.Identifier(schema, name), [column.name for column in columns], whole=kind == "p")
        return Relation(oid, schema, name, identity, columns)

    def fetch(self) -> list[tuple[Value, ...]]:
        """The next rows of the table; none at its end.

        Raises:
            Trouble: the connection broke.
        """
        with explained():
            rows: list[tuple[Value, ...]] = self._rows.fetchmany(self._count)
            if not rows:
                self._rows.close()
                return []
        self._count = rows_at_once(rows)
        return rows

    def close(self) -> None:
        """End the transaction."""
        self._session.close()

    def _select(self, table: sql.Composable, columns: list[str], *, whole: bool) -> None:
        """A partitioned table has the rows of its partitions; another one's are its own, not those of tables that inherit from it."""
        listed = sql.SQL(", ").join(map(sql.Identifier, columns))
        query = sql.SQL("SELECT {} FROM {}{}").format(listed, sql.SQL("" if whole else "ONLY "), table)
        with explained(), self._session.cursor() as cursor:
            cursor.execute(query + sql.SQL(" LIMIT 0"))
            types: dict[int, Any] = self._session.string_types
            types |= {column.type_code: BYTES for column in cursor.description or ()}
        self._rows = self._session.cursor("wisp_rows")
        self._count = ROWS[1]
        with explained():
            self._rows.execute(query)


@dataclass(frozen=True)
class Origin:
    """What a PostgreSQL reader does for its tables' rows."""

    dsn: str = field(repr=False)
    slot: str
    stream: Stream
    kept: Kept[Given]
    """Where it is remembered who has which."""

    @property
    def followed(self) -> Mapping[str, Table]:
        """As `row_fill.Origin`."""
        return self.stream.tables

    async def given(self) -> Given:
        """As `row_fill.Origin`."""
        return await self.kept.read() or Given()

    async def remember(self, given: Given) -> None:
        """As `row_fill.Origin`."""
        await self.kept.write(given)

    async def at(self, place: Callable[[], Awaitable[int]], work: Work) -> None:
        """As `row_fill.Origin`."""
        await self.stream.at(place, work)

    def take(self, tables: Collection[str]) -> Snapshot:
        """As `row_fill.Origin`."""
        return take(self.dsn, self.slot, tables)

    def refusal(self, table: str) -> Trouble | None:
        """As `row_fill.Origin`."""
        session = open_session(self.dsn)
        try:
            session.autocommit = True
            with explained(), session.cursor() as cursor:
                cursor.execute(f"SET lock_timeout = '{WAIT_SECONDS}s'")
                _try(cursor, table)
        except Trouble as trouble:
            return trouble
        finally:
            session.close()
        return None


def kept_by(js: JetStreamContext, config: ReaderConfig) -> Kept[Given]:
    """Where it is remembered who has which rows."""
    return Kept(js, names.position_key(config.namespace, config.kind, config.connection), Given)


async def give_anew(js: JetStreamContext, config: ReaderConfig) -> None:
    """Forget who has which rows, because changes may be missing after them.

    Raises:
        Trouble: the log does not answer.
        Fenced: another reader remembered something.
    """
    position = kept_by(js, config)
    given = await position.read() or Given()
    if (now := anew(given)) != given:
        await position.write(now)


def take(dsn: str, slot: str, tables: Iterable[str]) -> Snapshot:
    """A snapshot of these tables as of now, beside the slot that is being read.

    Raises:
        Trouble: the server refuses, or a transaction has to end first.
    """
    exporting = open_session(dsn, connection_factory=LogicalReplicationConnection)
    try:
        with explained(), exporting.cursor() as cursor:
            cursor.execute(f"SET lock_timeout = '{WAIT_SECONDS}s'")
            cursor.execute(f'CREATE_REPLICATION_SLOT "{slot[:57]}_rows" TEMPORARY LOGICAL pgoutput EXPORT_SNAPSHOT')
            [(_, position, name, _)] = cursor.fetchall()
        found = Snapshot(_number(position), _see(dsn, name))
    finally:
        exporting.close()
    found.hold(tables)
    return found


def _see(dsn: str, snapshot: str) -> Connection:
    """A transaction that sees a snapshot which another session exports now."""
    session = open_session(dsn)
    try:
        with explained(), session.cursor() as cursor:
            session.autocommit = True
            for statement in (*SESSION, *_PATIENT):
                if "wal_sender" not in statement:
                    cursor.execute(statement)
            session.autocommit = False
            session.set_session(isolation_level="REPEATABLE READ", readonly=True)
            cursor.execute("SET TRANSACTION SNAPSHOT %s", (snapshot,))
            cursor.execute(_SAVE)
    except BaseException:
        session.close()
        raise
    return session


def _try(cursor: Cursor, table: str) -> None:
    cursor.execute(sql.SQL("SELECT * FROM {} LIMIT 0").format(sql.Identifier(*table.split(".", 1))))


def _number(position: str) -> int:
    high, _, low = position.partition("/")
    return int(high, 16) << 32 | int(low, 16)
