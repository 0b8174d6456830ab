"""The rows that tables have at one place of a MySQL or MariaDB server's log. All of it blocks, and runs in a thread.

While a session of ours has the tables locked for reading no transaction that writes to them is between its beginning and the release of
its locks, which is behind its commit in engine and binary log. So the position that the server names then, and a snapshot that another
session takes then, have the same transactions of these tables. The lock is held for some milliseconds.

Invariant: values are the JSON that the same rows have in the binary log, column for column.
"""

import contextlib
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import pymysql
from pymysql.cursors import SSCursor
from wisp_api import conditions

from wisp_events.sources import mysql_gtid, mysql_texts
from wisp_events.sources.interlude import Work
from wisp_events.sources.mysql_gtid import GtidSet
from wisp_events.sources.mysql_session import OPEN_CURE, PATIENT_SECONDS, connect, explained, open_session
from wisp_events.sources.mysql_stream import Stream
from wisp_events.sources.reader import Trouble
from wisp_events.sources.row_events import Table
from wisp_events.sources.row_fill import ROWS, rows_at_once
from wisp_events.sources.row_given import Given
from wisp_events.sources.rows import Column, Relation, Value

WAIT_SECONDS: Final = 1
"""How long a lock waits for transactions that are open: whoever writes to the table waits behind it."""
ALL_SECONDS: Final = WAIT_SECONDS + 0.5
"""How long all tables' locks do, of which the server counts each: a little more, so that its own word comes first where one is waited for."""
_ENGINES: Final = ("InnoDB", "ROCKSDB")
"""Those whose rows can be read as of one moment."""
_LOCK_TIMEOUT: Final = f"SET lock_wait_timeout = {WAIT_SECONDS}"
_LOCK_END: Final = "SET wait_timeout = 10"
"""Of a reader that vanishes with its node the server hears nothing: the locks end when it has been silent for longer than the statements
of the other session take."""
_WITHOUT_LIMITS: Final = (
    f"SET net_write_timeout = {PATIENT_SECONDS}, wait_timeout = {PATIENT_SECONDS}",
    "SET max_statement_time = 0, idle_transaction_timeout = 0, idle_readonly_transaction_timeout = 0",
    "SET max_execution_time = 0",
)
"""The reader takes rows as the log does. A server does not know all of it."""
_SESSION: Final = (
    "SET time_zone = '+00:00', sql_mode = ''",
    "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
    "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
)
_COLUMNS: Final = """
SELECT column_name, data_type, character_set_name, numeric_precision FROM information_schema.columns
WHERE table_schema = %s AND table_name = %s ORDER BY ordinal_position
"""


class Snapshot:
    """What the tables held at `position`; close it."""

    def __init__(self, position: GtidSet, session: Any) -> None:
        """`session` is in a transaction that sees it, and keeps others from altering the tables."""
        self.position = position
        self.refused: dict[str, Trouble] = {}
        self._session = session
        self._decoders, self._texts = session.decoders, session.use_unicode
        self._rows: Any = None
        self._count = ROWS[1]

    def open(self, table: str) -> Relation | None:
        """Begin with a table (`database.table`); None where there is none.

        Raises:
            Trouble: it can't be read.
        """
        schema, _, name = table.partition(".")
        with explained(), self._session.cursor() as cursor:
            cursor.execute(_COLUMNS, (schema, name))
            shapes = [mysql_texts.Shape(row[0], row[1].lower(), *row[2:]) for row in cursor.fetchall()]
            if not shapes:
                return None
            key = _key(cursor, table)
        columns = tuple(
            Column(shape.name, shape.name in key, msgspec.json.encode(shape.name) + b":", mysql_texts.converter(shape))
            for shape in shapes
        )
        listed = ", ".join(mysql_texts.expression(shape) for shape in shapes)
        self._count = ROWS[1]
        self._rows = SSCursor(self._session)
        with explained(), self._raw():
            self._rows.execute(f"SELECT {listed} FROM {_quoted(table)}")  # noqa: S608
        return Relation(0, schema, name, "d", columns)

    def fetch(self) -> list[tuple[Value, ...]]:
        """The next rows of the table; none at its end.

        Raises:
            Trouble: the connection broke.
        """
        with explained():
            rows: list[tuple[Value, ...]] = list(self._rows.fetchmany(self._count))
            if not rows:
                self._rows.close()
                return []
        self._count = rows_at_once(rows)
        return rows

    def give_up(self) -> None:
        """End the table that is open, after Trouble with it, which ended its rows.

        Raises:
            Trouble: the connection broke.
        """
        with explained():
            self._session.ping(reconnect=False)

    def close(self) -> None:
        """End the transaction, without reading what is left."""
        if self._rows is not None and self._rows._result:  # noqa: SLF001 - both would read what is left when they are collected
            self._rows._result.unbuffered_active = False  # noqa: SLF001
            self._rows.connection = None
        self._session._force_close()  # noqa: SLF001 - an orderly end would

    @contextlib.contextmanager
    def _raw(self) -> Iterator[None]:
        """Rows of the statement in the block stay bytes."""
        self._session.decoders, self._session.use_unicode = {}, False
        try:
            yield
        finally:
            self._session.decoders, self._session.use_unicode = self._decoders, self._texts


@dataclass(frozen=True)
class Origin:
    """What a MySQL reader does for its tables' rows."""

    dsn: str = field(repr=False)
    authority: str
    mariadb: bool
    stream: Stream

    @property
    def followed(self) -> Mapping[str, Table]:
        """As `row_fill.Origin`."""
        return self.stream.tables

    async def given(self) -> Given:
        """As `row_fill.Origin`."""
        return await self.stream.given()

    async def remember(self, given: Given) -> None:
        """As `row_fill.Origin`."""
        await self.stream.remember(given)

    async def at(self, place: Callable[[], Awaitable[GtidSet]], work: Work) -> None:
        """As `row_fill.Origin`."""
        await self.stream.at(place, work)

    def refusal(self, table: str) -> Trouble | None:
        """As `row_fill.Origin`."""
        try:
            with connect(self.dsn, self.authority) as cursor:
                cursor.execute(
                    "SELECT engine FROM information_schema.tables WHERE table_schema = %s AND table_name = %s",
                    table.partition(".")[::2],
                )
                for (engine,) in cursor.fetchall():
                    _check_engine(table, engine)
                _lock(cursor, [table])
        except Trouble as trouble:
            return trouble
        return None

    def take(self, tables: Collection[str]) -> Snapshot:
        """As `row_fill.Origin`.

        Raises:
            Trouble: the server refuses, or a transaction has to end first.
        """
        with connect(self.dsn, self.authority) as locking:
            session = open_session(self.dsn, self.authority)
            try:
                with explained(), session.cursor() as cursor:
                    _prepare(cursor)
                    cursor.execute(_LOCK_TIMEOUT)  # behind the lock may wait an ALTER, and behind that we
                    _lock_soon(locking, cursor, tables)
                    position = self._position(locking)
                    for statement in _SESSION:
                        cursor.execute(statement)
                    for table in tables:  # nobody alters it from now on
                        cursor.execute(f"SELECT 1 FROM {_quoted(table)} LIMIT 0")  # noqa: S608
                    locking.execute("UNLOCK TABLES")
            except BaseException:
                session.close()
                raise
        return Snapshot(position, session)

    def _position(self, cursor: Any) -> GtidSet:
        """The transactions that the binary log has now.

        MariaDB forgets the locks of an XA transaction that is prepared when its session ends; the log has told of its rows, the tables have them not.

        Raises:
            Trouble: there is one.
        """
        if self.mariadb:
            cursor.execute("XA RECOVER")
            if cursor.fetchall():
                message = "a prepared XA transaction has to end first: see XA RECOVER, and run XA COMMIT or XA ROLLBACK"
                raise Trouble(conditions.WAITING_FOR_TRANSACTIONS, message)
        cursor.execute(f"SELECT @@global.{'gtid_binlog_pos' if self.mariadb else 'gtid_executed'}")
        [(position,)] = cursor.fetchall()
        return mysql_gtid.parse(position, mariadb=self.mariadb)


def _prepare(cursor: Any) -> None:
    """Take the server's patience as long as rows are read; what it does not know or allow stays as it is."""
    for statement in _WITHOUT_LIMITS:
        with contextlib.suppress(Trouble), explained():
            cursor.execute(statement)


def _check_engine(table: str, engine: str) -> None:
    if engine not in _ENGINES:
        message = f"the rows of {table} can't be read as of one moment, its engine is {engine}; run: ALTER TABLE {table} ENGINE = InnoDB"
        raise Trouble(conditions.BINLOG_UNFIT, message)


def _key(cursor: Any, table: str) -> list[str]:
    """The columns that the binary log names as the table's key: the primary one, or the first that could be it."""
    cursor.execute(f"SHOW INDEX FROM {_quoted(table)}")
    names = [column[0] for column in cursor.description]
    found: dict[str, list[dict[str, Any]]] = {}
    for row in cursor.fetchall():
        one = dict(zip(names, row, strict=True))
        found.setdefault(one["Key_name"], []).append(one)
    for name, parts in found.items():
        fits = all(not part["Non_unique"] and part["Null"] != "YES" and part["Sub_part"] is None for part in parts)
        if name == "PRIMARY" or fits:
            return [part["Column_name"] for part in parts]
    return []


def _lock(cursor: Any, tables: Iterable[str]) -> None:
    """Keep others from writing to the tables for as long as this session lasts."""
    cursor.execute(_LOCK_TIMEOUT)
    cursor.execute(_LOCK_END)
    cursor.execute("LOCK TABLES " + ", ".join(f"{_quoted(table)} READ" for table in tables))


def _lock_soon(locking: Any, other: Any, tables: Collection[str]) -> None:
    """Lock them within a time for all of them; `other` is a session that ends this one, which would keep those it has while it waits for the next.

    Raises:
        Trouble: they were not had.
    """
    session = locking.connection
    patience = session._read_timeout  # noqa: SLF001 - PyMySQL takes it when it connects, which may take longer
    session._read_timeout = ALL_SECONDS  # noqa: SLF001
    try:
        _lock(locking, tables)
    except pymysql.OperationalError:
        if session.open:
            raise
        with contextlib.suppress(pymysql.Error):
            other.execute(f"KILL {session.thread_id()}")
        message = f"{', '.join(tables)} could not be locked within {ALL_SECONDS} s; {OPEN_CURE}"
        raise Trouble(conditions.WAITING_FOR_TRANSACTIONS, message) from None
    session._read_timeout = patience  # noqa: SLF001


def _quoted(table: str) -> str:
    return ".".join("`" + name.replace("`", "``") + "`" for name in table.split(".", 1))
