"""Subscriptions whose events go to a sink: what the route says, and what the condition says where there is none."""

from typing import Any

import pytest
from fixtures.control_plane import ROUTES, SERVING, Log, wait_condition
from fixtures.kube import Kube
from fixtures.process import wait_until
from wisp_api.route import Route, Target

pytestmark = pytest.mark.usefixtures("operator")


def subscription(namespace: str, sink: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A Subscription to a bus."""
    spec = {"source": {"bus": {"name": "orders"}}, "sink": sink, **more}
    metadata = {"name": "sub", "namespace": namespace}
    return {"apiVersion": "wisp.dev/v1alpha1", "kind": "Subscription", "metadata": metadata, "spec": spec}


def subscribe(cluster: Kube, namespace: str, sink: dict[str, Any]) -> None:
    """Apply one."""
    cluster.apply(subscription(namespace, sink))


def address(cluster: Kube, path: str, url: str) -> None:
    """Write an Addressable's status as its controller does."""
    body = {"status": {"address": {"url": url}}}
    status, answer = cluster.request("PATCH", f"{path}/status", body, "application/merge-patch+json")
    assert status == 200, answer


def ref(kind: str, name: str, api_version: str) -> dict[str, Any]:
    """A reference."""
    return {"ref": {"apiVersion": api_version, "kind": kind, "name": name}}


def wait_targets(log: Log, namespace: str, *wanted: Target) -> None:
    """Wait until the route has these targets."""

    def reached() -> bool:
        route = log.get(ROUTES, f"{namespace}.sub", Route)
        return route is not None and route.targets == list(wanted)

    wait_until(reached, f"a route to {wanted}", 90)


def trouble(cluster: Kube, namespace: str, reason: str) -> str:
    """The message with which the sink is refused."""
    return wait_condition(cluster, "subscriptions", namespace, "sub", "FunctionReady", ("False", reason))


def test_an_addressable_is_found_by_what_it_says_of_itself(cluster: Kube, log: Log, namespace: str) -> None:
    """It is waited for, then its address; an address outside of the cluster that is not admitted is no target."""
    subscribe(cluster, namespace, ref("Service", "shop", "serving.knative.dev/v1"))
    assert "there is none" in trouble(cluster, namespace, "SinkNotFound")
    spec = {"template": {"spec": {"containers": [{"image": "shop"}]}}}
    path = f"{SERVING}/namespaces/{namespace}/services"
    body = {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {"name": "shop"}, "spec": spec}
    cluster.request("POST", path, body)
    assert "status.address.url" in trouble(cluster, namespace, "SinkNotAddressable")
    for url in ("http://169.254.169.254/", "http://evil.test/", "file:///x.svc"):
        address(cluster, f"{path}/shop", url)
        assert "no Service of this cluster" in trouble(cluster, namespace, "SinkNotAllowed")
        wait_targets(log, namespace)
    url = f"http://shop.{namespace}.svc.cluster.local"
    address(cluster, f"{path}/shop", url)
    wait_targets(log, namespace, Target(url=url, reach="cluster"))


def test_a_kubernetes_service_needs_no_status(cluster: Kube, log: Log, namespace: str) -> None:
    """Its name is its address."""
    subscribe(cluster, namespace, ref("Service", "legacy", "v1"))
    wait_targets(log, namespace, Target(url=f"http://legacy.{namespace}.svc.cluster.local/", reach="cluster"))


def test_kinds_that_the_operator_may_not_read(cluster: Kube, namespace: str) -> None:
    """They are told of, with what to do; a kind that there is not is a sink that there is not."""
    subscribe(cluster, namespace, ref("Secret", "s", "v1"))
    assert "duck.knative.dev/addressable" in trouble(cluster, namespace, "SinkNotReadable")
    subscribe(cluster, namespace, ref("Broker", "default", "eventing.knative.dev/v1"))
    trouble(cluster, namespace, "SinkNotFound")


def test_urls_are_admitted_by_the_installation(cluster: Kube, log: Log, namespace: str) -> None:
    """One that is on the list is a target that has to be public; another is refused."""
    subscribe(cluster, namespace, {"uri": "https://hooks.example.com/orders?a=b"})
    wait_targets(log, namespace, Target(url="https://hooks.example.com/orders?a=b", reach="public"))
    subscribe(cluster, namespace, {"uri": "https://evil.test/"})
    assert "sinks.allowed" in trouble(cluster, namespace, "SinkNotAllowed")
    wait_targets(log, namespace)


@pytest.mark.parametrize(
    ("sink", "more", "said"),
    [
        ({}, {}, "exactly one of sink.ref and sink.uri"),
        ({"uri": "https://u:p@hooks.example.com/"}, {}, "without user"),
        ({"uri": "ftp://hooks.example.com/"}, {}, "write https://"),
        (ref("Function", "hello", "wisp.dev/v1alpha1"), {}, "in spec.function"),
        (ref("Service", "s", "v1"), {"function": {"name": "hello"}}, "exactly one of spec.function and spec.sink"),
        (ref("Service", "s", "v1"), {"batch": {"size": 2}}, "one by one"),
    ],
)
def test_what_is_wrong_is_refused_on_apply(
    cluster: Kube, namespace: str, sink: dict[str, Any], more: dict[str, Any], said: str
) -> None:
    """With what to write instead."""
    assert said in cluster.refusal(subscription(namespace, sink, **more))
