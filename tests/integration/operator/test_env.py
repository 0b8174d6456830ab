"""A changed ConfigMap rolls out by itself, a restart by hand, and nothing else does."""

import time
from typing import Any

import msgspec
import pytest
from fixtures.admission import plain
from fixtures.control_plane import WISP, Knative
from fixtures.kube import OPERATOR_USER, Kube
from fixtures.objects import make_function
from fixtures.process import wait_until
from wisp_api.function import FunctionSpec
from wisp_operator.env import env_digest

pytestmark = pytest.mark.usefixtures("operator", "nats")
ENV = [{"name": "LEVEL", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "level"}}}]
SETTLE_SECONDS = 3


def set_data(cluster: Kube, namespace: str, labels: dict[str, str] | None = None, **data: str) -> None:
    """Write the ConfigMap."""
    meta = {"name": "settings", "namespace": namespace, "labels": labels or {}}
    cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data})


def template(knative: Knative, name: str = "hello") -> dict[str, Any]:
    """The present template's name and annotations."""
    found: dict[str, Any] = knative.wait_service(name)["spec"]["template"]["metadata"]
    return found


def test_changed_config_map_rolls_out(cluster: Kube, namespace: str, knative: Knative) -> None:
    """A value that a Function uses makes a new revision, for each Function that uses it; a missing one that comes does, too."""
    cluster.apply(plain(make_function("hello", env=ENV), namespace))
    cluster.apply(plain(make_function("whole", envFrom=[{"configMapRef": {"name": "settings"}}]), namespace))
    names = ("hello", "whole")
    absent = [template(knative, name)["name"] for name in names]
    set_data(cluster, namespace, level="1", other="1")

    def changed(before: list[str]) -> bool:
        return all(template(knative, name)["name"] != was for name, was in zip(names, before, strict=True))

    wait_until(lambda: changed(absent), "both follow what came")
    first = [template(knative, name)["name"] for name in names]
    set_data(cluster, namespace, {"team": "a"}, level="1", other="2")
    wait_until(lambda: template(knative, "whole")["name"] != first[1], "the one that uses all keys follows")
    assert template(knative)["name"] == first[0]
    set_data(cluster, namespace, level="1", other="1")
    wait_until(lambda: template(knative, "whole")["name"] == first[1], "the same content is the same revision")


def test_a_burst_is_one_change(cluster: Kube, namespace: str, knative: Knative) -> None:
    """Many changes within seconds make few revisions, the last with what stands there at the end."""
    set_data(cluster, namespace, level="0")
    cluster.apply(plain(make_function("hello", env=ENV), namespace))
    first = knative.wait_service("hello")["metadata"]["generation"]
    path, began = f"/api/v1/namespaces/{namespace}/configmaps/settings", time.monotonic()
    for number in range(1, 60):
        patch = {"data": {"level": str(number)}}
        status, answer = cluster.request("PATCH", path, patch, "application/merge-patch+json")
        assert status == 200, answer
    last = env_digest(
        msgspec.convert(make_function(env=ENV)["spec"], FunctionSpec), {"settings": {"data": {"level": "59"}}}
    )
    wait_until(lambda: template(knative)["annotations"].get("wisp.dev/env") == last, "it has the last value")
    changes = knative.wait_service("hello")["metadata"]["generation"] - first
    assert changes <= 2 + (time.monotonic() - began) // SETTLE_SECONDS


def test_secrets_are_mounted(cluster: Kube, namespace: str, knative: Knative) -> None:
    """A Secret that a variable comes from is in the pod as files, by that key alone; Knative's schema keeps all that says so."""
    secret = [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "hidden", "key": "token"}}}]
    cluster.apply(plain(make_function("hello", env=secret), namespace))
    pod = knative.wait_service("hello")["spec"]["template"]["spec"]
    volume = {"secretName": "hidden", "items": [{"key": "token", "path": "token"}], "optional": True}
    assert {"name": "env-0", "secret": volume} in pod["volumes"]
    assert "env-0" in [mount["name"] for mount in pod["containers"][0]["volumeMounts"]]


def test_restarted_by_hand(cluster: Kube, namespace: str, knative: Knative) -> None:
    """The annotation rolls the same spec out again, once for each value: for Secrets, which the operator can't look at."""
    secret = [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "hidden", "key": "token"}}}]
    cluster.apply(plain(make_function("hello", env=secret), namespace))
    first = template(knative)["name"]
    path = f"{WISP}/namespaces/{namespace}/functions/hello"
    patch = {"metadata": {"annotations": {"wisp.dev/restartedAt": "2026-11-21T20:00:00Z"}}}
    cluster.request("PATCH", path, patch, "application/merge-patch+json")
    wait_until(lambda: template(knative)["name"] != first, "a new revision")
    assert template(knative)["annotations"]["wisp.dev/restartedAt"] == "2026-11-21T20:00:00Z"
    may = cluster.kubectl("auth", "can-i", "get", "secrets/hidden", "-n", namespace, "--as", OPERATOR_USER)
    assert may.returncode != 0
