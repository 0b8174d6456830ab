"""Events of a real Ceph, by rules of a real reader, through the ingest into the log (docs/decisions/0056)."""

import io
from collections.abc import Iterator

import pytest
from fixtures.bucket_reader import Media, media_on, rule
from fixtures.ceph import ceph
from fixtures.dataplane import data_plane
from fixtures.nats import nats_server
from fixtures.process import wait_until
from fixtures.webhook import Webhook, webhook_on
from minio.commonconfig import ENABLED, CopySource
from minio.versioningconfig import VersioningConfig
from wisp_api.cloudevent import Event

World = tuple[Media, Webhook]
PATIENCE = 240
"""Seconds: a topic is taken up after 30."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A gateway whose topic holds the ingest's token as a password, the ingest, and a namespace with a reader."""
    directory = tmp_path_factory.mktemp("world")
    with (
        nats_server(directory) as nats,
        data_plane(nats, directory) as plane,
        webhook_on(plane, directory, "ceph") as webhook,
        ceph(directory / "ceph", webhook.url.replace("//", "//wisp:token-of-ceph@")) as gateway,
        media_on(plane, gateway, directory) as media,
    ):
        yield media, webhook


def follow(world: World, bucket: str) -> None:
    """Make a bucket with three Subscriptions: two to what is created below `in/`, one to what is removed there."""
    media, webhook = world
    media.server.client().make_bucket(bucket)
    webhook.add_stream("media", bucket)
    webhook.bind(bucket, "media")
    media.wish(rule("a", bucket, "in/"), rule("b", bucket, "in/"), rule("c", bucket, "in/", "s3:ObjectRemoved:*"))
    media.wait_ready()


def put(media: Media, bucket: str, *keys: str) -> None:
    """Write objects of three bytes."""
    for key in keys:
        media.server.client().put_object(bucket, key, io.BytesIO(b"abc"), 3)


def told(webhook: Webhook) -> float:
    """Notifications that were taken until now."""
    return webhook.metric('wisp_ingest_requests_total{status="200"}')


def kinds(events: list[Event], key: str) -> list[str]:
    """What happened to an object, by the events' sequence."""
    of_key = sorted((event.sequence or "", event.type) for event in events if event.subject == key)
    return [kind.rpartition(".")[2] for _, kind in of_key]


def test_each_change_is_one_event_in_the_order_of_its_key(world: World) -> None:
    """Every way to write and remove an object, told by two rules where it is an upload, is in the log once; what no rule names is not."""
    media, webhook = world
    follow(world, "photos")
    client, before = media.server.client(), told(webhook)
    put(media, "photos", "out/a.jpg", "in/a.png", "in/a.jpg")
    client.copy_object("photos", "in/copy.jpg", CopySource("photos", "in/a.jpg"))
    client.put_object("photos", "in/big.jpg", io.BytesIO(bytes(6 << 20)), -1, part_size=5 << 20)
    client.remove_object("photos", "in/a.jpg")
    put(media, "photos", "in/a.jpg")
    client.set_bucket_versioning("photos", VersioningConfig(ENABLED))
    version = client.put_object("photos", "in/v.jpg", io.BytesIO(b"abc"), 3).version_id
    client.remove_object("photos", "in/v.jpg")
    client.remove_object("photos", "in/v.jpg", version_id=version)
    created, removed = 5, 3
    wait_until(lambda: told(webhook) >= before + 2 * created + removed, "the topic does not tell all", PATIENCE)
    events = webhook.events("media", "photos")
    assert len(events) == created + removed, [(event.type, event.subject) for event in events]
    assert kinds(events, "in/a.jpg") == ["ObjectCreated:Put", "ObjectRemoved:Delete", "ObjectCreated:Put"]
    assert kinds(events, "in/copy.jpg") == ["ObjectCreated:Copy"]
    assert kinds(events, "in/big.jpg") == ["ObjectCreated:CompleteMultipartUpload"]
    assert kinds(events, "in/v.jpg") == [
        "ObjectCreated:Put",
        "ObjectRemoved:DeleteMarkerCreated",
        "ObjectRemoved:Delete",
    ]
    assert {event.source for event in events} == {"urn:wisp:s3:ceph:photos"}


def test_keys_arrive_as_they_are(world: World) -> None:
    """Ceph does not escape them, so nothing is unescaped."""
    media, webhook = world
    follow(world, "strange")
    keys = {"in/a b.jpg", "in/a+b.jpg", "in/a%41b%.jpg", "in/ü/日本.jpg", "in/'\"<&>\\.jpg"}
    put(media, "strange", *keys)
    wait_until(
        lambda: {event.subject for event in webhook.events("media", "strange")} == keys, "not all keys arrive", PATIENCE
    )
    assert all(event.partitionkey == event.subject for event in webhook.events("media", "strange"))


def test_events_come_while_the_reader_is_away(world: World) -> None:
    """The rules stand at the gateway, and the gateway calls the ingest: the reader carries nothing."""
    media, webhook = world
    follow(world, "scans")
    media.reader.kill()
    keys = {f"in/{number}.jpg" for number in range(10)}
    put(media, "scans", *keys)
    wait_until(
        lambda: {event.subject for event in webhook.events("media", "scans")} == keys, "an event is missing", PATIENCE
    )
    media.reader.start()
