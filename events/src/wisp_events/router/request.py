"""A delivery as an HTTP request: a CloudEvent in binary mode, or several as a batch. Pure.

Specification: CloudEvents HTTP protocol binding 1.0.2, section 3.1. `data` is copied, not decoded.
"""

import base64
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlsplit

import msgspec
from wisp_api import cloudevent
from wisp_api.cloudevent import Event
from wisp_api.route import Target
from wisp_api.sink import check_host

MAX_HOPS: Final = 16
_PORTS: Final = {"http": 80, "https": 443}
_PLAIN = re.compile(r"[!#$&-~]*")  # U+0021 to U+007E without `"` and `%`
_SAFE = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')
_NAME = re.compile(r"[a-z0-9]+")
_TRACE = ("traceparent", "tracestate")
_ATTRIBUTES = ("type", "source", "subject", "time", "dataschema", "partitionkey", "sequence", *_TRACE)


@dataclass(slots=True, frozen=True)
class Address:
    """Where a target listens, and the beginning of each request to it."""

    host: str
    port: int
    head: bytes
    tls: bool = False
    reach: str = ""
    """See `reach`; empty: wherever the name leads."""
    service: str = ""
    """The Service that the host stands for, by its whole name."""


def address(url: str, reach: str = "", service: str = "") -> Address:
    """Parse a target's URL.

    Raises:
        ValueError: it is not `http[s]://host[:port][/path]`, with a host that can be looked up.
    """
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname or "@" in parts.netloc or re.search(r"[\x00-\x20\x7f]", url):
        raise ValueError(f"target {url!r}: write http[s]://host[:port][/path]")
    check_host(parts.hostname)
    path = parts.path or "/"
    if parts.query:
        path += f"?{parts.query}"
    head = f"POST {path} HTTP/1.1\r\nhost: {parts.netloc}\r\nuser-agent: wisp-router\r\n"
    port = parts.port or _PORTS[parts.scheme]
    return Address(parts.hostname, port, head.encode("ascii"), parts.scheme == "https", reach, service)


def pick(targets: Sequence[Target], event_id: str) -> int:
    """Index of the target that an event goes to: by its share, and always the same for the same id."""
    if len(targets) == 1:
        return 0
    place = zlib.crc32(event_id.encode()) % max(1, sum(target.percent for target in targets))
    for index, target in enumerate(targets):
        place -= target.percent
        if place < 0:
            return index
    return 0


def trace_lines(traceparent: str, tracestate: str | None) -> str:
    """The header lines of a delivery that has a span of its own, which then stand in place of the event's."""
    state = f"tracestate: {_value(tracestate)}\r\n" if tracestate else ""
    return f"traceparent: {_value(traceparent)}\r\n{state}"


def render(event: Event, to: Address, signed: bytes = b"", trace: str = "") -> bytes:
    """The request that delivers an event; `signed`: header lines that say who sends it; `trace`: see `trace_lines`.

    Raises:
        ValueError: an extension's name or the data can't be carried.
    """
    lines = [f"ce-specversion: 1.0\r\nce-id: {_value(event.id)}\r\nce-wisphops: {event.wisphops + 1}\r\n"]
    for name in _ATTRIBUTES:
        value = getattr(event, name)
        if value is not None:
            lines.append(f"ce-{name}: {_value(value)}\r\n")
            if name in _TRACE and not trace:
                lines.append(f"{name}: {_value(value)}\r\n")
    if trace:
        lines.append(trace)
    for name, extension in event.extensions.items():
        if not _NAME.fullmatch(name):
            raise ValueError(f"extension {name!r}: CloudEvents names are of a-z and 0-9")
        text = str(extension).lower() if isinstance(extension, bool) else str(extension)
        lines.append(f"ce-{name}: {_value(text)}\r\n")
    body = _body(event)
    content_type = event.datacontenttype or ("application/json" if event.data is not None else "")
    if content_type:
        lines.append(f"content-type: {_printable(content_type)}\r\n")
    lines.append(f"content-length: {len(body)}\r\n\r\n")
    return b"".join((to.head, signed, "".join(lines).encode("ascii"), body))


def render_batch(
    events: Sequence[tuple[Event, msgspec.Raw]], to: Address, signed: bytes = b"", trace: str = ""
) -> bytes:
    """The request that delivers events as a JSON list, each as it stands in the log with one hop more; the trace is the first one's."""
    lines = [trace or _own_trace(events[0][0])]
    body = b"[" + b",".join([_with_hop(event, bytes(raw)) for event, raw in events]) + b"]"
    lines.append(f"content-type: {cloudevent.CONTENT_TYPE}\r\ncontent-length: {len(body)}\r\n\r\n")
    return b"".join((to.head, signed, "".join(lines).encode("ascii"), body))


def render_plain(
    body: bytes, event: Event, to: Address, signed: bytes = b"", trace: str = "", *, alone: bool = True
) -> bytes:
    """The request that delivers JSON of another format, which the runtime hands to a Lambda handler as it is.

    It was made of this event, whose id is the request's, or of a batch that begins with it.
    """
    lines = [trace or _own_trace(event)]
    if alone:
        lines.append(f"wisp-request-id: {_value(event.id)}\r\n")
    lines.append("wisp-event-format: lambda\r\ncontent-type: application/json\r\n")
    lines.append(f"content-length: {len(body)}\r\n\r\n")
    return b"".join((to.head, signed, "".join(lines).encode("ascii"), body))


def _own_trace(event: Event) -> str:
    return trace_lines(event.traceparent, event.tracestate) if event.traceparent else ""


def _with_hop(event: Event, raw: bytes) -> bytes:
    if b'"wisphops"' not in raw and raw.endswith(b"}"):
        return raw[:-1] + b',"wisphops":1}'
    again = msgspec.structs.replace(event, wisphops=event.wisphops + 1)
    return cloudevent.encode(again)


def _value(text: str) -> str:
    """A header value: everything outside U+0021 to U+007E, `"` and `%` percent-encoded as UTF-8."""
    return text if _PLAIN.fullmatch(text) else quote(text, safe=_SAFE)


def _printable(text: str) -> str:
    if not text.isascii() or not text.isprintable():
        raise ValueError(f"datacontenttype {text!r} is no media type")
    return text


def _body(event: Event) -> bytes:
    if event.data_base64 is not None:
        return base64.b64decode(event.data_base64, validate=True)
    if event.data is None:
        return b""
    raw = bytes(event.data)
    kind = (event.datacontenttype or "json").partition(";")[0].strip().lower()
    if kind.endswith("json") or not raw.startswith(b'"'):
        return raw
    return msgspec.json.decode(raw, type=str).encode()
