"""`wisp logs` merges what a function's pods say; the API server is real, the kubelet behind it is the test's."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures.cli import HELLO, Wisp, printing, write_project
from fixtures.kube import Kube
from fixtures.kubelet import Kubelet, kubelet
from fixtures.process import wait_until


@pytest.fixture(scope="module")
def node(cluster: Kube) -> Iterator[Kubelet]:
    """A node on which pods log."""
    with kubelet(cluster) as running:
        yield running


@pytest.fixture
def hello(wisp: Wisp, tmp_path: Path) -> Wisp:
    """The command, with a function deployed."""
    assert wisp("deploy", write_project(tmp_path, HELLO), "--no-wait").code == 0
    return wisp


def line(second: int, message: str, request: str = "r1") -> str:
    """A line of the runtime's, with the kubelet's timestamp before it."""
    time = f"2026-01-01T10:00:{second:02d}.000Z"
    return f"{time} {json.dumps({'time': time, 'level': 'INFO', 'message': message, 'requestId': request})}"


def test_lines_of_all_pods_are_merged_by_time(hello: Wisp, node: Kubelet) -> None:
    """Two pods' lines come in the order of their times, rendered for people; -o json leaves each as it was."""
    node.run_pod(hello.namespace, "one", "hello", [line(1, "first"), line(3, "third", "r2")])
    node.run_pod(hello.namespace, "two", "hello", [line(2, "second"), "2026-01-01T10:00:04Z no JSON at all"])
    node.run_pod(hello.namespace, "other", "another", [line(1, "not mine")])
    assert hello("logs", "hello").out.splitlines() == [
        "10:00:01.000 INFO    r1       first",
        "10:00:02.000 INFO    r1       second",
        "10:00:03.000 INFO    r2       third",
        "no JSON at all",
    ]
    raw = hello("logs", "hello", "--request", "r2", "-o", "json").out
    assert [json.loads(text)["message"] for text in raw.splitlines()] == ["third"]


def test_both_containers_of_a_pod_are_read(hello: Wisp, node: Kubelet) -> None:
    """Where an image brings its own client, the front's lines stand among the client's."""
    node.run_pod(hello.namespace, "two", "hello", ["2026-01-01T10:00:02Z said"], [line(1, "START"), line(3, "END")])
    assert [text.split()[-1] for text in hello("logs", "hello").out.splitlines()] == ["START", "said", "END"]


def test_since_is_asked_of_the_cluster(hello: Wisp, node: Kubelet) -> None:
    """--since 10m asks for the lines of the last 600 seconds; a wrong one is exit code 2."""
    node.run_pod(hello.namespace, "one", "hello", [])
    assert hello("logs", "hello", "--since", "10m").code == 0
    assert "sinceTime" in node.asked[-1] or node.asked[-1]["sinceSeconds"] == ["600"]
    assert hello("logs", "hello", "--since", "soon").code == 2


def test_following_goes_on_with_pods_that_start_later(hello: Wisp, node: Kubelet) -> None:
    """Lines come as they are written, also those of a pod that was not there at first."""
    node.run_pod(hello.namespace, "one", "hello", [line(1, "old")])
    with printing(hello.start("logs", "hello", "-f")) as seen:
        wait_until(lambda: "old" in "".join(seen), "what was there is shown")
        node.add(hello.namespace, "one", line(2, "new"))
        wait_until(lambda: "new" in "".join(seen), "what comes is shown")
        node.run_pod(hello.namespace, "two", "hello", [line(3, "later")])
        wait_until(lambda: "later" in "".join(seen), "the later pod is followed")
        assert len(seen) == 3, seen


def test_a_function_without_pods_has_no_lines(hello: Wisp) -> None:
    """That is no error; a function that is not there is."""
    done = hello("logs", "hello")
    assert (done.code, done.out) == (0, "")
    assert hello("logs", "nobody").code == 1
