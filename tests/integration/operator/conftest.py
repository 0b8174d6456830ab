"""The operator as a process against a real Kubernetes API and a real NATS server; Knative, router and readers are played by the test."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures.admission import admission
from fixtures.code_store import CodeStore, JobController, Tenant
from fixtures.control_plane import SYSTEM, Knative, Log, Operator, log_server, restarted, router_alive, secret
from fixtures.kube import Kube, kube
from fixtures.minio import MinioServer, minio_server
from fixtures.nats import NatsServer
from fixtures.process import free_port, wait_until

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kube]:
    """A Kubernetes API for all tests of this folder."""
    with kube(tmp_path_factory.mktemp("kube")) as running:
        yield running


@pytest.fixture(scope="session")
def nats(cluster: Kube, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A NATS server that lets in only whom the operator's keys admit."""
    with log_server(cluster, tmp_path_factory.mktemp("nats")) as running:
        yield running


@pytest.fixture(scope="session")
def store_port() -> int:
    """Where the code store listens, for the tests that start one."""
    return free_port()


@pytest.fixture(scope="session")
def package_port() -> int:
    """Where the package index listens, for the tests that start one."""
    return free_port()


@pytest.fixture(scope="session")
def operator(
    cluster: Kube, nats: NatsServer, store_port: int, package_port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Operator]:
    """A running operator that gives readers little time to drain, looks at moving code often and forgets unused code soon."""
    settings = {
        "storeUrl": f"http://127.0.0.1:{store_port}",
        "packageIndexUrl": f"http://127.0.0.1:{package_port}/simple",
        "codeCheckSeconds": 2,
        "codeRetentionSeconds": 15,  # longer than a busy machine needs from an upload to the revision that names it
        "randomSecrets": {"wisp-s3-tokens": ["minio"], "wisp-store": ["key", "tickets"]},
        "drainSeconds": 5,
        "allowedSinks": ["https://hooks.example.com"],
        "sharedServices": ["gateway.default"],
        "s3Servers": [
            {"name": "minio", "endpoint": "http://127.0.0.1:1", "notificationArns": ["arn:minio:sqs::WISP:webhook"]}
        ],
    }
    running = Operator(cluster, tmp_path_factory.mktemp("operator"), nats.url, settings)
    running.start()
    path = f"/api/v1/namespaces/{SYSTEM}/secrets/wisp-nats-router"
    wait_until(lambda: bool(cluster.get(path)), "the operator acts")
    with router_alive(Log(cluster, nats.url)), restarted(running):
        yield running
    running.stop()


@pytest.fixture
def namespace(cluster: Kube) -> str:
    """A fresh namespace."""
    name = f"tenant-{next(_numbers)}"
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return name


@pytest.fixture
def knative(cluster: Kube, namespace: str) -> Knative:
    """Knative's controllers, played by the test."""
    return Knative(cluster, namespace)


@pytest.fixture
def log(cluster: Kube, nats: NatsServer) -> Log:
    """The event log."""
    return Log(cluster, nats.url)


@pytest.fixture
def asked(cluster: Kube, operator: Operator, namespace: str) -> Iterator[str]:
    """A namespace whose objects the operator is asked about."""
    with admission(cluster, operator, namespace):
        yield namespace


@pytest.fixture(scope="module")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MinioServer]:
    """A MinIO for the users' archives and the store's."""
    with minio_server(tmp_path_factory.mktemp("minio"), "http://127.0.0.1:1", "unused") as running:
        running.client().make_bucket("code")
        yield running


@pytest.fixture(scope="module")
def store(
    cluster: Kube, operator: object, minio: MinioServer, store_port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[CodeStore]:
    """The code store with the key that the operator made."""
    assert operator
    wait_until(lambda: bool(cluster.get(f"/api/v1/namespaces/{SYSTEM}/secrets/wisp-store")), "the store's key")
    key, tickets = (secret(cluster, SYSTEM, "wisp-store", name) for name in ("key", "tickets"))
    running = CodeStore(tmp_path_factory.mktemp("store"), minio, key, store_port, tickets=tickets)
    running.start()
    yield running
    running.stop()


@pytest.fixture
def jobs(cluster: Kube, namespace: str, store: CodeStore, tmp_path: Path) -> JobController:
    """The namespace's Jobs; it admits only what Pod Security calls restricted."""
    label = "pod-security.kubernetes.io/enforce=restricted"
    assert cluster.kubectl("label", "namespace", namespace, label).returncode == 0
    return JobController(cluster, Tenant(tmp_path, store, namespace))
