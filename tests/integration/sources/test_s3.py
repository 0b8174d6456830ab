"""The S3 reader against a real MinIO: rules, proofs, and what it says when something is wrong."""

import contextlib
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from fixtures.dataplane import DataPlane, Part
from fixtures.minio import ARNS, PASSWORD, USER, MinioServer, minio_server
from fixtures.process import free_port, wait_until
from minio.credentials.providers import StaticProvider
from minio.minioadmin import MinioAdmin
from minio.notificationconfig import NotificationConfig, PrefixFilterRule, QueueConfig
from wisp_api import names
from wisp_api.source import BucketRule, ReaderConfig, ReaderStatus, S3Config, S3Server


@pytest.fixture(scope="module")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MinioServer]:
    """One MinIO; nobody listens at its webhook."""
    with minio_server(tmp_path_factory.mktemp("minio"), f"http://127.0.0.1:{free_port()}/", "token") as server:
        yield server


@dataclass
class Media:
    """A namespace with a bucket connection and its reader."""

    plane: DataPlane
    server: MinioServer
    secret: Path
    reader: Part
    namespace: str = "media"
    arns: tuple[str, ...] = tuple(ARNS)
    version: int = 0

    def write_secret(self, **keys: str) -> None:
        """Change keys of the Secret."""
        for key, value in keys.items():
            (self.secret / key).write_text(value)

    def wish(self, *rules: BucketRule, draining: bool = False) -> None:
        """Tell the reader what to keep, as the operator does."""
        self.version += 1
        server = S3Server(name="minio", endpoint=self.server.endpoint, notification_arns=list(self.arns))
        config = ReaderConfig(
            namespace=self.namespace,
            kind="s3",
            connection="my-s3",
            version=str(self.version),
            draining=draining,
            s3=S3Config(servers=[server], rules=list(rules)),
        )
        self.plane.put(names.KV_SOURCES, f"reader.{self.namespace}.s3.my-s3", config)

    def wait_status(self, condition: Callable[[ReaderStatus], bool], what: str) -> ReaderStatus:
        """Wait for a report on the newest wish that fulfils a condition; returns it."""
        found: list[ReaderStatus] = []

        def reported() -> bool:
            status = self.plane.get(names.KV_STATUS, f"reader.{self.namespace}.s3.my-s3", ReaderStatus)
            found[:] = [status] if status else []
            return status is not None and status.version == str(self.version) and condition(status)

        with contextlib.suppress(TimeoutError):
            wait_until(reported, what)
            return found[0]
        raise AssertionError(f"{what}; reported: {found}\n{self.reader.log.read_text()[-3000:]}")

    def wait_ready(self) -> ReaderStatus:
        """Wait until all wanted buckets have their rules."""
        return self.wait_status(
            lambda status: status.ready and all(item.ready for item in status.items.values()), "the reader is not ready"
        )

    def wait_reason(self, bucket: str, reason: str) -> str:
        """Wait until a bucket is reported with a reason; returns the message."""
        status = self.wait_status(
            lambda status: bucket in status.items and status.items[bucket].reason == reason, f"{bucket} is not {reason}"
        )
        return status.items[bucket].message

    def rules(self, bucket: str) -> dict[str, str]:
        """Destination of each rule that stands on a bucket, by its id."""
        found = self.server.client().get_bucket_notification(bucket).queue_config_list
        return {rule.config_id or "": rule.queue or "" for rule in found}


@pytest.fixture
def media(plane: DataPlane, minio: MinioServer, tmp_path: Path) -> Iterator[Media]:
    """A reader with the administrator's key."""
    secret = tmp_path / "secret"
    secret.mkdir()
    environment = {
        "WISP_READER_NAMESPACE": "media",
        "WISP_READER_KIND": "s3",
        "WISP_READER_CONNECTION": "my-s3",
        "WISP_READER_DIRECTORY": str(secret),
    }
    made = Media(plane, minio, secret, Part("reader", plane, environment))
    made.write_secret(endpoint=minio.endpoint, accessKey=USER, secretKey=PASSWORD)
    made.reader.start()
    for bucket in ("photos", "scans"):
        if not minio.client().bucket_exists(bucket):
            minio.client().make_bucket(bucket)
        minio.client().delete_bucket_notification(bucket)
    yield made
    made.reader.stop()


def rule(subscription: str, bucket: str = "photos", prefix: str = "", events: str = "s3:ObjectCreated:*") -> BucketRule:
    """A Subscription's wish."""
    return BucketRule(subscription=subscription, bucket=bucket, events=[events], prefix=prefix, suffix=".jpg")


def ours(subscription: str, connection: str = "my-s3") -> dict[str, str]:
    """The rules of a wish, as `Media.rules` shows them."""
    return {f"wisp.media.{connection}.{subscription}.{number}": arn for number, arn in enumerate(ARNS)}


def other(prefix: str = "theirs/") -> QueueConfig:
    """Somebody else's rule, to the same destination."""
    return QueueConfig(
        queue=ARNS[0],
        events=["s3:ObjectRemoved:*"],
        config_id="theirs",
        prefix_filter_rule=PrefixFilterRule(prefix),
    )


def test_rules_come_and_go_and_others_stay(media: Media) -> None:
    """A wish is a rule for each destination beside what others made; a wish that is gone takes its rules with it."""
    media.server.client().set_bucket_notification("photos", NotificationConfig(queue_config_list=[other()]))
    media.wish(rule("a", prefix="in/"), rule("b", prefix="in/x/"))
    status = media.wait_ready()
    assert status.server == "minio"
    assert media.rules("photos") == {"theirs": ARNS[0]} | ours("a") | ours("b")
    media.wish(rule("b", prefix="in/x/"), rule("c", bucket="scans"))
    media.wait_ready()
    assert media.rules("photos") == {"theirs": ARNS[0]} | ours("b")
    assert media.rules("scans") == ours("c")
    media.wish(rule("b"), draining=True)
    media.wait_status(lambda status: status.drained, "the reader does not drain")
    assert media.rules("photos") == {"theirs": ARNS[0]}
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
    assert media.rules("photos") == ours("a")


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
    assert media.rules("photos") == ours("a")
    media.server.client().make_bucket("missing")
    media.wait_ready()
    assert media.rules("missing") == ours("b")
    media.server.client().delete_bucket_notification("missing")
    media.server.client().remove_bucket("missing")


def test_a_wrong_key_heals_when_the_secret_is_put_right(media: Media) -> None:
    """A refused key is named as such, never repeated in the message; a new one in the Secret is taken without a restart."""
    media.write_secret(secretKey="not the key")
    media.wish(rule("a"))
    status = media.wait_status(lambda status: status.reason == "AuthenticationFailed", "the key is not refused")
    assert "not the key" not in status.message
    media.write_secret(secretKey=PASSWORD)
    media.wait_ready()


def test_a_key_without_the_right_is_told_what_it_needs(media: Media) -> None:
    """A key that may not write rules is PermissionDenied with the actions its policy must allow, and has no proof if it can't read."""
    credentials = StaticProvider(USER, PASSWORD)
    admin = MinioAdmin(endpoint=f"127.0.0.1:{media.server.port}", credentials=credentials, secure=False)
    policy = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": ["arn:aws:s3:::scans/*"]}],
    }
    admin.user_add("reader", "reader-secret")
    admin.policy_add("scans-only", policy=policy)
    admin.attach_policy(["scans-only"], user="reader")
    media.write_secret(accessKey="reader", secretKey="reader-secret")
    media.wish(rule("a"))
    message = media.wait_reason("photos", "PermissionDenied")
    assert "s3:PutBucketNotification" in message
    status = media.wait_status(lambda _: True, "no status")
    assert status.items["photos"].proof == ""


def test_an_unknown_destination_is_refused_with_the_servers_words(media: Media) -> None:
    """A destination that the server does not have is NotificationRefused, and names the setting."""
    media.arns = ("arn:minio:sqs::NOSUCH:webhook",)
    media.wish(rule("a"))
    message = media.wait_reason("photos", "NotificationRefused")
    assert "notificationArns" in message


def test_a_foreign_server_and_a_server_that_is_away_are_told_apart(media: Media) -> None:
    """An endpoint that no server of the installation has is UnknownServer; one that does not answer is ServerUnreachable."""
    media.write_secret(endpoint="http://127.0.0.1:1")
    media.wish(rule("a"))
    status = media.wait_status(lambda status: status.reason == "UnknownServer", "the endpoint is not refused")
    assert media.server.endpoint in status.message
    media.write_secret(endpoint="no address")
    media.wait_status(lambda status: status.reason == "InvalidConnection", "the endpoint is not refused")
    media.write_secret(endpoint=media.server.endpoint)
    media.wait_ready()
    media.server.kill()
    media.wish(rule("a", prefix="x/"))
    media.wait_status(lambda status: status.reason == "ServerUnreachable", "the server is not missed")
    media.server.start()
    media.wait_ready()


def test_drift_is_repaired(media: Media) -> None:
    """A rule that somebody removed is put back, without a new wish."""
    media.wish(rule("a"))
    media.wait_ready()
    media.server.client().set_bucket_notification("photos", NotificationConfig(queue_config_list=[other()]))
    wait_until(lambda: media.rules("photos") == {"theirs": ARNS[0]} | ours("a"), "the rules are not put back")
