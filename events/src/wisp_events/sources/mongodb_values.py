"""BSON -> JSON: plain values, as the other databases' readers write them.

A number stays a number with all its digits, also a decimal; what JSON has no number for (`NaN`, `Infinity`, a decimal beyond a double's
range) is a string. An ObjectId is its 24 hexadecimal digits, a date RFC 3339 in UTC, a UUID its usual text, other binary base64.

Invariant: what comes out is one valid JSON value, whatever the document holds; `Malformed` (bytes that are no BSON) is the only other outcome.
"""

import base64
import math
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import bson
import msgspec
from bson import CodecOptions, DatetimeMS, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.binary import Binary, UuidRepresentation
from bson.code import Code
from bson.codec_options import DatetimeConversion
from bson.dbref import DBRef
from bson.errors import BSONError

from wisp_events.sources.rows import Malformed

LARGEST_EXPONENT: Final = 300
"""A decimal beyond it does not fit the double that most readers parse into."""
_CODEC: Final = CodecOptions[dict[str, Any]](
    tz_aware=True,
    uuid_representation=UuidRepresentation.STANDARD,
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
)
_FLAGS: Final = ((2, "i"), (4, "l"), (8, "m"), (16, "s"), (32, "u"), (64, "x"))
_encode: Final = msgspec.json.Encoder().encode


def decode(document: bytes) -> dict[str, Any]:
    """The document in BSON.

    Raises:
        Malformed: it is none.
    """
    try:
        return bson.decode(document, _CODEC)
    except (BSONError, UnicodeDecodeError, ValueError, OverflowError) as error:
        raise Malformed(f"the change is no BSON: {error}") from None


def to_json(value: object) -> bytes:
    """One JSON value.

    Raises:
        Malformed: it holds something that is no BSON, or nests more deeply than any server takes.
    """
    try:
        return _encode(_plain(value))
    except RecursionError:
        raise Malformed("the document nests too deeply") from None


def _plain(value: Any) -> Any:
    """The value as msgspec writes it."""
    kind = type(value)
    if kind is str or kind is int or kind is bool or value is None:
        return value
    if convert := _CONVERT.get(kind):
        return convert(value)
    raise Malformed(f"there is no JSON for a {kind.__name__}")


def _document(value: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _plain(member) for name, member in value.items()}


def _array(value: list[Any]) -> list[Any]:
    return [_plain(member) for member in value]


def _double(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _decimal(value: Decimal128) -> msgspec.Raw | str:
    """Its own digits, as `mongosh` shows them."""
    number, text = value.to_decimal(), str(value)
    if number.is_finite() and abs(number.adjusted()) <= LARGEST_EXPONENT:
        return msgspec.Raw(text)
    return text


def _date(value: datetime) -> str:
    return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _pattern(value: Regex[Any]) -> str:
    return f"/{value.pattern}/{''.join(letter for flag, letter in _FLAGS if value.flags & flag)}"


def _code(value: Code) -> str | dict[str, Any]:
    return str(value) if value.scope is None else {"code": str(value), "scope": _document(value.scope)}


_CONVERT: Final[dict[type, Callable[[Any], Any]]] = {
    dict: _document,
    list: _array,
    Int64: int,
    float: _double,
    Decimal128: _decimal,
    ObjectId: str,
    datetime: _date,
    DatetimeMS: int,  # years that have no RFC 3339 are milliseconds
    bytes: lambda value: base64.b64encode(value).decode(),
    Binary: lambda value: base64.b64encode(value).decode(),
    UUID: str,
    Regex: _pattern,
    Timestamp: lambda value: {"t": value.time, "i": value.inc},
    Code: _code,
    DBRef: lambda value: _document(value.as_doc()),
    MinKey: lambda _: "MinKey",
    MaxKey: lambda _: "MaxKey",
}
