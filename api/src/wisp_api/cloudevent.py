"""CloudEvents 1.0 in JSON, one event at a time and as frames, the unit of the event log.

A frame is a JSON array of 1 to FRAME_EVENTS structured events (the CloudEvents JSON batch format) of one source, entity
and lane, in order. An event's address in the log is (stream sequence of its frame, index in it).

Invariant: decode(encode(events)) == events, extensions and non-JSON data included. `data` stays undecoded bytes of JSON,
so that carrying an event from source to function parses its attributes only.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    OptionalRaw = msgspec.Raw | None
else:
    OptionalRaw = (
        msgspec.Raw
    )  # in a union msgspec takes null alone for Raw; an absent one is None by the field's default

FRAME_EVENTS: Final = 256
FRAME_BYTES: Final = 512 * 1024
PAYLOAD_BYTES: Final = 6_000_000
"""The largest payload: what every function takes as a body (6 MiB), and what the log takes also in base64."""
EVENT_BYTES: Final = 8 * 1024 * 1024 - 256 * 1024
"""The largest encoded event that the log takes; a frame of one event may be this long. With what a dead letter adds it fits NATS' max_payload."""
LARGE_BYTES: Final = 1024 * 1024
"""A larger event is not held while it waits: the log has its content."""
TYPE_LENGTH: Final = 256
"""The longest type that a bus takes: it is part of the subject."""
CONTENT_TYPE: Final = "application/cloudevents-batch+json"
NOT_READABLE: Final = (ValueError, RecursionError)
"""What decoding raises for anything that is no JSON of the right form, or nested too deeply."""
_SHALLOW: Final = 500
"""Brackets without which nothing nests too deeply."""
_OPENING, _CLOSING = b"[" * 50, b"]" * 50
"""More than a frame, a dead letter and a record nest an event in, and than call stacks differ by: where Python counts their depth, it is the same bound."""


class Event(
    msgspec.Struct, tag_field="specversion", tag="1.0", omit_defaults=True, forbid_unknown_fields=True, kw_only=True
):
    """One CloudEvent. The attributes that Wisp itself uses are fields; any other extension stands in `extensions`.

    `specversion` is no field: it is always written as 1.0, and another one is refused.
    """

    id: str
    source: str
    type: str
    subject: str | None = None
    time: str | None = None
    """RFC 3339."""
    datacontenttype: str | None = None
    dataschema: str | None = None
    partitionkey: str | None = None
    """Events with the same key are delivered in order where the Subscription asks for it."""
    sequence: str | None = None
    """Grows with each event of a source; compared lexicographically, so zero-padded."""
    traceparent: str | None = None
    tracestate: str | None = None
    wisphops: int = 0
    """Functions that this event's ancestors went through; loops end above 16."""
    data: OptionalRaw = None
    """JSON, undecoded."""
    data_base64: str | None = None
    extensions: dict[str, str | int | bool] = {}
    """Never on the wire under this name: each entry is an attribute of its own there."""

    def __post_init__(self) -> None:
        """Refuse what the specification forbids: an empty id, source or type.

        Raises:
            ValueError: naming the attribute.
        """
        for attribute in ("id", "source", "type"):
            if not getattr(self, attribute):
                raise ValueError(f"{attribute} is empty; CloudEvents 1.0 requires a non-empty {attribute}")


_FIELDS = frozenset(Event.__struct_fields__) - {"extensions"}
_KNOWN = _FIELDS | {"specversion"}
_event_decoder = msgspec.json.Decoder(Event)
_object_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_scalar_decoder = msgspec.json.Decoder(str | int | bool)
_frame_decoder = msgspec.json.Decoder(list[msgspec.Raw])
_any_decoder = msgspec.json.Decoder(msgspec.Raw)
_encoder = msgspec.json.Encoder()


def decode(raw: bytes | msgspec.Raw) -> Event:
    """One structured-mode event.

    Raises:
        ValueError: not JSON, not an event, or an attribute that the specification forbids (msgspec's errors are ValueErrors).
    """
    try:
        event = _event_decoder.decode(raw)
        if not event.extensions:
            return event
    except msgspec.ValidationError:
        pass
    members = _object_decoder.decode(raw)
    given = {name for name in members.keys() - _KNOWN if bytes(members[name]) != b"null"}  # null is absent
    extensions = {name: _scalar_decoder.decode(members[name]) for name in given}
    event = _event_decoder.decode(_encoder.encode({name: members[name] for name in members.keys() & _KNOWN}))
    event.extensions = extensions
    return event


def encode(event: Event) -> bytes:
    """One event in structured mode."""
    if not event.extensions:
        return _encoder.encode(event)
    members: dict[str, Any] = {name: getattr(event, name) for name in _FIELDS}
    kept = {name: value for name, value in members.items() if value is not None and (name != "wisphops" or value)}
    return _encoder.encode({"specversion": "1.0"} | kept | event.extensions)


def nests_too_deeply(encoded: bytes) -> bool:
    """Whether an event can't be read for sure within something else: a frame that holds it would be lost with all that is in it."""
    if encoded.count(b"[") + encoded.count(b"{") < _SHALLOW:
        return False
    try:
        _any_decoder.decode(_OPENING + encoded + _CLOSING)
    except RecursionError:
        return True
    return False


def encode_frame(encoded: Sequence[bytes]) -> bytes:
    """A frame of events that `encode` returned, in their order."""
    return b"[" + b",".join(encoded) + b"]"


def decode_frame(frame: bytes) -> list[msgspec.Raw]:
    """The undecoded events of a frame, in order; `decode` each.

    Raises:
        ValueError: the frame is not a JSON array.
    """
    return _frame_decoder.decode(frame)
