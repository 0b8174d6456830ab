"""How much a JSON text would take as objects, found without making them.

Invariant: what the front parses has at most ``MAX_VALUES`` values, so that no caller can block it for longer than some
tenths of a second, or have it make of one body many times its bytes: an empty list takes two bytes on the wire and 64 here.
"""

from __future__ import annotations

from wisp_runtime.errors import BadRequestError

MAX_VALUES = 250_000


def check_values(body: bytes) -> None:
    """Refuse an event or a batch with too many values.

    Raises:
        BadRequestError: It has more than ``MAX_VALUES``; the message tells the cure.
    """
    if len(body) > MAX_VALUES and _brackets(body) > MAX_VALUES and _has_many(body):
        message = f"The CloudEvent has more than {MAX_VALUES} values: send its data in binary mode, with a content-type"
        raise BadRequestError("RequestTooLarge", message, 413)


def _brackets(text: bytes) -> int:
    """Count what begins a value, but for the very first."""
    return text.count(b",") + text.count(b"[") + text.count(b"{")


def _has_many(body: bytes) -> bool:
    """Look again, not at what stands in strings: commas there begin nothing."""
    plain = body.replace(rb"\\", b"").replace(rb"\"", b"")
    if plain.count(b'"') > 4 * MAX_VALUES:  # a name and a text for each value
        return True
    return _brackets(b"".join(plain.split(b'"')[::2])) > MAX_VALUES
