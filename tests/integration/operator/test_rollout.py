"""A roll-out against a real Kubernetes API: by steps, back by the errors that pods count, on with another operator, and pinned by hand."""

import contextlib
import ipaddress
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from fixtures.control_plane import SERVING, Knative, Operator, condition, wait_condition
from fixtures.kube import Kube
from fixtures.objects import make_function
from fixtures.process import wait_until

pytestmark = pytest.mark.usefixtures("operator", "nats")
READY, OK = "Ready", ("True", "AsWanted")
POD_IP = str(ipaddress.IPv4Address("127.64.0.0") + os.getpid() % (1 << 22))
"""Of this run alone: the port is the same for all pods, and for all runs on this machine."""


def function(namespace: str, text: str, **spec: Any) -> dict[str, Any]:
    """A Function with this code."""
    item = make_function("hello", namespace, code={"files": {"app.py": text}}, **spec)
    return item | {"metadata": {"name": "hello", "namespace": namespace}}


def status(cluster: Kube, namespace: str) -> dict[str, Any]:
    """The Function's status."""
    item = cluster.get(f"/apis/wisp.dev/v1alpha1/namespaces/{namespace}/functions/hello")
    found: dict[str, Any] = item.get("status", {})
    return found


def shares(knative: Knative) -> dict[str, int]:
    """What Knative is told: each revision's share, `latest` for its newest."""
    return {
        target.get("revisionName", "latest"): target["percent"]
        for target in knative.wait_service("hello")["spec"]["traffic"]
    }


@contextlib.contextmanager
def metrics(ended: dict[str, int]) -> Iterator[None]:
    """What a pod's runtime answers on port 9464."""
    text = "".join(f'wisp_function_invocations_total{{status="{name}"}} {ended[name]}\n' for name in ended)

    class Door(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
            pass

    door = ThreadingHTTPServer((POD_IP, 9464), Door)
    threading.Thread(target=door.serve_forever, daemon=True).start()
    try:
        yield
    finally:
        door.shutdown()
        door.server_close()


def update(cluster: Kube, namespace: str, knative: Knative, **rollout: Any) -> tuple[str, str]:
    """A Function that serves, then new code with this roll-out; both revisions, the new one not started."""
    cluster.apply(function(namespace, "old", rollout=rollout))
    old = knative.roll_out("hello")
    wait_condition(cluster, "functions", namespace, "hello", READY, OK)
    cluster.apply(function(namespace, "new", rollout=rollout))
    wait_until(lambda: shares(knative) == {old: 100}, "the old revision keeps all requests")
    waiting = [condition(kind, "Unknown", "Deploying") for kind in ("Ready", "ContainerHealthy", "ResourcesAvailable")]
    return old, knative.roll_out("hello", waiting)


def test_broken_revision_never_gets_a_share(cluster: Kube, namespace: str, knative: Knative) -> None:
    """Knative is never told of it, and the Function's status says what is wrong while the old one has all."""
    old, new = update(cluster, namespace, knative, intervalSeconds=1)
    knative.run_pod(new, {"terminated": {"reason": "Error", "exitCode": 1, "message": "Runtime.ImportModuleError: x"}})
    wait_condition(cluster, "functions", namespace, "hello", READY, ("False", "HandlerImportFailed"))
    assert shares(knative) == {old: 100}
    assert status(cluster, namespace)["traffic"] == [{"revision": old, "percent": 100}]


def test_steps_go_on_with_another_operator(cluster: Kube, namespace: str, knative: Knative, operator: Operator) -> None:
    """Started, the new revision's share grows step by step up to all; an operator that is killed meanwhile changes nothing of it."""
    old, new = update(cluster, namespace, knative, steps=[10, 50, 100], intervalSeconds=8)
    knative.start(new, "hello")
    wait_until(lambda: shares(knative) == {old: 90, new: 10}, "the first step")
    operator.kill()
    operator.start()
    wait_until(lambda: shares(knative) == {old: 50, new: 50}, "the second step")
    wait_until(lambda: shares(knative) == {new: 100}, "the end")
    wait_until(lambda: status(cluster, namespace)["rollout"]["state"] == "Done", "the status says so")
    history = status(cluster, namespace)["history"]
    assert {item["revision"] for item in history} == {old, new}
    assert len({item["codeSha256"] for item in history}) == 2


def test_goes_back_when_too_many_fail(cluster: Kube, namespace: str, knative: Knative) -> None:
    """The new revision's own counts decide: too many errors, and the old one has all again; corrected code starts anew."""
    old, new = update(cluster, namespace, knative, intervalSeconds=600, maxErrorRate="0.1")
    knative.run_pod(new, {"running": {}}, ready=True, address=POD_IP)
    with metrics({"success": 70, "error": 20, "timeout": 10}):
        knative.start(new, "hello")
        message = wait_condition(cluster, "functions", namespace, "hello", READY, ("False", "RolledBack"))
    assert "30 of 100 invocations failed" in message
    assert shares(knative) == {old: 100}
    cluster.apply(function(namespace, "newer", rollout={"intervalSeconds": 600}))
    wait_condition(cluster, "functions", namespace, "hello", READY, ("Unknown", "Deploying"))
    newer = knative.roll_out("hello")
    wait_until(lambda: shares(knative) == {old: 90, newer: 10}, "the corrected code's first step")


def test_pin_tags_and_limit(cluster: Kube, namespace: str, knative: Knative) -> None:
    """A pin takes all requests back and a tag names a revision; what neither names goes beyond the limit."""
    made = []
    for text in ("one", "two", "three"):
        cluster.apply(function(namespace, text, revisionHistoryLimit=2))
        wait_until(
            lambda: knative.wait_service("hello")["spec"]["template"]["metadata"]["name"] not in made, "a template"
        )
        made.append(knative.roll_out("hello"))
        wait_condition(cluster, "functions", namespace, "hello", READY, OK)
    revisions = f"{SERVING}/namespaces/{namespace}/revisions"
    wait_until(lambda: cluster.get(f"{revisions}/{made[0]}") is None, "the oldest goes")
    tags = {"stable": {"revision": made[1]}}
    cluster.apply(function(namespace, "three", revisionHistoryLimit=1, pin=made[1], tags=tags))
    wait_until(
        lambda: (
            {"tag": "stable", "revisionName": made[1], "percent": 0} in knative.wait_service("hello")["spec"]["traffic"]
        ),
        "the tag",
    )
    assert {"revisionName": made[1], "percent": 100} in knative.wait_service("hello")["spec"]["traffic"]
    cluster.apply(function(namespace, "three", pin="hello-none"))
    message = wait_condition(cluster, "functions", namespace, "hello", READY, ("False", "RevisionNotFound"))
    assert made[1] in message
    assert cluster.get(f"{revisions}/{made[1]}")
