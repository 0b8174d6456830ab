"""Values of a SELECT (texts of MySQL's and MariaDB's protocol) -> JSON, by the column's type.

Invariant: a value is the JSON that `mysql_values` and `mysql_json` make of the same value in the binary log. So floats are asked for as
doubles, which have all their digits, and times in UTC.
"""

import base64
import ipaddress
import struct
import uuid
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from wisp_events.sources import mysql_values
from wisp_events.sources.rows import Convert

_encode = msgspec.json.Encoder().encode


class Shape(NamedTuple):
    """What information_schema says of a column."""

    name: str
    kind: str
    """data_type, in lower case."""
    charset: str | None
    bits: int | None
    """Of a bit column: numeric_precision."""


def expression(shape: Shape) -> str:
    """What to select."""
    quoted = "`" + shape.name.replace("`", "``") + "`"
    return f"{quoted} * 1e0" if shape.kind in ("float", "double") else quoted


def converter(shape: Shape) -> Convert:
    """How its texts become JSON."""
    if shape.kind == "bit":
        return lambda value: f'"{int.from_bytes(value):0{shape.bits}b}"'.encode()
    if shape.kind in _CONVERTERS:
        return _CONVERTERS[shape.kind]
    return _text if shape.charset else _base64


def _integer(value: bytes) -> bytes:
    return b"%d" % int(value)  # zerofill shows zeros in front


def _decimal(value: bytes) -> bytes:
    sign, digits = (b"-", value[1:]) if value[:1] == b"-" else (b"", value)
    digits = digits.lstrip(b"0")
    return sign + (digits if digits[:1].isdigit() else b"0" + digits)


def _float(value: bytes) -> bytes:
    return mysql_values.float_digits(struct.pack("<f", float(value)), 0)[0]


def _double(value: bytes) -> bytes:
    return _encode(float(value))


def _text(value: bytes) -> bytes:
    return _encode(value.decode())


def _words(value: bytes) -> bytes:
    return _encode(value.decode().split(",") if value else [])


def _base64(value: bytes) -> bytes:
    return b'"' + base64.b64encode(value) + b'"'


def _quoted(value: bytes) -> bytes:
    return b'"' + value + b'"'


def _datetime(value: bytes) -> bytes:
    return b'"' + value.replace(b" ", b"T") + b'"'


def _timestamp(value: bytes) -> bytes:
    return b'"' + value.replace(b" ", b"T") + b'Z"'


def _address(value: bytes) -> bytes:
    return _base64(ipaddress.ip_address(value.decode()).packed)


def _uuid(value: bytes) -> bytes:
    return _base64(uuid.UUID(value.decode()).bytes)


_CONVERTERS: Final[dict[str, Callable[[bytes], bytes]]] = {
    **dict.fromkeys(("tinyint", "smallint", "mediumint", "int", "bigint", "year"), _integer),
    "decimal": _decimal,
    "float": _float,
    "double": _double,
    "set": _words,
    "json": bytes,
    "date": _quoted,
    "time": _quoted,
    "datetime": _datetime,
    "timestamp": _timestamp,
    "inet4": _address,
    "inet6": _address,
    "uuid": _uuid,
}
"""The other types are texts where they have a character set, and bytes where not."""
