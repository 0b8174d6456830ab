"""The real cluster for the end-to-end tests: the one that runs, or one of our own that is gone afterwards."""

import os
from collections.abc import Iterator

import pytest
from fixtures.collector import Collector, collector
from fixtures.platform import host_address, own_namespace, wisp_cluster
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
    """A namespace of the test's own."""
    with own_namespace(kubectl) as own:
        yield own


@pytest.fixture
def reports(kubectl: Kubectl) -> Iterator[Collector]:
    """Where recorder functions report to."""
    with collector(host_address(kubectl)) as collected:
        yield collected
