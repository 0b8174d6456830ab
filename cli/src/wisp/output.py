"""What people and programs read: results on standard output, progress on standard error.

Invariant: standard output holds nothing but the result, so that it can be piped; with `-o json` it is one JSON value. What is shown at a
terminal is text: control characters in what others have written (a log line, an event, an answer) stand there as escapes and do nothing.
"""

import json
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final


class Format(StrEnum):
    """What the result looks like."""

    text = "text"
    json = "json"


_CONTROLS: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""All but tabs and the ends of lines, and what turns the direction of the text that follows."""


def harmless(text: str) -> str:
    """A text that moves no cursor, sets no title and fills no clipboard; JSON stays what it was."""
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text.replace("\r\n", "\n"))


def show(text: str) -> None:
    """A line of the result; as it is where it is piped."""
    sys.stdout.write(f"{harmless(text) if sys.stdout.isatty() else text}\n")


def show_bytes(data: bytes) -> None:
    """A result that need not be text."""
    if data and sys.stdout.isatty():
        show(data.decode(errors="replace"))
    else:
        sys.stdout.buffer.write(data)


def tell(text: str) -> None:
    """A line about the work, for people."""
    sys.stderr.write(f"{harmless(text)}\n")
    sys.stderr.flush()


def show_json(value: Any) -> None:
    """The result for programs."""
    show(json.dumps(value, indent=2, ensure_ascii=False))


def result(form: Format, value: Any, text: str) -> None:
    """The result: `value` for programs, `text` for people."""
    if form is Format.json:
        show_json(value)
    else:
        show(text)


def as_list(objects: Sequence[Any]) -> dict[str, Any]:
    """Objects as kubectl prints several of them."""
    return {"apiVersion": "v1", "kind": "List", "items": list(objects)}


def table(headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Columns as wide as they need to be, as kubectl prints them."""
    texts = [list(headings), *([str(cell) if cell not in (None, "") else "-" for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    lines = ("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in texts)
    return "\n".join(line.rstrip() for line in lines)


def age(timestamp: str | None) -> str:
    """How long ago an RFC 3339 time was, in kubectl's short form: 45s, 12m, 3h, 9d."""
    if not timestamp:
        return "-"
    seconds = (datetime.now(UTC) - datetime.fromisoformat(timestamp)).total_seconds()
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{int(seconds // length)}{unit}"
    return f"{max(0, int(seconds))}s"


def condition(found: Any, kind: str = "Ready") -> dict[str, str]:
    """The condition of this type, or an empty one."""
    conditions: list[dict[str, str]] = (found.get("status") or {}).get("conditions") or []
    return next((each for each in conditions if each["type"] == kind), {})
