"""MySQL's binary form of decimals, in columns and in JSON -> digits.

Invariant: every digit that the server stores is written, so a number is exact on the wire.
"""

from collections.abc import Callable
from typing import Final, TypeAlias

Read: TypeAlias = Callable[[bytes, int], tuple[bytes, int]]
"""The value at an offset as JSON, and the offset after it."""

_DIGIT_BYTES: Final = (0, 1, 1, 2, 2, 3, 3, 4, 4, 4)
"""How many bytes so many decimal digits take."""
_DIGITS: Final = 9


def decimal(precision: int, scale: int) -> Read:
    """Groups of nine digits in four bytes, big-endian, the first bit the sign; a negative number's bytes are inverted."""
    whole = precision - scale
    groups = [whole % _DIGITS, *[_DIGITS] * (whole // _DIGITS)], [*[_DIGITS] * (scale // _DIGITS), scale % _DIGITS]
    size = sum(_DIGIT_BYTES[digits] for group in groups for digits in group)

    def read(data: bytes, at: int) -> tuple[bytes, int]:
        end = at + size
        negative = not data[at] & 0x80
        mask = 0xFF if negative else 0
        raw = bytes([(data[at] ^ 0x80) ^ mask, *(byte ^ mask for byte in data[at + 1 : end])])
        place, parts = 0, []
        for group in groups:
            text = ""
            for digits in group:
                width = _DIGIT_BYTES[digits]
                if width:
                    text += f"{int.from_bytes(raw[place : place + width]):0{digits}d}"
                place += width
            parts.append(text)
        number = (parts[0].lstrip("0") or "0") + (f".{parts[1]}" if parts[1] else "")
        return ("-" + number if negative else number).encode(), end

    return read
