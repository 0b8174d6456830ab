"""CloudEvents 1.0 over HTTP, without an SDK: what a request says, checked once for workers in every language.

Invariant: what the ``read_`` functions return is a valid event (id, source and type not empty, specversion 1.0, attribute names
of lower-case letters and digits, values that decode); anything else raises with the attribute's name. The mode is
decided by the content type first, as the HTTP binding says (section 3), so a structured event that also carries
``ce-`` headers is read once and from one place. Specs: CloudEvents 1.0.2, HTTP binding, JSON format.
"""

from __future__ import annotations

from wisp_runtime.encoding import read_json
from wisp_runtime.errors import BadRequestError, InvalidResultError
from wisp_runtime.values import encode_json, is_json, parse_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wisp_runtime.http1 import HttpRequest

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
REQUIRED = ("id", "source", "type")
MAX_ID = 1024  # characters: it stands in headers and in each line of the log
_SAFE = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')


def is_binary(fields: dict[str, str]) -> bool:
    """Whether a request means to be an event in binary mode: it has one of the required attributes."""
    return "ce-specversion" in fields or "ce-id" in fields or "ce-type" in fields or "ce-source" in fields


def percent_decode(text: str) -> str | None:
    """Decode a ``ce-`` header's value; None if it is not UTF-8 (HTTP binding, section 3.1.3.2)."""
    try:
        if "%" not in text:
            return text if text.isascii() else text.encode("latin-1").decode()
        from urllib.parse import unquote_to_bytes  # noqa: PLC0415 - 4 ms at start, rarely needed

        return unquote_to_bytes(text.encode("latin-1")).decode()
    except UnicodeDecodeError:
        return None


def percent_encode(text: str) -> str:
    """Encode an attribute for a ``ce-`` header: space, double quote, percent and all outside U+0021 to U+007E."""
    if text.isascii() and text.isprintable() and not (" " in text or '"' in text or "%" in text):
        return text
    from urllib.parse import quote  # noqa: PLC0415 - 4 ms at start, rarely needed

    return quote(text, safe=_SAFE, errors="replace")


def can_be_told(text: str) -> bool:
    """Whether an event's id can stand in the log: not too long, and without what ends a line or moves a terminal's cursor.

    CloudEvents has no control characters in texts (section 3.1), and ours have none; an event of somebody else's is not refused for one.
    """
    return len(text) <= MAX_ID and (
        text.isprintable() or not any(letter < " " or "\x7f" <= letter <= "\x9f" for letter in text)
    )


def read_binary(request: HttpRequest, content_type: str, mode: str) -> tuple[dict[str, Any], str]:
    """Read an event in binary mode: its attributes, and how its data, the body, is to be read.

    Returns:
        The attributes, and ``json``, ``text`` or ``bytes``, or nothing where the event has no data.

    Raises:
        BadRequestError: The request is no valid CloudEvent.
    """
    event = _read_attributes(request.headers)
    if content_type:
        event["datacontenttype"] = content_type
    _check_required(event)
    if "data" in event:
        raise _invalid("data", "is reserved and cannot be a ce- header")
    return event, _kind_of_data(request.body, mode)


def read_structured(body: bytes) -> tuple[dict[str, Any], bytes]:
    """Read an event in JSON format: itself, and its bytes, without attributes that are null.

    Raises:
        BadRequestError: The body is no valid CloudEvent.
    """
    event = parse_json(body, "The structured CloudEvent")
    size = len(event) if isinstance(event, dict) else 0
    check_event(event)
    return event, body if len(event) == size else _write(event)


def read_batch(body: bytes) -> bytes:
    """Read a batch, a JSON array of events in JSON format; return its bytes, without attributes that are null.

    Raises:
        BadRequestError: The body is no array, or one of its events is not valid; the message names which.
    """
    events = parse_json(body, "The CloudEvents batch")
    if not isinstance(events, list):
        raise BadRequestError("InvalidCloudEvent", "A CloudEvents batch is a JSON array of events")
    changed = False
    for index, event in enumerate(events):
        size = len(event) if isinstance(event, dict) else 0
        try:
            check_event(event)
        except BadRequestError as error:
            raise BadRequestError(error.error_type, f"Event {index} of the batch: {error.message}") from None
        changed = changed or len(event) != size
    return _write(events) if changed else body


def check_event(event: Any) -> dict[str, Any]:
    """Refuse what isn't a valid event, naming the attribute; drop attributes that are null, which means unset."""
    if not isinstance(event, dict):
        raise BadRequestError("InvalidCloudEvent", "A CloudEvent in JSON format is a JSON object")
    _check_required(event)
    for name in [name for name, value in event.items() if value is None and name != "data"]:
        del event[name]
    for name, value in event.items():
        if name == "data":
            continue
        if not (name.isascii() and name.isalnum() and name == name.lower()) and name != "data_base64":
            raise _bad_name(name)
        if not isinstance(value, str | int):
            raise _invalid(name, "must be a text, a whole number or a boolean")
    return event


def _read_attributes(headers: list[tuple[str, str]]) -> dict[str, Any]:
    """Read the attributes that stand in ``ce-`` headers."""
    event: dict[str, Any] = {}
    for name, value in headers:
        if name.startswith("ce-"):
            attribute = name[3:]
            if attribute in event:
                raise _invalid(attribute, "is given twice")
            if not attribute.isalnum():  # of ASCII and in lower case it is by now
                raise _bad_name(attribute)
            if "%" in value or not value.isascii():
                decoded = percent_decode(value)
                if decoded is None:
                    raise _invalid(attribute, "is not valid UTF-8 when percent-decoded")
                value = decoded  # noqa: PLW2901 - the same value, read
            event[attribute] = value
    return event


def _check_required(event: dict[str, Any]) -> None:
    """Refuse an event without one of the attributes that each event has."""
    if event.get("specversion") != "1.0":
        given = event.get("specversion")
        raise _invalid("specversion", "is missing: give 1.0" if given is None else f"must be 1.0, not {given!r:.40}")
    for name in REQUIRED:
        value = event.get(name)
        if not value or not isinstance(value, str):
            raise _invalid(name, "is missing" if value is None else "must be a text that is not empty")
    if len(event["id"]) > MAX_ID:
        raise _invalid("id", f"must have at most {MAX_ID} characters")


def _write(value: Any) -> bytes:
    """Write what was read, without what was dropped."""
    try:
        return encode_json(value)
    except InvalidResultError as error:  # nested deeper than can be written
        raise BadRequestError("InvalidJson", f"The CloudEvents can't be read: {error}") from None


def _kind_of_data(body: bytes, mode: str) -> str:
    """Tell how the JSON format would write the body: as a JSON value, a text, or base64."""
    if not body:
        return ""
    if is_json(mode):
        return "json"
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return "bytes"
    if mode:
        return "text" if mode.startswith("text/") or mode == "application/xml" or mode.endswith("+xml") else "bytes"
    try:
        read_json(text)
    except (ValueError, RecursionError):
        return "text"
    return "json"


def _bad_name(attribute: str) -> BadRequestError:
    return _invalid(attribute[:40], "must have a name of lower-case letters and digits")


def _invalid(attribute: str, problem: str) -> BadRequestError:
    return BadRequestError("InvalidCloudEvent", f"CloudEvent attribute {attribute!r} {problem}")
