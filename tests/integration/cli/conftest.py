"""The command against a real Kubernetes API; the operator's part, the status, is played by the test."""

import itertools
import json
from collections.abc import Iterator

import msgspec
import pytest
from fixtures.called import Activator, say
from fixtures.cli import Operator, Wisp, expose
from fixtures.code_store import TICKETS
from fixtures.dataplane import DataPlane, Part, data_plane
from fixtures.kube import Kube, kube
from fixtures.nats import nats_server
from fixtures.process import free_port
from wisp_api import names
from wisp_api.source import TokenKeys

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


@pytest.fixture(scope="session")
def activator() -> Iterator[Activator]:
    """Where the ingest finds Knative's activator."""
    made = Activator(say(200, b'{"ok": true}', content_type="application/json"))
    with made.serving():
        yield made


@pytest.fixture(scope="session")
def plane(cluster: Kube, activator: Activator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataPlane]:
    """A log and an ingest that the API server finds as the Service wisp-ingest, with the API's own keys."""
    folder = tmp_path_factory.mktemp("plane")
    with nats_server(folder) as server, data_plane(server, folder) as made:
        _, discovery = cluster.request("GET", "/.well-known/openid-configuration")
        _, keys = cluster.request("GET", "/openid/v1/jwks")
        found = TokenKeys(issuer=discovery["issuer"], jwks=msgspec.Raw(json.dumps(keys).encode()))
        made.put(names.KV_SOURCES, names.TOKEN_KEYS, found)
        port = free_port()
        expose(cluster, "wisp-ingest", 8080, port)
        environment = {"WISP_INGEST_PORT": str(port), "WISP_STORE_TICKETS": TICKETS}
        ingest = Part("ingest", made, environment | {"WISP_ACTIVATOR": f"127.0.0.1:{activator.port}"})
        ingest.start()
        ingest.wait_ready()
        yield made
        ingest.stop()
