"""The S3 reader against a real MinIO and a real Ceph: rules, proofs, and what it says when something is wrong."""

import contextlib
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fixtures.bucket_reader import Media, media_on, rule
from fixtures.ceph import Ceph, ceph
from fixtures.dataplane import DataPlane
from fixtures.minio import PASSWORD, USER, MinioServer, minio_server
from fixtures.process import free_port, wait_until
from minio.credentials.providers import StaticProvider
from minio.minioadmin import MinioAdmin


@pytest.fixture(scope="module")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MinioServer]:
    """One MinIO; nobody listens at its webhook."""
    with minio_server(tmp_path_factory.mktemp("minio"), f"http://127.0.0.1:{free_port()}/", "token") as server:
        yield server


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ceph]:
    """One Ceph, likewise."""
    with ceph(tmp_path_factory.mktemp("ceph"), f"http://127.0.0.1:{free_port()}/") as server:
        yield server


@pytest.fixture(params=["minio", "gateway"])
def media(request: pytest.FixtureRequest, plane: DataPlane, tmp_path: Path) -> Iterator[Media]:
    """A reader on each kind of server."""
    with empty(plane, request.getfixturevalue(request.param), tmp_path) as made:
        yield made


@pytest.fixture
def at_minio(minio: MinioServer, plane: DataPlane, tmp_path: Path) -> Iterator[Media]:
    """A reader on MinIO, for what needs its administration, or its death."""
    with empty(plane, minio, tmp_path) as made:
        yield made


@contextlib.contextmanager
def empty(plane: DataPlane, store: MinioServer | Ceph, directory: Path) -> Iterator[Media]:
    """A reader with the administrator's key, and two buckets without rules."""
    with media_on(plane, store, directory) as made:
        for bucket in ("photos", "scans"):
            if not store.client().bucket_exists(bucket):
                store.client().make_bucket(bucket)
            made.clear(bucket)
        yield made


def test_rules_come_and_go_and_others_stay(media: Media) -> None:
    """A wish is a rule for each destination beside what others made; a wish that is gone takes its rules with it."""
    media.set_theirs()
    media.wish(rule("a", prefix="in/"), rule("b", prefix="in/x/"))
    status = media.wait_ready()
    assert status.server == media.name
    assert media.rules("photos") == media.theirs | media.ours("a") | media.ours("b")
    media.wish(rule("b", prefix="in/x/"), rule("c", bucket="scans"))
    media.wait_ready()
    assert media.rules("photos") == media.theirs | media.ours("b")
    assert media.rules("scans") == media.ours("c")
    media.wish(rule("b"), draining=True)
    media.wait_status(lambda status: status.drained, "the reader does not drain")
    assert media.rules("photos") == media.theirs
    assert media.rules("scans") == {}


def test_rules_left_from_before_a_restart_go(media: Media) -> None:
    """A bucket whose last wish went while the reader was dead is cleaned when it is back."""
    media.wish(rule("a"), rule("c", bucket="scans"))
    media.wait_ready()
    media.reader.kill()
    media.wish(rule("a"))
    media.reader.start()
    media.wait_ready()
    assert media.rules("scans") == {}
    assert media.rules("photos") == media.ours("a")


def test_the_proof_is_a_head_request_that_answers_200(media: Media) -> None:
    """Whoever holds the proof can check without a key that the reader's key may read the bucket."""
    media.wish(rule("a"))
    proof = media.wait_ready().items["photos"].proof
    assert proof.startswith(f"{media.server.endpoint}/photos?")
    with urllib.request.urlopen(urllib.request.Request(proof, method="HEAD")) as answer:
        assert answer.status == 200
    with pytest.raises(urllib.error.HTTPError, match="403") as refused:
        urllib.request.urlopen(urllib.request.Request(proof, method="GET"))
    refused.value.close()


def test_a_missing_bucket_heals_when_it_is_made_and_holds_nobody_up(media: Media) -> None:
    """A bucket that does not exist is named; the other one is ready; making it is all that is needed."""
    media.wish(rule("a"), rule("b", bucket="missing"))
    message = media.wait_reason("missing", "BucketNotFound")
    assert "no bucket missing" in message
    assert media.rules("photos") == media.ours("a")
    media.server.client().make_bucket("missing")
    media.wait_ready()
    assert media.rules("missing") == media.ours("b")
    media.clear("missing")
    media.server.client().remove_bucket("missing")


def test_a_wrong_key_heals_when_the_secret_is_put_right(at_minio: Media) -> None:
    """A refused key is named as such, never repeated in the message; a new one in the Secret is taken without a restart."""
    at_minio.write_secret(secretKey="not the key")
    at_minio.wish(rule("a"))
    status = at_minio.wait_status(lambda status: status.reason == "AuthenticationFailed", "the key is not refused")
    assert "not the key" not in status.message
    at_minio.write_secret(secretKey=PASSWORD)
    at_minio.wait_ready()


def test_a_key_without_the_right_is_told_what_it_needs(at_minio: Media) -> None:
    """A key that may not write rules is PermissionDenied with the actions its policy must allow, and has no proof if it can't read."""
    credentials = StaticProvider(USER, PASSWORD)
    admin = MinioAdmin(endpoint=f"127.0.0.1:{at_minio.server.port}", credentials=credentials, secure=False)
    policy = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": ["arn:aws:s3:::scans/*"]}],
    }
    admin.user_add("reader", "reader-secret")
    admin.policy_add("scans-only", policy=policy)
    admin.attach_policy(["scans-only"], user="reader")
    at_minio.write_secret(accessKey="reader", secretKey="reader-secret")
    at_minio.wish(rule("a"))
    message = at_minio.wait_reason("photos", "PermissionDenied")
    assert "s3:PutBucketNotification" in message
    status = at_minio.wait_status(lambda _: True, "no status")
    assert status.items["photos"].proof == ""


def test_an_unknown_destination_is_refused_with_the_servers_words(media: Media) -> None:
    """A destination that the server does not have is NotificationRefused, and names the setting."""
    media.arns = tuple(arn.replace("WISP", "NOSUCH").replace("wisp", "nosuch") for arn in media.arns)
    media.wish(rule("a"))
    message = media.wait_reason("photos", "NotificationRefused")
    assert "notificationArns" in message


def test_an_event_that_the_server_does_not_have_is_refused_with_its_words(at_minio: Media) -> None:
    """The condition has what the server says, and names the field."""
    at_minio.wish(rule("a", events="s3:ObjectAcl:Put"))
    message = at_minio.wait_reason("photos", "NotificationRefused")
    assert "event is not supported" in message
    assert "source.bucket.events" in message


def test_a_foreign_server_and_a_server_that_is_away_are_told_apart(at_minio: Media, minio: MinioServer) -> None:
    """An endpoint that no server of the installation has is UnknownServer; one that does not answer is ServerUnreachable."""
    at_minio.write_secret(endpoint="http://127.0.0.1:1")
    at_minio.wish(rule("a"))
    status = at_minio.wait_status(lambda status: status.reason == "UnknownServer", "the endpoint is not refused")
    assert at_minio.server.endpoint in status.message
    at_minio.write_secret(endpoint="no address")
    at_minio.wait_status(lambda status: status.reason == "InvalidConnection", "the endpoint is not refused")
    at_minio.write_secret(endpoint=at_minio.server.endpoint)
    at_minio.wait_ready()
    minio.kill()
    at_minio.wish(rule("a", prefix="x/"))
    at_minio.wait_status(lambda status: status.reason == "ServerUnreachable", "the server is not missed")
    minio.start()
    at_minio.wait_ready()


def test_drift_is_repaired(at_minio: Media) -> None:
    """A rule that somebody removed is put back, without a new wish, and told as of when its events are missing; a rule that is new is not."""
    at_minio.wish(rule("b"))
    at_minio.wait_ready()
    at_minio.wish(rule("a"))
    assert at_minio.wait_ready().items["photos"].unseen_since == ""
    before = datetime.now(UTC)
    at_minio.set_theirs()
    wait_until(lambda: at_minio.rules("photos") == at_minio.theirs | at_minio.ours("a"), "the rules are not put back")
    status = at_minio.wait_status(lambda status: status.items["photos"].unseen_since != "", "nobody tells of it")
    assert datetime.fromisoformat(status.items["photos"].unseen_since) <= before
