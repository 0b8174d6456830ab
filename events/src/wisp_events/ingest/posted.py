"""A posted request as CloudEvents: binary, structured and batched mode. Pure.

Invariant: what is returned as an event can be carried to any function: it fits the log, its attributes fit HTTP headers, its names are
CloudEvents names. Everything else is a sentence, for each event on its own.

Specification: CloudEvents HTTP protocol binding 1.0.2, section 3.
"""

import base64
import binascii
import re
from datetime import datetime
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import msgspec
from wisp_api import cloudevent
from wisp_api.cloudevent import NOT_READABLE, PAYLOAD_BYTES, TYPE_LENGTH, Event

from wisp_events.ingest.door import Headers, header
from wisp_events.web import Refusal

BATCH_EVENTS: Final = 1000
_STRUCTURED: Final = "application/cloudevents+json"
_BATCH: Final = "application/cloudevents-batch+json"
_ATTRIBUTES_BYTES: Final = 16 * 1024
"""Of all attributes together: three times as long in percent-encoding, they still fit the head of a request."""
_EXTENSIONS: Final = 64
_NAME: Final = re.compile(r"[a-z0-9]+")
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")
_TEXT: Final = ("id", "source", "type", "subject", "time", "datacontenttype", "dataschema", "partitionkey", "sequence")
_TRACE: Final = ("traceparent", "tracestate")
_json = msgspec.json.Decoder(msgspec.Raw)


def events(headers: Headers, body: bytes) -> list[Event | str]:
    """Each event of a request, or why it is none.

    Raises:
        Refusal: the request holds no events that could be told apart.
    """
    kind, _, parameters = header(headers, b"content-type").decode("latin-1").partition(";")
    kind = kind.strip().lower()
    if kind.startswith("application/cloudevents") and "charset=" in parameters.lower().replace("utf-8", ""):
        raise Refusal(415, f"{kind} is taken in UTF-8")
    if kind == _BATCH:
        return _batch(body)
    if kind == _STRUCTURED:
        return [_structured(body)]
    if kind.startswith("application/cloudevents"):
        raise Refusal(415, f"{kind} is not taken: send {_STRUCTURED} or {_BATCH}")
    if not header(headers, b"ce-specversion"):
        raise Refusal(
            400, f"that is no CloudEvent: send its attributes as ce- headers (ce-specversion: 1.0), or {_STRUCTURED}"
        )
    return [_binary(headers, body)]


def _batch(body: bytes) -> list[Event | str]:
    try:
        found = cloudevent.decode_frame(body)
    except NOT_READABLE as error:
        raise Refusal(400, f"the batch is no JSON array: {error}") from None
    if len(found) > BATCH_EVENTS:
        raise Refusal(413, f"a batch of {len(found)} events; at most {BATCH_EVENTS} are taken at once")
    return [_structured(raw) for raw in found]


def _structured(raw: bytes | msgspec.Raw) -> Event | str:
    try:
        event = cloudevent.decode(raw)
        event.data = _own(event.data)
    except NOT_READABLE as error:
        return str(error)
    return _mistake(event) or event


def _own(data: msgspec.Raw | None) -> msgspec.Raw | None:
    """The data without the rest of the body that it was cut out of; null is none."""
    return None if data is None or bytes(data) == b"null" else msgspec.Raw(bytes(data))


def _binary(headers: Headers, body: bytes) -> Event | str:
    try:
        attributes = {name[3:].decode(): _value(value) for name, value in headers if name.startswith(b"ce-")}
        if attributes.pop("specversion") != "1.0":
            return "ce-specversion: only 1.0 is taken"
        for name in _TRACE:
            if value := header(headers, name.encode()):
                attributes.setdefault(name, _value(value))
        missing = [name for name in ("id", "source", "type") if name not in attributes]
        if missing:
            return f"ce-{missing[0]} is missing"
        known: dict[str, Any] = {name: attributes.pop(name) for name in (*_TEXT, *_TRACE) if name in attributes}
        known["wisphops"] = int(attributes.pop("wisphops", "0"))
        known["extensions"] = attributes
        event = Event(**known | _data(header(headers, b"content-type").decode("ascii"), body))
    except NOT_READABLE as error:
        return str(error)
    return _mistake(event) or event


def _value(value: bytes) -> str:
    return unquote_to_bytes(value).decode() if b"%" in value else value.decode()


def _data(content_type: str, body: bytes) -> dict[str, Any]:
    """A body as the event's data: JSON as it is, text as a JSON string, everything else in base64."""
    attributes: dict[str, Any] = {"datacontenttype": content_type} if content_type else {}
    if not body:
        return attributes
    kind = content_type.partition(";")[0].strip().lower()
    if kind.endswith(("/json", "+json")):
        return attributes | {"data": checked(body)}
    if kind.startswith("text/"):
        try:
            data = msgspec.json.encode(body.decode())
        except UnicodeDecodeError:
            data = b""  # in another charset: carried as bytes, as what escapes make too long
        if 0 < len(data) <= PAYLOAD_BYTES:
            return attributes | {"data": msgspec.Raw(data)}
    return attributes | {"data_base64": base64.b64encode(body).decode()}


def checked(body: bytes) -> msgspec.Raw:
    """A body that is JSON, found out without making its values, which may take fifty times the memory.

    Raises:
        ValueError, RecursionError: it is none.
    """
    found = _json.decode(body)
    if not body.isascii():
        body.decode()
    return found


def _mistake(event: Event) -> str:
    """What keeps an event from being carried; empty if nothing."""
    return _wrong_extension(event) or _wrong_attribute(event) or _wrong_data(event)


def _wrong_extension(event: Event) -> str:
    if len(event.extensions) > _EXTENSIONS:
        return f"more than {_EXTENSIONS} extensions"
    for name in event.extensions:
        if not _NAME.fullmatch(name):
            return f"{name!r}: names of attributes are of a-z and 0-9"
    return ""


def _wrong_attribute(event: Event) -> str:
    texts = [text for name in (*_TEXT, *_TRACE) if (text := getattr(event, name)) is not None]
    texts += [f"{name}{value}" for name, value in event.extensions.items()]
    size = len("".join(texts).encode(errors="replace"))
    if size > _ATTRIBUTES_BYTES:
        return f"the attributes have {size} bytes; {_ATTRIBUTES_BYTES} are taken: put more in data"
    if not all(texts):
        return "an attribute is empty: leave it out instead"
    if len(event.type) > TYPE_LENGTH:
        return f"type has {len(event.type)} characters; {TYPE_LENGTH} are taken"
    if event.time is not None and not _is_time(event.time):
        return "time: write it as 2026-01-31T12:00:00Z (RFC 3339)"
    return "wisphops is below 0" if event.wisphops < 0 else ""


def _wrong_data(event: Event) -> str:
    kind = event.datacontenttype or ""
    if not (kind.isprintable() and kind.isascii()):
        return "datacontenttype is no media type"
    if event.data is not None and event.data_base64 is not None:
        return "write data or data_base64, not both"
    return "" if event.data_base64 is None or _is_base64(event.data_base64) else "data_base64 is no base64"


def _is_time(text: str) -> bool:
    try:
        return bool(_TIME.fullmatch(text)) and datetime.fromisoformat(text.upper()).tzinfo is not None
    except ValueError:
        return False


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return False
    return True
