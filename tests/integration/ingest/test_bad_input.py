"""Wrong, malformed, oversized and unwanted notifications: each has an answer, none holds up what is valid."""

import base64
import json
import urllib.error
import urllib.request
from typing import Any

import pytest
from fixtures.process import wait_until
from fixtures.webhook import Webhook, notification


@pytest.fixture
def photos(webhook: Webhook) -> Webhook:
    """An ingest with a bucket that namespace media is bound to."""
    webhook.add_stream("media", "photos")
    webhook.bind("photos", "media")
    return webhook


def test_a_wrong_token_is_401_and_an_unknown_server_404(photos: Webhook) -> None:
    """Nothing is stored without the server's own token; a token changed in the Secret counts at once."""
    assert photos.post(notification("photos", "a"), token="wrong") == 401
    assert photos.post(notification("photos", "a"), token="") == 401
    for server in ("nobody", "..", "%2e%2e", "minio/x", ""):
        assert photos.post(notification("photos", "a"), url=f"http://127.0.0.1:{photos.port}/v1/s3/{server}") == 404
    (photos.tokens / "minio").write_text("a-new-token\n")
    assert photos.post(notification("photos", "a")) == 401
    assert photos.post(notification("photos", "a"), token="a-new-token") == 200
    assert len(photos.events("media", "photos")) == 1


@pytest.mark.parametrize(
    ("given", "status"),
    [
        (b"anyone:token-of-minio", 200),
        (b":token-of-minio", 200),
        (b"token-of-minio", 401),
        (b"token-of-minio:", 401),
        (b"anyone:token-of-minio:", 401),
    ],
)
def test_the_token_may_be_a_password(photos: Webhook, given: bytes, status: int) -> None:
    """Of any user: all that a server can be told by a URL; what is no base64 is no password."""
    basic = base64.b64encode(given).decode()
    assert photos.post(notification("photos", "a"), authorization=f"Basic {basic}") == status
    assert photos.post(notification("photos", "a"), authorization=f"Basic *{basic}") == 401
    assert photos.post(notification("photos", "a"), authorization=f"Digest {basic}") == 401


@pytest.mark.parametrize(
    "body",
    [
        b"no json",
        b"[]",
        b"{}",
        b'{"Records": 1}',
        b'{"Records": [1]}',
        b'{"Records": [{"eventName": "s3:ObjectCreated:Put"}]}',
        b'{"Records": [{"eventName": "", "s3": {"bucket": {"name": "photos"}, "object": {"key": ""}}}]}',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_malformed_input_is_a_dead_letter_and_200(photos: Webhook, body: bytes) -> None:
    """The sender would repeat a refused notification for ever, so it is taken; what came in stands in the dead letter."""
    assert photos.post(body) == 200
    assert photos.post(notification("photos", "valid")) == 200
    assert [event.subject for event in photos.events("media", "photos")] == ["valid"]
    [letter] = photos.plane.dead_letters()
    assert (letter.reason, letter.source) == ("Malformed", "s3/minio")
    assert letter.input
    assert letter.namespace == ("media" if b"photos" in body else "wisp-system")


def test_a_malformed_record_does_not_take_its_neighbours_along(photos: Webhook) -> None:
    """Of several records in one notification the valid ones are stored."""
    body = notification("photos", "valid")
    body["Records"].insert(0, {"s3": {"bucket": {"name": "photos"}, "object": {}}})
    assert photos.post(body) == 200
    assert len(photos.events("media", "photos")) == 1
    assert [letter.reason for letter in photos.plane.dead_letters()] == ["Malformed"]


def test_a_notification_above_the_limit_is_a_dead_letter_and_200(photos: Webhook) -> None:
    """Larger than a body may be: EventTooLarge, and the next one is delivered."""
    assert photos.post(notification("photos", "large", extra="x" * 5_000_000)) == 200
    assert photos.post(notification("photos", "small")) == 200
    assert [event.subject for event in photos.events("media", "photos")] == ["small"]
    assert [letter.reason for letter in photos.plane.dead_letters()] == ["EventTooLarge"]


def test_nobody_bound_is_200_and_counted(photos: Webhook) -> None:
    """An event of a bucket without a binding goes nowhere; one bound a moment ago has its first event delivered."""
    assert photos.post(notification("scans", "a")) == 200
    assert photos.metric("wisp_ingest_unbound_total") == 1
    photos.add_stream("media", "scans")
    photos.bind("scans", "media")
    assert photos.post(notification("scans", "b")) == 200
    assert [event.subject for event in photos.events("media", "scans")] == ["b"]


def test_every_bound_namespace_gets_the_event_once(photos: Webhook) -> None:
    """Two namespaces on one bucket have a log each; the same notification again changes neither."""
    photos.add_stream("archive", "photos")
    photos.bind("photos", "media", "archive")
    for _ in range(3):
        assert photos.post(notification("photos", "in%2Fa+b.jpg")) == 200
    for namespace in ("media", "archive"):
        [event] = photos.events(namespace, "photos")
        assert event.subject == "in/a b.jpg"


def test_a_full_stream_pushes_back_and_the_others_go_on(photos: Webhook) -> None:
    """503 while a namespace's quota is used up, so that the sender keeps the event; another bucket is not touched by it."""
    photos.add_stream("small", "tiny", max_bytes=4096)
    photos.bind("tiny", "small")
    answers = [photos.post(notification("tiny", f"{number}", extra="x" * 500)) for number in range(10)]
    assert answers[0] == 200
    assert answers[-1] == 503
    assert photos.post(notification("photos", "a")) == 200


def test_probes_are_answered(photos: Webhook) -> None:
    """HEAD and GET with the token, and a POST with an empty body, are 200 and store nothing."""
    for method in ("HEAD", "GET"):
        request = urllib.request.Request(photos.url, headers={"Authorization": "Bearer token-of-minio"}, method=method)
        with urllib.request.urlopen(request) as answer:
            assert answer.status == 200
    assert photos.post(b"") == 200
    assert photos.events("media", "photos") == []


def test_the_log_being_away_is_503_and_heals(photos: Webhook) -> None:
    """While NATS is dead the ingest lives, says that it is not ready, and answers 503; then it takes events again."""
    photos.plane.server.kill()
    assert photos.post(notification("photos", "a")) == 503
    assert "NATS" in str(not_ready(photos))
    photos.plane.server.start()
    wait_until(lambda: photos.post(notification("photos", "a")) == 200, "the ingest does not heal")
    assert len(photos.events("media", "photos")) == 1


def test_the_ingests_memory_at_rest(photos: Webhook) -> None:
    """After some traffic, well under 60 MiB."""
    for number in range(200):
        assert photos.post(notification("photos", str(number))) == 200
    assert photos.ingest.resident_mebibytes() < 60


def not_ready(webhook: Webhook) -> Any:
    """What /readyz says while it is not ready."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{webhook.ingest.health_port}/readyz", timeout=5):
            return ""
    except urllib.error.HTTPError as error:
        with error:
            return error.read().decode()


def test_the_record_is_carried_as_it_came(photos: Webhook) -> None:
    """`data` is the record, byte for byte in meaning: what this version does not know is not lost."""
    body = notification("photos", "a", future={"x": [1, 2.50]})
    assert photos.post(body) == 200
    [event] = photos.events("media", "photos")
    assert json.loads(bytes(event.data or b"")) == body["Records"][0]
