"""Decoder of MySQL's and MariaDB's binary log in row format: bytes of one event in, one value out.

Spec: MySQL's source documentation ("Binary Log Event"), MariaDB's knowledge base ("Replication Protocol"). The server sends each
transaction whole, one after the other in the order of their commits; a table's map comes before its rows in each of them, with the
columns' names where `binlog_row_metadata` is FULL, so no schema is remembered or asked for.

Invariant: an event is decoded wholly or refused with `Malformed`, which says of which table, as far as it is known; what comes after it
can still be read.
"""

import re
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from wisp_events.sources import binlog_payload, binlog_table
from wisp_events.sources.binlog_payload import HEADER_BYTES, LARGEST_BYTES, LENGTH
from wisp_events.sources.binlog_table import TableMap
from wisp_events.sources.mysql_ddl import Redefined, redefined
from wisp_events.sources.mysql_gtid import Gtid, mariadb_gtid, mysql_gtid, tagged_gtid
from wisp_events.sources.rows import Change, Malformed

_QUERY, _FORMAT, _XID, _TABLE_MAP, _HEARTBEAT, _GTID, _ANONYMOUS_GTID = 2, 15, 16, 19, 27, 33, 34
_XA_PREPARE, _PARTIAL_UPDATE, _PAYLOAD, _TAGGED_GTID, _MARIADB_GTID = 38, 39, 40, 42, 162
_QUERY_COMPRESSED = 165
_ROWS: Final = {
    **dict.fromkeys((23, 30, 166, 169), "insert"),
    **dict.fromkeys((24, 31, 167, 170), "update"),
    **dict.fromkeys((25, 32, 168, 171), "delete"),
}
"""Version 1, version 2, and MariaDB's compressed ones of each."""
_WITH_EXTRA: Final = frozenset({30, 31, 32, 169, 170, 171})
_COMPRESSED: Final = frozenset({165, 166, 167, 168, 169, 170, 171})
_KIND: Final = 4
"""Where an event's kind stands."""
_CHECKSUM_BYTES: Final = 4
_CRC32: Final = 1
_VERSION: Final = slice(HEADER_BYTES + 2, HEADER_BYTES + 52)
"""The server's version, in the description of the format."""
_ANNOUNCED: Final = 1024
"""Tables whose maps are kept decoded."""
_HEADER = struct.Struct("<IBIIIH")
_NAME = r"(?:`((?:[^`]|``)+)`|([\w$\u0080-\uffff]+))"
_TRUNCATE = re.compile(
    rf"(?:\s|/\*.*?\*/|--\s[^\n]*\n|#[^\n]*\n)*TRUNCATE(?:\s+TABLE)?\s+{_NAME}(?:\s*\.\s*{_NAME})?",
    re.IGNORECASE | re.DOTALL,
)
_ENDS: Final = ("COMMIT", "ROLLBACK", "XA COMMIT", "XA ROLLBACK")
_CONTROL = re.compile(r"\s*(SAVEPOINT|ROLLBACK TO|RELEASE SAVEPOINT|XA (START|END)|SET)\b", re.IGNORECASE)
_DEFINES = re.compile(
    r"(?:\s|/\*.*?\*/)*(CREATE|ALTER|DROP|RENAME|GRANT|REVOKE|FLUSH|ANALYZE|OPTIMIZE|REPAIR|SET|INSTALL|UNINSTALL|CHECK)\b",
    re.IGNORECASE | re.DOTALL,
)


class Start(NamedTuple):
    """A transaction begins."""

    gtid: Gtid
    seconds: int
    """Unix time of its commit."""


class End(NamedTuple):
    """The transaction is over; that of a definition (CREATE, TRUNCATE) has none and ends where the next one begins."""


class Idle(NamedTuple):
    """The server has nothing more, and so no transaction goes on."""


class Truncated(NamedTuple):
    """TRUNCATE of a table."""

    schema: str
    table: str


class Hidden(NamedTuple):
    """Changes that are not in row format: nobody can tell of which tables."""

    why: str


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one table that were changed by one event, not decoded yet."""

    operation: str
    table: TableMap
    body: bytes
    at: int

    def changes(self) -> "list[tuple[int, Change]]":
        """Each change, and where in the event it stands.

        Raises:
            Malformed: the rows can't be decoded.
        """
        try:
            return list(self._decode())
        except (struct.error, IndexError, ValueError) as error:
            raise Malformed(f"{self.operation} in {self.table.name}: {error}") from error

    def _decode(self) -> "list[tuple[int, Change]]":
        table, body, at = self.table, self.body, self.at
        count, at = binlog_table.number(body, at)
        relation = table.relation
        if count != len(relation.columns):
            raise ValueError(f"rows of {count} columns for a table of {len(relation.columns)}")
        present, at = _bitmap(body, at, count)
        after, at = _bitmap(body, at, count) if self.operation == "update" else (present, at)
        found = []
        while at < len(body):
            place = at
            row, at = table.row(body, at, present)
            old, new = (None, row) if self.operation == "insert" else (row, None)
            if self.operation == "update":
                new, at = table.row(body, at, after)
            found.append((place, Change(self.operation, relation, old, old_is_key=False, new=new)))
        return found


Message: TypeAlias = Start | End | Idle | Truncated | Redefined | Hidden | Rows | None
_END: Final = End()
_BOUNDS: Final[Mapping[int, End | Idle]] = {_XID: _END, _XA_PREPARE: _END, _HEARTBEAT: Idle()}
"""The server waits for more behind whole transactions alone, and sends heartbeats then."""


class Decoder:
    """Decodes the events of one connection, in their order."""

    def __init__(self, charsets: Mapping[int, str]) -> None:
        """`charsets` are the server's, by collation; it describes its format first."""
        self._charsets = charsets
        self._checksum = 0
        self._mariadb = False
        self._tables: dict[int, TableMap] = {}
        self._announced: dict[bytes, TableMap] = {}

    def unpack(self, event: bytes) -> Iterable[bytes]:
        """The events that one from the server stands for, itself or those of a transaction that it compressed, without their checksums.

        Raises:
            Malformed: on the way, for those that are left can't be read.
        """
        kind = event[_KIND]
        if kind == _FORMAT:
            return (event,)
        whole = event[: len(event) - self._checksum]
        return _unpacked(whole) if kind == _PAYLOAD else (whole,)

    def decode(self, event: bytes) -> Message:
        """Decode one event of `unpack`; None for those that carry nothing for us.

        Raises:
            Malformed: with what is wrong, and where.
        """
        seconds, kind, server, *_ = _HEADER.unpack_from(event)
        try:
            if kind == _FORMAT:
                self._tables.clear()
                self._announced.clear()
                self._checksum = _CHECKSUM_BYTES if event[-5] == _CRC32 else 0
                self._mariadb = b"mariadb" in event[_VERSION].lower()
                return None
            return self._message(kind, _body(event), seconds, server)
        except (struct.error, IndexError, UnicodeDecodeError, ValueError, zlib.error) as error:
            raise Malformed(f"binary log event {kind} of {len(event)} bytes: {error}") from error

    def _message(self, kind: int, body: bytes, seconds: int, server: int) -> Message:  # noqa: PLR0911 - one return a kind
        if kind in _ROWS:
            return self._rows(kind, body)
        if kind == _TABLE_MAP:
            self._announce(body)
            return None
        if kind in _BOUNDS:
            return _BOUNDS[kind]
        if kind == _MARIADB_GTID:
            return Start(mariadb_gtid(body, server), seconds)
        if kind == _GTID:
            return Start(mysql_gtid(body), seconds)
        if kind == _TAGGED_GTID:
            return Start(tagged_gtid(body), seconds)
        if kind in (_QUERY, _QUERY_COMPRESSED):
            return _statement(body, compressed=kind == _QUERY_COMPRESSED)
        if kind == _PARTIAL_UPDATE:
            return Hidden("an update has only parts of JSON values: empty binlog_row_value_options")
        if kind == _ANONYMOUS_GTID:
            return Hidden("a transaction has no GTID: set gtid_mode to ON")
        return None

    def _announce(self, body: bytes) -> None:
        """Remember a table; each transaction announces its tables, in the same bytes as the one before."""
        table = self._announced.get(body)
        if table is None:
            if len(self._announced) >= _ANNOUNCED:
                self._announced.clear()
            table = binlog_table.decode(body, self._charsets, mariadb=self._mariadb)
            self._announced[body] = table
        self._tables[table.relation.oid] = table

    def _rows(self, kind: int, body: bytes) -> Rows:
        operation = _ROWS[kind]
        table = self._tables.get(int.from_bytes(body[:6], "little"))
        if table is None:
            raise ValueError("rows of a table that was not announced")
        at = 8
        if kind in _WITH_EXTRA:
            at += int.from_bytes(body[8:10], "little")
        if kind in _COMPRESSED:
            # The columns' number and bitmaps are plain, what follows is not.
            count, start = binlog_table.number(body, at)
            start += (count + 7) // 8 * (2 if operation == "update" else 1)
            body = body[:start] + _inflated(body, start)
        return Rows(operation, table, body, at)


def _unpacked(payload: bytes) -> Iterator[bytes]:
    """The events of a compressed transaction."""
    try:
        yield from binlog_payload.events(_body(payload))
    except ValueError as error:
        raise Malformed(f"a compressed transaction can't be read: {error}") from None


def _body(event: bytes) -> bytes:
    """What follows the header of an event without checksum.

    Raises:
        ValueError: only the beginning was kept.
    """
    length = int.from_bytes(event[LENGTH], "little")
    if length > len(event) + _CHECKSUM_BYTES:
        raise ValueError(f"it has {length} bytes, and no more than {LARGEST_BYTES} are read of one event")
    return event[HEADER_BYTES:]


def _statement(body: bytes, *, compressed: bool) -> Message:
    """What a statement in the log means: a boundary, TRUNCATE, a definition, or changes that are not in row format."""
    schema_length, variables = body[8], int.from_bytes(body[11:13], "little")
    start = 13 + variables
    schema = body[start : start + schema_length].decode()
    raw = _inflated(body, start + schema_length + 1) if compressed else body[start + schema_length + 1 :]
    text = raw.decode(errors="replace")
    brief = text[:40].strip().upper()
    if brief == "BEGIN" or _CONTROL.match(text):
        return None
    if brief.startswith(_ENDS):
        return _END
    if found := _TRUNCATE.match(text):
        names = [
            (quoted or "").replace("``", "`") or plain
            for quoted, plain in (found.group(1, 2), found.group(3, 4))
            if quoted or plain
        ]
        return Truncated(names[0] if len(names) > 1 else schema, names[-1])
    if _DEFINES.match(text):
        return redefined(
            text, schema
        )  # the next transaction's beginning is its end: rows may follow CREATE TABLE ... SELECT
    return Hidden("a statement was logged as text: set binlog_format to ROW for every session")


def _inflated(body: bytes, at: int) -> bytes:
    """What MariaDB compressed: a byte with the number of length bytes, the length, zlib's data."""
    return zlib.decompress(body[at + 1 + (body[at] & 7) :])


def _bitmap(body: bytes, at: int, count: int) -> tuple[tuple[bool, ...], int]:
    end = at + (count + 7) // 8
    bits = int.from_bytes(body[at:end], "little")
    return tuple(bool(bits >> index & 1) for index in range(count)), end
