"""The operator with many Functions: reconcile rate from empty, API writes, restart, memory. `python tests/bench/bench_operator.py [NUMBER ...]`.

A real kube-apiserver and etcd on this machine, which take most of the CPU; Knative's controllers are absent, so a Function's Service is
written and its status says that it is waiting. All Functions exist before the operator starts, in namespaces of 100.
"""

import concurrent.futures
import http.client
import json
import os
import re
import ssl
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fixtures.control_plane import Operator
from fixtures.kube import Kube, kube
from fixtures.objects import make_function
from fixtures.process import wait_until

SIZES = (100, 1000, 10_000)
PER_NAMESPACE = 100
_local = threading.local()


def main(sizes: list[int]) -> None:
    """Print one row for each number of Functions."""
    print(
        "| Functions | reconciled/s from empty | CPU ms each | writes each | MiB | restart: looked at/s | CPU ms each | writes | MiB |"
    )
    print("|" + " --- |" * 9)
    for size in sizes:
        with tempfile.TemporaryDirectory() as directory, kube(Path(directory)) as cluster:
            fill(cluster, size)
            operator = Operator(cluster, Path(directory), "nats://127.0.0.1:1")
            rate, cpu, writes, memory = run(operator, size, 'api_writes_total{resource="functions",verb="merge"}')
            again, less, more, after = run(operator, size, 'reconciles_total{outcome="done",queue="function"}')
            print(
                f"| {size} | {rate:.0f} | {cpu:.1f} | {writes / size:.2f} | {memory:.0f} | {again:.0f} | {less:.1f} | {more:.0f} | {after:.0f} |",
                flush=True,
            )


def run(operator: Operator, size: int, progress: str) -> tuple[float, float, float, float]:
    """Start the operator, wait until it has been through all and is idle; Functions a second, its CPU ms for each, writes, and MiB."""
    operator.start()
    try:
        wait_until(lambda: metric(operator, "active") == 1, "it is active")
        started, used = time.monotonic(), cpu_seconds(operator)
        wait_until(lambda: metric(operator, progress) >= size, "all are looked at", 1800)
        seconds = time.monotonic() - started
        used = (cpu_seconds(operator) - used) / size * 1000
        return size / seconds, used, settled(operator), operator.resident_mebibytes()
    finally:
        operator.stop()


def cpu_seconds(operator: Operator) -> float:
    """What the process has used: other load on the machine changes the rate, not this."""
    assert operator.process
    fields = Path(f"/proc/{operator.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def settled(operator: Operator) -> float:
    """Wait until nothing but the Lease is written for three seconds; what was. Functions that never get ready are looked at for ever."""
    before, now = -1.0, writes(operator)
    while now != before:
        time.sleep(3)
        before, now = now, writes(operator)
    return now


def writes(operator: Operator) -> float:
    """How often anything was written but the Lease."""
    return metric(operator, "api_writes_total") - metric(operator, 'api_writes_total{resource="leases",verb="replace"}')


def metric(operator: Operator, name: str) -> float:
    """A sample of one of the operator's metrics, or the sum of all of its samples where `name` has no labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{operator.port}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    labels = "" if "{" in name else r"(?:\{.*\})?"
    return sum(map(float, re.findall(rf"^wisp_operator_{re.escape(name)}{labels} (\S+)$", text, re.MULTILINE)))


def fill(cluster: Kube, size: int) -> None:
    """Make the namespaces and Functions."""
    spaces = [f"bench-{number}" for number in range(-(-size // PER_NAMESPACE))]
    for name in spaces:
        cluster.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: post(cluster, spaces[number // PER_NAMESPACE], f"f{number}"), range(size)))


def post(cluster: Kube, namespace: str, name: str) -> None:
    """Create one Function on this thread's own connection."""
    if not hasattr(_local, "connection"):
        context = ssl._create_unverified_context()  # noqa: SLF001 - the server on loopback is our own
        _local.connection = http.client.HTTPSConnection("127.0.0.1", cluster.port, context=context)
    item = make_function(name) | {"metadata": {"name": name}}
    headers = {"Authorization": "Bearer admin-token", "Content-Type": "application/json"}
    path = f"/apis/wisp.dev/v1alpha1/namespaces/{namespace}/functions"
    _local.connection.request("POST", path, json.dumps(item), headers)
    answer = _local.connection.getresponse()
    body = answer.read()
    assert answer.status == 201, body


if __name__ == "__main__":
    main([int(argument) for argument in sys.argv[1:]] or list(SIZES))
