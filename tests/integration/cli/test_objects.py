"""`wisp list`, `describe` and `delete` show and remove what is there."""

from pathlib import Path

import pytest
from fixtures.cli import BOTH, HELLO, READY, Operator, Wisp, end, write_project
from fixtures.kube import Kube
from fixtures.process import wait_until


@pytest.fixture
def deployed(wisp: Wisp, tmp_path: Path) -> Wisp:
    """The command, with a function and a subscription deployed that nobody has judged yet."""
    assert wisp("deploy", write_project(tmp_path, BOTH), "--no-wait").code == 0
    return wisp


def test_list_shows_both_kinds(deployed: Wisp, operator: Operator) -> None:
    """Each object is a row with its readiness; -o json is a List as kubectl prints it."""
    operator.judge("functions", "hello", READY, url="http://hello.example")
    done = deployed("list")
    words = [line.split() for line in done.out.splitlines() if line]
    assert words[0] == ["FUNCTION", "READY", "URL", "RUNTIME", "AGE"]
    assert words[1][:4] == ["hello", "True", "http://hello.example", "python3.13"]
    assert words[3][:4] == ["on-upload", "Unknown", "-", "hello"]
    listed = deployed("list", "-o", "json").json()
    assert listed["kind"] == "List"
    assert [(item["kind"], item["metadata"]["name"]) for item in listed["items"]] == [
        ("Function", "hello"),
        ("Subscription", "on-upload"),
    ]


def test_list_of_all_namespaces_names_them(deployed: Wisp, cluster: Kube) -> None:
    """-A lists what others' namespaces hold, too, each row with its namespace first."""
    other = f"{deployed.namespace}-other"
    cluster.request("POST", "/api/v1/namespaces", {"metadata": {"name": other}})
    done = deployed("list", "-A")
    assert done.code == 0, done.err
    words = [line.split() for line in done.out.splitlines() if line]
    assert words[0][:2] == ["NAMESPACE", "FUNCTION"]
    assert [deployed.namespace, "hello"] in [row[:2] for row in words]
    assert [deployed.namespace, "hello"] in [
        row[:2] for row in map(str.split, Wisp(deployed.kubeconfig, other)("list", "-A").out.splitlines())
    ]


def test_replay_orders_once_and_tells_what_became_of_it(deployed: Wisp, operator: Operator) -> None:
    """The order is an annotation of its own; the spec and its owner stay, and the answer to this very order is awaited."""

    def answer(moved: str, message: str) -> None:
        wait_until(lambda: order() not in ("", before), "the order")
        operator.judge("subscriptions", "on-upload", READY, replay=_answer(order(), moved, message))

    def order() -> str:
        annotations = operator.get("subscriptions", "on-upload")["metadata"].get("annotations", {})
        return str(annotations.get("wisp.dev/replay", ""))

    before, spec = "", operator.get("subscriptions", "on-upload")["spec"]
    running = deployed.start("replay", "on-upload", "--since", "2026-01-31T13:00:00+01:00")
    answer("yes", "events come again")
    done = end(running)
    assert (done.code, done.out) == (0, "subscription/on-upload: events come again\n")
    assert order().startswith("2026-01-31T12:00:00Z ")
    before = order()
    running = deployed.start("replay", "on-upload", "--since", "2h")
    answer("", "the log holds events since noon only")
    done = end(running)
    assert done.code == 1
    assert "the log holds events since noon only" in done.err
    assert operator.get("subscriptions", "on-upload")["spec"] == spec
    assert deployed("replay", "on-upload", "--since", "soon").code == 2
    assert deployed("replay", "on-upload", "--since", "2026-01-31T12:00:00").code == 2
    assert "there is no subscription nobody" in deployed("replay", "nobody", "--since", "1h").err


def _answer(order: str, moved: str, message: str) -> dict[str, object]:
    return {"request": order.partition(" ")[2], "moved": bool(moved), "message": message}


def test_list_of_nothing_says_so(wisp: Wisp) -> None:
    """An empty namespace is no error, and standard output stays empty."""
    done = wisp("list")
    assert (done.code, done.out) == (0, "")
    assert wisp.namespace in done.err


def test_describe_tells_conditions_revisions_and_events(deployed: Wisp, operator: Operator, cluster: Kube) -> None:
    """A condition that is not True is told with its message; revisions with their traffic; the last events."""
    failed = ("CodeReady", "False", "ImagePullFailed", "spec.code.image: not found; name one that exists")
    operator.judge("functions", "hello", failed, traffic=[{"revision": "hello-1", "percent": 100}])
    namespace = {"namespace": deployed.namespace}
    revision = {"name": "hello-1", "labels": {"serving.knative.dev/service": "hello"}} | namespace
    spec = {"containers": [{"image": "example"}]}
    cluster.apply({"apiVersion": "serving.knative.dev/v1", "kind": "Revision", "metadata": revision, "spec": spec})
    uid = operator.get("functions", "hello")["metadata"]["uid"]
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": "hello.1"} | namespace,
            "involvedObject": {"kind": "Function", "name": "hello", "uid": uid} | namespace,
            "type": "Warning",
            "reason": "ImagePullFailed",
            "message": "cannot be pulled\nsecond line",
        }
    )
    done = deployed("describe", "hello")
    assert done.code == 0, done.err
    assert "CodeReady: spec.code.image: not found; name one that exists" in done.out
    assert "hello-1    Unknown   100 %" in done.out
    assert "Warning   ImagePullFailed   cannot be pulled\n" in done.out
    assert deployed("describe", "hello", "-o", "json").json()["metadata"]["uid"] == uid


def test_describe_of_what_is_not_there(deployed: Wisp) -> None:
    """A missing name ends with exit code 1, a wrong kind with 2."""
    assert deployed("describe", "nobody").code == 1
    assert deployed("describe", "sub/hello").code == 1
    assert deployed("describe", "pod/hello").code == 2
    assert "Subscription on-upload" in deployed("describe", "on-upload").out


def test_delete_waits_until_it_is_gone(deployed: Wisp, operator: Operator, cluster: Kube) -> None:
    """An object that still cleans up is waited for; subscriptions that still name the function are told of."""
    path = f"/apis/wisp.dev/v1alpha1/namespaces/{deployed.namespace}/functions/hello"
    merge = "application/merge-patch+json"
    cluster.request("PATCH", path, {"metadata": {"finalizers": ["wisp.dev/cleanup"]}}, merge)
    running = deployed.start("delete", "hello")
    wait_until(lambda: "deletionTimestamp" in operator.get("functions", "hello")["metadata"], "it is marked")
    assert running.poll() is None
    cluster.request("PATCH", path, {"metadata": {"finalizers": []}}, merge)
    done = end(running)
    assert (done.code, done.out) == (0, "function/hello deleted\n")
    assert "subscription/on-upload still names it" in done.err
    assert deployed("delete", "hello").code == 1


def test_a_name_of_two_objects_is_deleted_only_with_its_kind(
    deployed: Wisp, operator: Operator, tmp_path: Path
) -> None:
    """Where a function and a subscription share a name, `delete NAME` refuses, `delete fn/NAME` does it."""
    text = HELLO.replace("hello", "on-upload")
    assert deployed("deploy", write_project(tmp_path, text), "--no-wait").code == 0
    refused = deployed("delete", "on-upload")
    assert refused.code == 2
    assert "function/on-upload or subscription/on-upload" in refused.err
    assert deployed("delete", "fn/on-upload").code == 0
    assert operator.get("functions", "on-upload") is None
    assert operator.get("subscriptions", "on-upload") is not None
