"""`python tests/bench/bench_platform.py`: what a user of the running cluster waits for, and what the platform's pods take.

Cold starts by kind of code (no pod -> first answer through the ingress), object put -> function called and row committed ->
function called, warm and cold, and the memory of the platform's own pods at rest. All loops are bounded.
"""

import argparse
import contextlib
import hashlib
import io
import json
import random
import statistics
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import psycopg2
from fixtures.collector import Collector, collector
from fixtures.functions import answering, call, function
from fixtures.package_index import PASSWORD, USER, package_index
from fixtures.platform import (
    bench_namespace,
    bucket_connection,
    deploy_recorder,
    host_address,
    postgres_connection,
    subscribe,
)
from minio import Minio
from wisp_cluster.demo import manifests, write_secret
from wisp_cluster.images import built_images
from wisp_cluster.kubectl import Kubectl
from wisp_cluster.progress import wait_for

NODE = "export const handler = async () => 'hello';"
WARM_RUNS = 200
QUIET_SECONDS = 0.05
"""Between two warm measurements, so that each finds the platform at rest."""
TELLS_P99 = 100
"""Runs below which the 99th percentile is the slowest of them."""
MOST_PODS = 10
"""Of functions at once: each ends for half a minute and keeps what it requested of the node's 2 processors, for which the next would wait unscheduled."""


def figures(name: str, seconds: list[float], target: str = "") -> None:
    """Print one row: runs, p50, p99 where there are enough runs to tell, max, and what is wanted of p50 and p99."""
    ordered = sorted(seconds)
    p99 = f"{ordered[int(0.99 * len(ordered))] * 1e3:.1f}" if len(ordered) >= TELLS_P99 else ""
    times = f"{statistics.median(ordered) * 1e3:.1f} | {p99} | {ordered[-1] * 1e3:.1f}"
    print(f"| {name} | {len(ordered)} | {times} | {target} |", flush=True)


def to_zero(own: Kubectl, function: str) -> None:
    """Wait until a function has no pod, and the node room for one."""
    own.wait_pods(f"wisp.dev/function={function}", lambda count: count == 0, f"{function} goes to zero", 240)

    def missing() -> str | None:
        count = len(own.items("pods", "wisp.dev/function"))
        return None if count < MOST_PODS else f"{count} pods, ending ones included"

    wait_for(missing, seconds=240, what="room for a pod")


def kinds(own: Kubectl) -> dict[str, str]:
    """URLs of functions with code of each kind, by what they are."""
    images = built_images()
    for example in ("hello", "hello-node", "hello-provided", "hello-image"):
        own.apply(manifests(example, images))
    minio = bucket_connection(own, "my-s3", ["bench-code"])
    small, large = packed(minio, "code.zip", 5), packed(minio, "layer.zip", 100)
    scale, node = {"idleSeconds": 15}, {"runtime": "nodejs24"}
    own.apply(function("zipped", {"zip": small}, scale=scale))
    own.apply(function("zipped-node", {"zip": small}, scale=scale, **node))
    own.apply(function("layered", answering("hello"), layers=[large], scale=scale))
    own.apply(function("layered-node", {"files": {"app.mjs": NODE}}, layers=[large], scale=scale, **node))
    served = json.loads(function("served", {"image": images["template-container"]}, runtime="container", scale=scale))
    del served["spec"]["handler"]
    own.apply(json.dumps(served))
    require(own, scale)
    names = {
        "hello": "files",
        "zipped": "zip of 5 MiB",
        "layered": "files and a layer of 100 MiB",
        "required": "files and requirements",
        "hello-node": "files, Node.js",
        "zipped-node": "zip of 5 MiB, Node.js",
        "layered-node": "files and a layer of 100 MiB, Node.js",
        "hello-provided": "bootstrap, a shell script",
        "served": "image that serves HTTP",
        "hello-image": "image made for AWS Lambda, Python",
    }
    return {told: own.wait_ready("functions", name)["status"]["url"] for name, told in names.items()}


def packed(minio: Minio, key: str, size: int) -> dict[str, Any]:
    """A zip of so many MiB that don't compress, in a bucket: as code, and as a layer."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("app.py", answering("hello")["files"]["app.py"])
        archive.writestr("app.mjs", NODE)
        archive.writestr("data.bin", random.Random(1).randbytes(size << 20))
    minio.put_object("bench-code", key, io.BytesIO(made.getvalue()), len(made.getvalue()))
    sha256 = hashlib.sha256(made.getvalue()).hexdigest()
    return {"bucket": "bench-code", "key": key, "sha256": sha256, "connection": {"name": "my-s3"}}


def require(own: Kubectl, scale: dict[str, int]) -> None:
    """A function whose answer is in a package, from an index that is gone afterwards."""
    with package_index(host=host_address(own)) as index:
        index.offer("greeting", "1.0", {"greeting.py": "TEXT = 'hello'\n"})
        write_secret(own, "wisp-package-index", {"url": index.url, "username": USER, "password": PASSWORD})
        code = {"files": {"app.py": "import greeting\n\n\ndef handler(event, context):\n    return greeting.TEXT\n"}}
        own.apply(function("required", code, requirements=["greeting==1.0"], scale=scale))
        own.wait_ready("functions", "required")


def cold_starts(own: Kubectl, runs: int) -> None:
    """Print the time from request to answer with no pod running, for each kind of code; the kinds take turns."""
    urls = kinds(own)
    taken: dict[str, list[float]] = {told: [] for told in urls}
    for _ in range(runs):
        for told, url in urls.items():
            to_zero(own, url.removeprefix("http://").partition(".")[0])
            start = time.monotonic()
            status, body = call(url)
            taken[told].append(time.monotonic() - start)
            assert status == 200, body
    for told, seconds in taken.items():
        figures(f"{told}: no pod -> first answer", seconds)


def until_called(reports: Collector, act: Callable[[], None]) -> float:
    """Seconds from the moment `act` begins to return until the handler is called; its report of that comes after."""
    before = len(reports.seen())
    act()
    start = time.monotonic()
    wait_until_fast(lambda: len(reports.seen()) > before)
    return max(0.0, float(reports.seen()[before]["called"]) - start)


def wait_until_fast(condition: Callable[[], bool]) -> None:
    """Wait a minute at most, looking every half millisecond."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "the function was not called within a minute"
        time.sleep(0.0005)


def warm(reports: Collector, act: Callable[[], None]) -> list[float]:
    """WARM_RUNS measurements, one at a time."""
    taken = []
    for _ in range(WARM_RUNS):
        taken.append(until_called(reports, act))
        time.sleep(QUIET_SECONDS)
    return taken


def cold(own: Kubectl, reports: Collector, runs: int, act: Callable[[], None]) -> list[float]:
    """`runs` measurements, each from no pod."""
    taken = []
    for _ in range(runs):
        to_zero(own, "recorder")
        taken.append(until_called(reports, act))
    return taken


def events(own: Kubectl, reports: Collector, cold_runs: int) -> None:
    """Print the time from an object's and a row's change to the function's call, with a pod that runs and with none."""
    deploy_recorder(own, "recorder", reports)
    minio = bucket_connection(own, "my-s3", ["bench"])
    dsn = postgres_connection(own)
    with contextlib.closing(psycopg2.connect(dsn)) as connection:  # its own `with` would hold a transaction open
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute("CREATE TABLE bench (id serial PRIMARY KEY, n int)")
        objects = {"name": "bench", "events": ["ObjectCreated:*"], "connection": {"name": "my-s3"}}
        subscribe(own, "objects", "recorder", {"bucket": objects})
        rows = {"tables": ["public.bench"], "connection": {"name": "shop-db"}}
        subscribe(own, "rows", "recorder", {"postgres": rows})

        def put() -> None:
            minio.put_object("bench", f"{time.monotonic_ns()}", io.BytesIO(b"x" * 1024), 1024)

        def insert() -> None:
            cursor.execute("INSERT INTO bench (n) VALUES (1)")

        until_called(reports, put)
        figures("object put -> function called, warm", warm(reports, put), "<= 10, <= 50")
        figures("row committed -> function called, warm", warm(reports, insert), "<= 5, <= 25")
        if cold_runs:
            figures("object put -> function called, cold", cold(own, reports, cold_runs, put))
            figures("row committed -> function called, cold", cold(own, reports, cold_runs, insert))


def memory(own: Kubectl) -> None:
    """Print the memory of each of the platform's own processes (resident, from the kubelet) and the sum."""
    node = own.items("nodes")[0]["metadata"]["name"]
    summary = json.loads(own("get", "--raw", f"/api/v1/nodes/{node}/proxy/stats/summary"))
    wanted = {"operator", "router", "ingest", "reader", "nats"}
    total = 0.0
    for pod in summary["pods"]:
        reference = pod["podRef"]
        found = own.within(reference["namespace"]).get("pod", reference["name"])
        component = (found or {}).get("metadata", {}).get("labels", {}).get("app.kubernetes.io/component")
        if component in wanted:
            mib = sum(container["memory"]["rssBytes"] for container in pod["containers"]) / 2**20
            total += mib
            print(f"| memory {reference['namespace']}/{component} | {mib:.0f} MiB |")
    print(f"| memory of all of them | {total:.0f} MiB |", flush=True)


def main() -> None:
    """Measure all, print a Markdown table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--runs", type=int, default=10, help="cold starts of each kind")
    alone = options.add_mutually_exclusive_group()
    alone.add_argument("--cold", action="store_true", help="cold starts by kind of code alone")
    alone.add_argument("--warm", action="store_true", help="all but cold starts")
    chosen = options.parse_args()
    runs = chosen.runs
    kubectl = Kubectl.of_cluster()
    with bench_namespace(kubectl, "wisp-bench") as own, collector(host_address(kubectl)) as reports:
        print("| what | runs | p50 ms | p99 ms | max ms | wanted: p50, p99 |\n|---|---|---|---|---|---|")
        if not chosen.warm:
            cold_starts(own, runs)
        if chosen.cold:
            return
        events(own, reports, 0 if chosen.warm else runs)
        memory(own)


if __name__ == "__main__":
    main()
