"""`wisp logs` finds the lines of pods that are gone: a real function writes them, with a token that the API made for its pod."""

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures.cli import HELLO, Wisp, write_project
from fixtures.dataplane import DataPlane
from fixtures.kube import Kube
from fixtures.kubelet import Kubelet, kubelet
from fixtures.process import wait_until
from nats.js.api import DiscardPolicy
from unit.runtime.conftest import FunctionProcess
from wisp_api import names

CODE = "def handler(event, context):\n    print('hello', event)\n"


@pytest.fixture(scope="module")
def lines(plane: DataPlane) -> DataPlane:
    """A log that keeps log lines."""
    plane.add_stream(names.LOG_STREAM, [names.LOG_SUBJECTS], DiscardPolicy.OLD, 64 << 20)
    return plane


@pytest.fixture(scope="module")
def node(cluster: Kube) -> Iterator[Kubelet]:
    """A node on which pods log."""
    with kubelet(cluster) as running:
        yield running


def deploy(wisp: Wisp, cluster: Kube, folder: Path) -> str:
    """Make the function `hello`, and the account that every namespace has; returns the function's uid."""
    assert wisp("deploy", write_project(folder / "project", HELLO), "--no-wait").code == 0
    accounts = f"/api/v1/namespaces/{wisp.namespace}/serviceaccounts"
    assert cluster.request("POST", accounts, {"metadata": {"name": "default"}})[0] == 201
    uid: str = cluster.get(f"/apis/wisp.dev/v1alpha1/namespaces/{wisp.namespace}/functions/hello")["metadata"]["uid"]
    return uid


@contextlib.contextmanager
def pod(wisp: Wisp, cluster: Kube, node: Kubelet, folder: Path, uid: str, name: str) -> Iterator[FunctionProcess]:
    """A pod of the function: what its front runs, with what the operator tells it, until it is stopped."""
    node.run_pod(wisp.namespace, name, "hello", [])
    found = cluster.get(f"/api/v1/namespaces/{wisp.namespace}/pods/{name}")
    bound = {"kind": "Pod", "apiVersion": "v1", "name": name, "uid": found["metadata"]["uid"]}
    spec = {"audiences": [names.LOG_AUDIENCE], "expirationSeconds": 3600, "boundObjectRef": bound}
    path = f"/api/v1/namespaces/{wisp.namespace}/serviceaccounts/default/token"
    code, made = cluster.request("POST", path, {"spec": spec})
    assert code == 201, made
    task = folder / name / "task"
    task.mkdir(parents=True)
    (task / "app.py").write_text(CODE)
    (folder / name / "token").write_text(made["status"]["token"])
    ingest = cluster.get("/api/v1/namespaces/wisp-system/endpoints/wisp-ingest")["subsets"][0]
    url = f"http://{ingest['addresses'][0]['ip']}:{ingest['ports'][0]['port']}"
    env = {
        "WISP_HANDLER": "app.handler",
        "WISP_LOG_URL": url + names.log_path(wisp.namespace, "hello", uid),
        "WISP_LOG_TOKEN_FILE": str(folder / name / "token"),
    }
    running = FunctionProcess(task, env, ("-m", "wisp_runtime"), ())
    try:
        yield running.ready()
    finally:
        running.stop()


def test_lines_of_a_pod_that_is_gone_are_found(
    wisp: Wisp, cluster: Kube, lines: DataPlane, node: Kubelet, tmp_path: Path
) -> None:
    """All that it said, once; by request too; a Function of another namespace with the same name has none of it."""
    assert lines
    uid = deploy(wisp, cluster, tmp_path)
    with pod(wisp, cluster, node, tmp_path, uid, "one") as running:
        asked = running.invoke({"n": 1}).headers["wisp-request-id"]
        running.invoke({"n": 2})
        os.kill(running.process.pid, signal.SIGTERM)
        assert running.exit_status() == 0
        said = [line.rstrip("\n") for line in running.raw_lines]
    wait_until(lambda: "without the lines" not in wisp("logs", "hello").err, "the ingest is reached")
    end = json.loads(said[-1])["time"]
    for text in said:  # as long as the pod is there, its kubelet says the same, which is shown once
        node.add(wisp.namespace, "one", f"{end} {text}")
    assert wisp("logs", "hello", "-o", "json").out.splitlines() == said
    path = f"/api/v1/namespaces/{wisp.namespace}/pods/one?gracePeriodSeconds=0"
    assert cluster.request("DELETE", path)[0] == 200
    assert wisp("logs", "hello", "-o", "json").out.splitlines() == said
    assert wisp("logs", "hello", "-o", "json", "--since", "1h").out.splitlines() == said
    assert wisp("logs", "hello", "--no-gone").out == ""
    of_one = [json.loads(line) for line in wisp("logs", "hello", "-o", "json", "--request", asked).out.splitlines()]
    assert [line.get("type", line["message"]) for line in of_one] == [
        "platform.start",
        "hello {'n': 1}",
        "platform.end",
        "platform.report",
    ]
    name = f"{wisp.namespace}-x"
    cluster.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    other = Wisp(wisp.kubeconfig, name)
    deploy(other, cluster, tmp_path / "other")
    assert (other("logs", "hello").out, other("logs", "hello").err) == ("", "")


def test_lines_that_cannot_be_had_are_a_note(hello_alone: Wisp) -> None:
    """Without an account to ask as, what the pods say is shown all the same."""
    done = hello_alone("logs", "hello")
    assert (done.code, done.out) == (0, "")
    assert "without the lines of pods that are gone" in done.err


@pytest.fixture
def hello_alone(wisp: Wisp, tmp_path: Path) -> Wisp:
    """The command, in a namespace without accounts."""
    assert wisp("deploy", write_project(tmp_path, HELLO), "--no-wait").code == 0
    return wisp
