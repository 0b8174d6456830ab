"""What a MySQL reader asks of the database: settings, the position now, the wanted tables. It alters nothing.

Invariant: what is refused here could not be followed without losing changes silently.
"""

from dataclasses import dataclass
from typing import Any, Final

from wisp_api import conditions
from wisp_api.source import ItemStatus, MysqlConfig

from wisp_events.sources import mysql_retention
from wisp_events.sources.mysql_session import connect
from wisp_events.sources.reader import Trouble
from wisp_events.sources.row_events import Table

_WANTED: Final = {
    "log_bin": ("1", "ON"),
    "binlog_format": ("ROW",),
    "binlog_row_image": ("FULL",),
    "binlog_row_metadata": ("FULL",),
    "gtid_mode": ("ON",),
    "binlog_row_value_options": ("",),
}
"""Settings, and what they may be where the server has them."""
_NEEDED: Final = ("log_bin", "binlog_format", "binlog_row_image", "binlog_row_metadata")
_AT_START: Final = ("log_bin", "gtid_mode")
"""Those that ask for a restart or several steps."""


@dataclass(frozen=True, slots=True)
class Server:
    """Which server it is, and how far."""

    mariadb: bool
    identity: str
    """Another one may have the same transactions in another order."""
    position: str
    """GTIDs of all transactions that are in its binary log."""
    charsets: dict[int, str]
    """By collation."""
    kept_seconds: float = 0
    """How long it keeps its binary log; 0: for ever."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What streaming needs to know."""

    server: Server
    tables: dict[str, Table]
    """Those that are followed, by `database.table`."""
    items: dict[str, ItemStatus]
    """Every table of the config."""


def prepare(dsn: str, authority: str, config: MysqlConfig) -> Prepared:
    """Check the server and the tables.

    Raises:
        Trouble: nothing can be followed now.
    """
    with connect(dsn, authority) as cursor:
        server = _server(cursor)
        keys = _keys(cursor, [table.name for table in config.tables])
    tables, items = {}, {}
    for table in config.tables:
        if table.name in keys:
            tables[table.name] = Table(frozenset(table.operations), tuple(keys[table.name]))
            items[table.name] = ItemStatus(ready=True, operations=sorted(table.operations))
        else:
            message = (
                f"there is no table {table.name} that this user may read; create it, correct the name (database.table), "
                f"or run: GRANT SELECT ON {table.name} TO <user>"
            )
            items[table.name] = ItemStatus(ready=False, reason=conditions.TABLE_NOT_FOUND, message=message)
    return Prepared(server, tables, items)


def _server(cursor: Any) -> Server:
    cursor.execute("SELECT VERSION(), @@server_id")
    version, number = cursor.fetchone()
    mariadb = "mariadb" in version.lower()
    asked = [*_WANTED, *mysql_retention.SETTINGS]
    cursor.execute(f"SHOW GLOBAL VARIABLES WHERE Variable_name IN ({', '.join(['%s'] * len(asked))})", asked)
    found = {name.lower(): value for name, value in cursor.fetchall()}
    _check(found, version, mariadb=mariadb)
    if mariadb:
        cursor.execute("SELECT @@hostname, @@gtid_binlog_pos")
        host, position = cursor.fetchone()
        identity = f"{number}@{host}"
    else:
        cursor.execute("SELECT @@server_uuid, @@global.gtid_executed")
        identity, position = cursor.fetchone()
    cursor.execute(
        "SHOW BINARY LOGS"
    )  # asks for the right that the dump needs on MySQL; on MariaDB the dump itself tells
    cursor.execute("SELECT id, character_set_name FROM information_schema.collations WHERE id IS NOT NULL")
    kept = mysql_retention.kept_seconds(found)
    return Server(mariadb, identity, "".join(position.split()), dict(cursor.fetchall()), kept)


def _check(found: dict[str, str], version: str, *, mariadb: bool) -> None:
    """Raises: Trouble: the binary log does not hold what is needed."""
    needed = _NEEDED if mariadb else (*_NEEDED, "gtid_mode")
    if missing := [name for name in needed if name not in found]:
        raise Trouble(
            conditions.BINLOG_UNFIT,
            f"the server ({version}) has no {missing[0]}; MySQL 8.0.14, MariaDB 10.6 or newer is needed",
        )
    for name, allowed in _WANTED.items():
        value = found.get(name, allowed[0])
        if value.upper() not in allowed:
            wanted = allowed[-1] or "''"
            cure = (
                f"set {name} in the server's configuration and restart it"
                if name in _AT_START
                else f"run: SET GLOBAL {name} = {wanted}, and set it in the server's configuration"
            )
            raise Trouble(conditions.BINLOG_UNFIT, f"{name} is {value or 'empty'} and has to be {wanted}: {cure}")


def _keys(cursor: Any, names: list[str]) -> dict[str, list[str]]:
    """The primary keys of those tables that are there, by name."""
    found: dict[str, list[str]] = {}
    for name in names:
        schema, _, table = name.partition(".")
        cursor.execute(
            "SELECT table_schema, table_name FROM information_schema.tables "
            "WHERE table_schema = %s AND table_name = %s AND table_type = 'BASE TABLE'",
            (schema, table),
        )
        if (schema, table) not in cursor.fetchall():
            continue
        cursor.execute(
            "SELECT column_name FROM information_schema.key_column_usage "
            "WHERE table_schema = %s AND table_name = %s AND constraint_name = 'PRIMARY' ORDER BY ordinal_position",
            (schema, table),
        )
        found[name] = [row[0] for row in cursor.fetchall()]
    return found
