"""The command against a real Kubernetes API; the operator's part, the status, is played by the test."""

import itertools
from collections.abc import Iterator

import pytest
from fixtures.cli import Operator, Wisp
from fixtures.kube import Kube, kube

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kube]:
    """A Kubernetes API for all tests of this folder."""
    with kube(tmp_path_factory.mktemp("kube")) as running:
        yield running


@pytest.fixture
def wisp(cluster: Kube) -> Wisp:
    """The command, as an administrator in a fresh namespace."""
    name = f"cli-{next(_numbers)}"
    cluster.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    return Wisp(cluster.kubeconfig(), name)


@pytest.fixture
def operator(cluster: Kube, wisp: Wisp) -> Operator:
    """Who plays the operator in the command's namespace."""
    return Operator(cluster, wisp.namespace)
