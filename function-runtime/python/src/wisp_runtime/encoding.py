"""JSON's encoder and decoder in C, without what ``json`` puts around them: that costs each value as much again, and a start 4 ms."""

from __future__ import annotations

import _json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

quote = _json.encode_basestring_ascii  # a text as JSON


def make_encoder(
    *, ascii_only: bool, nan: bool = True, default: Callable[[Any], Any] | None = None
) -> Callable[[Any], str]:
    """Return a function that writes a value as compact JSON.

    Raises (the function): TypeError, ValueError, RecursionError for a value that has no JSON form.
    """
    text = quote if ascii_only else _json.encode_basestring
    encode = _json.make_encoder(None, default or _refuse, text, None, ":", ",", False, False, nan)  # noqa: FBT003 - its own signature
    join = "".join

    def write(value: Any) -> str:
        return join(encode(value, 0))

    return write


def write_json(value: Any) -> str:
    """Write a value as ``json.dumps`` does.

    Raises:
        TypeError: It has no JSON form.
        ValueError: It contains itself.
    """
    return "".join(_json.make_encoder({}, _refuse, quote, None, ": ", ", ", False, False, True)(value, 0))  # noqa: FBT003


def _refuse(value: Any) -> Any:
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


class _Options:
    """What the scanner wants to know, as ``json.JSONDecoder`` has it."""

    strict = True
    object_hook = object_pairs_hook = array_hook = None
    parse_int = int

    def __init__(self, parse_float: Callable[[str], Any], parse_constant: Callable[[str], Any]) -> None:
        """Read numbers with a point, and what is no JSON but often taken for it, with these."""
        self.parse_float = parse_float
        self.parse_constant = parse_constant


def make_decoder(
    parse_float: Callable[[str], Any] = float, parse_constant: Callable[[str], Any] = float
) -> Callable[[str], Any]:
    """Return a function that reads a JSON text, with these options of ``json.JSONDecoder``.

    Raises (the function): ValueError, RecursionError for what is no JSON, or nested too deep.
    """
    scan = _json.make_scanner(_Options(parse_float, parse_constant))  # type: ignore[arg-type] # it wants attributes

    def read(text: str) -> Any:
        try:
            value, end = scan(text, 0)
        except (
            StopIteration,
            SystemError,
        ):  # it doesn't begin with a value; or is no JSON, and the error's class isn't there yet
            return read_slowly(text)
        return value if end == len(text) or not text[end:].strip(" \t\n\r") else read_slowly(text)

    def read_slowly(text: str) -> Any:
        from json import JSONDecoder  # noqa: PLC0415 - for what has blanks before it, or is no JSON

        return JSONDecoder(parse_float=parse_float, parse_constant=parse_constant).decode(text)

    return read


read_json = make_decoder()
