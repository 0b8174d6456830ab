r"""PostgreSQL's text of a value -> JSON, by type.

The reader's session sets `datestyle=ISO`, `timezone=UTC`, `bytea_output=hex` and `extra_float_digits=3`; the forms here
are those. Numbers keep PostgreSQL's digits, so that they are exact on the wire; what JSON has no number for (`NaN`,
`Infinity`) is a string. A domain is as its base type. Types not listed (enums, ranges, composites among them) are strings
of PostgreSQL's text.

Invariant: what comes out is one valid JSON value, whatever the text is; a `ValueError` (bytes that are not UTF-8) is the
only other outcome.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

from wisp_events.sources.rows import Convert

LONGEST_NUMBER: Final = 300
"""Digits; a longer number does not fit the double that most readers parse into, and becomes a string."""

_NUMBER = re.compile(rb"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")
_string_encoder = msgspec.json.Encoder()
_any_json = msgspec.json.Decoder(msgspec.Raw)
_OPENING, _CLOSING = b"[" * 100, b"]" * 100


def text(value: bytes) -> bytes:
    """A JSON string."""
    return _string_encoder.encode(value.decode())


def integer(value: bytes) -> bytes:
    """PostgreSQL's integers are JSON numbers as they stand."""
    return value


def number(value: bytes) -> bytes:
    """A numeric or float: its digits, or a string where JSON has no such number."""
    if len(value) <= LONGEST_NUMBER and _NUMBER.fullmatch(value):
        return value
    return text(value)


def boolean(value: bytes) -> bytes:
    """`t` or `f`."""
    return b"true" if value == b"t" else b"false"


def document(value: bytes) -> bytes:
    """A json or jsonb value, inline; as a string where it nests too deeply for readers of the event."""
    value.decode()
    nested = _OPENING + value + _CLOSING  # leaves room for what the value will be nested in, on any call stack
    return value if _is_json(value) and _is_json(nested) else text(value)


def binary(value: bytes) -> bytes:
    r"""A bytea (`\x` and hex digits) as base64."""
    try:
        return b'"' + base64.b64encode(binascii.unhexlify(value[2:])) + b'"'
    except binascii.Error:
        return text(value)


def timestamp(value: bytes) -> bytes:
    """`2026-11-20 19:03:41.5+00` as RFC 3339 in UTC; without a zone, as ISO 8601; infinity and years BC as text."""
    if value[-2:] == b"BC" or value[10:11] != b" ":
        return text(value)
    if value.endswith(b"+00"):
        return b'"' + value[:10] + b"T" + value[11:-3] + b'Z"'
    return b'"' + value[:10] + b"T" + value[11:] + b'"'


_SCALARS: Final[dict[int, Convert]] = {
    16: boolean,
    17: binary,
    20: integer,
    21: integer,
    23: integer,
    26: integer,  # oid
    114: document,  # json
    700: number,  # float4
    701: number,  # float8
    1114: timestamp,
    1184: timestamp,  # with time zone
    1700: number,  # numeric
    3802: document,  # jsonb
}
_ARRAYS: Final = {
    1000: 16, 1001: 17, 1016: 20, 1005: 21, 1007: 23, 1028: 26, 199: 114, 1021: 700, 1022: 701, 1115: 1114, 1185: 1184,
    1231: 1700, 3807: 3802, 1009: 25, 1015: 1043, 1014: 1042, 1002: 18, 1003: 19, 2951: 2950, 1182: 1082, 1183: 1083,
    1270: 1266, 1187: 1186, 1041: 869, 651: 650, 1040: 829,
    143: 142, 629: 628, 719: 718, 775: 774, 791: 790, 1017: 600, 1018: 601, 1019: 602, 1027: 604, 1561: 1560, 1563: 1562,
    2210: 2205, 3221: 3220, 3643: 3614, 3645: 3615, 3905: 3904, 3907: 3906, 3909: 3908, 3911: 3910, 3913: 3912, 3927: 3926,
    4073: 4072, 6150: 4451, 6151: 4532, 6152: 4533, 6153: 4534, 6155: 4535, 6157: 4536,
}  # fmt: skip
"""Array type to element type, by the fixed oids of pg_type.dat."""

_ARRAY_TOKEN = re.compile(rb'[{},]|"((?:[^"\\]|\\.)*)"|((?:[^{},"\\]|\\.)+)', re.DOTALL)
_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)
_BOUNDS = re.compile(rb"(\[-?\d+:-?\d+\])+=")


def array(value: bytes, element: Convert) -> bytes:
    """`{1,NULL,{"a b"}}` as a JSON array; lower bounds are dropped; a string where the text is no array."""
    bounds = _BOUNDS.match(value)
    offset = bounds.end() if bounds else 0
    parts: list[bytes] = []
    while offset < len(value):
        token = _ARRAY_TOKEN.match(value, offset)
        if token is None:
            return text(value)
        offset = token.end()
        quoted, plain = token.groups()
        if quoted is not None:
            parts.append(element(_ESCAPE.sub(rb"\1", quoted)))
        elif plain is not None:
            parts.append(b"null" if plain == b"NULL" else element(_ESCAPE.sub(rb"\1", plain)))
        else:
            parts.append({b"{": b"[", b"}": b"]"}.get(token[0], b","))
    return made if _is_json(made := b"".join(parts)) else text(value)


def _is_json(value: bytes) -> bool:
    try:
        _any_json.decode(value)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


class UserType(NamedTuple):
    """A type that is made of another one."""

    of: int
    """Oid of a domain's base type, or of an array's element type."""
    array: bool


def converter(type_oid: int, types: Mapping[int, UserType] | None = None) -> Convert:
    """The conversion for a type, by its oid in pg_type; `types` are the database's own domains and arrays."""
    own = (types or {}).get(type_oid)
    if own and not own.array:
        return converter(own.of, types)
    element_oid = own.of if own else _ARRAYS.get(type_oid)
    if element_oid is None:
        return _SCALARS.get(type_oid, text)
    element = converter(element_oid, types)
    return lambda value: array(value, element)
