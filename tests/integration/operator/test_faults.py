"""Whatever requests fail in between: what was wanted is there in the end, once, and says so."""

import threading
from collections.abc import Iterator

import pytest
from fixtures.control_plane import SERVING, Knative, Operator, wait_condition
from fixtures.fault_proxy import FAULTS, WATCH_FAULTS, FaultProxy
from fixtures.kube import Kube, kube
from fixtures.objects import make_function
from fixtures.process import wait_until

NAMES = ["one", "two"]
PATIENCE = 120
WATCHED = 7
"""Kinds of which the operator watches objects: Functions, Subscriptions, FunctionQuotas, Services, ConfigMaps, Jobs, Deployments."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kube]:
    """A Kubernetes API in which no other operator holds the Lease."""
    with kube(tmp_path_factory.mktemp("kube")) as running:
        yield running


@pytest.fixture(scope="module")
def proxy(cluster: Kube) -> Iterator[FaultProxy]:
    """The API with faults."""
    with FaultProxy(cluster).running() as running:
        yield running


@pytest.fixture(scope="module")
def faulty(proxy: FaultProxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """An operator that reaches the API through the proxy and hears of changes by events alone."""
    made = Operator(proxy, tmp_path_factory.mktemp("operator"), "nats://127.0.0.1:1", {"resyncSeconds": 3600})
    made.start()
    wait_until(lambda: "is active" in made.log.read_text(), "it is active", PATIENCE)
    wait_until(lambda: proxy.watches >= WATCHED, "it watches", PATIENCE)
    yield made
    made.stop()


def deploy(cluster: Kube, namespace: str, text: str) -> None:
    """Apply all Functions with this code, and play Knative for them until each is ready."""
    code = {"handler.py": f"def handler(event, context):\n    return {text!r}\n"}
    for name in NAMES:
        item = make_function(name, namespace, code={"files": code})
        cluster.apply(item | {"metadata": {"name": name, "namespace": namespace}})
    for name in NAMES:
        wait_until(lambda name=name: at(cluster, namespace, name, code), f"{name} has a Service for its code", PATIENCE)  # type: ignore[misc]
        Knative(cluster, namespace).roll_out(name)
    for name in NAMES:
        wait_condition(cluster, "functions", namespace, name, "Ready", ("True", "AsWanted"), PATIENCE)


def at(cluster: Kube, namespace: str, name: str, code: dict[str, str]) -> bool:
    """Whether a Function's Service mounts a ConfigMap with this code."""
    service = Knative(cluster, namespace).service(name)
    if service is None:
        return False
    volumes = service["spec"]["template"]["spec"]["volumes"]
    names = [volume["configMap"]["name"] for volume in volumes if "configMap" in volume]
    found = cluster.get(f"/api/v1/namespaces/{namespace}/configmaps/{names[0]}")
    return bool(found and found["data"] == code)


def made(cluster: Kube, namespace: str) -> tuple[int, int]:
    """How many Services and ConfigMaps there are."""
    services = cluster.get(f"{SERVING}/namespaces/{namespace}/services")["items"]
    ours = "labelSelector=app.kubernetes.io/part-of=wisp"
    return len(services), len(cluster.get(f"/api/v1/namespaces/{namespace}/configmaps?{ours}")["items"])


@pytest.mark.parametrize("fault", [*FAULTS[:-1], *WATCH_FAULTS])
def test_converges(cluster: Kube, namespace: str, proxy: FaultProxy, faulty: Operator, fault: str) -> None:
    """Many requests fail in one way, or watches end every second: new and changed Functions are deployed, each once, and nobody is blamed."""
    over = threading.Event()

    def keep_ending() -> None:
        while not over.wait(1):
            proxy.end_watches()

    ender = threading.Thread(target=keep_ending)
    proxy.every = 4 if fault == "conflict" else 12  # a reconciliation has 3 writes at most, 8 requests in all
    proxy.faults = (fault,)
    if fault in WATCH_FAULTS:
        ender.start()
    try:
        before = proxy.met[fault]
        deploy(cluster, namespace, "first")
        deploy(cluster, namespace, "second")
        assert proxy.met[fault] > before
    finally:
        over.set()
        proxy.faults = ()
        if fault in WATCH_FAULTS:
            ender.join()
    assert made(cluster, namespace) == (len(NAMES), 2 * len(NAMES)), "one Service, and the code of both revisions"
    events = cluster.get(f"/api/v1/namespaces/{namespace}/events")["items"]
    assert [event["message"] for event in events] == [], "there is nothing that anybody should correct"
    assert faulty.process
    assert faulty.process.poll() is None, "the operator has not even restarted"


@pytest.mark.usefixtures("faulty")
def test_request_without_an_answer_is_given_up(cluster: Kube, namespace: str, proxy: FaultProxy) -> None:
    """A request that is never answered is tried again after 30 s; it never stands in the way of other Functions."""
    proxy.most = sum(proxy.met.values()) + 1
    proxy.faults = ("no answer",)
    try:
        deploy(cluster, namespace, "first")
        deploy(cluster, namespace, "second")
        assert proxy.met["no answer"] == 1
    finally:
        proxy.faults, proxy.most = (), None
