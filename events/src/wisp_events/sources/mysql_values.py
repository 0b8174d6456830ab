r"""Values of MySQL's and MariaDB's binary log -> JSON, by type.

Integers, decimals and floats are JSON numbers, decimals with all their digits; texts are strings, `binary` and `blob` base64; a
`timestamp` is RFC 3339 in UTC, a `datetime` ISO 8601 without a zone, both as they are where they are no date (`0000-00-00`); an enum is
its word, a set the list of its words, a `bit` its digits, JSON (MySQL) is inline; a geometry is base64 of what the server stores.

Invariant: what comes out is one valid JSON value; a `ValueError` or `IndexError` (cut off, or text that is not of its character set) is
the only other outcome.
"""

import base64
import codecs
import struct
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec

from wisp_events.sources.mysql_decimal import Read, decimal
from wisp_events.sources.mysql_json import document

BINARY: Final = "binary"
"""The character set of bytes."""
(TINY, SHORT, LONG, FLOAT, DOUBLE, TIMESTAMP, LONGLONG, INT24) = (1, 2, 3, 4, 5, 7, 8, 9)
(DATE, TIME, DATETIME, YEAR, VARCHAR, BIT, TIMESTAMP2, DATETIME2, TIME2) = (10, 11, 12, 13, 15, 16, 17, 18, 19)
(JSON, NEWDECIMAL, ENUM, SET, BLOB, VAR_STRING, STRING, GEOMETRY) = (245, 246, 247, 248, 252, 253, 254, 255)
NUMERIC: Final = frozenset({TINY, SHORT, INT24, LONG, LONGLONG, NEWDECIMAL, FLOAT, DOUBLE, YEAR})
CHARACTER: Final = frozenset({STRING, VAR_STRING, VARCHAR, BLOB})
MARIADB_CHARACTER: Final = CHARACTER | {GEOMETRY}
"""What a table map counts as numbers, and as texts, in which the two servers differ."""

_SIZES: Final = {TINY: 1, SHORT: 2, INT24: 3, LONG: 4, LONGLONG: 8}
_CODECS: Final = {
    "utf8": "utf-8", "utf8mb3": "utf-8", "utf8mb4": "utf-8", "ucs2": "utf-16-be", "utf16": "utf-16-be", "utf16le": "utf-16-le",
    "utf32": "utf-32-be", "latin2": "iso8859-2", "latin5": "iso8859-9", "latin7": "iso8859-13", "greek": "iso8859-7",
    "hebrew": "iso8859-8", "koi8r": "koi8-r", "koi8u": "koi8-u", "sjis": "shift_jis", "ujis": "euc_jp", "eucjpms": "euc_jp",
    "euckr": "euc_kr", "tis620": "tis-620", "macroman": "mac_roman", "macce": "mac_latin2",
}  # fmt: skip
"""Python's names for character sets, where they differ."""
_encode = msgspec.json.Encoder().encode


class Column(NamedTuple):
    """What a table map says of a column."""

    type: int
    metadata: int
    unsigned: bool = False
    charset: str = BINARY
    words: Sequence[bytes] = ()
    """Of an enum or a set."""


def reader(column: Column) -> Read:  # noqa: PLR0911 - one return a kind
    """How a column's values are read.

    Raises:
        ValueError: a type that is not known.
    """
    kind, metadata = column.type, column.metadata
    if kind in _SIZES:
        return _integer(_SIZES[kind], column.unsigned)
    if kind in (VARCHAR, VAR_STRING, STRING):
        width = metadata if kind == STRING else 0
        return _text(1 if metadata < 256 else 2, column.charset, width)  # noqa: PLR2004 - more does not fit one byte
    if kind in (BLOB, GEOMETRY):
        return _text(metadata, BINARY if kind == GEOMETRY else column.charset)
    if kind == JSON:
        return lambda data, at: _sized(data, at, metadata, document)
    if kind == NEWDECIMAL:
        return decimal(metadata & 0xFF, metadata >> 8)
    if kind in (ENUM, SET):
        return _choice(metadata, column) if kind == ENUM else _choices(metadata, column)
    if kind == BIT:
        return _bits(metadata)
    if kind in _FIXED:
        return _FIXED[kind]
    if kind in _FRACTIONAL:
        return _FRACTIONAL[kind](metadata)
    raise ValueError(f"columns of type {kind} can't be read")


def _integer(size: int, unsigned: bool) -> Read:  # noqa: FBT001
    def read(data: bytes, at: int) -> tuple[bytes, int]:
        end = at + size
        return b"%d" % int.from_bytes(data[at:end], "little", signed=not unsigned), end

    return read


def _sized(data: bytes, at: int, size: int, convert: Callable[[bytes], bytes]) -> tuple[bytes, int]:
    """A value behind its length."""
    start = at + size
    end = start + int.from_bytes(data[at:start], "little")
    if end > len(data):
        raise ValueError(f"the value at byte {at} is cut off")
    return convert(data[start:end]), end


def _text(size: int, charset: str, width: int = 0) -> Read:
    """Texts, or bytes; the server leaves zeros out at the end of `binary(width)`."""
    convert = (lambda value: _base64(value.ljust(width, b"\0"))) if charset == BINARY else _decoder(charset)
    return lambda data, at: _sized(data, at, size, convert)


def _base64(value: bytes) -> bytes:
    return b'"' + base64.b64encode(value) + b'"'


def _decoder(charset: str) -> Callable[[bytes], bytes]:
    decode = text(charset)
    return lambda value: _encode(decode(value))


def text(charset: str) -> Callable[[bytes], str]:
    """How texts of a character set are read.

    Raises:
        ValueError: it is not known.
    """
    if charset == "latin1":
        return _latin
    name = _CODECS.get(charset, charset)
    try:
        decode = codecs.lookup(name).decode
    except LookupError:
        raise ValueError(f"texts in character set {charset} can't be read") from None
    return lambda value: decode(value)[0]


def _latin(value: bytes) -> str:
    """What MySQL calls latin1: Windows' code page, with control characters where that has holes."""
    try:
        return value.decode("cp1252")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _choice(size: int, column: Column) -> Read:
    words = [b'""', *_words(column)]  # 0: a value that was not of the list

    def read(data: bytes, at: int) -> tuple[bytes, int]:
        number = int.from_bytes(data[at : at + size], "little")
        return words[number], at + size

    return read


def _choices(size: int, column: Column) -> Read:
    words = _words(column)

    def read(data: bytes, at: int) -> tuple[bytes, int]:
        number = int.from_bytes(data[at : at + size], "little")
        return b"[" + b",".join(word for index, word in enumerate(words) if number >> index & 1) + b"]", at + size

    return read


def _words(column: Column) -> list[bytes]:
    decode = text("utf8mb4" if column.charset == BINARY else column.charset)
    return [_encode(decode(word)) for word in column.words]


def _bits(metadata: int) -> Read:
    """The metadata's low byte has the bits beyond whole bytes, its high byte those."""
    count = (metadata >> 8) * 8 + (metadata & 0xFF)
    size = (count + 7) // 8

    def read(data: bytes, at: int) -> tuple[bytes, int]:
        end = at + size
        return b'"%b"' % f"{int.from_bytes(data[at:end]):0{count}b}".encode(), end

    return read


def float_digits(data: bytes, at: int) -> tuple[bytes, int]:
    """The shortest digits that are this number in four bytes."""
    raw = data[at : at + 4]
    (value,) = struct.unpack("<f", raw)
    for digits in range(6, 9):
        if struct.pack("<f", float(f"{value:.{digits}g}")) == raw:
            return _encode(float(f"{value:.{digits}g}")), at + 4
    return _encode(float(f"{value:.9g}")), at + 4


def _double(data: bytes, at: int) -> tuple[bytes, int]:
    return _encode(struct.unpack_from("<d", data, at)[0]), at + 8


def _year(data: bytes, at: int) -> tuple[bytes, int]:
    return b"%d" % (1900 + data[at] if data[at] else 0), at + 1


def _date(data: bytes, at: int) -> tuple[bytes, int]:
    value = int.from_bytes(data[at : at + 3], "little")
    return f'"{value >> 9:04d}-{value >> 5 & 15:02d}-{value & 31:02d}"'.encode(), at + 3


def _old_time(data: bytes, at: int) -> tuple[bytes, int]:
    value = int.from_bytes(data[at : at + 3], "little", signed=True)
    sign, value = ("-" if value < 0 else ""), abs(value)
    return f'"{sign}{value // 10000:02d}:{value // 100 % 100:02d}:{value % 100:02d}"'.encode(), at + 3


def _old_datetime(data: bytes, at: int) -> tuple[bytes, int]:
    digits = f"{int.from_bytes(data[at : at + 8], 'little'):014d}"
    day = f"{digits[:4]}-{digits[4:6]}-{digits[6:8]}"
    return f'"{day}T{digits[8:10]}:{digits[10:12]}:{digits[12:]}"'.encode(), at + 8


def _old_timestamp(data: bytes, at: int) -> tuple[bytes, int]:
    return _instant(int.from_bytes(data[at : at + 4], "little"), ""), at + 4


def _instant(seconds: int, fraction: str) -> bytes:
    if not seconds:
        return f'"0000-00-00T00:00:00{fraction}Z"'.encode()
    days, rest = divmod(seconds, 86400)
    year, month, day = _civil(days)
    clock = f"{rest // 3600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d}"
    return f'"{year:04d}-{month:02d}-{day:02d}T{clock}{fraction}Z"'.encode()


def _civil(days: int) -> tuple[int, int, int]:
    """Days since 1970 as a date of the Gregorian calendar (Howard Hinnant's algorithm), four times as fast as datetime."""
    era, of_era = divmod(days + 719468, 146097)
    year = (of_era - of_era // 1460 + of_era // 36524 - of_era // 146096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    month = (5 * of_year + 2) // 153
    day = of_year - (153 * month + 2) // 5 + 1
    month = month + 3 if month < 10 else month - 9  # noqa: PLR2004 - the year begins in March
    return year + era * 400 + (month < 3), month, day  # noqa: PLR2004


def _fraction(data: bytes, at: int, digits: int) -> str:
    """`.123` of so many digits, in as few bytes as hold them."""
    if not digits:
        return ""
    size = (digits + 1) // 2
    return f".{int.from_bytes(data[at : at + size]):0{size * 2}d}"[: digits + 1]


def _timestamp(digits: int) -> Read:
    size = 4 + (digits + 1) // 2
    return lambda data, at: (
        _instant(int.from_bytes(data[at : at + 4]), _fraction(data, at + 4, digits)),
        at + size,
    )


def _datetime(digits: int) -> Read:
    size = 5 + (digits + 1) // 2

    def read(data: bytes, at: int) -> tuple[bytes, int]:
        value = int.from_bytes(data[at : at + 5]) - 0x8000000000
        months, day, hour = value >> 22, value >> 17 & 31, value >> 12 & 31
        clock = f"{hour:02d}:{value >> 6 & 63:02d}:{value & 63:02d}{_fraction(data, at + 5, digits)}"
        return f'"{months // 13:04d}-{months % 13:02d}-{day:02d}T{clock}"'.encode(), at + size

    return read


def _time(digits: int) -> Read:
    size, shift = 3 + (digits + 1) // 2, 8 * ((digits + 1) // 2)
    offset = 0x800000 << shift

    def read(data: bytes, at: int) -> tuple[bytes, int]:
        value = int.from_bytes(data[at : at + size]) - offset
        sign, value = ("-" if value < 0 else ""), abs(value)
        clock, rest = value >> shift, value & ((1 << shift) - 1)
        fraction = f".{rest:0{shift // 4}d}"[: digits + 1] if digits else ""
        text = f"{sign}{clock >> 12 & 1023:02d}:{clock >> 6 & 63:02d}:{clock & 63:02d}{fraction}"
        return f'"{text}"'.encode(), at + size

    return read


_FIXED: Final[dict[int, Read]] = {
    FLOAT: float_digits,
    DOUBLE: _double,
    YEAR: _year,
    DATE: _date,
    TIME: _old_time,
    DATETIME: _old_datetime,
    TIMESTAMP: _old_timestamp,
}
_FRACTIONAL: Final[dict[int, Callable[[int], Read]]] = {TIMESTAMP2: _timestamp, DATETIME2: _datetime, TIME2: _time}
