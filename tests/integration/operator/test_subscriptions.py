"""A Subscription's life against a real Kubernetes API and event log; readers and router are played by the test."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from fixtures.control_plane import (
    CURSORS,
    ROUTES,
    SOURCES,
    STATUS,
    Knative,
    Log,
    audit_position,
    reader_key,
    wait_condition,
    writes,
)
from fixtures.kube import Kube
from fixtures.nats import NatsServer
from fixtures.objects import bucket, make_function, make_subscription, postgres
from fixtures.process import wait_until
from nats.aio.client import Client
from wisp_api.route import Replay, ReplayReport, Route, RouteStatus
from wisp_api.source import BucketBinding, ItemStatus, ReaderConfig

pytestmark = pytest.mark.usefixtures("operator")
READY, OK = "Ready", ("True", "AsWanted")


def subscription(
    namespace: str, name: str = "rows", source: dict[str, Any] | None = None, **spec: Any
) -> dict[str, Any]:
    """A Subscription as a user writes it."""
    item = make_subscription(name, namespace, source=source or postgres(), **spec)
    return item | {"metadata": {"name": name, "namespace": namespace}}


def function(namespace: str, name: str = "hello") -> dict[str, Any]:
    """The Function as a user writes it."""
    return make_function(namespace=namespace) | {"metadata": {"name": name, "namespace": namespace}}


def live(cluster: Kube, namespace: str, name: str = "rows") -> Any:
    """The Subscription."""
    return cluster.get(f"/apis/wisp.dev/v1alpha1/namespaces/{namespace}/subscriptions/{name}")


def task(log: Log, namespace: str, kind: str = "postgres", connection: str = "shop-db") -> ReaderConfig | None:
    """A reader's task."""
    return log.get(SOURCES, reader_key(namespace, kind, connection), ReaderConfig)


def wait_task(log: Log, namespace: str, kind: str = "postgres", connection: str = "shop-db") -> ReaderConfig:
    """A reader's task, once it is there."""
    wait_until(lambda: task(log, namespace, kind, connection) is not None, "the reader's task")
    found = task(log, namespace, kind, connection)
    assert found
    return found


def report(log: Log, config: ReaderConfig, **fields: Any) -> None:
    """Report on a task as its reader would."""
    said = {"version": config.version, "ready": True, "time": datetime.now(UTC).isoformat()} | fields
    log.put(STATUS, reader_key(config.namespace, config.kind, config.connection), said)


def report_route(log: Log, cluster: Kube, namespace: str, name: str = "rows", **fields: Any) -> None:
    """Report on a route as the router would."""
    wait_until(lambda: log.get(ROUTES, f"{namespace}.{name}", Route) is not None, "the route")
    metadata = live(cluster, namespace, name)["metadata"]
    said = RouteStatus(uid=metadata["uid"], generation=metadata["generation"], state="Active")
    for key, value in fields.items():
        setattr(said, key, value)
    log.put(STATUS, f"route.{namespace}.{name}", said)


def all_ready(cluster: Kube, log: Log, knative: Knative, namespace: str) -> ReaderConfig:
    """A Function and a Subscription to a table, with everything around them well."""
    cluster.apply(function(namespace), subscription(namespace))
    knative.roll_out("hello")
    config = wait_task(log, namespace)
    report(log, config, items={"public.orders": ItemStatus(ready=True)})
    report_route(log, cluster, namespace)
    wait_condition(cluster, "subscriptions", namespace, "rows", READY, OK)
    return config


def deployments(cluster: Kube, namespace: str) -> list[str]:
    """Names of the readers."""
    return [
        item["metadata"]["name"] for item in cluster.get(f"/apis/apps/v1/namespaces/{namespace}/deployments")["items"]
    ]


def nothing_left(cluster: Kube, log: Log, namespace: str) -> bool:
    """Whether nothing of ours is in the namespace or in the log under its name."""
    secrets = [item["metadata"]["name"] for item in cluster.get(f"/api/v1/namespaces/{namespace}/secrets")["items"]]
    keys = [
        log.get(bucket, key, dict)
        for bucket, key in ((ROUTES, f"{namespace}.rows"), (STATUS, f"route.{namespace}.rows"))
    ]
    keys += [log.get(bucket, reader_key(namespace, "postgres", "shop-db"), dict) for bucket in (SOURCES, STATUS)]
    return not (secrets or deployments(cluster, namespace) or log.streams(namespace) or any(keys))


def test_rows_flow(cluster: Kube, log: Log, namespace: str, knative: Knative) -> None:
    """Stream, reader, credentials and route are made, and the reports make it Ready, with figures."""
    config = all_ready(cluster, log, knative, namespace)
    assert config.postgres
    assert log.streams(namespace) == {f"events_{namespace}_postgres_shop-db"} == {config.postgres.stream}
    assert deployments(cluster, namespace) == ["wisp-reader-postgres-shop-db"]
    route = log.get(ROUTES, f"{namespace}.rows", Route)
    assert route
    assert route.targets[0].url.startswith("http://hello-")
    report_route(
        log, cluster, namespace, state="Backlogged", message="the function is too slow", delivered=7, dead_lettered=2
    )
    message = wait_condition(cluster, "subscriptions", namespace, "rows", READY, ("False", "Backlogged"))
    assert message == "the function is too slow"
    status = live(cluster, namespace)["status"]
    assert (status["delivered"], status["deadLettered"], status["source"]) == (7, 2, "postgres/shop-db")


def test_replay_order_reaches_the_route_and_its_answer_the_status(
    cluster: Kube, log: Log, namespace: str, knative: Knative
) -> None:
    """The annotation is copied into the route without a change of the spec; what the router says of it stands in the status at once."""
    all_ready(cluster, log, knative, namespace)
    order = "2026-01-31T12:00:00Z again"
    cluster.kubectl("annotate", "sub", "rows", "-n", namespace, f"wisp.dev/replay={order}")

    def ordered() -> bool:
        route = log.get(ROUTES, f"{namespace}.rows", Route)
        return route is not None and route.replay == Replay(since="2026-01-31T12:00:00Z", request="again")

    wait_until(ordered, "the order in the route")
    report_route(log, cluster, namespace, replay=ReplayReport(request="again", moved=True, message="on its way"))
    said = {"request": "again", "moved": True, "message": "on its way"}
    wait_until(lambda: live(cluster, namespace)["status"].get("replay") == said, "the answer in the status")


def test_deleted_when_the_reader_has_drained(cluster: Kube, log: Log, namespace: str, knative: Knative) -> None:
    """The Subscription goes when its reader reports that slot and publication are gone; then nothing is left."""
    all_ready(cluster, log, knative, namespace)
    uid = live(cluster, namespace)["metadata"]["uid"]
    log.put(CURSORS, f"{namespace}.{uid}", {"floor": 1})
    cluster.kubectl("delete", "sub", "rows", "-n", namespace, "--wait=false")
    wait_until(lambda: bool((found := task(log, namespace)) and found.draining), "the reader is told to drain")
    assert live(cluster, namespace), "held by its finalizer"
    assert log.get(ROUTES, f"{namespace}.rows", Route) is None
    report(log, wait_task(log, namespace), drained=True)
    wait_until(lambda: live(cluster, namespace) is None, "the Subscription is gone")
    wait_until(lambda: nothing_left(cluster, log, namespace), "nothing is left")
    assert log.get(CURSORS, f"{namespace}.{uid}", dict) is None
    events = cluster.get(f"/api/v1/namespaces/{namespace}/events")["items"]
    assert "CleanupIncomplete" not in {event["reason"] for event in events}


def test_late_reports_of_the_router_go_too(cluster: Kube, log: Log, namespace: str, knative: Knative) -> None:
    """A status that the router writes after the end is taken away."""
    all_ready(cluster, log, knative, namespace)
    cluster.kubectl("delete", "sub", "rows", "-n", namespace, "--wait=false")
    wait_until(lambda: live(cluster, namespace) is None, "the Subscription is gone")
    log.put(STATUS, f"route.{namespace}.rows", RouteStatus(uid="u", generation=1, state="Active"))
    wait_until(lambda: nothing_left(cluster, log, namespace), "nothing is left")


def test_reader_that_never_drains_is_given_up_with_an_event(
    cluster: Kube, log: Log, namespace: str, knative: Knative
) -> None:
    """After its time the Subscription goes all the same, and an Event names what is left behind."""
    all_ready(cluster, log, knative, namespace)
    cluster.kubectl("delete", "sub", "rows", "-n", namespace, "--wait=false")
    wait_until(lambda: live(cluster, namespace) is None, "the Subscription is gone")
    wait_until(lambda: nothing_left(cluster, log, namespace), "nothing is left")
    events = {
        item["reason"]: item["message"] for item in cluster.get(f"/api/v1/namespaces/{namespace}/events")["items"]
    }
    assert "replication slot and publication" in events["CleanupIncomplete"]
    assert "shop-db" in events["CleanupIncomplete"]


def test_namespace_deletion_ends(cluster: Kube, log: Log, namespace: str, knative: Knative) -> None:
    """In a namespace that takes nothing new and has lost its Secrets and readers the Subscription still goes."""
    all_ready(cluster, log, knative, namespace)
    cluster.request("DELETE", f"/api/v1/namespaces/{namespace}")
    wait_until(
        lambda: cluster.get(f"/api/v1/namespaces/{namespace}")["status"]["phase"] == "Terminating",
        "the namespace terminates",
    )
    cluster.request("DELETE", f"/api/v1/namespaces/{namespace}/secrets/wisp-reader-postgres-shop-db")
    cluster.request("DELETE", f"/apis/apps/v1/namespaces/{namespace}/deployments/wisp-reader-postgres-shop-db")
    cluster.kubectl("delete", "sub", "rows", "-n", namespace, "--wait=false")
    wait_until(lambda: live(cluster, namespace) is None, "the Subscription is gone", 60)
    wait_until(lambda: nothing_left(cluster, log, namespace), "nothing is left")


def test_shared_reader_outlives_one_subscription(cluster: Kube, log: Log, namespace: str) -> None:
    """Two Subscriptions of one connection: deleting one changes the task, and the one goes without the reader."""
    cluster.apply(
        subscription(namespace, "a", postgres("public.a")), subscription(namespace, "b", postgres("public.b"))
    )

    def tables() -> list[str]:
        found = task(log, namespace)
        return [table.name for table in found.postgres.tables] if found and found.postgres else []

    wait_until(lambda: tables() == ["public.a", "public.b"], "both tables are in the task")
    cluster.kubectl("delete", "sub", "a", "-n", namespace, "--wait=false")
    wait_until(lambda: live(cluster, namespace, "a") is None, "the first is gone")
    wait_until(lambda: tables() == ["public.b"], "its table is not read any more")
    assert deployments(cluster, namespace) == ["wisp-reader-postgres-shop-db"]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (
            {"ready": False, "reason": "AuthenticationFailed", "message": "wrong password in Secret shop-db"},
            "AuthenticationFailed",
        ),
        ({"ready": False, "reason": "ServerUnreachable", "message": "db:5432 does not answer"}, "ServerUnreachable"),
        (
            {
                "items": {
                    "public.orders": {"ready": False, "reason": "TableNotFound", "message": "no table public.orders"}
                }
            },
            "TableNotFound",
        ),
        (
            {"items": {"public.orders": {"ready": False, "reason": "NoReplicaIdentity", "message": "ALTER TABLE ..."}}},
            "NoReplicaIdentity",
        ),
    ],
)
def test_what_the_reader_finds_is_shown_and_heals(
    cluster: Kube, log: Log, namespace: str, knative: Knative, fields: dict[str, Any], reason: str
) -> None:
    """A reader's complaint becomes the condition; when it reports that all is well, so does the Subscription."""
    config = all_ready(cluster, log, knative, namespace)
    report(log, config, **fields)
    wait_condition(cluster, "subscriptions", namespace, "rows", "SourceReady", ("False", reason))
    report(log, config, items={"public.orders": ItemStatus(ready=True)})
    wait_condition(cluster, "subscriptions", namespace, "rows", READY, OK)


def test_a_report_of_megabytes_holds_nobody_up(cluster: Kube, log: Log, namespace: str, knative: Knative) -> None:
    """What a database sends as an error is told as far as the API takes it, and other Subscriptions of the namespace still go."""
    config = all_ready(cluster, log, knative, namespace)
    other = {"bus": {"name": "default"}}
    cluster.apply(subscription(namespace, "other", source=other))
    wait_until(lambda: bool(live(cluster, namespace, "other")["metadata"].get("finalizers")), "the other is known")
    report(log, config, ready=False, reason="ServerUnreachable", message="x" * 2_000_000 + "; trying again")
    message = wait_condition(cluster, "subscriptions", namespace, "rows", "SourceReady", ("False", "ServerUnreachable"))
    assert message.endswith("; trying again")
    cluster.kubectl("delete", "sub", "other", "-n", namespace, "--wait=false")
    wait_until(lambda: live(cluster, namespace, "other") is None, "the other is gone")


def test_silent_reader_is_away(cluster: Kube, log: Log, namespace: str, knative: Knative) -> None:
    """An old report is not believed."""
    config = all_ready(cluster, log, knative, namespace)
    report(log, config, time="2026-01-01T00:00:00Z", message="changed, so that it is looked at now")
    message = wait_condition(cluster, "subscriptions", namespace, "rows", "SourceReady", ("Unknown", "ReaderAway"))
    assert "kubectl describe deployment wisp-reader-postgres-shop-db" in message


def test_missing_function_heals_when_it_appears(cluster: Kube, log: Log, namespace: str, knative: Knative) -> None:
    """The route waits without a target; the Function's revision becomes its target as soon as there is one, and a new one follows."""
    cluster.apply(subscription(namespace))
    message = wait_condition(
        cluster, "subscriptions", namespace, "rows", "FunctionReady", ("False", "FunctionNotFound")
    )
    assert "spec.function.name" in message

    def targets() -> list[str]:
        route = log.get(ROUTES, f"{namespace}.rows", Route)
        return [target.url for target in route.targets] if route else []

    assert targets() == []
    cluster.apply(function(namespace))
    first = knative.roll_out("hello")
    wait_until(lambda: targets() == [f"http://{first}.{namespace}.svc.cluster.local/"], "the target")
    cluster.apply(function(namespace) | {"spec": function(namespace)["spec"] | {"memory": "256Mi"}})
    wait_until(lambda: knative.wait_service("hello")["spec"]["template"]["metadata"]["name"] != first, "a new revision")
    second = knative.roll_out("hello")
    wait_until(lambda: targets() == [f"http://{second}.{namespace}.svc.cluster.local/"], "the new target")


def test_wrong_filter_is_named_and_heals(cluster: Kube, log: Log, namespace: str) -> None:
    """A mistake in the pattern is a condition with its path; nothing is delivered by a wrong filter; corrected, the route appears."""
    wrong = {"data": {"new": {"total": [{"numeric": ["?", 100]}]}}}
    cluster.apply(subscription(namespace, filter=wrong))
    message = wait_condition(cluster, "subscriptions", namespace, "rows", READY, ("False", "InvalidFilter"))
    assert message.startswith("spec.filter: data.new.total[0]")
    assert log.get(ROUTES, f"{namespace}.rows", Route) is None
    right = {"data": {"new": {"total": [{"numeric": [">", 100]}]}}}
    cluster.apply(subscription(namespace, filter=right))
    wait_until(lambda: log.get(ROUTES, f"{namespace}.rows", Route) is not None, "the route")
    route = log.get(ROUTES, f"{namespace}.rows", Route)
    assert route
    assert route.filters == [right]


def test_bucket_is_bound_only_after_proof(cluster: Kube, log: Log, namespace: str) -> None:
    """A proof that does not lead to the configured server gives nothing; no binding without one."""
    cluster.apply(subscription(namespace, "photos", bucket()))
    config = wait_task(log, namespace, "s3", "minio")
    item = ItemStatus(ready=True, proof="http://127.0.0.1:9/photos?X-Amz-Signature=x")
    report(log, config, server="minio", items={"photos": item})
    wait_condition(cluster, "subscriptions", namespace, "photos", "SourceReady", ("False", "PermissionDenied"))
    assert log.get(SOURCES, "bucket.minio.photos", BucketBinding) is None
    assert log.streams(namespace) == {f"events_{namespace}_s3_minio_photos"}


def test_refused_stream_is_named_and_nobody_else_waits(cluster: Kube, log: Log, namespace: str) -> None:
    """What the log refuses, here a stream in the way, concerns its own source only; with the way free it heals."""

    async def block(client: Client) -> None:
        config = {"name": f"blocker-{namespace}", "subjects": [f"wisp.events.{namespace}.postgres.blocked.>"]}
        await client.request(f"$JS.API.STREAM.CREATE.{config['name']}", json.dumps(config).encode(), timeout=60)

    async def unblock(client: Client) -> None:
        await client.request(f"$JS.API.STREAM.DELETE.blocker-{namespace}", b"", timeout=60)

    log.as_operator(block)
    cluster.apply(subscription(namespace, source=postgres(connection="blocked")))
    message = wait_condition(cluster, "subscriptions", namespace, "rows", "SourceReady", ("False", "LogRefused"))
    assert "subjects overlap" in message
    assert log.get(ROUTES, f"{namespace}.rows", Route) is None
    cluster.apply(subscription(namespace, "other"))
    wait_until(lambda: log.get(ROUTES, f"{namespace}.other", Route) is not None, "another source's route")
    log.as_operator(unblock)
    wait_until(lambda: log.get(ROUTES, f"{namespace}.rows", Route) is not None, "its route")
    wait_condition(cluster, "subscriptions", namespace, "rows", "SourceReady", ("Unknown", "ReaderStarting"))


def test_resync_writes_nothing(cluster: Kube, log: Log, namespace: str, knative: Knative) -> None:
    """Reports that say nothing new, and events of objects that are as wanted, cause no write."""
    config = all_ready(cluster, log, knative, namespace)
    since = audit_position(cluster)
    for _ in range(3):
        report(log, config, items={"public.orders": ItemStatus(ready=True)}, message="")
        report_route(log, cluster, namespace)
    cluster.kubectl("annotate", "sub", "rows", "-n", namespace, "touched=yes")
    cluster.kubectl("annotate", "fn", "hello", "-n", namespace, "touched=yes")
    cluster.kubectl("annotate", "deployment", "wisp-reader-postgres-shop-db", "-n", namespace, "touched=yes")
    cluster.kubectl("annotate", "ksvc", "hello", "-n", namespace, "touched=yes")
    # Something that is written ends the wait: by then all of the above has been looked at.
    cluster.apply(subscription(namespace, "last"))
    wait_until(
        lambda: any("subscriptions/last status" in write for write in writes(cluster, since, namespace)),
        "a later change is done",
    )
    mine = [
        write
        for write in writes(cluster, since, namespace)
        if "rows" in write or "hello" in write or "wisp-reader" in write
    ]
    assert mine == []


def test_drifted_reader_is_repaired(cluster: Kube, log: Log, namespace: str, knative: Knative) -> None:
    """A reader that someone scales to zero or deletes comes back."""
    all_ready(cluster, log, knative, namespace)
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments/wisp-reader-postgres-shop-db"
    cluster.request("PATCH", path, {"spec": {"replicas": 0}}, "application/merge-patch+json")
    wait_until(lambda: cluster.get(path)["spec"]["replicas"] == 1, "scaled back")
    cluster.request("DELETE", path)
    wait_until(lambda: cluster.get(path) is not None, "made again")


def test_log_away(cluster: Kube, log: Log, namespace: str, knative: Knative, nats: NatsServer) -> None:
    """While NATS is away Functions go on and Subscriptions say why they wait; back again, everything is Ready by itself."""
    all_ready(cluster, log, knative, namespace)
    nats.kill()
    wait_condition(cluster, "subscriptions", namespace, "rows", READY, ("Unknown", "LogUnavailable"))
    cluster.apply(function(namespace) | {"metadata": {"name": "other", "namespace": namespace}})
    knative.roll_out("other")
    wait_condition(cluster, "functions", namespace, "other", READY, OK)
    nats.start()
    wait_condition(cluster, "subscriptions", namespace, "rows", READY, OK)
