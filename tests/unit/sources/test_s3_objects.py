"""A page of a bucket's listing made into events."""

import json
import struct
from typing import Any

import msgspec
import pytest
from wisp_events.ingest.s3 import object_event
from wisp_events.sources.s3_objects import Entry, changed, events, read

PAGE = b"""<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name><IsTruncated>%b</IsTruncated><EncodingType>url</EncodingType>
<Contents><Key>in/a+b%%2B%%01.jpg</Key><LastModified>2026-11-20T10:00:00.123Z</LastModified><ETag>&#34;e1&#34;</ETag><Size>3</Size></Contents>
</ListBucketResult>"""
MOMENT = 1795168800_123_500_000
"""2026-11-20T10:00:00.1235Z in nanoseconds."""
ENTRY = Entry("in/a b+\x01.jpg", "e1", 3, "2026-11-20T10:00:00.123Z")


def test_a_page_is_read_with_its_keys_unescaped() -> None:
    """Keys that XML could not hold come through; the last page is known as such; what is no page is said to be none."""
    assert read(PAGE % b"false") == ([ENTRY], False)
    assert read(PAGE % b"true") == ([ENTRY], True)
    assert read(b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>") == ([], False)
    with pytest.raises(ValueError, match="can't be read"):
        read(b"<ListBucketResult>")


@pytest.mark.parametrize("after", [ENTRY.key, "in/b"])
def test_a_listing_that_turns_back_is_refused(after: str) -> None:
    """The page before, or the one before that: it would be listed round and round; at the end of a listing nothing follows."""
    with pytest.raises(ValueError, match="start-after"):
        read(PAGE % b"true", after)
    assert read(PAGE % b"true", "in/") == ([ENTRY], True)
    assert read(PAGE % b"false", after) == ([ENTRY], False)


def test_an_empty_page_is_not_the_end_where_more_is_promised() -> None:
    """What it stands for would never be listed."""
    with pytest.raises(ValueError, match="lists none"):
        read(b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>")


@pytest.mark.parametrize("modified", ["", "yesterday", "2026-11-20T10:00:00"])
def test_a_time_that_is_none_is_refused(modified: str) -> None:
    """The listing waits and says why."""
    entry = ENTRY._replace(modified=modified)
    with pytest.raises(ValueError, match=r"isoformat|zone"):
        list(events("minio", "b", [entry], ceph=False))
    with pytest.raises(ValueError, match=r"isoformat|zone"):
        changed(entry, "2026-11-20T10:00:00Z")


@pytest.mark.parametrize(
    ("source", "key", "sequencer"),
    [
        ("minio:s3", "in%2Fa+b%2B%01.jpg", f"{MOMENT:X}"),
        ("ceph:s3", "in/a b+\x01.jpg", struct.pack("<II", *divmod(MOMENT, 10**9)).hex()),
    ],
)
def test_an_event_stands_where_the_servers_own_does(source: str, key: str, sequencer: str) -> None:
    """Its record has the key as the server writes it, and its sequence is not above that of the upload, whose moment is finer."""
    record: dict[str, Any] = {"eventSource": source, "eventName": "s3:ObjectCreated:Put"}
    record["s3"] = {"bucket": {"name": "b"}, "object": {"key": key, "sequencer": sequencer}}
    own = object_event("minio", msgspec.Raw(json.dumps(record).encode())).event
    ceph = source.startswith("ceph")
    [listed] = events("minio", "b", [ENTRY], ceph=ceph)
    [later] = events("minio", "b", [ENTRY._replace(modified="2026-11-20T10:00:00.124Z")], ceph=ceph)
    assert json.loads(bytes(listed.data or b""))["s3"]["object"] == {"key": key, "size": 3, "eTag": "e1"}
    assert (listed.subject, listed.partitionkey, listed.source) == (own.subject, own.partitionkey, own.source)
    assert (listed.sequence or "") <= (own.sequence or "") < (later.sequence or "")
    assert listed.id != later.id
