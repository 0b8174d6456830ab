"""`wisp deploy` makes what wisp.yaml says stand on the cluster, and says when it doesn't."""

from pathlib import Path

import pytest
from fixtures.builder import DIGEST, builders
from fixtures.cli import BOTH, HELLO, READY, Operator, Wisp, end, write_project
from fixtures.kube import Kube


def test_creates_both_kinds_and_waits_until_they_are_ready(wisp: Wisp, operator: Operator, tmp_path: Path) -> None:
    """The function and the subscription are made, the command ends when both are ready, and prints the URL alone on standard output."""
    running = wisp.start("deploy", write_project(tmp_path, BOTH))
    operator.judge("functions", "hello", READY, url="http://hello.example")
    operator.judge("subscriptions", "on-upload", READY)
    done = end(running)
    assert (done.code, done.out) == (0, "function/hello http://hello.example\nsubscription/on-upload\n"), done.err
    assert "function/hello created\n" in done.err
    assert "function/hello: ready\n" in done.err
    files = operator.get("functions", "hello")["spec"]["code"]["files"]
    assert files == {"app.py": "def handler(event, context):\n    return 1\n"}
    assert operator.get("subscriptions", "on-upload")["spec"]["start"] == "2026-01-31T12:00:00Z"


def test_a_second_deploy_changes_only_what_changed(wisp: Wisp, tmp_path: Path) -> None:
    """The same folder again is `unchanged`; new code is `updated`; a field that wisp.yaml no longer names goes back to its default."""
    folder = write_project(tmp_path, f"{HELLO}    timeoutSeconds: 60\n")
    assert wisp("deploy", folder, "--no-wait").code == 0
    assert "function/hello unchanged" in wisp("deploy", folder, "--no-wait").err
    write_project(tmp_path, HELLO, "handler = print\n")
    done = wisp("deploy", folder, "--no-wait", "-o", "json")
    assert "function/hello updated" in done.err
    (item,) = done.json()["items"]
    assert (item["spec"]["code"]["files"], item["spec"]["timeoutSeconds"]) == ({"app.py": "handler = print\n"}, 30)


def test_a_folder_with_a_dockerfile_is_built_and_pushed(
    wisp: Wisp, operator: Operator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It needs no wisp.yaml but a registry; the Function has the digest, and stays as it was while a build fails."""
    tools = builders(tmp_path / "tools", monkeypatch)
    tools.install("docker")
    (tmp_path / "site").mkdir()
    (tmp_path / "site/Dockerfile").write_text("FROM scratch\n")
    command = ("deploy", str(tmp_path / "site"), "--no-wait")
    assert "say where its image goes (--registry)" in wisp(*command).err
    monkeypatch.setenv("WISP_REGISTRY", "reg.example/team")
    done = wisp(*command)
    assert (done.code, done.out) == (0, "function/site\n"), done.err
    made = operator.get("functions", "site")
    assert (made["spec"]["runtime"], made["spec"]["code"]) == (
        "container",
        {"image": f"reg.example/team/site@{DIGEST}"},
    )
    assert "function/site unchanged" in wisp(*command).err
    tools.broken()
    failed = wisp(*command)
    assert (failed.code, "no space left" in failed.err, "functions.site.code: docker build failed" in failed.err) == (
        1,
        True,
        True,
    )
    assert operator.get("functions", "site")["metadata"]["generation"] == made["metadata"]["generation"]


def test_a_failed_condition_is_told_with_the_users_traceback(wisp: Wisp, operator: Operator, tmp_path: Path) -> None:
    """A function whose code can't be imported ends the wait with exit code 1 and the condition's message, traceback included."""
    running = wisp.start("deploy", write_project(tmp_path, HELLO))
    message = 'spec.handler app.handler: Runtime.ImportModuleError: no dependency\n  File "/var/task/app.py", line 1'
    failed = ("Ready", "False", "HandlerImportFailed", message)
    operator.judge("functions", "hello", failed, ("CodeReady", *failed[1:]))
    done = end(running)
    assert (done.code, done.out) == (1, "")
    assert f"function/hello: CodeReady: HandlerImportFailed: {message}" in done.err


def test_an_old_status_does_not_count(wisp: Wisp, operator: Operator, tmp_path: Path) -> None:
    """Ready of the generation before is not ready: without an operator the wait ends with exit code 1 and the question for it."""
    folder = write_project(tmp_path, HELLO)
    wisp("deploy", folder, "--no-wait")
    operator.judge("functions", "hello", READY)
    write_project(tmp_path, HELLO, "handler = print\n")
    done = wisp("deploy", folder, "--timeout", "1")
    assert done.code == 1
    assert "is Wisp's operator running?" in done.err


def test_what_only_the_server_sees_is_named_by_its_path(wisp: Wisp, tmp_path: Path) -> None:
    """A rule that the API server checks is told with its path in wisp.yaml and exit code 2."""
    done = wisp("deploy", write_project(tmp_path, f"{HELLO}    scale: {{min: 5, max: 2}}\n"))
    assert done.code == 2
    assert done.err == (
        "wisp: wisp.yaml: functions.hello.scale: scale.min is above scale.max: lower it or raise scale.max\n"
    )
    done = wisp("deploy", write_project(tmp_path, HELLO.replace("hello", "No_Name")))
    assert done.code == 2
    assert "wisp.yaml: functions.No_Name: metadata.name: at most 50 lower-case letters" in done.err


def test_fields_of_others_are_taken_over_only_by_force(wisp: Wisp, cluster: Kube, tmp_path: Path) -> None:
    """What kubectl applied stays until --force is given."""
    spec = {"runtime": "python3.13", "handler": "other.handler", "code": {"files": {"other.py": "handler = print"}}}
    meta = {"name": "hello", "namespace": wisp.namespace}
    cluster.apply({"apiVersion": "wisp.dev/v1alpha1", "kind": "Function", "metadata": meta, "spec": spec})
    folder = write_project(tmp_path, HELLO)
    done = wisp("deploy", folder, "--no-wait")
    assert done.code == 1
    assert ".spec.handler" in done.err
    assert "--force" in done.err
    assert wisp("deploy", folder, "--no-wait", "--force").code == 0


def test_a_container_that_ends_again_and_again_is_told_at_once(
    wisp: Wisp, operator: Operator, cluster: Kube, tmp_path: Path
) -> None:
    """Before any condition is False, what the newest revision's container said ends the wait; an older revision's crash doesn't."""
    message = "Runtime.ImportModuleError: no dependency"
    template = {"metadata": {"name": "hello-2"}, "spec": {"containers": [{"image": "example"}]}}
    meta = {"name": "hello", "namespace": wisp.namespace}
    cluster.apply(
        {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": meta, "spec": {"template": template}}
    )
    crash_pod(cluster, wisp.namespace, "hello-1", "an old mistake")
    running = wisp.start("deploy", write_project(tmp_path, HELLO))
    operator.judge("functions", "hello", ("Ready", "Unknown", "Deploying", "a first pod is starting"))
    crash_pod(cluster, wisp.namespace, "hello-2", message)
    done = end(running)
    assert done.code == 1
    assert done.err.endswith(f"wisp: function/hello: its container ends while it starts: {message}\n")
    assert "old mistake" not in done.err


def crash_pod(cluster: Kube, namespace: str, revision: str, message: str) -> None:
    """A pod whose container the kubelet no longer starts at once, since it ended with this message."""
    meta = {"name": revision, "namespace": namespace, "labels": {"serving.knative.dev/revision": revision}}
    spec = {"containers": [{"name": "function", "image": "example"}]}
    cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
    ended = {"terminated": {"exitCode": 1, "message": message}}
    state = {"name": "function", "ready": False, "restartCount": 2, "image": "example", "imageID": ""}
    states = [state | {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": ended}]
    path = f"/api/v1/namespaces/{namespace}/pods/{revision}/status"
    patch = {"status": {"containerStatuses": states}}
    code, answer = cluster.request("PATCH", path, patch, "application/merge-patch+json")
    assert code == 200, answer
