"""CloudEvents 1.0 over HTTP, without an SDK: request to attributes and data, event to headers and body.

Invariant: what ``read_event`` returns is a valid event (id, source and type not empty, specversion 1.0, attribute names
of lower-case letters and digits, values that decode); anything else raises with the attribute's name. The mode is
decided by the content type first, as the HTTP binding says (section 3), so a structured event that also carries
``ce-`` headers is read once and from one place. Specs: CloudEvents 1.0.2, HTTP binding, JSON format.
"""

from __future__ import annotations

import json
from binascii import b2a_base64
from typing import TYPE_CHECKING, Any

from wisp_runtime.errors import BadRequestError

if TYPE_CHECKING:
    from wisp_runtime.http1 import HttpRequest

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
REQUIRED = ("id", "source", "type")
_decode = json.JSONDecoder().decode
_SAFE = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')


def is_json(media_type: str) -> bool:
    """Whether a media type without parameters is JSON (RFC 6839)."""
    return media_type in ("application/json", "text/json") or media_type.endswith("+json")


def media_type(content_type: str) -> str:
    """Return a content type without its parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()


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


def read_event(request: HttpRequest, mode: str, content_type: str) -> dict[str, Any]:
    """Read one event as the JSON format has it: attributes, and ``data`` or ``data_base64``.

    Args:
        request: The request.
        mode: Its media type, which decides between the modes.
        content_type: Its content type with parameters.

    Raises:
        BadRequestError: The request is no valid CloudEvent, or in a format other than JSON.
    """
    if mode == STRUCTURED:
        return check_event(parse_json(request.body, "The structured CloudEvent"))
    if mode.startswith("application/cloudevents"):
        message = f"CloudEvents are read in JSON format ({STRUCTURED}) or binary mode, not {mode}"
        raise BadRequestError("UnsupportedMediaType", message, 415)
    event = _read_attributes(request.headers)
    if content_type:
        event["datacontenttype"] = content_type
    _check_required(event)
    if "data" in event:
        raise _invalid("data", "is reserved and cannot be a ce- header")
    _put_data(event, request.body, mode)
    return event


def read_batch(request: HttpRequest) -> list[dict[str, Any]]:
    """Read a batch: a JSON array of events in JSON format.

    Raises:
        BadRequestError: The body is no array, or one of its events is not valid; the message names which.
    """
    events = parse_json(request.body, "The CloudEvents batch")
    if not isinstance(events, list):
        raise BadRequestError("InvalidCloudEvent", "A CloudEvents batch is a JSON array of events")
    for index, event in enumerate(events):
        try:
            check_event(event)
        except BadRequestError as error:
            raise BadRequestError(error.error_type, f"Event {index} of the batch: {error.message}") from None
    return events


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


def parse_json(body: bytes, what: str) -> Any:
    """Parse a JSON body.

    Raises:
        BadRequestError: It isn't JSON in UTF-8; the message says ``what`` isn't.
    """
    try:
        return _decode(body.decode())
    except (ValueError, RecursionError) as error:
        raise BadRequestError("InvalidJson", f"{what} is not valid JSON: {error}") from None


def write_event(event: Any, encode_json: Any) -> tuple[list[tuple[str, str]], bytes]:
    """Write an SDK's CloudEvent in binary mode: headers and body.

    ``encode_json`` makes bytes of a value, so that a reply's errors are the same whatever carries it.
    """
    headers: list[tuple[str, str]] = []
    content_type = ""
    for name, value in event.get_attributes().items():
        if name == "datacontenttype":
            content_type = str(value)
        elif value is not None:
            text = value.isoformat().replace("+00:00", "Z") if hasattr(value, "isoformat") else _attribute_text(value)
            headers.append((f"ce-{name}", percent_encode(text)))
    data = event.get_data()
    if isinstance(data, bytes | bytearray):
        content_type = content_type or "application/octet-stream"
        body = bytes(data)
    elif isinstance(data, str) and content_type and not is_json(media_type(content_type)):
        body = data.encode()
    elif data is None:
        body = b""
    else:
        content_type = content_type or "application/json"
        body = encode_json(data)
    if content_type:
        headers.append(("content-type", content_type))
    return headers, body


def _attribute_text(value: Any) -> str:
    """Write an attribute in its canonical form (type system, section 2.1 of the spec): booleans in lower case."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _put_data(event: dict[str, Any], body: bytes, mode: str) -> None:
    """Give a binary mode's event its body as the JSON format would: a JSON value, a text, or base64."""
    if not body:
        return
    if is_json(mode):
        event["data"] = parse_json(body, "The CloudEvent's data")
        return
    try:
        if not mode:
            try:
                event["data"] = json.loads(body)
            except (ValueError, RecursionError):
                event["data"] = body.decode()
            return
        if mode.startswith("text/") or mode == "application/xml" or mode.endswith("+xml"):
            event["data"] = body.decode()
            return
    except UnicodeDecodeError:
        pass
    event["data_base64"] = b2a_base64(body, newline=False).decode()


def _bad_name(attribute: str) -> BadRequestError:
    return _invalid(attribute[:40], "must have a name of lower-case letters and digits")


def _invalid(attribute: str, problem: str) -> BadRequestError:
    return BadRequestError("InvalidCloudEvent", f"CloudEvent attribute '{attribute}' {problem}")
