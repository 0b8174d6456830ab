"""Subscriptions whose events go to a sink: what the route says, and what the condition says where there is none."""

import functools
from typing import Any

import pytest
from fixtures.control_plane import ROUTES, SERVING, Log, wait_condition
from fixtures.kube import Kube
from fixtures.objects import make_function
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


def service(cluster: Kube, namespace: str, name: str, **spec: Any) -> None:
    """A Kubernetes Service, with a port where it is of no type."""
    spec = spec or {"ports": [{"port": 80}]}
    meta = {"name": name, "namespace": namespace}
    cluster.apply({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec})


def alias(cluster: Kube, namespace: str, name: str, target: str) -> None:
    """A Service that is another name."""
    service(cluster, namespace, name, type="ExternalName", externalName=target)


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


def is_told(cluster: Kube, namespace: str, said: str) -> bool:
    """Whether the message with which the sink is not allowed says this."""
    return said in trouble(cluster, namespace, "SinkNotAllowed")


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
    assert "there is no Service" in trouble(cluster, namespace, "SinkNotFound")
    service(cluster, namespace, "gateway")  # as Knative has it: its Service's name is one for the gateway
    alias(cluster, namespace, "shop", f"gateway.{namespace}.svc.cluster.local")
    gateway = f"gateway.{namespace}.svc.cluster.local"
    wait_targets(log, namespace, Target(url=url, reach="cluster", service=gateway))


def test_a_kubernetes_service_needs_no_status(cluster: Kube, log: Log, namespace: str) -> None:
    """Its name is its address."""
    service(cluster, namespace, "legacy")
    subscribe(cluster, namespace, ref("Service", "legacy", "v1"))
    name = f"legacy.{namespace}.svc.cluster.local"
    wait_targets(log, namespace, Target(url=f"http://{name}/", reach="cluster", service=name))


def test_a_name_for_what_is_outside_of_the_cluster_is_no_sink(cluster: Kube, log: Log, namespace: str) -> None:
    """Neither as a Service, nor behind one, nor as the address that an Addressable says it has."""
    alias(cluster, namespace, "metadata", "metadata.corp.test")
    alias(cluster, namespace, "second", f"metadata.{namespace}.svc")
    alias(cluster, namespace, "ring", f"ring.{namespace}.svc.cluster.local")
    for name in ("metadata", "second", "ring"):
        subscribe(cluster, namespace, ref("Service", name, "v1"))
        said = f"the Service {name}.{namespace}.svc.cluster.local is of type ExternalName"
        wait_until(functools.partial(is_told, cluster, namespace, said), f"{name} is refused", 60)
        wait_targets(log, namespace)
    spec = {"template": {"spec": {"containers": [{"image": "shop"}]}}}
    path = f"{SERVING}/namespaces/{namespace}/services"
    body = {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {"name": "shop"}, "spec": spec}
    cluster.request("POST", path, body)
    address(cluster, f"{path}/shop", f"http://metadata.{namespace}.svc.cluster.local:8080/latest")
    subscribe(cluster, namespace, ref("Service", "shop", "serving.knative.dev/v1"))
    wait_until(lambda: is_told(cluster, namespace, "Service shop"), "the address is refused", 60)
    wait_targets(log, namespace)


def test_another_namespaces_service_is_no_sink(cluster: Kube, log: Log, namespace: str) -> None:
    """Whether there is one is not told; what the installation shares is reached by its own name and by an alias."""
    for target in ("kubernetes.default.svc", "none.default.svc.cluster.local"):
        alias(cluster, namespace, "other", target)
        subscribe(cluster, namespace, ref("Service", "other", "v1"))
        name = target.removesuffix(".cluster.local").removesuffix(".svc")
        said = f"the Service {name}, which is another namespace's"
        wait_until(functools.partial(is_told, cluster, namespace, said), f"{name} is refused", 90)
        wait_targets(log, namespace)
    service(cluster, "default", "gateway")
    alias(cluster, namespace, "shared", "gateway.default.svc")
    subscribe(cluster, namespace, ref("Service", "shared", "v1"))
    url = f"http://shared.{namespace}.svc.cluster.local/"
    wait_targets(log, namespace, Target(url=url, reach="cluster", service="gateway.default.svc.cluster.local"))


def test_a_sink_that_makes_no_sense_stops_no_other(cluster: Kube, log: Log, namespace: str) -> None:
    """What a tenant writes into a status is told of where it is used, and the namespace's other Subscriptions have their routes."""
    spec = {"template": {"spec": {"containers": [{"image": "shop"}]}}}
    path = f"{SERVING}/namespaces/{namespace}/services"
    body = {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {"name": "shop"}, "spec": spec}
    cluster.request("POST", path, body)
    address(cluster, f"{path}/shop", "http://[x.svc")
    broken = subscription(namespace, ref("Service", "shop", "serving.knative.dev/v1"))
    cluster.apply(broken | {"metadata": {"name": "broken", "namespace": namespace}})
    subscribe(cluster, namespace, {"uri": "https://hooks.example.com/"})
    wait_targets(log, namespace, Target(url="https://hooks.example.com/", reach="public"))
    wanted = ("False", "SinkNotAddressable")
    assert "Invalid IPv6" in wait_condition(cluster, "subscriptions", namespace, "broken", "FunctionReady", wanted)


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


def test_destinations_are_found_as_sinks_are(cluster: Kube, log: Log, namespace: str) -> None:
    """A Subscription's by a condition of its own where it takes nothing, an invocation's by an Event; what is given up reaches the route."""
    spec = {"source": {"bus": {"name": "orders"}}, "function": {"name": "hello"}}
    item = {
        "apiVersion": "wisp.dev/v1alpha1",
        "kind": "Subscription",
        "metadata": {"name": "sub", "namespace": namespace},
    }
    cluster.apply(item | {"spec": spec | {"deadLetter": ref("Service", "hook", "v1")}})
    wanted = ("False", "SinkNotFound")
    assert "spec.deadLetter.ref" in wait_condition(
        cluster, "subscriptions", namespace, "sub", "DestinationReady", wanted
    )
    route = log.get(ROUTES, f"{namespace}.sub", Route)
    assert route
    assert route.on_failure
    service(cluster, namespace, "hook")
    name = f"hook.{namespace}.svc.cluster.local"
    target = Target(url=f"http://{name}/", reach="cluster", service=name)

    def posted() -> bool:
        found = log.get(ROUTES, f"{namespace}.failure_subscription_sub", Route)
        assert route.on_failure
        return found is not None and found.targets == [target] and found.stream == route.on_failure.stream

    wait_until(posted, f"a route to {target}", 90)
    wait_condition(cluster, "subscriptions", namespace, "sub", "DestinationReady", ("True", "AsWanted"))
    called = make_function("caller", namespace, **{"async": {"onFailure": ref("Service", "none", "v1")}})
    cluster.apply(called | {"metadata": {"name": "caller", "namespace": namespace}})

    def told() -> bool:
        events = cluster.request("GET", f"/api/v1/namespaces/{namespace}/events")[1]["items"]
        return any(one["reason"] == "SinkNotFound" and "spec.async.onFailure.ref" in one["message"] for one in events)

    wait_until(told, "an Event of the Function", 90)
    cluster.apply(item | {"spec": spec})

    def gone() -> bool:
        return log.get(ROUTES, f"{namespace}.failure_subscription_sub", Route) is None

    wait_until(gone, "no route without destination", 90)


@pytest.mark.parametrize(
    ("sink", "more", "said"),
    [
        ({}, {}, "exactly one of sink.ref and sink.uri"),
        ({"uri": "https://u:p@hooks.example.com/"}, {}, "without user"),
        ({"uri": "ftp://hooks.example.com/"}, {}, "write https://"),
        (ref("Function", "hello", "wisp.dev/v1alpha1"), {}, "in the field function"),
        (ref("Function", "hello", "wisp.dev/v1alpha1/functions"), {}, "write group/version, or v1"),
        (ref("ConfigMap", "c", "../api/v1/configmaps"), {}, "write group/version, or v1"),
        (ref("Pod", "p", "../api/v1/pods?watch=1&x="), {}, "write group/version, or v1"),
        (ref("Service", "s", "v1"), {"function": {"name": "hello"}}, "exactly one of spec.function and spec.sink"),
        (ref("Service", "s", "v1"), {"batch": {"size": 2}}, "one by one"),
    ],
)
def test_what_is_wrong_is_refused_on_apply(
    cluster: Kube, namespace: str, sink: dict[str, Any], more: dict[str, Any], said: str
) -> None:
    """With what to write instead."""
    assert said in cluster.refusal(subscription(namespace, sink, **more))
