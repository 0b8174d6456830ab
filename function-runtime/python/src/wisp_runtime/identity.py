"""Which request it is, in the words of its caller or in ours.

Invariant: an id can stand in the log as it is, in a line of text, too: it has no control characters, and an end. An event's
id may have any other; the rest can stand in headers as they are.
"""

from __future__ import annotations

import os
from itertools import count

from wisp_runtime.cloudevent import can_be_told, percent_decode

REQUEST_ID = "wisp-request-id"
_ID_HEADERS = (REQUEST_ID, "x-request-id")
_MAX_ID = 256


def find_id(fields: dict[str, str]) -> str:
    """Return a request's id: the event's if it may be one, or else the caller's if it is sane, or else a fresh one.

    That is unique by the process's own prefix and a number; a random one each time would cost 1 us.
    """
    if "ce-id" in fields and (event_id := percent_decode(fields["ce-id"])) and can_be_told(event_id):
        return event_id
    for name in _ID_HEADERS:
        if name in fields and _is_sane(fields[name]):
            return fields[name]
    return f"{_prefix}{next(_numbers):012x}"


def sane(given: str) -> str:
    """Return what a caller gives if it can stand in headers and logs as it is, or else nothing."""
    return given if given and _is_sane(given) else ""


def _is_sane(identifier: str) -> bool:
    """Whether a caller's id can stand in headers and logs as it is."""
    return (
        0 < len(identifier) <= _MAX_ID and identifier.isascii() and identifier.isprintable() and " " not in identifier
    )


def _make_prefix() -> str:
    """Draw the part of our ids that is this process's: 74 random bits in the form of a UUID of version 4."""
    text = os.urandom(10).hex()
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{'89ab'[int(text[16], 16) % 4]}{text[17:20]}-"


_prefix = _make_prefix()
_numbers = count(int.from_bytes(os.urandom(5), "big"))


def renew() -> None:
    """Make other ids than the process that this one was forked from."""
    global _prefix  # noqa: PLW0603 - once a process
    _prefix = _make_prefix()
