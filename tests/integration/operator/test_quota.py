"""A namespace's quota and defaults: refused at apply, held by the operator without the webhook, and never taken from who has it."""

from typing import Any

import pytest
from fixtures.admission import plain
from fixtures.control_plane import WISP, Knative, wait_condition
from fixtures.kube import Kube
from fixtures.objects import make_function
from fixtures.process import wait_until

pytestmark = pytest.mark.usefixtures("operator", "nats")
EXCEEDED = ("False", "QuotaExceeded")


def set_quota(cluster: Kube, namespace: str, **spec: Any) -> None:
    """The namespace's quota."""
    cluster.apply(
        {
            "apiVersion": "wisp.dev/v1alpha1",
            "kind": "FunctionQuota",
            "metadata": {"name": "default", "namespace": namespace},
            "spec": spec,
        }
    )


def function(namespace: str, name: str, most: int | None = None, **spec: Any) -> dict[str, Any]:
    """A Function with this many pods at most."""
    return plain(make_function(name, scale={"max": most} if most else None, **spec), namespace)


def wait_used(cluster: Kube, namespace: str, *used: Any) -> None:
    """Wait until the quota's status says what is used: functions, instances, memory."""

    def told() -> bool:
        found = cluster.get(f"{WISP}/namespaces/{namespace}/functionquotas/default")
        status = (found or {}).get("status", {})
        return tuple(status.get(key) for key in ("functions", "instances", "memory")) == used

    wait_until(told, f"{used} are used")


def wait_state(cluster: Kube, namespace: str, name: str, wanted: tuple[str, str]) -> str:
    """Wait for ServiceReady; its message."""
    return wait_condition(cluster, "functions", namespace, name, "ServiceReady", wanted)


def test_refused_at_apply(cluster: Kube, asked: str, knative: Knative) -> None:
    """What the quota has no room for is refused with its numbers; what asks for no more may still be changed."""
    set_quota(cluster, asked, functions=2, instances=10, perFunction={"memory": "256Mi"})
    cluster.apply(function(asked, "first", 8))
    wait_used(cluster, asked, 1, 8, "1024Mi")
    told = cluster.refusal(function(asked, "second", 3))
    assert "instances is 10, other functions have 8, this function asks for 3" in told
    assert "perFunction.memory is 256 MiB" in cluster.refusal(function(asked, "second", 1, memory="512Mi"))
    cluster.apply(function(asked, "second", 2))
    assert "functions is 2, other functions have 2" in cluster.refusal(function(asked, "third", 1))
    set_quota(cluster, asked, functions=1, instances=5)
    cluster.apply(function(asked, "first", 8, timeoutSeconds=7))
    wait_until(
        lambda: knative.wait_service("first")["spec"]["template"]["spec"]["timeoutSeconds"] == 12, "it is changed"
    )
    assert "this function asks for 9" in cluster.refusal(function(asked, "first", 9))


def test_held_without_the_webhook(cluster: Kube, namespace: str, knative: Knative) -> None:
    """What was taken unasked is not deployed beyond the quota, says why, and follows by itself once there is room."""
    set_quota(cluster, namespace, instances=10, memory="4Gi")
    wait_used(cluster, namespace, 0, 0, "0Mi")  # the operator knows it before the Functions come, by another watch
    cluster.apply(*(function(namespace, f"f{number}", 4) for number in range(4)))
    wait_used(cluster, namespace, 2, 8, "1024Mi")

    def refused() -> list[str]:
        found = cluster.get(f"{WISP}/namespaces/{namespace}/functions")["items"]
        return [
            item["metadata"]["name"]
            for item in found
            if any(state["reason"] == "QuotaExceeded" for state in item.get("status", {}).get("conditions", []))
        ]

    wait_until(lambda: len(refused()) == 2, "two are refused")
    first, second = refused()
    assert "other functions have 8, this function asks for 4" in wait_state(cluster, namespace, first, EXCEEDED)
    assert knative.service(first) is None
    granted = next(name for name in ("f0", "f1", "f2") if name not in {first, second})
    cluster.request("DELETE", f"{WISP}/namespaces/{namespace}/functions/{granted}")
    wait_until(lambda: len(refused()) == 1, "one has the room")
    set_quota(cluster, namespace, instances=12)
    wait_used(cluster, namespace, 3, 12, "1536Mi")
    wait_until(lambda: refused() == [], "the others have the new room")


def test_growth_beyond_the_quota_leaves_what_serves(cluster: Kube, namespace: str, knative: Knative) -> None:
    """A Function that asks for too much goes on as it was, URL and traffic included, and heals when it asks for less."""
    cluster.apply(function(namespace, "hello", 4))
    revision = knative.roll_out("hello")
    wait_state(cluster, namespace, "hello", ("True", "AsWanted"))
    set_quota(cluster, namespace, instances=2)
    wait_used(cluster, namespace, 1, 4, "512Mi")
    cluster.apply(function(namespace, "hello", 5))
    wait_state(cluster, namespace, "hello", EXCEEDED)
    status = cluster.get(f"{WISP}/namespaces/{namespace}/functions/hello")["status"]
    assert status["traffic"] == [{"revision": revision, "percent": 100}]
    assert knative.wait_service("hello")["spec"]["template"]["metadata"]["name"] == revision
    cluster.apply(function(namespace, "hello", 4))
    wait_state(cluster, namespace, "hello", ("True", "AsWanted"))


@pytest.mark.parametrize("way", ["tags", "pin"])
def test_an_earlier_revision_counts(cluster: Kube, namespace: str, knative: Knative, way: str) -> None:
    """A revision that a tag or the pin keeps counts with the pods it was made with: a smaller scale.max makes no room beside it."""

    def reserves(most: int) -> bool:
        found = cluster.get(f"{WISP}/namespaces/{namespace}/functions/first")
        return bool((found or {}).get("status", {}).get("reserved", {}).get("instances") == most)

    first = plain(make_function("first", scale={"min": 100, "max": 100}), namespace)
    small = plain(make_function("first", scale={"min": 0, "max": 1}), namespace)
    set_quota(cluster, namespace, instances=100, memory="12800Mi")
    wait_used(cluster, namespace, 0, 0, "0Mi")
    cluster.apply(first)
    old = knative.roll_out("first")
    wait_used(cluster, namespace, 1, 100, "12800Mi")
    named = {"pin": old} if way == "pin" else {"tags": {"old": {"revision": old}}}
    cluster.apply(small | {"spec": small["spec"] | named})
    if way == "tags":  # it would be served beside the new one
        told = wait_state(cluster, namespace, "first", EXCEEDED)
        assert "this function asks for 101, with 100 pods of earlier revisions" in told
        assert knative.wait_service("first")["spec"]["template"]["metadata"]["name"] == old
        set_quota(cluster, namespace, instances=101, memory="12928Mi")
        wait_used(cluster, namespace, 1, 101, "12928Mi")
    wait_until(
        lambda: knative.wait_service("first")["spec"]["template"]["metadata"]["name"] != old, "the smaller one is made"
    )
    knative.roll_out("first")
    cluster.apply(function(namespace, "second", 99))
    assert "this function asks for 99" in wait_state(cluster, namespace, "second", EXCEEDED)
    assert knative.service("second") is None
    assert reserves(101 if way == "tags" else 100)
    cluster.apply(small)
    wait_until(lambda: reserves(1), "nothing keeps the old revision")
    wait_used(cluster, namespace, 2, 100, "12800Mi")


def test_an_earlier_revision_is_refused_at_apply(cluster: Kube, asked: str, knative: Knative) -> None:
    """The webhook counts what a tag names, its own Function's and the others'."""
    set_quota(cluster, asked, instances=100)
    cluster.apply(function(asked, "first", 60))
    old = knative.roll_out("first")
    tags = {"old": {"revision": old}}
    told = cluster.refusal(function(asked, "first", 41, tags=tags))
    assert "this function asks for 101, with 60 pods of earlier revisions" in told
    cluster.apply(function(asked, "first", 1, tags=tags))
    assert "other functions have 61, this function asks for 40" in cluster.refusal(function(asked, "second", 40))
    cluster.apply(function(asked, "second", 39))


def test_defaults_roll_out(cluster: Kube, namespace: str, knative: Knative) -> None:
    """A Function that doesn't say has the namespace's memory and pods, and follows when they change; it doesn't stand in its spec."""

    def has(memory: str, most: str) -> bool:
        template = knative.wait_service("hello")["spec"]["template"]
        limits = template["spec"]["containers"][0]["resources"]["limits"]
        found = template["metadata"]["annotations"]["autoscaling.knative.dev/max-scale"]
        return (limits["memory"], found) == (memory, most)

    cluster.apply(function(namespace, "hello", memory=None))
    assert has("128Mi", "100")
    set_quota(cluster, namespace, defaults={"memory": "256Mi", "instances": 3})
    wait_until(lambda: has("256Mi", "3"), "it follows")
    wait_used(cluster, namespace, 1, 3, "768Mi")
    cluster.request("DELETE", f"{WISP}/namespaces/{namespace}/functionquotas/default")
    wait_until(lambda: has("128Mi", "100"), "it is as without")
    assert "memory" not in cluster.get(f"{WISP}/namespaces/{namespace}/functions/hello")["spec"]


def test_a_quota_that_contradicts_itself_is_refused(cluster: Kube, namespace: str) -> None:
    """A second one, and defaults that no Function may have, are refused with what to write."""
    item = {"apiVersion": "wisp.dev/v1alpha1", "kind": "FunctionQuota", "spec": {}}
    named = {"name": "other", "namespace": namespace}
    assert "named default" in cluster.refusal(item | {"metadata": named})
    for field, most, least in (("memory", "1Gi", "512Mi"), ("instances", 5, 4)):
        spec = {"defaults": {field: most}, "perFunction": {field: least}}
        told = cluster.refusal(item | {"metadata": named | {"name": "default"}, "spec": spec})
        assert f"defaults.{field} is above perFunction.{field}" in told
