"""Operator and data plane together: every part a real process with the credentials that the operator minted; the test is the kubelet."""

import io
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fixtures.control_plane import SOURCES, SYSTEM, Knative, Log, Operator, conditions_of, secret, wait_condition
from fixtures.dataplane import DataPlane, Part
from fixtures.kube import Kube, kube
from fixtures.minio import ARNS, PASSWORD, USER, MinioServer
from fixtures.nats import NatsServer
from fixtures.objects import bucket, make_function, make_subscription, schedule
from fixtures.objects import postgres as database
from fixtures.postgres import Postgres, postgres
from fixtures.process import free_port, wait_until
from minio import Minio
from minio.credentials.providers import StaticProvider
from minio.error import S3Error
from minio.minioadmin import MinioAdmin
from nats.aio.client import Client
from wisp_api import names
from wisp_api.source import BucketBinding

READY, OK = "Ready", ("True", "AsWanted")
NAMESPACE = "media"


@dataclass
class World:
    """Everything but nodes and Knative's controllers."""

    kube: Kube
    nats: NatsServer
    directory: Path
    operator: Operator
    minio: MinioServer
    postgres: Postgres
    knative: Knative
    log: Log
    ingest: int
    """The ingest's port."""
    readers: dict[str, Part] = field(default_factory=dict)

    def part(self, name: str, credentials: str, environment: dict[str, str]) -> Part:
        """A process of the data plane with a user's credentials."""
        path = self.directory / f"{name}-{len(list(self.directory.iterdir()))}.creds"
        path.write_text(credentials)
        plane = cast("DataPlane", SimpleNamespace(server=self.nats, directory=self.directory))
        return Part(name, plane, environment | {"WISP_NATS_CREDS": str(path)})

    def run_reader(self, namespace: str, kind: str, connection: str, secret_data: dict[str, str]) -> None:
        """Do what the kubelet does with a reader's Deployment."""
        path = f"/apis/apps/v1/namespaces/{namespace}/deployments/wisp-reader-{kind}-{connection}"
        wait_until(lambda: self.kube.get(path) is not None, "the reader's Deployment")
        container = self.kube.get(path)["spec"]["template"]["spec"]["containers"][0]
        mounted = self.directory / f"{namespace}-{kind}-{connection}"
        mounted.mkdir()
        for key, value in secret_data.items():
            (mounted / key).write_text(value)
        environment = {item["name"]: item["value"] for item in container["env"]} | {
            "WISP_READER_DIRECTORY": str(mounted)
        }
        credentials = secret(self.kube, namespace, f"wisp-reader-{kind}-{connection}", "creds")
        reader = self.readers[path] = self.part("reader", credentials, environment)
        reader.start()

    def reap(self) -> None:
        """End readers whose Deployment is gone, and all of them at the end."""
        for path, reader in list(self.readers.items()):
            if self.kube.get(path) is None:
                reader.stop()
                del self.readers[path]

    def records(self, stream: str) -> int:
        """How many records a stream holds."""

        async def read(client: Client) -> int:
            answer = await client.request(f"$JS.API.STREAM.INFO.{stream}", b"", timeout=60)
            return int(json.loads(answer.data).get("state", {}).get("messages", 0))

        return self.log.as_operator(read)

    def listed(self, bucket: str, uid: str) -> int:
        """How many records the listing of a bucket for a Subscription has."""
        stream = f"events_{NAMESPACE}_s3_minio_{bucket}"
        asked = json.dumps({"subjects_filter": names.listing_subject(NAMESPACE, "minio", bucket, uid)}).encode()

        async def read(client: Client) -> int:
            answer = await client.request(f"$JS.API.STREAM.INFO.{stream}", asked, timeout=60)
            return sum(json.loads(answer.data)["state"].get("subjects", {}).values())

        return self.log.as_operator(read)

    def gone(self, namespace: str, name: str) -> bool:
        """Whether a Subscription and everything of it is gone."""
        self.reap()
        item = self.kube.get(f"/apis/wisp.dev/v1alpha1/namespaces/{namespace}/subscriptions/{name}")
        running = any(f"/namespaces/{namespace}/" in path for path in self.readers)
        return item is None and not running and not self.log.streams(namespace)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A running world with a ready Function in the namespace `media`."""
    directory = tmp_path_factory.mktemp("world")
    port = free_port()
    nats = NatsServer(directory)
    with kube(directory / "kube") as cluster, postgres(directory) as shop:
        minio = MinioServer(directory / "minio", f"http://127.0.0.1:{port}/v1/s3/minio", "later")
        minio.directory.mkdir()
        settings = {
            "drainSeconds": 30,
            "s3Servers": [{"name": "minio", "endpoint": minio.endpoint, "notificationArns": ARNS}],
        }
        operator = Operator(cluster, directory, nats.url, settings)
        operator.start()
        knative, log = Knative(cluster, NAMESPACE), Log(cluster, nats.url)
        made = World(cluster, nats, directory, operator, minio, shop, knative, log, port)
        wait_until(lambda: cluster.get(f"/api/v1/namespaces/{SYSTEM}/secrets/wisp-nats-ingest") is not None, "the keys")
        nats.config = secret(cluster, SYSTEM, "wisp-nats-auth", "auth.conf")
        nats.start()
        minio.token = secret(cluster, SYSTEM, "wisp-s3-tokens", "minio")
        tokens = directory / "tokens"
        tokens.mkdir()
        (tokens / "minio").write_text(minio.token)
        minio.start()
        inbox = {"router": {"WISP_NATS_INBOX": "_INBOX.router", "WISP_POD_NAME": "router-0"}}
        inbox["ingest"] = {
            "WISP_NATS_INBOX": "_INBOX.ingest",
            "WISP_INGEST_PORT": str(port),
            "WISP_INGEST_TOKENS": str(tokens),
        }
        parts = [
            made.part(name, secret(cluster, SYSTEM, f"wisp-nats-{name}", "creds"), more) for name, more in inbox.items()
        ]
        for one in parts:
            one.start()
            one.wait_ready()
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        cluster.apply(make_function() | {"metadata": {"name": "hello", "namespace": NAMESPACE}})
        knative.roll_out("hello")
        yield made
        for one in [*parts, *made.readers.values()]:
            one.stop()
        operator.stop()
        minio.stop()
        nats.stop()


def subscription(name: str, source: dict[str, Any], namespace: str = NAMESPACE) -> dict[str, Any]:
    """A Subscription as a user writes it."""
    return make_subscription(name, source=source) | {"metadata": {"name": name, "namespace": namespace}}


def refusals(world: World) -> list[str]:
    """What the event log's server refused anyone."""
    return [line for line in (world.nats.directory / "nats.log").read_text().splitlines() if "Violation" in line]


def test_rows(world: World) -> None:
    """A table's Subscription becomes Ready, its rows are in the log; a missing table is named and heals; deleted, no slot is left."""
    world.postgres.execute("CREATE TABLE orders (id int PRIMARY KEY, total numeric)")
    world.kube.apply(subscription("rows", database("public.orders")))
    world.run_reader(NAMESPACE, "postgres", "shop-db", {"dsn": world.postgres.dsn()})
    wait_condition(world.kube, "subscriptions", NAMESPACE, "rows", READY, OK)
    world.postgres.execute("INSERT INTO orders VALUES (1, 9.99)")
    wait_until(lambda: world.records(f"events_{NAMESPACE}_postgres_shop-db") == 1, "the row is in the log")
    world.kube.apply(subscription("items", database("public.items")))
    wait_condition(world.kube, "subscriptions", NAMESPACE, "items", "SourceReady", ("False", "TableNotFound"))
    # The router can't reach a revision here, so FunctionReady is left out from the first event on.
    assert conditions_of(world.kube, "subscriptions", NAMESPACE, "rows")["SourceReady"] == OK, (
        "the valid one does not wait"
    )
    world.postgres.execute("CREATE TABLE items (id int PRIMARY KEY)")
    wait_condition(world.kube, "subscriptions", NAMESPACE, "items", READY, OK, 90)
    assert len(world.postgres.execute("SELECT slot_name FROM pg_replication_slots")) == 1
    world.kube.kubectl("delete", "sub", "rows", "items", "-n", NAMESPACE, "--wait=false")
    wait_until(lambda: world.gone(NAMESPACE, "rows") and world.gone(NAMESPACE, "items"), "everything is gone")
    assert world.postgres.execute("SELECT slot_name FROM pg_replication_slots") == []
    assert world.postgres.execute("SELECT pubname FROM pg_publication") == []
    assert refusals(world) == []


def test_objects(world: World) -> None:
    """A bucket's Subscription is proven, bound and Ready; an upload is in the log; deleted, the bucket has no rule left."""
    world.minio.client().make_bucket("photos")
    world.kube.apply(subscription("photos", bucket(prefix="in/")))
    keys = {"endpoint": world.minio.endpoint, "accessKey": USER, "secretKey": PASSWORD}
    world.run_reader(NAMESPACE, "s3", "minio", keys)
    wait_condition(world.kube, "subscriptions", NAMESPACE, "photos", READY, OK)
    binding = world.log.get(SOURCES, "bucket.minio.photos", BucketBinding)
    assert binding
    assert binding.namespaces == [NAMESPACE]
    world.minio.client().put_object("photos", "in/1.jpg", io.BytesIO(b"x"), 1)
    wait_until(lambda: world.records(f"events_{NAMESPACE}_s3_minio_photos") == 1, "the event is in the log")
    world.kube.kubectl("delete", "sub", "photos", "-n", NAMESPACE, "--wait=false")
    wait_until(lambda: world.gone(NAMESPACE, "photos"), "everything is gone")
    assert rules(world.minio.client(), "photos") == 0
    assert world.log.get(SOURCES, "bucket.minio.photos", BucketBinding) is None
    assert refusals(world) == []


def test_a_right_to_a_bucket_that_is_taken_away_and_given_back(world: World) -> None:
    """What was uploaded meanwhile is listed to who was made with `start: earliest`, and the condition says from when till when."""
    client = world.minio.client()
    client.make_bucket("scans")
    admin = MinioAdmin(
        endpoint=f"127.0.0.1:{world.minio.port}", credentials=StaticProvider(USER, PASSWORD), secure=False
    )
    statement = {"Effect": "Allow", "Action": ["s3:*"], "Resource": ["arn:aws:s3:::scans"]}
    admin.policy_add("scans", policy={"Version": "2012-10-17", "Statement": [statement]})
    admin.user_add("scanner", "scanner-secret")
    admin.attach_policy(["scans"], user="scanner")
    world.kube.apply(
        make_subscription("scans", source=bucket("scans", "scanner"), start="earliest")
        | {"metadata": {"name": "scans", "namespace": NAMESPACE}}
    )
    keys = {"endpoint": world.minio.endpoint, "accessKey": "scanner", "secretKey": "scanner-secret"}
    world.run_reader(NAMESPACE, "s3", "scanner", keys)
    wait_condition(world.kube, "subscriptions", NAMESPACE, "scans", "SourceReady", OK)
    admin.detach_policy(["scans"], user="scanner")
    (world.directory / f"{NAMESPACE}-s3-scanner" / "more").write_text(
        "so that the reader looks now, not in half a minute"
    )
    wait_condition(world.kube, "subscriptions", NAMESPACE, "scans", "SourceReady", ("False", "PermissionDenied"))
    wait_until(lambda: world.log.get(SOURCES, "bucket.minio.scans", BucketBinding) is None, "the bucket is still bound")
    client.put_object("scans", "missed.jpg", io.BytesIO(b"x"), 1)
    admin.attach_policy(["scans"], user="scanner")
    message = wait_condition(world.kube, "subscriptions", NAMESPACE, "scans", "SourceReady", ("True", "ChangesMissed"))
    found = world.kube.get(f"/apis/wisp.dev/v1alpha1/namespaces/{NAMESPACE}/subscriptions/scans")
    unseen = found["status"]["unseen"]
    assert f"between {unseen['since']} and {unseen['until']}" in message
    wait_until(lambda: world.listed("scans", found["metadata"]["uid"]) == 1, "the missed object is not listed")
    world.kube.kubectl("delete", "sub", "scans", "-n", NAMESPACE, "--wait=false")
    wait_until(lambda: world.gone(NAMESPACE, "scans"), "everything is gone")


def test_ticks(world: World) -> None:
    """A schedule's source becomes ready and its ticks are in the log; a wrong time zone is named and heals; deleted, nothing is left."""
    world.kube.apply(subscription("clock", schedule("* * * * * *", data={"report": "sales"})))
    # Not Ready: nobody answers for the function here, so that turns to Failing with the first tick, a second later.
    wait_condition(world.kube, "subscriptions", NAMESPACE, "clock", "SourceReady", OK)
    item = world.kube.get(f"/apis/wisp.dev/v1alpha1/namespaces/{NAMESPACE}/subscriptions/clock")
    stream = f"events_{NAMESPACE}_schedule_clock_{item['metadata']['uid']}"
    wait_until(lambda: world.records(stream) >= 2, "ticks are in the log")
    world.kube.apply(subscription("clock", schedule("* * * * * *", timezone="Europe/Olso")))
    message = wait_condition(
        world.kube, "subscriptions", NAMESPACE, "clock", "SourceReady", ("False", "InvalidSchedule")
    )
    assert message.startswith("spec.source.schedule.timezone: there is no time zone 'Europe/Olso'; write")
    world.kube.apply(subscription("clock", schedule("* * * * * *", timezone="Europe/Oslo")))
    wait_condition(world.kube, "subscriptions", NAMESPACE, "clock", "SourceReady", OK)
    world.kube.kubectl("delete", "sub", "clock", "-n", NAMESPACE, "--wait=false")
    wait_until(lambda: world.gone(NAMESPACE, "clock"), "everything is gone")
    keys = [
        (names.KV_SCHEDULES, f"{NAMESPACE}.clock"),
        (names.KV_STATUS, f"schedule.{NAMESPACE}.clock"),
        (names.KV_ROUTES, f"{NAMESPACE}.clock"),
    ]
    wait_until(lambda: all(world.log.get(place, key, dict) is None for place, key in keys), "its keys are gone")
    assert refusals(world) == []


def test_posted_events(world: World) -> None:
    """A bus takes events as soon as a Subscription that names it is Ready, by tokens of the cluster's own API, and is gone with it."""
    named = {"bus": {"name": "orders", "allowFrom": ["default/checkout"]}}
    world.kube.apply(subscription("mail", named))
    wait_condition(world.kube, "subscriptions", NAMESPACE, "mail", READY, OK)
    wait_until(lambda: post(world, service_account_token(world, NAMESPACE, "app"), 1) == 202, "the keys are there")
    assert post(world, service_account_token(world, "default", "checkout"), 2) == 202
    assert post(world, service_account_token(world, "default", "other"), 3) == 403
    assert post(world, service_account_token(world, NAMESPACE, "app", "https://kubernetes.default.svc"), 4) == 401
    assert world.records(f"events_{NAMESPACE}_bus_orders") == 2
    item = world.kube.get(f"/apis/wisp.dev/v1alpha1/namespaces/{NAMESPACE}/subscriptions/mail")
    assert item["status"]["source"] == "bus/orders"
    world.kube.kubectl("delete", "sub", "mail", "-n", NAMESPACE, "--wait=false")
    wait_until(lambda: world.gone(NAMESPACE, "mail"), "everything is gone")
    wait_until(
        lambda: world.log.get(SOURCES, names.inbox_key("bus", NAMESPACE, "orders"), dict) is None, "its entry is gone"
    )
    wait_until(lambda: post(world, service_account_token(world, NAMESPACE, "app"), 5) == 404, "it takes nothing more")
    assert refusals(world) == []


def test_invocations(world: World) -> None:
    """A Function with `async` takes invocations although it has not started; without it, and deleted, it takes none and leaves nothing."""
    spec: dict[str, Any] = {"async": {}}
    function = make_function(**spec) | {"metadata": {"name": "later", "namespace": NAMESPACE}}
    world.kube.apply(function)
    item = world.kube.get(f"/apis/wisp.dev/v1alpha1/namespaces/{NAMESPACE}/functions/later")
    stream = f"events_{NAMESPACE}_function_later_{item['metadata']['uid']}"
    token = service_account_token(world, NAMESPACE, "app")

    def invoke() -> int:
        return post(world, token, 1, "functions/later/invocations")

    wait_until(lambda: invoke() == 202, "it takes invocations")
    assert world.records(stream) == 1
    world.kube.kubectl("patch", "fn", "later", "-n", NAMESPACE, "--type=merge", "-p", '{"spec": {"async": null}}')
    wait_until(lambda: invoke() == 404, "it takes none without async")
    wait_until(lambda: stream not in world.log.streams(NAMESPACE), "its stream is gone")
    world.kube.apply(function)
    wait_until(lambda: invoke() == 202, "it takes invocations again")
    world.kube.kubectl("delete", "fn", "later", "-n", NAMESPACE, "--wait=false")
    wait_until(lambda: invoke() == 404, "it is gone")
    wait_until(lambda: stream not in world.log.streams(NAMESPACE), "its stream is gone with it")
    key = names.invocation_route("later")
    wait_until(lambda: world.log.get(names.KV_ROUTES, f"{NAMESPACE}.{key}", dict) is None, "its route is gone")
    assert refusals(world) == []


def service_account_token(world: World, namespace: str, name: str, audience: str = names.AUDIENCE) -> str:
    """A token that the API server signs."""
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    world.kube.request("POST", path, {"metadata": {"name": name}})
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": [audience]}}
    status, answer = world.kube.request("POST", f"{path}/{name}/token", asked)
    assert status == 201, answer
    return str(answer["status"]["token"])


def post(world: World, token: str, number: int, path: str = "buses/orders/events") -> int:
    """The status that a posted event is answered with."""
    event = {"specversion": "1.0", "id": str(number), "source": "/shop", "type": "order.created"}
    request = urllib.request.Request(
        f"http://127.0.0.1:{world.ingest}/v1/namespaces/{NAMESPACE}/{path}",
        json.dumps(event).encode(),
        {"Authorization": f"Bearer {token}", "Content-Type": "application/cloudevents+json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


@pytest.mark.parametrize(
    ("case", "keys", "reasons"),
    [
        ("wrong password", {"accessKey": USER, "secretKey": "wrong-password"}, {"AuthenticationFailed"}),
        ("no such key", {"accessKey": "nobody", "secretKey": "wrong-password"}, {"AuthenticationFailed"}),
        (
            "no such server",
            {"endpoint": "http://127.0.0.1:9", "accessKey": USER, "secretKey": PASSWORD},
            {"UnknownServer"},
        ),
        ("no such bucket", {"accessKey": USER, "secretKey": PASSWORD}, {"BucketNotFound"}),
        ("empty secret", {}, {"SecretNotFound", "InvalidConnection"}),
    ],
)
def test_bucket_that_is_not_ones_own(world: World, case: str, keys: dict[str, str], reasons: set[str]) -> None:
    """A connection that may not read the bucket receives nothing of it, and the condition says why."""
    namespace, name = f"other-{case.replace(' ', '-')}", "not-there" if case == "no such bucket" else "photos"
    world.kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    world.kube.apply(subscription("theirs", bucket(name), namespace))
    world.run_reader(namespace, "s3", "minio", {"endpoint": world.minio.endpoint} | keys if keys else {})

    def shown() -> tuple[str, str]:
        return conditions_of(world.kube, "subscriptions", namespace, "theirs").get("SourceReady", ("", ""))

    wait_until(lambda: shown()[0] == "False", f"{case}: a condition")
    assert shown()[1] in reasons, case
    found = world.log.get(SOURCES, f"bucket.minio.{name}", BucketBinding)
    assert found is None or namespace not in found.namespaces
    world.kube.kubectl("delete", "sub", "theirs", "-n", namespace, "--wait=false")
    wait_until(lambda: world.gone(namespace, "theirs"), "everything is gone")


def rules(client: Minio, name: str) -> int:
    """How many notification rules a bucket has."""
    try:
        found = client.get_bucket_notification(name)
    except S3Error:
        return 0
    return len(found.queue_config_list or [])
