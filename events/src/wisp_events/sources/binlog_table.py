"""Table maps of the binary log: which columns the rows that follow have, and how they are read.

Invariant: the columns' names and keys are those at the time of the change, since the map itself holds them (`binlog_row_metadata=FULL`);
the rows behind a map without names are refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from wisp_events.sources import mysql_values
from wisp_events.sources.mysql_decimal import Read
from wisp_events.sources.mysql_values import BINARY, BIT, ENUM, NEWDECIMAL, SET, STRING, VARCHAR
from wisp_events.sources.rows import Column, Missing, Relation, Value

_SIGNS, _DEFAULT_SET, _SETS, _NAMES, _SET_WORDS, _ENUM_WORDS, _KEY, _KEY_PREFIXES = 1, 2, 3, 4, 5, 6, 8, 9
_WORD_DEFAULT_SET, _WORD_SETS = 10, 11
_NEWEST_VECTOR, _JSON, _GEOMETRY, _BLOBS = 242, 245, 255, (249, 250, 251, 252)
_ONE_BYTE: Final = frozenset({4, 5, 17, 18, 19, _NEWEST_VECTOR, _JSON, _GEOMETRY, *_BLOBS, 140})
_TWO_BYTES: Final = frozenset({VARCHAR, BIT, NEWDECIMAL, ENUM, SET, 253, STRING, 141})
_UCA1400: Final = 2048
"""MariaDB numbers its newer collations from here, 256 for each of these character sets."""
_UCA1400_SETS: Final = ("utf8mb3", "utf8mb4", "ucs2", "utf16", "utf32")
_LENGTHS: Final = {252: 2, 253: 3, 254: 8}


@dataclass(frozen=True, slots=True)
class TableMap:
    """A table's shape, and how its rows are read."""

    relation: Relation
    readers: tuple[Read, ...]
    trouble: str = ""
    """Why its rows can't be read."""

    @property
    def name(self) -> str:
        """`schema.table`."""
        return self.relation.name

    def row(self, body: bytes, at: int, present: Sequence[bool]) -> tuple[tuple[Value, ...], int]:
        """A row image at an offset, and the offset after it."""
        if self.trouble:
            raise ValueError(self.trouble)
        count = sum(present)
        end = at + (count + 7) // 8
        nulls = int.from_bytes(body[at:end], "little")
        at = end
        values: list[Value] = []
        for read, sent in zip(self.readers, present, strict=True):
            if not sent:
                values.append(Missing.UNCHANGED)
                continue
            if nulls & 1:
                values.append(None)
            else:
                value, at = read(body, at)
                values.append(value)
            nulls >>= 1
        if at > len(body):
            raise ValueError("a row is cut off")
        return tuple(values), at


def decode(body: bytes, charsets: Mapping[int, str], *, mariadb: bool) -> TableMap:
    """A table map's body; `charsets` are the server's, by collation.

    Raises:
        ValueError, IndexError: it can't be read.
    """
    table_id = int.from_bytes(body[:6], "little")
    schema, at = _string(body, 8)
    table, at = _string(body, at + 1)
    count, at = number(body, at + 1)
    kinds = body[at : at + count]
    length, at = number(body, at + count)
    metadata = _metadata(kinds, body[at : at + length])
    fields = _fields(body, at + length + (count + 7) // 8)
    trouble = "" if _NAMES in fields else "it comes without its columns' names: set binlog_row_metadata to FULL"
    names = [name.decode() for name in _strings(fields[_NAMES])] if not trouble else [f"{n}" for n in range(count)]
    keys = _keys(fields)
    columns = tuple(
        Column(name, index in keys, msgspec.json.encode(name) + b":", bytes) for index, name in enumerate(names)
    )
    relation = Relation(table_id, schema.decode(), table.decode(), "d", columns)
    return TableMap(
        relation, tuple(_reader(one) for one in _columns(metadata, fields, charsets, mariadb=mariadb)), trouble
    )


def _reader(column: mysql_values.Column) -> Read:
    """How a column is read; one that can't be makes its rows unreadable, not the map."""
    try:
        return mysql_values.reader(column)
    except ValueError as error:
        why = str(error)

    def refuse(_data: bytes, _at: int) -> tuple[bytes, int]:
        raise ValueError(why)

    return refuse


def number(body: bytes, at: int) -> tuple[int, int]:
    """A number of one to nine bytes, and the offset after it."""
    first = body[at]
    if first < 251:  # noqa: PLR2004 - the protocol's
        return first, at + 1
    end = at + 1 + _LENGTHS[first]
    return int.from_bytes(body[at + 1 : end], "little"), end


def _string(body: bytes, at: int) -> tuple[bytes, int]:
    length, at = number(body, at)
    return body[at : at + length], at + length


def _strings(field: bytes) -> list[bytes]:
    at, found = 0, []
    while at < len(field):
        one, at = _string(field, at)
        found.append(one)
    return found


def _numbers(field: bytes) -> list[int]:
    at, found = 0, []
    while at < len(field):
        one, at = number(field, at)
        found.append(one)
    return found


def _metadata(kinds: bytes, block: bytes) -> list[tuple[int, int]]:
    """Each column's type and what belongs to it: lengths, digits."""
    at, found = 0, []
    for kind in kinds:
        size = 1 if kind in _ONE_BYTE else 2 if kind in _TWO_BYTES else 0
        part = block[at : at + size]
        at += size
        found.append(_unpacked(part[0], part[1]) if kind == STRING else (kind, int.from_bytes(part, "little")))
    return found


def _unpacked(high: int, low: int) -> tuple[int, int]:
    """The type and length in a string's metadata; two bits of lengths above 255 stand, inverted, in the type."""
    if high & 0x30 != 0x30:  # noqa: PLR2004
        return high | 0x30, low | ((high & 0x30) ^ 0x30) << 4
    return high, low


def _fields(body: bytes, at: int) -> dict[int, bytes]:
    found = {}
    while at < len(body):
        length, start = number(body, at + 1)
        found[body[at]] = body[start : start + length]
        at = start + length
    return found


def _keys(fields: dict[int, bytes]) -> list[int]:
    if _KEY in fields:
        return _numbers(fields[_KEY])
    return _numbers(fields.get(_KEY_PREFIXES, b""))[::2]


def _columns(
    metadata: list[tuple[int, int]], fields: dict[int, bytes], charsets: Mapping[int, str], *, mariadb: bool
) -> list[mysql_values.Column]:
    texts = mysql_values.MARIADB_CHARACTER if mariadb else mysql_values.CHARACTER
    numeric = [index for index, (kind, _) in enumerate(metadata) if kind in mysql_values.NUMERIC]
    characters = [index for index, (kind, _) in enumerate(metadata) if kind in texts]
    chosen = [index for index, (kind, _) in enumerate(metadata) if kind in (ENUM, SET)]
    signs = fields.get(_SIGNS, b"")
    unsigned = (
        {index for place, index in enumerate(numeric) if signs[place // 8] >> (7 - place % 8) & 1} if signs else set()
    )
    collations = _collations(characters, fields, _DEFAULT_SET, _SETS) | _collations(
        chosen, fields, _WORD_DEFAULT_SET, _WORD_SETS
    )
    words = _words(metadata, fields)
    return [
        mysql_values.Column(
            kind, detail, index in unsigned, _charset(collations.get(index), charsets), words.get(index, ())
        )
        for index, (kind, detail) in enumerate(metadata)
    ]


def _charset(collation: int | None, charsets: Mapping[int, str]) -> str:
    if collation is None:
        return BINARY
    if collation >= _UCA1400:
        return _UCA1400_SETS[min((collation - _UCA1400) >> 8, len(_UCA1400_SETS) - 1)]
    return charsets.get(collation, f"of collation {collation}")


def _collations(columns: list[int], fields: dict[int, bytes], default: int, each: int) -> dict[int, int]:
    """The collation of each of these columns: one for all but some, or one for each."""
    if each in fields:
        return dict(zip(columns, _numbers(fields[each]), strict=True))
    if default not in fields:
        return {}
    usual, *others = _numbers(fields[default])
    differ = dict(zip(others[::2], others[1::2], strict=True))
    return {column: differ.get(place, usual) for place, column in enumerate(columns)}


def _words(metadata: list[tuple[int, int]], fields: dict[int, bytes]) -> dict[int, list[bytes]]:
    """The words of enums and sets."""
    found: dict[int, list[bytes]] = {}
    for kind, field in ((SET, _SET_WORDS), (ENUM, _ENUM_WORDS)):
        body, at = fields.get(field, b""), 0
        for index, (one, _) in enumerate(metadata):
            if one == kind and at < len(body):
                count, at = number(body, at)
                found[index] = []
                for _ in range(count):
                    word, at = _string(body, at)
                    found[index].append(word)
    return found
