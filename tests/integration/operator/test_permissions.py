"""The event log's server refuses what a user's credentials do not allow, and the operator's RBAC suffices but is no more."""

import functools
import json
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import nats.errors
import pytest
from fixtures.control_plane import SYSTEM, WISP, Log, secret
from fixtures.kube import OPERATOR_USER, Kube
from fixtures.objects import make_subscription, mongodb, mysql, postgres
from fixtures.process import wait_until
from nats.aio.client import Client
from wisp_api import names
from wisp_operator.nats_auth import User, ingest_user, reader_user, router_user

pytestmark = pytest.mark.usefixtures("operator")
KEY = "reader.{namespace}.postgres.shop-db"
STREAM = "events_{namespace}_postgres_shop-db"
ROWS = "wisp.events.{namespace}.postgres.shop-db.public.orders.0"


class Act(NamedTuple):
    """Something that a client tries; `{namespace}` in the subject stands for the test's."""

    how: str
    subject: str

    def on(self, namespace: str) -> Callable[[Client], Awaitable[None]]:
        """The act itself."""
        subject = self.subject.format(namespace=namespace)

        async def use(client: Client) -> None:
            if self.how == "publish":
                await client.publish(subject, b"{}")
            elif self.how == "listen":
                await client.subscribe(subject)
            else:
                await client.request(subject, b"{}", timeout=30)

        return use


publish, request, listen = (functools.partial(Act, how) for how in ("publish", "request", "listen"))


@pytest.fixture
def reader(cluster: Kube, namespace: str) -> tuple[User, str]:
    """A reader and its credentials, as the operator put them into the tenant's namespace."""
    item = make_subscription("rows", namespace, source=postgres())
    cluster.apply(item | {"metadata": {"name": "rows", "namespace": namespace}})
    path = f"/api/v1/namespaces/{namespace}/secrets/wisp-reader-postgres-shop-db"
    wait_until(lambda: cluster.get(path) is not None, "the reader's credentials")
    return reader_user(namespace, "postgres", "shop-db", STREAM.format(namespace=namespace)), secret(
        cluster, namespace, "wisp-reader-postgres-shop-db", "creds"
    )


@pytest.mark.parametrize("source", [mysql, mongodb])
def test_reader_that_its_server_forgets_keeps_its_own_position(
    cluster: Kube, log: Log, namespace: str, source: Callable[..., dict[str, Any]]
) -> None:
    """It may write and read how far it is, and nobody else's."""
    kind = source.__name__
    item = make_subscription("rows", namespace, source=source())
    cluster.apply(item | {"metadata": {"name": "rows", "namespace": namespace}})
    path = f"/api/v1/namespaces/{namespace}/secrets/wisp-reader-{kind}-shop-db"
    wait_until(lambda: cluster.get(path) is not None, "the reader's credentials")
    user = reader_user(namespace, kind, "shop-db", f"events_{namespace}_{kind}_shop-db")
    credentials = secret(cluster, namespace, f"wisp-reader-{kind}-shop-db", "creds")
    own = f"$KV.wisp-status.position.{namespace}.{kind}.shop-db"
    for act in (request(own), request(f"$JS.API.DIRECT.GET.KV_wisp-status.{own}")):
        log.as_user(user, credentials, act.on(namespace))
    for other in (
        f"$KV.wisp-status.position.{namespace}.{kind}.other",
        f"$KV.wisp-status.position.other.{kind}.shop-db",
    ):
        for act in (publish(other), publish(f"$JS.API.DIRECT.GET.KV_wisp-status.{other}")):
            with pytest.raises(RuntimeError, match="permissions violation"):
                log.as_user(user, credentials, act.on(namespace))


@pytest.mark.parametrize(
    ("what", "act"),
    [
        ("its rows", request(ROWS)),
        ("its dead letters", request("wisp.dead.{namespace}.postgres.shop-db")),
        ("its report", request(f"$KV.wisp-status.{KEY}")),
        ("its task", request(f"$JS.API.DIRECT.GET.KV_wisp-sources.$KV.wisp-sources.{KEY}")),
        ("its stream's end", request(f"$JS.API.DIRECT.GET.{STREAM}.{ROWS}")),
    ],
)
def test_reader_may(log: Log, namespace: str, reader: tuple[User, str], what: str, act: Act) -> None:
    """A reader can do its work."""
    assert what
    log.as_user(*reader, act.on(namespace))


@pytest.mark.parametrize(
    ("what", "act"),
    [
        ("rows of another namespace", publish("wisp.events.other.postgres.shop-db.public.orders.0")),
        ("rows of another connection", publish("wisp.events.{namespace}.postgres.other.public.orders.0")),
        ("dead letters of another namespace", publish("wisp.dead.other.postgres.shop-db")),
        ("another reader's report", publish("$KV.wisp-status.reader.other.postgres.shop-db")),
        (
            "another reader's task",
            publish("$JS.API.DIRECT.GET.KV_wisp-sources.$KV.wisp-sources.reader.other.postgres.shop-db"),
        ),
        ("its own task, to change it", publish(f"$KV.wisp-sources.{KEY}")),
        ("a binding", publish("$KV.wisp-sources.bucket.minio.photos")),
        ("routes", publish("$KV.wisp-routes.{namespace}.rows")),
        ("streams", publish("$JS.API.STREAM.DELETE.events_{namespace}_postgres_shop-db")),
        ("consumers", publish("$JS.API.CONSUMER.CREATE.events_{namespace}_postgres_shop-db")),
        ("everyone's events", listen("wisp.events.>")),
        ("another's inbox", listen("_INBOX.router.>")),
    ],
)
def test_reader_may_not(log: Log, namespace: str, reader: tuple[User, str], what: str, act: Act) -> None:
    """A reader's credentials, which a tenant can read, give nothing of others."""
    assert what
    with pytest.raises(RuntimeError, match=r"(?i)permissions violation"):
        log.as_user(*reader, act.on(namespace))


@pytest.mark.parametrize(
    ("bucket", "subject"),
    [
        ("KV_wisp-routes", "$KV.wisp-routes.other.rows"),
        ("KV_wisp-sources", "$KV.wisp-sources.bucket.minio.others"),
        ("KV_wisp-sources", "$KV.wisp-sources.reader.other.postgres.shop-db"),
        ("KV_wisp-status", "$KV.wisp-status.reader.other.postgres.shop-db"),
        ("KV_wisp-status", "$KV.wisp-status.route.other.rows"),
        ("KV_wisp-cursors", "$KV.wisp-cursors.other.rows"),
        ("dead_other", "wisp.dead.other.postgres.shop-db"),
        ("dead_other", f"{names.LETTERS_API}.STREAM.DELETE.dead_other"),
        ("events_other", "wisp.events.other.postgres.shop-db.public.orders.0"),
        ("events_other", "$JS.API.STREAM.DELETE.events_other"),
    ],
)
def test_servers_answers_reach_nobody_else(
    log: Log, namespace: str, reader: tuple[User, str], bucket: str, subject: str
) -> None:
    """What the server itself sends for a reader (an acknowledgement, a message it reads) can't be led to others' subjects."""
    rows, stream = ROWS.format(namespace=namespace), STREAM.format(namespace=namespace)
    other = json.dumps({"name": "events_other", "subjects": ["wisp.events.other.>"], "allow_direct": True}).encode()
    log.as_operator(lambda client: client.request("$JS.API.STREAM.CREATE.events_other", other, timeout=60))
    letters = json.dumps({"name": "dead_other", "subjects": ["wisp.dead.other.>"], "allow_direct": True}).encode()
    create = f"{names.LETTERS_API}.STREAM.CREATE.dead_other"
    log.as_operator(lambda client: client.request(create, letters, timeout=60))

    async def attack(client: Client) -> None:
        await client.request(rows, b"forged", timeout=60)
        await client.publish(rows, b"", reply=subject)
        await client.publish(f"$JS.API.DIRECT.GET.{stream}.{rows}", b"", reply=subject)
        await client.request(rows, b"", timeout=60)  # answered after those

    async def stored(client: Client) -> bytes:
        api = names.LETTERS_API if bucket == "dead_other" else "$JS.API"
        info = json.loads((await client.request(f"{api}.STREAM.INFO.{bucket}", b"", timeout=60)).data)
        assert "error" not in info, info
        query = json.dumps({"last_by_subj": subject}).encode()
        found = await client.request(f"{api}.DIRECT.GET.{bucket}", query, timeout=60)
        return b"" if (found.headers or {}).get("Status") == "404" else found.data or b"something"

    log.as_user(*reader, attack)
    assert log.as_operator(stored) == b""


def test_credentials_last_as_long_as_a_reader(
    cluster: Kube, log: Log, namespace: str, reader: tuple[User, str]
) -> None:
    """When a namespace's last Subscription is gone, kept credentials let nobody in; with a new one, the reader is back."""
    cluster.request("DELETE", f"{WISP}/namespaces/{namespace}/subscriptions/rows")

    def refused() -> bool:
        try:
            log.as_user(*reader, lambda client: client.flush())
        except (nats.errors.Error, RuntimeError) as error:
            return "authorization" in str(error).lower()
        return False

    wait_until(refused, "the credentials are refused", 60)
    item = make_subscription("again", namespace, source=postgres())
    cluster.apply(item | {"metadata": {"name": "again", "namespace": namespace}})
    wait_until(lambda: not refused(), "the credentials are taken again", 60)
    log.as_user(*reader, request(f"$KV.wisp-status.{KEY}").on(namespace))


@pytest.mark.parametrize(
    ("user", "act"),
    [
        (router_user(), publish("wisp.events.media.s3.minio_photos.ObjectCreated.Put.0")),
        (router_user(), publish("$KV.wisp-routes.media.rows")),
        (router_user(), publish("$JS.API.STREAM.PURGE.wisp-dead-letters")),
        (router_user(), publish(f"{names.LETTERS_API}.STREAM.DELETE.dead_media")),
        (router_user(), publish(f"{names.LETTERS_API}.STREAM.MSG.DELETE.dead_media")),
        (router_user(), publish(f"{names.LETTERS_API}.DIRECT.GET.dead_media")),
        (router_user(), publish("wisp.dead.media.postgres.shop-db")),
        (router_user(), publish("$JS.API.STREAM.PURGE.KV_wisp-cursors")),
        (ingest_user(), publish("wisp.events.media.postgres.shop-db.public.orders.0")),
        (ingest_user(), publish("$KV.wisp-sources.bucket.minio.photos")),
        (ingest_user(), publish("$JS.API.DIRECT.GET.KV_wisp-sources.$KV.wisp-sources.reader.media.postgres.shop-db")),
        (ingest_user(), publish(f"$KV.wisp-sources.{names.TOKEN_KEYS}")),
        (ingest_user(), publish("$KV.wisp-sources.inbox.bus.media.orders")),
        (ingest_user(), listen("wisp.events.>")),
        (ingest_user(), publish("$JS.API.STREAM.PURGE.wisp-dead-letters")),
        (ingest_user(), publish(f"{names.LETTERS_API}.STREAM.DELETE.dead_media")),
        (ingest_user(), publish(f"{names.LETTERS_API}.STREAM.UPDATE.dead_media")),
        (ingest_user(), publish("wisp.dead.media.subscription.rows")),
        (ingest_user(), publish("$JS.API.STREAM.MSG.DELETE.events_media_s3_minio_photos")),
        (ingest_user(), publish("$JS.API.DIRECT.GET.KV_wisp-routes")),
        (ingest_user(), publish(f"$JS.API.STREAM.PURGE.{names.LOG_STREAM}")),
        (router_user(), publish("wisp.logs.media.hello.u1")),
        (router_user(), publish(f"$JS.API.STREAM.PURGE.{names.LOG_STREAM}")),
    ],
)
def test_components_may_not(log: Log, cluster: Kube, user: User, act: Act) -> None:
    """Router and ingest have no rights beyond their part."""
    credentials = secret(cluster, SYSTEM, f"wisp-nats-{user.name}", "creds")
    with pytest.raises(RuntimeError, match=r"(?i)permissions violation"):
        log.as_user(user, credentials, act.on("media"))


@pytest.mark.parametrize(
    ("user", "act"),
    [
        (router_user(), request("$JS.API.STREAM.PURGE.events_media_s3_minio_photos")),
        (router_user(), request("$JS.API.CONSUMER.CREATE.events_media_s3_minio_photos")),
        (router_user(), request("$JS.API.DIRECT.GET.KV_wisp-routes")),
        (router_user(), request("wisp.dead.wisp-system.subscription.rows")),
        (router_user(), request("wisp.dead.wisp-system.function.hello")),
        (router_user(), request("$KV.wisp-members.router-0")),
        (ingest_user(), request("$JS.API.DIRECT.GET.KV_wisp-sources.$KV.wisp-sources.bucket.minio.photos")),
        (ingest_user(), request("wisp.dead.wisp-system.s3.minio")),
        (ingest_user(), request("wisp.logs.media.hello.u1")),
        (ingest_user(), request(f"$JS.API.DIRECT.GET.{names.LOG_STREAM}")),
        (ingest_user(), publish("wisp.events.media.bus.orders.created.0")),
        (ingest_user(), publish("wisp.events.media.function.hello_uid.invocation")),
        (ingest_user(), request("$JS.API.DIRECT.GET.KV_wisp-sources.$KV.wisp-sources.inbox.bus.media.orders")),
        (ingest_user(), publish("wisp.events.media.postgres.shop-db.redrive.u1.again.0")),
        (ingest_user(), request(f"{names.LETTERS_API}.DIRECT.GET.dead_wisp-system")),
        (ingest_user(), request(f"{names.LETTERS_API}.STREAM.INFO.dead_media")),
        (ingest_user(), request(f"{names.LETTERS_API}.STREAM.MSG.DELETE.dead_media")),
        (ingest_user(), publish("$JS.API.DIRECT.GET.wisp-dead-letters")),
        (ingest_user(), request("$JS.API.STREAM.INFO.wisp-dead-letters")),
        (ingest_user(), request("$JS.API.STREAM.MSG.DELETE.wisp-dead-letters")),
        (ingest_user(), request("$JS.API.DIRECT.GET.KV_wisp-routes.$KV.wisp-routes.media.rows")),
        (ingest_user(), request(f"$JS.API.DIRECT.GET.KV_wisp-sources.$KV.wisp-sources.{names.TOKEN_KEYS}")),
    ],
)
def test_components_may(log: Log, cluster: Kube, user: User, act: Act) -> None:
    """Router and ingest can do their work."""
    log.as_user(user, secret(cluster, SYSTEM, f"wisp-nats-{user.name}", "creds"), act.on("media"))


@pytest.mark.parametrize(
    ("verb", "resource", "namespace", "allowed"),
    [
        ("get", "secrets", "default", "no"),
        ("list", "secrets", "default", "no"),
        ("patch", "secrets", "default", "no"),
        ("update", "secrets", "default", "yes"),
        ("get", "secrets", SYSTEM, "yes"),
        ("create", "pods", "default", "no"),
        ("patch", "jobs.batch", "default", "no"),
        ("get", "leases.coordination.k8s.io", "default", "no"),
        ("update", "leases.coordination.k8s.io", SYSTEM, "yes"),
        ("delete", "functions.wisp.dev", "default", "no"),
        ("delete", "namespaces", "default", "no"),
    ],
)
def test_rbac(cluster: Kube, verb: str, resource: str, namespace: str, allowed: str) -> None:
    """What the chart grants the operator; that it suffices, every other test here shows."""
    answer = cluster.kubectl("auth", "can-i", verb, resource, "-n", namespace, f"--as={OPERATOR_USER}")
    assert answer.stdout.strip() == allowed
