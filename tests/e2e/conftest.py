"""The real cluster for the end-to-end tests: the one that runs, or one of our own that is gone afterwards."""

import os
import uuid
from collections.abc import Iterator

import pytest
from fixtures.collector import Collector, collector
from fixtures.platform import host_address, wisp_cluster
from wisp_cluster.kubectl import Kubectl
from wisp_cluster.way import chosen


@pytest.fixture(scope="session")
def kubectl() -> Iterator[Kubectl]:
    """The cluster with Wisp installed from this checkout: one that was there, however it was, stays; one that was made here is taken down again."""
    made = not chosen().exists()
    try:
        wisp_cluster("up")
        wisp_cluster("install")
        yield Kubectl.of_cluster()
    finally:
        if made and not os.environ.get("WISP_KEEP"):
            wisp_cluster("down")


@pytest.fixture
def namespace(kubectl: Kubectl) -> Iterator[Kubectl]:
    """A namespace of the test's own; at the end its Subscriptions are deleted, then it is, without waiting for its pods to drain."""
    own = kubectl.within(f"e2e-{uuid.uuid4().hex[:8]}")
    own.ensure_namespace()
    yield own
    own("delete", "subscriptions", "--all", "--timeout=120s")
    own("delete", "namespace", own.namespace, "--wait=false")


@pytest.fixture
def reports(kubectl: Kubectl) -> Iterator[Collector]:
    """Where recorder functions report to."""
    with collector(host_address(kubectl)) as collected:
        yield collected
