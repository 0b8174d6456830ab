"""JSON and media types, as front and workers both read them.

Invariant: a value that has no JSON form (NaN, a set, bytes, a cycle, a lone surrogate) raises; none is written, and none
taken from a caller, that another language couldn't read.
"""

from __future__ import annotations

from wisp_runtime.encoding import make_decoder, make_encoder
from wisp_runtime.errors import BadRequestError, InvalidResultError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _refuse(constant: str) -> Any:
    """Refuse what Python's parser would take although JSON has no such value."""
    raise ValueError(f"{constant} is not JSON")


def _finite(text: str) -> float:
    """Refuse a number that Python's parser would take for an infinity."""
    value = float(text)
    if value in _INFINITIES:
        raise ValueError(f"{text:.40} is too large a number")
    return value


_INFINITIES = float("inf"), float("-inf")
_decode = make_decoder(parse_constant=_refuse, parse_float=_finite)
_encode = make_encoder(ascii_only=False, nan=False)


def parse_json(body: bytes, what: str) -> Any:
    """Parse a JSON body.

    Raises:
        BadRequestError: It isn't JSON in UTF-8, or has an infinite number or half a surrogate pair; the message says
            ``what`` isn't.
    """
    try:
        text = body.decode()
        value = _decode(text)
        if "\\ud" in text or "\\uD" in text:
            _encode(value).encode()
    except (ValueError, RecursionError) as error:
        raise BadRequestError("InvalidJson", f"{what} is not valid JSON: {error}") from None
    return value


def encode_json(value: Any) -> bytes:
    """Serialize a handler's value.

    Raises:
        InvalidResultError: It has no JSON form; named as Lambda names it.
    """
    try:
        return _encode(value).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidResultError("Runtime.MarshalError", f"Unable to marshal response: {error}") from None


def depth(value: Any) -> int:
    """Return how deep a JSON value is nested: 0 is a text or a number."""
    deep, level = 0, [value]
    while level := [item for item in level if isinstance(item, dict | list)]:
        deep += 1
        level = [inner for item in level for inner in (item.values() if isinstance(item, dict) else item)]
    return deep


def is_json(media_type: str) -> bool:
    """Whether a media type without parameters is JSON (RFC 6839)."""
    return media_type in ("application/json", "text/json") or media_type.endswith("+json")


def media_type(content_type: str) -> str:
    """Return a content type without its parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()
