"""An object that is nested deeper than Python's stack is one tenant's mistake."""

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from fixtures.admission import plain
from fixtures.control_plane import Operator, wait_condition
from fixtures.kube import Kube
from fixtures.objects import make_subscription

DEEPEST = 9998
"""Of a filter: the API server takes 10,000 levels of an object."""


@pytest.fixture(autouse=True)
def stack() -> Iterator[None]:
    """Read and write what is deep here, too."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(40_000)
    yield
    sys.setrecursionlimit(limit)


def with_filter(levels: int, namespace: str) -> dict[str, Any]:
    """A Subscription whose filter has so many levels."""
    below: Any = ["a"]
    for _ in range(levels - 2):
        below = {"a": below}
    return plain(make_subscription("deep", source={"bus": {"name": "b"}}, filter={"data": below}), namespace)


def test_a_filter_without_end_is_refused_and_ends_nothing(cluster: Kube, operator: Operator, namespace: str) -> None:
    """The operator says so in the Subscription's condition."""
    assert operator
    cluster.apply(with_filter(1500, namespace))
    wait_condition(cluster, "subscriptions", namespace, "deep", "SourceReady", ("False", "InvalidFilter"), 60)


def test_the_deepest_object_leaves_the_kind_readable(cluster: Kube, operator: Operator, namespace: str) -> None:
    """What the API server takes it can list and delete, and the operator goes on: managedFields is no deeper than the object."""
    path = f"/apis/wisp.dev/v1alpha1/namespaces/{namespace}/subscriptions"
    assert cluster.request("POST", path, with_filter(DEEPEST + 1, namespace))[0] == 400
    assert cluster.request("POST", path, with_filter(DEEPEST, namespace))[0] == 201
    assert [item["metadata"]["name"] for item in cluster.get(path)["items"]] == ["deep"]
    wait_condition(cluster, "subscriptions", namespace, "deep", "SourceReady", ("False", "InvalidFilter"), 60)
    assert cluster.request("DELETE", f"{path}/deep")[0] == 200
    assert operator.process is not None
    assert operator.process.poll() is None


def test_the_deepest_object_is_refused(cluster: Kube, asked: str) -> None:
    """The webhook refuses it, whether Python reads such an object or not."""
    path = f"/apis/wisp.dev/v1alpha1/namespaces/{asked}/subscriptions"
    status, answer = cluster.request("POST", path, with_filter(DEEPEST, asked))
    assert status == 422, answer
    assert "in one another" in answer["message"] or "can't be read" in answer["message"]
