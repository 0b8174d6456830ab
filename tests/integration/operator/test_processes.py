"""Operators as processes: one acts, another takes over, a killed one goes on where it was, and Knative may come later."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures.control_plane import SYSTEM, Knative, Operator, audit_position, log_server, wait_condition, writes
from fixtures.kube import Kube, install_knative, kube
from fixtures.objects import make_function, make_subscription, postgres
from fixtures.process import wait_until

READY, OK = "Ready", ("True", "AsWanted")
LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases/wisp-operator"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kube]:
    """A Kubernetes API of this module's own, without Knative at first."""
    with kube(tmp_path_factory.mktemp("kube"), knative=False) as running:
        yield running


@pytest.fixture
def alone(own: Kube, tmp_path: Path) -> Iterator[Operator]:
    """An operator that looks at everything every 2 s; its event log never answers."""
    made = Operator(own, tmp_path, "nats://127.0.0.1:1", {"resyncSeconds": 2})
    yield made
    made.stop()


def holder(own: Kube) -> str:
    """Who holds the Lease."""
    return str((own.get(LEASE) or {}).get("spec", {}).get("holderIdentity", ""))


def apply_function(own: Kube, name: str) -> None:
    """Apply a Function to the default namespace."""
    own.apply(make_function(name) | {"metadata": {"name": name, "namespace": "default"}})


def test_knative_may_come_later(own: Kube, alone: Operator) -> None:
    """Without Knative the Function says so; installed, it deploys by itself."""
    alone.start()
    apply_function(own, "early")
    message = wait_condition(own, "functions", "default", "early", READY, ("False", "KnativeMissing"))
    assert "install it" in message
    install_knative(own)
    knative = Knative(own, "default")
    knative.roll_out("early")
    wait_condition(own, "functions", "default", "early", READY, OK)


def test_resync_writes_nothing(own: Kube, alone: Operator) -> None:
    """An operator that finds everything as wanted writes nothing, at start and however often it looks."""
    alone.start()
    apply_function(own, "calm")
    Knative(own, "default").roll_out("calm")
    wait_condition(own, "functions", "default", "calm", READY, OK)
    alone.stop()
    since = audit_position(own)
    alone.start()
    time.sleep(5)  # two resyncs: the absence of something has no event to wait for
    assert writes(own, since) == []


def test_killed_operator_goes_on(own: Kube, alone: Operator) -> None:
    """What changed while no operator ran is found by the next one; it waits for the dead one's Lease at most 15 s."""
    alone.start()
    apply_function(own, "one")
    knative = Knative(own, "default")
    knative.roll_out("one")
    wait_condition(own, "functions", "default", "one", READY, OK)
    alone.kill()
    apply_function(own, "two")
    path = "/apis/serving.knative.dev/v1/namespaces/default/services/one"
    own.request("DELETE", path)
    alone.start()
    wait_until(lambda: own.get(path) is not None and knative.service("two") is not None, "both Services are there")


def test_two_operators(own: Kube, tmp_path: Path) -> None:
    """Only the holder of the Lease acts; killed, the other takes over within 15 s; stopped, at once."""
    first, second = (Operator(own, tmp_path, "nats://127.0.0.1:1") for _ in range(2))
    try:
        first.start()
        wait_until(lambda: "is active" in first.log.read_text(), "the first is active")
        second.start()
        apply_function(own, "shared")
        knative = Knative(own, "default")
        knative.roll_out("shared")
        wait_condition(own, "functions", "default", "shared", READY, OK)
        assert "is active" not in second.log.read_text()
        before, started = holder(own), time.monotonic()
        first.kill()
        wait_until(lambda: "is active" in second.log.read_text(), "the second takes over")
        assert time.monotonic() - started < 45  # 10 to 13 on a quiet machine
        held = holder(own)
        assert held != before
        first.start()
        second.stop()
        assert holder(own) != held, "it has released the Lease, or the first would wait until it runs out"
        wait_until(lambda: first.log.read_text().count("is active") == 2, "the first takes over")
    finally:
        first.stop()
        second.stop()


def test_lost_lease_ends_the_process(own: Kube, alone: Operator) -> None:
    """An operator whose Lease someone else has taken ends before it does anything more."""
    alone.start()
    wait_until(lambda: "is active" in alone.log.read_text(), "it is active")
    own.request("PATCH", LEASE, {"spec": {"holderIdentity": "someone else"}}, "application/merge-patch+json")
    assert alone.process
    assert alone.process.wait(60) == 1
    assert "the Lease is lost" in alone.log.read_text()


def test_paused_operator_never_acts_beside_another(own: Kube, tmp_path: Path) -> None:
    """An operator that was stopped in its tracks while another took over ends when it wakes."""
    first, second = (Operator(own, tmp_path, "nats://127.0.0.1:1") for _ in range(2))
    try:
        own.request("DELETE", LEASE)
        first.start()
        wait_until(lambda: "is active" in first.log.read_text(), "the first is active")
        second.start()
        assert first.process
        first.process.send_signal(signal.SIGSTOP)
        wait_until(lambda: "is active" in second.log.read_text(), "the second takes over")
        first.process.send_signal(signal.SIGCONT)
        assert first.process.wait(60) == 1
    finally:
        first.stop()
        second.stop()


def test_drain_deletes_every_subscription(own: Kube, tmp_path: Path) -> None:
    """Before an uninstall all Subscriptions go, and the command waits for it."""
    with log_server(own, tmp_path) as server:
        acting = Operator(own, tmp_path, server.url, {"drainSeconds": 2})
        acting.start()
        try:
            own.apply(make_subscription("s", source=postgres()) | {"metadata": {"name": "s", "namespace": "default"}})
            path = "/apis/wisp.dev/v1alpha1/namespaces/default/subscriptions/s"
            wait_until(lambda: "wisp.dev/cleanup" in own.get(path)["metadata"].get("finalizers", []), "its finalizer")
            done = acting.drain()
            assert done.returncode == 0, done.stdout
            assert own.get(path) is None
        finally:
            acting.stop()


def test_reader_has_its_time_even_after_an_outage(own: Kube, tmp_path: Path) -> None:
    """A Subscription deleted while no operator ran is not given up at once: its reader is first told to drain."""
    with log_server(own, tmp_path) as server:
        acting = Operator(own, tmp_path, server.url, {"drainSeconds": 6})
        path = "/apis/wisp.dev/v1alpha1/namespaces/default/subscriptions/late"
        acting.start()
        try:
            own.apply(
                make_subscription("late", source=postgres()) | {"metadata": {"name": "late", "namespace": "default"}}
            )
            wait_until(lambda: "wisp.dev/cleanup" in own.get(path)["metadata"].get("finalizers", []), "its finalizer")
            wait_until(lambda: "source" in own.get(path).get("status", {}), "its status")
            acting.stop()
            own.kubectl("delete", "sub", "late", "-n", "default", "--wait=false")
            time.sleep(7)  # longer than its reader's time
            acting.start()
            started = time.monotonic()
            wait_until(lambda: own.get(path) is None, "given up in the end")
            assert time.monotonic() - started > 5
        finally:
            acting.stop()
