"""A page of a bucket's listing -> CloudEvents, as docs/decisions/0061 lays down.

Spec: Amazon S3 API Reference, ListObjectsV2. Invariant: the same state of an object gives the same event under the same id, whoever asks and
however often; its sequence is not above that of the server's own event for the state.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple
from urllib.parse import quote_plus, unquote_plus
from xml.etree import ElementTree as ET

import msgspec
from wisp_api.cloudevent import Event

from wisp_events import log
from wisp_events.ingest.s3 import SEQUENCE_DIGITS

EVENT_NAME: Final = "ObjectListed"
EVENT_TYPE: Final = f"dev.wisp.s3.{EVENT_NAME}"
CLOCKS: Final = timedelta(minutes=1)
"""How far the server's clock may be behind the operator's."""
_UNIX_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Entry(NamedTuple):
    """One object's current version."""

    key: str
    etag: str
    size: int
    modified: str
    """As the server writes it, RFC 3339 in UTC."""


class Page(NamedTuple):
    """Some objects, in the order of their keys."""

    entries: list[Entry]
    more: bool
    """Whether others follow."""


def read(document: bytes, after: str = "") -> Page:
    """The server's answer, of `encoding-type=url`, to who asked for what comes after a key.

    Raises:
        ValueError: it is no listing, or one that can't be gone on from: it would never end, or be taken for ended.
    """
    try:
        root = ET.fromstring(document)  # noqa: S314 - a server that the administrator listed
    except ET.ParseError as error:
        raise ValueError(f"the server's listing can't be read: {error}") from error
    entries = [
        Entry(
            unquote_plus(element.findtext("{*}Key") or ""),
            (element.findtext("{*}ETag") or "").strip('"'),
            int(element.findtext("{*}Size") or 0),
            element.findtext("{*}LastModified") or "",
        )
        for element in root.findall("{*}Contents")
    ]
    more = root.findtext("{*}IsTruncated") == "true"
    if more and not entries:
        raise ValueError("the server says that there are more objects and lists none")
    if more and entries[-1].key <= after:
        raise ValueError("the server lists again what it has listed: it doesn't know start-after")
    return Page(entries, more)


def events(server: str, bucket: str, entries: list[Entry], *, ceph: bool) -> Iterator[Event]:
    """Their events. `ceph`: the server writes its own events as Ceph's gateway does.

    Raises:
        ValueError: an entry has no time.
    """
    for entry in entries:
        parts = (EVENT_NAME, server, bucket, entry.key, entry.etag, entry.modified)
        yield Event(
            id=log.fingerprint(*parts)[:32],
            source=f"urn:wisp:s3:{server}:{bucket}",
            type=EVENT_TYPE,
            subject=entry.key,
            time=entry.modified,
            datacontenttype="application/json",
            partitionkey=entry.key,
            sequence=_sequence(entry.modified, ceph=ceph).zfill(SEQUENCE_DIGITS),
            data=msgspec.Raw(msgspec.json.encode(_record(bucket, entry, ceph=ceph))),
        )


def changed(entry: Entry, since: str) -> bool:
    """Whether the object may have changed since then; without a time all have.

    Raises:
        ValueError: the entry has no time.
    """
    return not since or _moment(entry.modified) >= datetime.fromisoformat(since) - CLOCKS


def _record(bucket: str, entry: Entry, *, ceph: bool) -> dict[str, object]:
    """The record of a notification, as far as a listing tells: what reads the server's own reads it, too."""
    key = entry.key if ceph else quote_plus(entry.key)
    return {
        "eventVersion": "2.1",
        "eventSource": "wisp:s3",
        "eventTime": entry.modified,
        "eventName": EVENT_NAME,
        "s3": {
            "s3SchemaVersion": "1.0",
            "bucket": {"name": bucket, "arn": f"arn:aws:s3:::{bucket}"},
            "object": {"key": key, "size": entry.size, "eTag": entry.etag},
        },
    }


def _sequence(modified: str, *, ceph: bool) -> str:
    """The moment, of milliseconds, in the digits of the server's own sequencer."""
    nanoseconds = (_moment(modified) - _UNIX_EPOCH) // timedelta(microseconds=1) * 1000
    if ceph:
        return "{:08X}{:08X}".format(*divmod(nanoseconds, 10**9))
    return f"{nanoseconds:X}"


def _moment(modified: str) -> datetime:
    """Raises: ValueError: it is no time, or one somewhere."""
    found = datetime.fromisoformat(modified)
    if found.tzinfo is None:
        raise ValueError(f"the server gives a time without a zone: {modified[:40]}")
    return found
