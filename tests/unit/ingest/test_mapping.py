"""S3 notifications as CloudEvents."""

import msgspec
import pytest
from fixtures.webhook import notification
from wisp_events.ingest import s3


def event_of(body: object) -> s3.ObjectEvent:
    """The event of a notification's first record."""
    return s3.object_event("minio", s3.records(msgspec.json.encode(body))[0])


def test_an_event_has_the_documented_attributes() -> None:
    """Each attribute is as docs/decisions/0003 says."""
    found = event_of(notification("photos", "in%2Fa+b%C3%BC.jpg"))
    assert (found.bucket, found.name) == ("photos", "ObjectCreated:Put")
    assert found.event.source == "urn:wisp:s3:minio:photos"
    assert found.event.type == "com.amazonaws.s3.ObjectCreated:Put"
    assert found.event.subject == found.event.partitionkey == "in/a bü.jpg"
    assert found.event.time == "2026-11-20T10:00:00.000Z"
    assert found.event.sequence == "18A1B2".zfill(32)


def test_aws_and_minio_spell_one_event() -> None:
    """With or without `s3:` before its name, an event has the same type and id."""
    one, two = (event_of(notification("photos", "a", f"{prefix}ObjectCreated:Put")) for prefix in ("", "s3:"))
    assert (one.event.type, one.event.id) == (two.event.type, two.event.id)


def test_the_id_tells_different_events_apart() -> None:
    """Name, bucket, key, version, sequencer and request each make another event; nothing else does."""
    base = notification("photos", "a")
    ids = {event_of(base).event.id, event_of(notification("photos", "a", awsRegion="elsewhere")).event.id}
    assert len(ids) == 1
    changed = [
        notification("photos", "a", "s3:ObjectRemoved:Delete"),
        notification("scans", "a"),
        notification("photos", "b"),
    ]
    for field, value in (("versionId", "v"), ("sequencer", "18A1B3")):
        body = notification("photos", "a")
        body["Records"][0]["s3"]["object"][field] = value
        changed.append(body)
    changed.append(notification("photos", "a", responseElements={"x-amz-request-id": "other"}))
    ids |= {event_of(body).event.id for body in changed}
    assert len(ids) == 7


def of_ceph(rule: str, sequencer: str, time: str = "2026-11-21T23:13:42.962349Z") -> s3.ObjectEvent:
    """An event as Ceph's gateway tells it for one rule."""
    body = notification("photos", "in/a b+%41.jpg", "ObjectCreated:Put", eventSource="ceph:s3", eventTime=time)
    body["Records"][0]["s3"]["configurationId"] = rule
    body["Records"][0]["s3"]["object"]["sequencer"] = sequencer
    return event_of(body)


def test_cephs_records_of_one_event_have_one_id() -> None:
    """Each rule's has a sequencer of its own; a later event of the same request is another all the same."""
    one, two = of_ceph("a", "A625026B2CD97339"), of_ceph("b", "A625026B7C8DBC01")
    assert one.event.id == two.event.id
    assert of_ceph("a", "A625026B2CD97339", "2026-11-21T23:13:42.962350Z").event.id != one.event.id


def test_cephs_keys_and_sequencers_are_read_as_ceph_writes_them() -> None:
    """The key is not escaped; the sequencer has the least significant byte first, the sequence grows with time."""
    found = of_ceph("a", "A625026B2CD97339").event
    assert found.subject == found.partitionkey == "in/a b+%41.jpg"
    assert found.sequence == "6B0225A63973D92C".zfill(32)
    assert of_ceph("a", "of another release").event.sequence is None


@pytest.mark.parametrize(
    "raw", [b"{}", b"null", b'{"eventName": 1}', b'{"eventName":"x","s3":{"bucket":{"name":"b"},"object":{}}}']
)
def test_what_lacks_something_is_malformed(raw: bytes) -> None:
    """A record without name, bucket or key says what is missing."""
    with pytest.raises(s3.Malformed, match="no S3 event record"):
        s3.object_event("minio", msgspec.Raw(raw))


@pytest.mark.parametrize(
    ("raw", "bucket"),
    [(b'{"s3":{"bucket":{"name":"b"}}}', "b"), (b'{"s3":{"bucket":1}}', ""), (b"1", ""), (b'{"s3":', "")],
)
def test_the_bucket_of_a_malformed_record_where_it_names_one(raw: bytes, bucket: str) -> None:
    """So that its dead letter reaches those who are bound to it."""
    assert s3.bucket_of(msgspec.Raw(raw)) == bucket
