"""What the ingest does with a stream that stays full, in process because it takes a minute otherwise."""

import json

import msgspec
import nats
import pytest
from fixtures.dataplane import DataPlane
from fixtures.webhook import notification
from nats.js.api import DiscardPolicy
from wisp_api import names
from wisp_api.source import BucketBinding
from wisp_events.ingest import receive
from wisp_events.log import LogFull


async def test_a_stream_that_stays_full_holds_nobody_up_for_ever(
    plane: DataPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It pushes back at first; then its events are dead letters, whole, and the sender's queue goes on."""
    stream = names.stream("small", "s3", names.bucket_source("minio", "tiny"))
    subjects = [names.stream_subjects("small", "s3", names.bucket_source("minio", "tiny"))]
    plane.add_stream(stream, subjects, DiscardPolicy.NEW, max_bytes=1024)
    binding = BucketBinding(server="minio", bucket="tiny", namespaces=["small"])
    plane.put(names.KV_SOURCES, "bucket.minio.tiny", binding)
    client = await nats.connect(plane.server.url)
    receiver = receive.Receiver(client, "wisp-system")
    body = json.dumps(notification("tiny", "a", extra="x" * 2000)).encode()
    with pytest.raises(LogFull):
        await receiver.receive("minio", body)
    monkeypatch.setattr(receive, "FULL_SECONDS", 0)
    await receiver.receive("minio", body)
    await client.close()
    [letter] = plane.dead_letters()
    assert (letter.reason, letter.namespace) == ("LogFull", "small")
    assert letter.event
    assert msgspec.json.decode(bytes(letter.event))["subject"] == "a"


async def test_a_stream_that_hovers_at_full_holds_nobody_up_for_ever(
    plane: DataPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it takes in between makes it no less full; what it takes for as long does."""
    stream = names.stream("small", "s3", names.bucket_source("minio", "tiny"))
    subjects = [names.stream_subjects("small", "s3", names.bucket_source("minio", "tiny"))]
    plane.add_stream(stream, subjects, DiscardPolicy.NEW, max_bytes=64 << 10)
    plane.put(names.KV_SOURCES, "bucket.minio.tiny", BucketBinding(server="minio", bucket="tiny", namespaces=["small"]))
    now = 1000.0
    monkeypatch.setattr(receive, "monotonic", lambda: now)
    client = await nats.connect(plane.server.url)
    receiver = receive.Receiver(client, "wisp-system")

    async def take(key: str, size: int = 0) -> None:
        await receiver.receive("minio", json.dumps(notification("tiny", key, extra="x" * size)).encode())

    for number in range(2):
        with pytest.raises(LogFull):
            await take("large", 100_000)
        await take(f"{number}")
        now += receive.FULL_SECONDS * 0.6
    await take("large", 100_000)  # 1.2 times FULL_SECONDS after the first
    await take("2")
    now += receive.FULL_SECONDS
    with pytest.raises(LogFull):
        await take("other", 100_000)
    await client.close()
    assert [letter.reason for letter in plane.dead_letters()] == ["LogFull"]
