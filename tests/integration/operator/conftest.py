"""The operator as a process against a real Kubernetes API and a real NATS server; Knative, router and readers are played by the test."""

import base64
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from fixtures.kube import Kube, kube
from fixtures.nats import NatsServer
from fixtures.process import free_port, listens, server, wait_until

SYSTEM = "wisp-system"
S3_ENDPOINT = "http://127.0.0.1:1"
_numbers = itertools.count(1)


@dataclass
class Operator:
    """One operator process and how to start and end it."""

    kube: Kube
    directory: Path
    nats_url: str
    settings: dict[str, Any] = field(default_factory=dict)
    """Added to the configuration."""
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    _running: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def log(self) -> Path:
        """What it wrote."""
        return self.directory / f"operator-{self.port}.log"

    def start(self) -> None:
        """Start it; it may have to wait for the Lease."""
        config = {
            "namespace": SYSTEM,
            "runtimes": {"python3.13": {"image": "dev.local/wisp-runtime-python3.13:0.1.0"}},
            "eventsImage": "dev.local/wisp-events:0.1.0",
            "natsUrl": self.nats_url,
            "streamMaxBytes": 1048576,
            "s3Servers": [
                {"name": "minio", "endpoint": S3_ENDPOINT, "notificationArns": ["arn:minio:sqs::WISP:webhook"]}
            ],
            "randomSecrets": {"wisp-s3-tokens": ["minio"]},
        }
        path = self.directory / f"operator-{self.port}.yaml"
        path.write_text(yaml.safe_dump(config | self.settings))
        environment = os.environ | {
            "KUBECONFIG": str(self.kube.kubeconfig("operator")),
            "WISP_CONFIG": str(path),
            "WISP_HEALTH_PORT": str(self.port),
        }
        command = [sys.executable, "-m", "wisp_operator"]
        self.process = self._running.enter_context(server(command, lambda: listens(self.port), self.log, environment))

    def kill(self) -> None:
        """End it as a crash would."""
        assert self.process
        self.process.send_signal(signal.SIGKILL)
        self._running.close()

    def stop(self) -> None:
        """End it in an orderly way."""
        self._running.close()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kube]:
    """A Kubernetes API for all tests of this folder."""
    with kube(tmp_path_factory.mktemp("kube")) as running:
        running.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kube-system"}})
        yield running


@pytest.fixture(scope="session")
def nats(cluster: Kube, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A NATS server that lets in only whom the operator's keys admit."""
    directory = tmp_path_factory.mktemp("nats")
    found = NatsServer(directory)
    first = Operator(cluster, directory, found.url)
    first.start()
    try:
        wait_until(
            lambda: bool(cluster.get(f"/api/v1/namespaces/{SYSTEM}/secrets/wisp-nats-auth")),
            "the operator makes NATS' keys",
        )
    finally:
        first.stop()
    found.config = secret(cluster, "wisp-nats-auth", "auth.conf")
    found.start()
    yield found
    found.stop()


@pytest.fixture(scope="session")
def operator(cluster: Kube, nats: NatsServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """A running operator."""
    running = Operator(cluster, tmp_path_factory.mktemp("operator"), nats.url, {"drainSeconds": 4})
    running.start()
    yield running
    running.stop()


@pytest.fixture
def namespace(cluster: Kube) -> str:
    """A fresh namespace."""
    name = f"tenant-{next(_numbers)}"
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return name


def secret(cluster: Kube, name: str, key: str) -> str:
    """A value of a Secret of the operator's namespace."""
    found = cluster.get(f"/api/v1/namespaces/{SYSTEM}/secrets/{name}")
    return base64.b64decode(found["data"][key]).decode()


def audited(cluster: Kube, since: int = 0) -> list[dict[str, Any]]:
    """The operator's writes (Leases left out), from a position in the audit log."""
    events = [json.loads(line) for line in cluster.audit_log.read_text()[since:].splitlines()]
    return [
        event
        for event in events
        if "wisp-operator" in event["user"]["username"] and event["objectRef"]["resource"] != "leases"
    ]
