"""Events of a real MinIO through its two webhook targets into the log."""

import io
import time

from fixtures.minio import ARNS, MinioServer
from fixtures.process import wait_until
from fixtures.webhook import Webhook
from minio.commonconfig import ENABLED, CopySource, Tags
from minio.deleteobjects import DeleteObject
from minio.notificationconfig import NotificationConfig, QueueConfig
from minio.versioningconfig import VersioningConfig


def watch(server: MinioServer, bucket: str, *more: str) -> None:
    """Make a bucket that reports what is created and removed, and `more`, to both targets."""
    client = server.client()
    client.make_bucket(bucket)
    events = ["s3:ObjectCreated:*", "s3:ObjectRemoved:*", *more]
    rules = [QueueConfig(queue=arn, events=events, config_id=f"rule {number}") for number, arn in enumerate(ARNS)]
    client.set_bucket_notification(bucket, NotificationConfig(queue_config_list=rules))


def put(server: MinioServer, bucket: str, key: str) -> None:
    """Write an object of three bytes."""
    server.client().put_object(bucket, key, io.BytesIO(b"abc"), 3)


def test_an_upload_is_in_the_log_once_and_soon(webhook: Webhook, minio: MinioServer) -> None:
    """Both targets report an upload; the log holds one event, from the fast target long before the safe one's 3 s poll."""
    webhook.add_stream("media", "photos")
    webhook.bind("photos", "media")
    watch(minio, "photos")
    times = []
    for number, key in enumerate(("warm-up", "again", "in/a b+ü.jpg"), 1):
        put(minio, "photos", key)
        answered = time.monotonic()
        wait_until(lambda: len(webhook.events("media", "photos")) == number, "the event is not in the log")  # noqa: B023
        times.append(time.monotonic() - answered)
    assert min(times) < 2.5, times
    wait_until(lambda: minio.queued() == 0, "the safe target keeps the event")
    wait_until(lambda: webhook.metric("wisp_ingest_requests_total") >= 6, "the safe target did not report")
    [_, _, event] = webhook.events("media", "photos")
    assert (event.type, event.subject) == ("com.amazonaws.s3.ObjectCreated:Put", "in/a b+ü.jpg")
    assert (event.source, event.partitionkey) == ("urn:wisp:s3:minio:photos", "in/a b+ü.jpg")
    assert len(event.id) == 32
    assert len(event.sequence or "") == 32


def test_each_way_to_change_and_to_read_an_object_is_one_event(webhook: Webhook, minio: MinioServer) -> None:
    """Uploads in parts, copies, tags, several removed by one request, versions, delete markers, reads: each is in the log once, under its own id."""
    webhook.add_stream("media", "photos")
    webhook.bind("photos", "media")
    watch(minio, "photos", "s3:ObjectAccessed:Get", "s3:ObjectAccessed:Head")
    client = minio.client()
    for key in ("a", "b", "c", "read"):
        put(minio, "photos", key)
    client.copy_object("photos", "copy", CopySource("photos", "a"))
    client.put_object("photos", "parts", io.BytesIO(bytes(6 << 20)), -1, part_size=5 << 20)
    tags = Tags.new_object_tags()
    tags["colour"] = "red"
    client.set_object_tags("photos", "read", tags)
    client.delete_object_tags("photos", "read")
    client.stat_object("photos", "read")
    client.get_object("photos", "read").close()
    assert not list(client.remove_objects("photos", [DeleteObject(key) for key in "abc"]))
    client.set_bucket_versioning("photos", VersioningConfig(ENABLED))
    version = client.put_object("photos", "versions", io.BytesIO(b"abc"), 3).version_id
    client.remove_object("photos", "versions")
    client.remove_object("photos", "versions", version_id=version)
    put_and_removed = ["ObjectCreated:Put", "ObjectRemoved:Delete"]
    expected = dict.fromkeys("abc", put_and_removed) | {
        "copy": ["ObjectCreated:Copy"],
        "parts": ["ObjectCreated:CompleteMultipartUpload"],
        "read": [
            "ObjectAccessed:Get",
            "ObjectAccessed:Head",
            "ObjectCreated:DeleteTagging",
            "ObjectCreated:Put",
            "ObjectCreated:PutTagging",
        ],
        "versions": ["ObjectCreated:Put", "ObjectRemoved:Delete", "ObjectRemoved:DeleteMarkerCreated"],
    }

    def told() -> dict[str, list[str]]:
        kinds: dict[str, list[str]] = {key: [] for key in expected}
        for event in webhook.events("media", "photos"):
            kind = event.type.removeprefix("com.amazonaws.s3.")
            if event.subject != "a" or not kind.startswith("ObjectAccessed"):  # the client looks at what it copies
                kinds[event.subject or ""].append(kind)
        return {key: sorted(found) for key, found in kinds.items()}

    wait_until(lambda: told() == expected and minio.queued() == 0, "not each is told once")
    events = webhook.events("media", "photos")
    assert len({event.id for event in events}) == len(events)


def test_nothing_is_lost_while_the_ingest_is_away(webhook: Webhook, minio: MinioServer) -> None:
    """Objects written while the ingest is dead reach the log once it is back, each once."""
    webhook.add_stream("media", "photos")
    webhook.bind("photos", "media")
    watch(minio, "photos")
    webhook.ingest.kill()
    for number in range(20):
        put(minio, "photos", f"{number}")
    assert minio.queued() == 20
    webhook.ingest.start()
    wait_until(lambda: minio.queued() == 0, "the safe target keeps events")
    assert sorted(int(event.subject or "") for event in webhook.events("media", "photos")) == list(range(20))


def test_nothing_is_lost_when_minio_dies_right_after_its_answer(webhook: Webhook, minio: MinioServer) -> None:
    """An object whose PUT was answered has its event in the log, although MinIO is killed at once and the ingest was away."""
    webhook.add_stream("media", "photos")
    webhook.bind("photos", "media")
    watch(minio, "photos")
    webhook.ingest.kill()
    for number in range(5):
        put(minio, "photos", f"{number}")
    assert minio.queued() == 5, "an upload was answered before its event was kept"
    minio.kill()
    webhook.ingest.start()
    minio.start()
    wait_until(lambda: minio.queued() == 0, "the safe target keeps events")
    assert sorted(int(event.subject or "") for event in webhook.events("media", "photos")) == list(range(5))


def test_nats_being_away_loses_nothing(webhook: Webhook, minio: MinioServer) -> None:
    """While the log is away the ingest answers 503 and MinIO keeps the events; they arrive when it is back."""
    webhook.add_stream("media", "photos")
    webhook.bind("photos", "media")
    watch(minio, "photos")
    webhook.plane.server.kill()
    put(minio, "photos", "while-away")
    refused = 'wisp_ingest_requests_total{status="503"}'
    wait_until(lambda: webhook.metric(refused) >= 2, "not both targets were refused")
    assert minio.queued() == 1
    webhook.plane.server.start()
    wait_until(lambda: len(webhook.events("media", "photos")) == 1, "the event is missing")
