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
