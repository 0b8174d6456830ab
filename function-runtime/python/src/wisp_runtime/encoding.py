"""JSON's encoder and decoder in C, without what ``json`` puts around them for each value, which costs as much as they do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

quote: Callable[[str], str] = json.encoder.encode_basestring_ascii  # a text as JSON


def make_encoder(
    *, ascii_only: bool, nan: bool = True, default: Callable[[Any], Any] | None = None
) -> Callable[[Any], str]:
    """Return a function that writes a value as compact JSON.

    Raises (the function): TypeError, ValueError, RecursionError for a value that has no JSON form.
    """
    encoder: Any = json.encoder
    plain = json.JSONEncoder(
        ensure_ascii=ascii_only, allow_nan=nan, default=default, separators=(",", ":"), check_circular=False
    )
    if encoder.c_make_encoder is None:
        return plain.encode
    text = encoder.encode_basestring_ascii if ascii_only else encoder.encode_basestring
    encode = encoder.c_make_encoder(None, plain.default, text, None, ":", ",", False, False, nan)  # noqa: FBT003 - its own signature
    join = "".join

    def write(value: Any) -> str:
        return join(encode(value, 0))

    return write


def make_decoder(**options: Any) -> Callable[[str], Any]:
    """Return a function that reads a JSON text, with the options of ``json.JSONDecoder``.

    Raises (the function): ValueError, RecursionError for what is no JSON, or nested too deep.
    """
    decoder = json.JSONDecoder(**options)
    scan: Any = decoder.scan_once  # type: ignore[attr-defined] # which C code makes of it

    def read(text: str) -> Any:
        try:
            value, end = scan(text, 0)
        except StopIteration:  # it doesn't begin with a value
            return decoder.decode(text)
        return value if end == len(text) or not text[end:].strip(" \t\n\r") else decoder.decode(text)

    return read
