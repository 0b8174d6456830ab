"""JSON encoders in C, made once: ``json.JSONEncoder.encode`` makes one anew each time, which costs as much as encoding."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


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
