"""MySQL's binary form of JSON values -> JSON; MariaDB keeps JSON as text.

Spec: MySQL's source documentation, json_binary.h. A document is a type byte and a value; objects and arrays are tables of offsets, small
(two bytes a number) or large (four).

Invariant: a document is decoded wholly or refused with a `ValueError` or `IndexError`, at a cost in proportion to its size. A server nests 100
levels at most and gives each value a place of its own; offsets that lead to one place again and again would make terabytes of kilobytes.
"""

import base64
import struct
from typing import Final

import msgspec

from wisp_events.sources.mysql_decimal import decimal

LEVELS: Final = 128
"""The server's own bound is 100."""
_SMALL_OBJECT, _LARGE_OBJECT, _SMALL_ARRAY, _LARGE_ARRAY, _LITERAL = range(5)
_STRING, _OPAQUE = 0x0C, 0x0F
_LITERALS: Final = (b"null", b"true", b"false")
_NUMBERS: Final = {5: "<h", 6: "<H", 7: "<i", 8: "<I", 9: "<q", 10: "<Q", 11: "<d"}
_INLINE: Final = {False: frozenset({4, 5, 6}), True: frozenset({4, 5, 6, 7, 8})}
"""Types that stand in their table's entry; in a large table more fits."""
_DECIMAL, _DATES, _TIME = 246, (7, 10, 12), 11
_encode = msgspec.json.Encoder().encode


def document(value: bytes) -> bytes:
    """A whole document; an empty one is what the server writes for NULL inside.

    Raises:
        ValueError, IndexError, struct.error: it is none.
    """
    return _Document(value).value(value[0], 1, LEVELS) if value else b"null"


class _Document:
    """One that is being read."""

    __slots__ = ("_data", "_left")

    def __init__(self, data: bytes) -> None:
        """Nothing of it was read."""
        self._data = data
        self._left = 2 * len(data)
        """Values, and bytes of texts, that can be in it: each takes its own place."""

    def value(self, kind: int, at: int, levels: int) -> bytes:
        """The value of a type at a place."""
        data = self._data
        self._take(1)
        if kind in (_SMALL_OBJECT, _LARGE_OBJECT, _SMALL_ARRAY, _LARGE_ARRAY):
            if not levels:
                raise ValueError(f"JSON of more than {LEVELS} levels")
            large = kind in (_LARGE_OBJECT, _LARGE_ARRAY)
            return self._table(at, levels - 1, large=large, keys=kind < _SMALL_ARRAY)
        if kind == _LITERAL:
            return _LITERALS[data[at]]
        if kind in _NUMBERS:
            return _encode(struct.unpack_from(_NUMBERS[kind], data, at)[0])
        if kind == _STRING:
            length, at = _length(data, at)
            return self._text(at, length)
        if kind == _OPAQUE:
            length, start = _length(data, at + 1)
            self._take(length)
            return _opaque(data[at], data[start : start + length])
        raise ValueError(f"JSON value of type {kind}")

    def _table(self, start: int, levels: int, *, large: bool, keys: bool) -> bytes:
        """An object or an array; offsets in it count from its start."""
        data = self._data
        width, form = (4, "<I") if large else (2, "<H")

        def number(at: int) -> int:
            found: int = struct.unpack_from(form, data, at)[0]
            return found

        count, at = number(start), start + 2 * width
        labels = []
        if keys:
            for _ in range(count):
                offset, length = start + number(at), struct.unpack_from("<H", data, at + width)[0]
                labels.append(self._text(offset, length) + b":")
                at += width + 2
        parts = []
        for index in range(count):
            kind = data[at]
            where = at + 1 if kind in _INLINE[large] else start + number(at + 1)
            parts.append((labels[index] if keys else b"") + self.value(kind, where, levels))
            at += 1 + width
        return (b"{%b}" if keys else b"[%b]") % b",".join(parts)

    def _text(self, at: int, length: int) -> bytes:
        self._take(length)
        return _encode(self._data[at : at + length].decode())

    def _take(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise ValueError("JSON whose values share a place")


def _length(data: bytes, at: int) -> tuple[int, int]:
    """A number in seven bits a byte, and the offset after it."""
    found = 0
    for shift in range(0, 35, 7):
        byte = data[at]
        at += 1
        found |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return found, at
    raise ValueError("a length of more than five bytes")


def _opaque(kind: int, value: bytes) -> bytes:
    """Values that JSON has no type for: decimals as numbers, dates and times as text, the rest as base64."""
    if kind == _DECIMAL:
        return decimal(value[0], value[1])(value, 2)[0]
    if kind in (*_DATES, _TIME):
        return _moment(kind, struct.unpack("<q", value)[0])
    return b'"' + base64.b64encode(value) + b'"'


def _moment(kind: int, packed: int) -> bytes:
    sign, packed = ("-" if packed < 0 else ""), abs(packed)
    micro, clock = packed & 0xFFFFFF, packed >> 24
    fraction = f".{micro:06d}" if micro else ""
    if kind == _TIME:
        return _encode(f"{sign}{clock >> 12 & 1023:02d}:{clock >> 6 & 63:02d}:{clock & 63:02d}{fraction}")
    months, day = clock >> 22, clock >> 17 & 31
    date = f"{months // 13:04d}-{months % 13:02d}-{day:02d}"
    if kind == 10:  # noqa: PLR2004 - a date
        return _encode(date)
    return _encode(f"{date}T{clock >> 12 & 31:02d}:{clock >> 6 & 63:02d}:{clock & 63:02d}{fraction}")
