"""What a bucket held before its Subscription, listed by a real reader, and what a real MinIO tells of meanwhile (docs/decisions/0061)."""

import asyncio
import io
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import nats
import pytest
from fixtures import tasks
from fixtures.bucket_reader import Media, media_on, rule
from fixtures.dataplane import DataPlane
from fixtures.minio import PASSWORD, USER, MinioServer
from fixtures.process import wait_until
from fixtures.webhook import Webhook
from minio.commonconfig import ENABLED
from minio.credentials.providers import StaticProvider
from minio.minioadmin import MinioAdmin
from minio.versioningconfig import VersioningConfig
from nats.js import JetStreamContext
from wisp_api import cloudevent, names
from wisp_api.cloudevent import Event
from wisp_api.source import BucketRule, ItemStatus, ReaderConfig, ReaderStatus, S3Config, S3Server
from wisp_events.sources import s3_client, s3_listing, s3_objects
from wisp_events.sources.reader import Wish
from wisp_events.sources.s3_listing import Listings

LISTED = "dev.wisp.s3.ObjectListed"
STRANGE = ["in/a b.jpg", "in/a+b.jpg", "in/a%41b%.jpg", "in/ü/日本.jpg", "in/'\"<&>.jpg", "in/dir/.jpg"]


@pytest.fixture
def media(plane: DataPlane, minio: MinioServer, webhook: Webhook, tmp_path: Path) -> Iterator[Media]:
    """A namespace with a reader, whose bucket `photos` is bound to it."""
    minio.client().make_bucket("photos")
    webhook.add_stream("media", "photos")
    webhook.bind("photos", "media")
    with media_on(plane, minio, tmp_path) as made:
        yield made


def asking(subscription: str, prefix: str = "in/", suffix: str = ".jpg") -> BucketRule:
    """A new Subscription with `start: earliest`, whose route reads."""
    wanted = msgspec.structs.replace(rule(subscription, prefix=prefix), suffix=suffix)
    wanted.listing = f"uid-{subscription}"
    return wanted


def put(minio: MinioServer, *keys: str) -> None:
    """Write objects of three bytes into `photos`."""
    for key in keys:
        minio.client().put_object("photos", key, io.BytesIO(b"abc"), 3)


def listed(plane: DataPlane, subscription: str) -> list[Event]:
    """What stands in the log of the listing for a Subscription."""
    subject = names.listing_subject("media", "minio", "photos", f"uid-{subscription}")
    records = plane.records("events_media_s3_minio_photos")
    frames = [frame for at, frame in records if at == subject]
    return [cloudevent.decode(raw) for frame in frames for raw in cloudevent.decode_frame(frame)]


def data(event: Event) -> dict[str, Any]:
    """What the event's record tells of the object."""
    found: dict[str, Any] = json.loads(bytes(event.data or b""))["s3"]["object"]
    return found


def wait_listed(media: Media) -> None:
    """Wait until nothing is left to be listed."""
    media.wait_status(
        lambda status: status.ready and not any(item.message for item in status.items.values()), "objects are unlisted"
    )


def test_each_current_object_is_listed_once_to_who_asks(media: Media, minio: MinioServer) -> None:
    """Keys of all kinds, of versions the current one, no deleted one, below prefix and suffix; to who asks alone, and to each who asks."""
    client = minio.client()
    put(minio, *STRANGE, "in/a.png", "out/a.jpg")
    client.set_bucket_versioning("photos", VersioningConfig(ENABLED))
    put(minio, "in/deleted.jpg", "in/twice.jpg")
    client.remove_object("photos", "in/deleted.jpg")
    newest = client.put_object("photos", "in/twice.jpg", io.BytesIO(b"abcd"), 4)
    media.wish(rule("a", prefix="in/"), asking("b"))
    wait_until(lambda: len(listed(media.plane, "b")) >= len(STRANGE) + 1, "not all objects are listed")
    wait_listed(media)
    events = listed(media.plane, "b")
    assert sorted(event.subject or "" for event in events) == sorted([*STRANGE, "in/twice.jpg"])
    assert {(event.type, event.source) for event in events} == {(LISTED, "urn:wisp:s3:minio:photos")}
    [twice] = [event for event in events if event.subject == "in/twice.jpg"]
    assert (data(twice)["eTag"], data(twice)["size"]) == (newest.etag, 4)
    assert {event.subject: data(event)["key"] for event in events}["in/a b.jpg"] == "in%2Fa+b.jpg"
    media.wish(rule("a", prefix="in/"), asking("b"), asking("c"))
    wait_until(lambda: len(listed(media.plane, "c")) >= len(events), "the second is not given any")
    wait_listed(media)
    assert {event.id for event in listed(media.plane, "c")} == {event.id for event in events}, "one state has two ids"
    assert listed(media.plane, "b") == events, "the first is given objects again"
    assert listed(media.plane, "a") == []


def test_nothing_is_missed_between_listing_and_following(media: Media, minio: MinioServer, webhook: Webhook) -> None:
    """Objects that are uploaded while the bucket is listed are told of by the server, the listing, or both, and then in one order."""
    before, meanwhile = [f"in/{n:03}-old.jpg" for n in range(60)], [f"in/{n:03}-new.jpg" for n in range(60)]
    put(minio, *before)
    uploading = threading.Thread(target=put, args=(minio, *meanwhile))
    media.wish(rule("a"))
    media.wait_ready()
    uploading.start()
    media.wish(asking("a"))
    uploading.join()
    found: list[Event] = []

    def all_there() -> bool:
        found[:] = webhook.events("media", "photos")
        return {event.subject for event in found} >= {*before, *meanwhile}

    wait_until(all_there, "an object is missing")
    wait_listed(media)
    found = webhook.events("media", "photos")
    last = {event.subject: event for event in found if event.type == LISTED}
    assert last.keys() >= set(before)
    for event in found:
        if event.type != LISTED and (other := last.get(event.subject)):
            assert (other.sequence or "") <= (event.sequence or ""), "the listing tells of a later state"
            assert data(other)["eTag"] == data(event)["eTag"]


def test_a_key_that_may_not_list_is_told_what_it_needs_and_followed(media: Media, minio: MinioServer) -> None:
    """The bucket is ready, its rules stand, and the message names the right; with the right the listing comes."""
    put(minio, "in/a.jpg")
    credentials = StaticProvider(USER, PASSWORD)
    admin = MinioAdmin(endpoint=f"127.0.0.1:{minio.port}", credentials=credentials, secure=False)
    actions = ["s3:HeadBucket", "s3:GetBucketNotification", "s3:PutBucketNotification"]

    def allow(*allowed: str) -> None:
        statement = {"Effect": "Allow", "Action": list(allowed), "Resource": ["arn:aws:s3:::photos"]}
        admin.policy_add("few-rights", policy={"Version": "2012-10-17", "Statement": [statement]})

    admin.user_add("reader", "reader-secret")
    allow(*actions)
    admin.attach_policy(["few-rights"], user="reader")
    media.write_secret(accessKey="reader", secretKey="reader-secret")
    media.wish(asking("a"))
    media.wait_status(
        lambda status: (
            status.ready
            and status.items["photos"].ready
            and "must allow s3:ListBucket on arn:aws:s3:::photos" in status.items["photos"].message
        ),
        "the right is not named",
    )
    assert media.rules("photos") == media.ours("a")
    allow(*actions, "s3:ListBucket")
    wait_until(lambda: len(listed(media.plane, "a")) == 1, "the bucket is not listed")
    wait_listed(media)


def wish_of(minio: MinioServer, *rules: BucketRule) -> tuple[Wish, ReaderStatus]:
    """A wish as a reader has it, and that its bucket's rules stand."""
    server = S3Server(name="minio", endpoint=minio.endpoint, notification_arns=["arn:minio:sqs::WISP:webhook"])
    s3 = S3Config(servers=[server], rules=list(rules))
    config = ReaderConfig(namespace="media", kind="s3", connection="my-s3", version="1", s3=s3)
    wish = Wish(config, {"endpoint": minio.endpoint, "accessKey": USER, "secretKey": PASSWORD})
    status = ReaderStatus(version="1", ready=True, server="minio", items={"photos": ItemStatus(ready=True)})
    return wish, status


async def list_until(js: JetStreamContext, minio: MinioServer, done: asyncio.Event, *rules: BucketRule) -> None:
    """Run the listings of a reader that has just been started, until `done`; then it dies."""

    async def changed() -> None:
        pass

    listings = Listings(js, changed)
    listings.follow(*wish_of(minio, *rules))
    running = asyncio.create_task(listings.run())
    try:
        async with asyncio.timeout(60):
            await done.wait()
    finally:
        await tasks.end(running)


def test_what_changed_while_nobody_was_told_is_listed_once_more(media: Media, minio: MinioServer) -> None:
    """Only the objects that changed since then, to who has a listing; once."""
    put(minio, "in/a.jpg")
    media.wish(asking("a"))
    wait_until(lambda: len(listed(media.plane, "a")) == 1, "the bucket is not listed")
    wait_listed(media)
    media.plane.put(names.KV_CURSORS, "media.uid-a", {"floor": 100, "started": 0})
    ahead = datetime.now(UTC) + s3_objects.CLOCKS

    def again(since: datetime) -> None:
        wanted = asking("a")
        wanted.since = since.isoformat()
        media.wish(wanted, rule("b"))
        media.wait_ready()

    again(ahead + timedelta(hours=1))
    wait_listed(media)
    put(minio, "in/b.jpg")
    again(ahead)
    wait_until(lambda: len(listed(media.plane, "a")) >= 2, "the change is not listed")
    wait_listed(media)
    assert [event.subject for event in listed(media.plane, "a")] == ["in/a.jpg", "in/b.jpg"]


async def test_whoever_dies_goes_on_and_is_no_further_ahead_than_told(
    plane: DataPlane, minio: MinioServer, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listing waits for its route after the pages that it may be ahead, goes on there in another process, and is not begun again when done."""
    monkeypatch.setattr(s3_client, "PAGE_KEYS", 10)
    monkeypatch.setattr(s3_listing, "AHEAD_RECORDS", 1)
    monkeypatch.setattr(s3_listing, "LOOK_SECONDS", 0.05)
    minio.client().make_bucket("photos")
    webhook.add_stream("media", "photos")
    keys = [f"in/{number:03}.jpg" for number in range(35)]
    put(minio, *keys)
    client = await nats.connect(plane.server.url)
    js = client.jetstream(timeout=60)

    async def reaches(subscription: str, count: int, *rules: BucketRule) -> int:
        done = asyncio.Event()
        dying = asyncio.create_task(list_until(js, minio, done, *rules))
        await asyncio.to_thread(
            wait_until, lambda: len(listed(plane, subscription)) >= count or dying.done(), "objects are not listed"
        )
        await asyncio.sleep(0.3)  # for a page that should not come: too short is no failure
        done.set()
        await dying
        return len(listed(plane, subscription))

    try:
        plane.put(names.KV_CURSORS, "media.uid-a", {"floor": 0, "started": 0})
        assert await reaches("a", 20, asking("a")) == 20, "more than may be ahead"
        put(minio, "in/000-before.jpg", "in/1.jpg")
        plane.put(names.KV_CURSORS, "media.uid-a", {"floor": 100, "started": 0})
        assert await reaches("a", 36, asking("a")) == 36
        assert [event.subject for event in listed(plane, "a")] == [*keys, "in/1.jpg"]
        plane.put(names.KV_CURSORS, "media.uid-b", {"floor": 100, "started": 0})
        assert await reaches("b", 37, asking("a"), asking("b")) == 37
        assert len(listed(plane, "a")) == 36, "what is done is listed again"
    finally:
        await client.close()
