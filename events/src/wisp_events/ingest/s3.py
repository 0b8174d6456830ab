"""S3 event notifications -> CloudEvents, as docs/decisions/0003 lays down.

Spec: Amazon S3 User Guide, "Event message structure"; MinIO's differences: `s3:` before event names, one record a message; those of
Ceph's gateway: keys not escaped, and a sequencer that each rule's record has its own of (docs/decisions/0056).
Invariant: the same notification, by whatever target and however often, gives the same event under the same id.
"""

import hashlib
import re
import struct
from typing import Final
from urllib.parse import unquote_plus

import msgspec
from wisp_api.cloudevent import Event

TYPE_PREFIX: Final = "com.amazonaws.s3."
SEQUENCE_DIGITS: Final = 32
_ID_DIGITS: Final = 32
_CEPH: Final = "ceph:"
_CEPH_MOMENT = re.compile("[0-9A-Fa-f]{16}")


class Malformed(ValueError):  # noqa: N818 - the reason that dead letters carry
    """Raised when bytes are no S3 notification, or a record of one lacks what an event needs."""


class _Bucket(msgspec.Struct):
    name: str


class _Object(msgspec.Struct, rename="camel"):
    key: str
    version_id: str = ""
    sequencer: str = ""


class _Entity(msgspec.Struct):
    bucket: _Bucket
    object: _Object


class _ResponseElements(msgspec.Struct):
    request_id: str = msgspec.field(default="", name="x-amz-request-id")


class _Record(msgspec.Struct, rename="camel"):
    event_name: str
    s3: _Entity
    event_source: str = ""
    event_time: str | None = None
    response_elements: _ResponseElements = msgspec.field(default_factory=_ResponseElements)


class _Notification(msgspec.Struct):
    records: list[msgspec.Raw] = msgspec.field(name="Records")


class ObjectEvent(msgspec.Struct):
    """One record, read."""

    bucket: str
    name: str
    """As S3 writes it, without `s3:`: `ObjectCreated:Put`."""
    event: Event


_notification = msgspec.json.Decoder(_Notification)
_record = msgspec.json.Decoder(_Record)
_bucket_of_any = msgspec.json.Decoder(dict[str, msgspec.Raw])


def records(body: bytes) -> list[msgspec.Raw]:
    """The undecoded records of a notification.

    Raises:
        Malformed: it is no S3 notification.
    """
    try:
        return _notification.decode(body).records
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"no S3 notification: {error}") from error


def object_event(server: str, raw: msgspec.Raw) -> ObjectEvent:
    """The event of one record.

    Raises:
        Malformed: something that an event needs is missing; with its path.
    """
    try:
        record = _record.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"no S3 event record: {error}") from error
    bucket, entity = record.s3.bucket.name, record.s3.object
    name = record.event_name.removeprefix("s3:")
    ceph = record.event_source.startswith(_CEPH)
    key = entity.key if ceph else unquote_plus(entity.key)
    if not (bucket and key and name):
        raise Malformed("no S3 event record: event name, bucket or key is empty")
    moment = record.event_time or "" if ceph else entity.sequencer
    parts = (name, bucket, key, entity.version_id, moment, record.response_elements.request_id)
    sequencer = _sorted_as_text(entity.sequencer) if ceph else entity.sequencer
    event = Event(
        id=hashlib.sha256("\0".join(parts).encode()).hexdigest()[:_ID_DIGITS],
        source=f"urn:wisp:s3:{server}:{bucket}",
        type=TYPE_PREFIX + name,
        subject=key,
        time=record.event_time or None,
        datacontenttype="application/json",
        partitionkey=key,
        sequence=sequencer.zfill(SEQUENCE_DIGITS) if sequencer else None,
        data=raw,
    )
    return ObjectEvent(bucket, name, event)


def _sorted_as_text(sequencer: str) -> str:
    """Ceph's sequencer, the bytes of seconds and nanoseconds as x86 and ARM hold them, in digits that grow with time; empty if it is another."""
    if not _CEPH_MOMENT.fullmatch(sequencer):
        return ""
    return "{:08X}{:08X}".format(*struct.unpack("<II", bytes.fromhex(sequencer)))


def bucket_of(raw: msgspec.Raw) -> str:
    """The bucket that a malformed record names, if it does; empty otherwise."""
    try:
        entity = _bucket_of_any.decode(_bucket_of_any.decode(raw)["s3"])
        return msgspec.json.decode(entity["bucket"], type=_Bucket).name
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError):
        return ""
