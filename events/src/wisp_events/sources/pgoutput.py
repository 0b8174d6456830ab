"""Decoder of PostgreSQL's pgoutput plugin, protocol version 1: bytes of one message in, one value out.

Spec: PostgreSQL documentation, "Logical Replication Message Formats". Version 1 carries committed transactions only, one
after the other in the order of their commits, so the decoder keeps no transaction in memory; its only state is the last
Relation message of each table, as the protocol asks for.

Invariant: a message is decoded wholly or refused with `Malformed`; the decoder's state is then as before it.
"""

import struct
from typing import Final, NamedTuple, TypeAlias

import msgspec

from wisp_events.sources.postgres_values import UserType, converter
from wisp_events.sources.rows import Begin, Change, Column, Malformed, Missing, Relation, Truncate, Value

POSTGRES_EPOCH_MICROSECONDS: Final = 946_684_800_000_000
"""2000-01-01 in Unix microseconds."""


class Commit(NamedTuple):
    """End of a transaction; `end_lsn` is the position to confirm once everything before is safe."""

    commit_lsn: int
    end_lsn: int


class Type(NamedTuple):
    """A type that is not built in; comes before the Relation that uses it."""

    oid: int


_TEXT, _NULL, _UNCHANGED = b"tnu"

Message: TypeAlias = Begin | Commit | Change | Truncate | Relation | Type | None

_BEGIN = struct.Struct(">QqI")
_COMMIT = struct.Struct(">BQQq")
_U16 = struct.Struct(">H")
_U32 = struct.Struct(">I")
_COLUMN = struct.Struct(">Ii")
_OPERATIONS: Final = {b"I": "insert", b"U": "update", b"D": "delete"}


class Decoder:
    """Decodes the messages of one replication connection, in their order."""

    def __init__(self) -> None:
        """Start with no table known; the server announces each before its first change."""
        self._relations: dict[int, Relation] = {}
        self.types: dict[int, UserType] = {}
        """The database's own domains and arrays, of those types that were announced; whoever decodes looks them up."""

    def decode(self, message: bytes) -> Message:  # noqa: PLR0911 - one return a kind
        """Decode one message; None for those that carry nothing for us (Origin, logical messages).

        Raises:
            Malformed: with what is wrong, and where.
        """
        kind = message[:1]
        try:
            if kind in _OPERATIONS:
                return self._change(_OPERATIONS[kind], message)
            if kind == b"B":
                commit_lsn, microseconds, _ = _BEGIN.unpack_from(message, 1)
                return Begin(commit_lsn, microseconds + POSTGRES_EPOCH_MICROSECONDS)
            if kind == b"C":
                _, commit_lsn, end_lsn, _ = _COMMIT.unpack_from(message, 1)
                return Commit(commit_lsn, end_lsn)
            if kind == b"R":
                relation = _relation(message, self.types)
                self._relations[relation.oid] = relation
                return relation
            if kind == b"Y":
                return Type(_U32.unpack_from(message, 1)[0])
            if kind == b"T":
                return self._truncate(message)
        except (struct.error, IndexError, UnicodeDecodeError, ValueError) as error:
            raise Malformed(f"pgoutput message {kind!r} of {len(message)} bytes: {error}") from error
        if kind in (b"O", b"M"):
            return None
        raise Malformed(f"unknown pgoutput message {kind!r} of {len(message)} bytes")

    def _change(self, operation: str, message: bytes) -> Change:
        relation = self._known(_U32.unpack_from(message, 1)[0])
        old, old_is_key, new, offset = None, False, None, 5
        mark = message[offset : offset + 1]
        if mark in (b"K", b"O"):
            old, offset = _tuple(message, offset + 1, len(relation.columns))
            old_is_key = mark == b"K"
            mark = message[offset : offset + 1]
        if mark == b"N":
            new, offset = _tuple(message, offset + 1, len(relation.columns))
        if (
            offset != len(message)
            or (new is None) != (operation == "delete")
            or (operation == "delete" and old is None)
        ):
            raise ValueError(f"ends at byte {offset}, or misses the row")
        return Change(operation, relation, old, old_is_key, new)

    def _truncate(self, message: bytes) -> Truncate:
        (count,) = _U32.unpack_from(message, 1)
        return Truncate(tuple(self._known(_U32.unpack_from(message, 6 + 4 * n)[0]) for n in range(count)))

    def _known(self, oid: int) -> Relation:
        relation = self._relations.get(oid)
        if relation is None:
            raise ValueError(f"table with oid {oid} was not announced")
        return relation


def _tuple(message: bytes, offset: int, columns: int) -> tuple[tuple[Value, ...], int]:
    """A row image and the offset after it."""
    (count,) = _U16.unpack_from(message, offset)
    if count != columns:
        raise ValueError(f"row of {count} columns for a table of {columns}")
    offset += 2
    values: list[Value] = []
    for _ in range(count):
        mark = message[offset]
        offset += 1
        if mark == _TEXT:
            (length,) = _U32.unpack_from(message, offset)
            end = offset + 4 + length
            if end > len(message):
                raise ValueError(f"value at byte {offset} is cut off")
            values.append(message[offset + 4 : end])
            offset = end
        elif mark == _NULL:
            values.append(None)
        elif mark == _UNCHANGED:
            values.append(Missing.UNCHANGED)
        else:
            raise ValueError(f"unknown column mark {mark} at byte {offset - 1}")
    return tuple(values), offset


def _relation(message: bytes, types: dict[int, UserType]) -> Relation:
    (oid,) = _U32.unpack_from(message, 1)
    schema, offset = _string(message, 5)
    table, offset = _string(message, offset)
    identity = chr(message[offset])
    (count,) = _U16.unpack_from(message, offset + 1)
    offset += 3
    columns = []
    for _ in range(count):
        flags = message[offset]
        name, offset = _string(message, offset + 1)
        type_oid, _ = _COLUMN.unpack_from(message, offset)
        offset += _COLUMN.size
        columns.append(Column(name, bool(flags & 1), msgspec.json.encode(name) + b":", converter(type_oid, types)))
    return Relation(oid, schema or "pg_catalog", table, identity, tuple(columns))


def _string(message: bytes, offset: int) -> tuple[str, int]:
    """A zero-terminated string and the offset after it."""
    end = message.index(b"\0", offset)
    return message[offset:end].decode(), end + 1
