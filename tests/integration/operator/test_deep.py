"""An object that is nested deeper than Python's stack is one tenant's mistake."""

import sys
from typing import Any

import pytest
from fixtures.control_plane import Operator, wait_condition
from fixtures.kube import Kube
from fixtures.objects import make_subscription


@pytest.fixture
def deep() -> Any:
    """A filter that the API server takes."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    below: Any = ["a"]
    for _ in range(1500):
        below = {"a": below}
    yield {"data": below}
    sys.setrecursionlimit(limit)


def test_a_filter_without_end_is_refused_and_ends_nothing(
    cluster: Kube, operator: Operator, namespace: str, deep: Any
) -> None:
    """The operator says so in the Subscription's condition."""
    assert operator
    item = make_subscription("deep", namespace, source={"bus": {"name": "b"}}, filter=deep)
    cluster.apply(item | {"metadata": {"name": "deep", "namespace": namespace}})
    wait_condition(cluster, "subscriptions", namespace, "deep", "SourceReady", ("False", "InvalidFilter"), 60)
