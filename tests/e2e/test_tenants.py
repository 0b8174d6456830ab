"""The walls between namespaces: a tenant's own function reaches all of its namespace's, and with all that it holds nothing of its neighbour's."""

import asyncio
import io
import json
import zipfile
from collections.abc import Iterator
from typing import Any

import nats
import pytest
from fixtures.attempts import ATTEMPTS, CODE, MADE, RECORDS, Attempt, about, service, with_records
from fixtures.cli import Wisp
from fixtures.collector import Collector, collector
from fixtures.functions import function
from fixtures.platform import bucket_connection, cluster_address, expose, host_address, own_namespace, subscribe
from fixtures.process import wait_until
from nats.aio.client import RawCredentials
from wisp_cluster.demo import read_secret
from wisp_cluster.install import NAMESPACE as SYSTEM
from wisp_cluster.kubectl import Kubectl, condition
from wisp_cluster.progress import ClusterError
from wisp_operator.nats_auth import reader_user


@pytest.fixture(scope="module")
def tenants(kubectl: Kubectl) -> Iterator[tuple[Kubectl, Kubectl]]:
    """Two namespaces with the same in them: a Function from a zip, one that asks for a token, a connection, a bus."""
    with own_namespace(kubectl) as one, own_namespace(kubectl) as other:
        for own in (one, other):
            furnish(own)
        for own in (one, other):
            own.wait_ready("functions", "app")
            own.wait_ready("functions", "guarded")
        yield one, other


def furnish(own: Kubectl) -> None:
    """What a namespace has; its function may there what somebody with the role `edit` may."""
    own("create", "serviceaccount", "app")
    own("create", "rolebinding", "app", "--clusterrole=edit", f"--serviceaccount={own.namespace}:app")
    minio = bucket_connection(own, "my-s3", [own.namespace])
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("app.py", CODE)
    minio.put_object(own.namespace, "code.zip", io.BytesIO(packed.getvalue()), len(packed.getvalue()))
    code = {"zip": {"bucket": own.namespace, "key": "code.zip", "connection": {"name": "my-s3"}}}
    own.apply(function("app", code, serviceAccountName="app", scale={"min": 1}, timeoutSeconds=120))
    kept: dict[str, Any] = {"visibility": "cluster", "auth": {"type": "token"}, "async": {}, "scale": {"min": 1}}
    code = {"files": {"app.py": "def handler(event, context):\n    return 'mine'\n"}}
    own.apply(function("guarded", code, **kept))


@pytest.fixture(scope="module")
def told(kubectl: Kubectl, tenants: tuple[Kubectl, Kubectl]) -> Iterator[Collector]:
    """What stands on the first tenant's bus `told`: it leads to a Service of its namespace."""
    own = tenants[0]
    with collector(host_address(kubectl)) as collected:
        expose(own, "collector", collected.url)
        sink = {"ref": {"apiVersion": "v1", "kind": "Service", "name": "collector"}}
        subscribe(own, "told", None, {"bus": {"name": "told"}}, sink=sink)
        subscribe(tenants[1], "told", "app", {"bus": {"name": "told"}})
        yield collected


@pytest.fixture(scope="module")
def answers(tenants: tuple[Kubectl, Kubectl], told: Collector) -> dict[tuple[str, str], tuple[int, str]]:
    """What the first tenant's function is answered, in its own namespace and in the other's, all in one invocation."""
    assert told is not None
    one, other = tenants
    wisp = Wisp(one.kubeconfig, one.namespace)
    asked = [(attempt, which, own) for attempt in ATTEMPTS for which, own in (("own", one), ("other", other))]
    places = {own.namespace: about(own) for own in tenants}
    wanted = []
    for attempt, _, own in asked:
        url = attempt.url.format(**places[own.namespace])
        token = MADE[attempt.token](one, own) if attempt.token in MADE else attempt.token
        wanted.append([attempt.method, url, token, attempt.body, attempt.form])
    called = wisp("invoke", "app", "-", stdin=json.dumps(wanted))
    assert called.code == 0, called.err
    found = json.loads(called.out)
    return {(attempt.what, which): tuple(got) for (attempt, which, _), got in zip(asked, found, strict=True)}


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda attempt: attempt.what)
def test_a_tenant_reaches_its_own_alone(answers: dict[tuple[str, str], tuple[int, str]], attempt: Attempt) -> None:
    """Each door that is open in the tenant's namespace is shut in the other's."""
    assert answers[attempt.what, "own"][0] == attempt.own, answers[attempt.what, "own"]
    assert answers[attempt.what, "other"][0] == attempt.other, answers[attempt.what, "other"]


def test_objects_come_as_aws_records_and_go_on_by_the_functions_own_token(
    tenants: tuple[Kubectl, Kubectl], told: Collector
) -> None:
    """`start: earliest` brings the objects that were there, then a new one, as S3's records; the function posts them to a bus as its ServiceAccount."""
    own = tenants[0]
    minio = bucket_connection(own, "my-s3", [])
    for number in range(3):
        minio.put_object(own.namespace, f"in/{number}.txt", io.BytesIO(b"x"), 1)
    source = {"name": own.namespace, "events": ["ObjectCreated:*"], "prefix": "in/", "connection": {"name": "my-s3"}}
    subscribe(own, "objects", "app", {"bucket": source}, format="aws", start="earliest")

    def keys() -> dict[str, str]:
        return {one["key"]: one["name"] for one in told.seen() if one.get("bucket") == own.namespace}

    listed = {f"in/{number}.txt" for number in range(3)}
    wait_until(lambda: listed <= keys().keys(), "the objects that were there arrive", 120)
    minio.put_object(own.namespace, "in/new.txt", io.BytesIO(b"x"), 1)
    wait_until(lambda: "in/new.txt" in keys(), "the new object arrives", 120)
    assert keys()["in/new.txt"] == "ObjectCreated:Put"


def test_records_go_to_its_own_services_alone(tenants: tuple[Kubectl, Kubectl], told: Collector) -> None:
    """A Service of the tenant's takes what it gave up; one that is another name for its neighbour's doesn't, nor an address that nobody admitted."""
    one, other = tenants
    expose(other, "collector", told.url)
    alias = {"type": "ExternalName", "externalName": f"collector.{other.namespace}.svc.cluster.local"}
    one.apply(json.dumps({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "alias"}, "spec": alias}))
    one.apply(RECORDS)
    one.apply(with_records("alias", service("alias")))
    wait_until(lambda: destination(one, "records") == ("True", "AsWanted"), "its own Service takes records")
    wait_until(lambda: destination(one, "alias") == ("False", "SinkNotAllowed"), "its neighbour's is refused")
    with pytest.raises(ClusterError, match="is not among the hosts that an administrator admits"):
        one.apply(with_records("address", {"uri": f"http://collector.{other.namespace}.svc.cluster.local/"}))


def destination(own: Kubectl, name: str) -> tuple[str, str]:
    """Whether a Subscription's records are taken, and why not."""
    found = condition(own.get("subscriptions", name) or {}, "DestinationReady")
    return found.get("status", ""), found.get("reason", "")


def test_a_readers_credentials_hear_nothing_of_others(tenants: tuple[Kubectl, Kubectl], told: Collector) -> None:
    """With what a tenant finds in the Secret of its bucket's reader, the log's server refuses to tell anything of the other namespace."""
    assert told is not None
    one, other = tenants
    source = {"name": one.namespace, "events": ["ObjectRemoved:*"], "connection": {"name": "my-s3"}}
    subscribe(one, "removed", "app", {"bucket": source})
    credentials = read_secret(one, "wisp-reader-s3-my-s3")["creds"]
    inbox = reader_user(one.namespace, "s3", "my-s3", None).inbox
    address = f"nats://{cluster_address(one.within(SYSTEM), 'wisp-nats')}:4222"
    for subject in (
        f"wisp.events.{other.namespace}.>",
        f"wisp.logs.{other.namespace}.>",
        f"$KV.*.*.{other.namespace}.>",
    ):
        assert "permissions violation" in asyncio.run(listened(address, credentials, inbox, subject)).lower(), subject


async def listened(address: str, credentials: str, inbox: str, subject: str) -> str:
    """What the server says to a subscription."""
    said: list[str] = []

    async def note(error: Exception) -> None:
        said.append(str(error))

    creds = RawCredentials(credentials)
    client = await nats.connect(
        address, user_credentials=creds, inbox_prefix=inbox, error_cb=note, allow_reconnect=False
    )
    try:
        await client.subscribe(subject)
        async with asyncio.timeout(60):
            while not said:
                await client.flush()
    finally:
        await client.close()
    return said[0]
