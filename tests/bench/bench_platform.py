"""`python tests/bench/bench_platform.py`: what a user of the running cluster waits for, and what the platform's pods take.

Cold start of `hello` (no pod -> first answer through the ingress), object put -> function called and row committed ->
function called, warm and cold, and the memory of the platform's own pods at rest. All loops are bounded.
"""

import argparse
import contextlib
import io
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import psycopg2
from fixtures.collector import Collector, collector
from fixtures.functions import call
from fixtures.platform import (
    bucket_connection,
    deploy_recorder,
    host_address,
    postgres_connection,
    subscribe,
)
from wisp_cluster.kubectl import Kubectl

EXAMPLES = Path(__file__).parents[2] / "examples"
WARM_RUNS = 200
QUIET_SECONDS = 0.05
"""Between two warm measurements, so that each finds the platform at rest."""


def figures(name: str, seconds: list[float]) -> None:
    """Print one row: runs, p50, p95, max."""
    ordered = sorted(seconds)
    p95 = ordered[min(len(ordered) - 1, round(0.95 * len(ordered)))]
    print(
        f"| {name} | {len(ordered)} | {statistics.median(ordered) * 1e3:.1f} | {p95 * 1e3:.1f} | {ordered[-1] * 1e3:.1f} |",
        flush=True,
    )


def to_zero(own: Kubectl, function: str) -> None:
    """Wait until a function has no pod."""
    own.wait_pods(f"wisp.dev/function={function}", lambda count: count == 0, f"{function} goes to zero", 240)


def cold_starts(own: Kubectl, runs: int) -> list[float]:
    """Seconds from request to answer of `hello` with no pod running."""
    own.apply(EXAMPLES / "hello")
    url = own.wait_ready("functions", "hello")["status"]["url"]
    taken = []
    for _ in range(runs):
        to_zero(own, "hello")
        start = time.monotonic()
        status, _ = call(url)
        taken.append(time.monotonic() - start)
        assert status == 200
    return taken


def until_called(reports: Collector, act: Callable[[], None]) -> float:
    """Seconds from the moment `act` begins to return until the function reports."""
    before = len(reports.seen())
    act()
    start = time.monotonic()
    wait_until_fast(lambda: len(reports.seen()) > before)
    return max(0.0, float(reports.seen()[before]["at"]) - start)


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


def memory(own: Kubectl) -> None:
    """Print the memory of each of the platform's own processes (resident, from the kubelet) and the sum."""
    import json  # noqa: PLC0415

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


@contextmanager
def bench_namespace(kubectl: Kubectl) -> Iterator[Kubectl]:
    """A namespace for the bench, deleted at the end."""
    own = kubectl.within("wisp-bench")
    own.ensure_namespace()
    try:
        yield own
    finally:
        own("delete", "subscriptions", "--all", "--timeout=120s")
        own("delete", "namespace", own.namespace, "--timeout=180s")


def main() -> None:
    """Measure all, print a Markdown table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--runs", type=int, default=10, help="cold starts of each kind")
    runs = options.parse_args().runs
    kubectl = Kubectl.of_cluster()
    with bench_namespace(kubectl) as own, collector(host_address(kubectl)) as reports:
        print("| what | runs | p50 ms | p95 ms | max ms |\n|---|---|---|---|---|")
        figures("hello: no pod -> first answer", cold_starts(own, runs))
        deploy_recorder(own, "recorder", reports)
        minio = bucket_connection(own, "my-s3", ["bench"])
        dsn = postgres_connection(own)
        with contextlib.closing(psycopg2.connect(dsn)) as connection:  # its own `with` would hold a transaction open
            connection.autocommit = True
            cursor = connection.cursor()
            cursor.execute("CREATE TABLE bench (id serial PRIMARY KEY, n int)")
            subscribe(
                own,
                "objects",
                "recorder",
                {"bucket": {"name": "bench", "events": ["ObjectCreated:*"], "connection": {"name": "my-s3"}}},
            )
            subscribe(
                own, "rows", "recorder", {"postgres": {"tables": ["public.bench"], "connection": {"name": "shop-db"}}}
            )

            def put() -> None:
                minio.put_object("bench", f"{time.monotonic_ns()}", io.BytesIO(b"x" * 1024), 1024)

            def insert() -> None:
                cursor.execute("INSERT INTO bench (n) VALUES (1)")

            until_called(reports, put)
            figures("object put -> function called, warm", warm(reports, put))
            figures("row committed -> function called, warm", warm(reports, insert))
            figures("object put -> function called, cold", cold(own, reports, runs, put))
            figures("row committed -> function called, cold", cold(own, reports, runs, insert))
        memory(own)


if __name__ == "__main__":
    main()
