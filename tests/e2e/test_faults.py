"""Nothing is lost and rows stay in order while every part of the platform is killed in turn."""

import io
import itertools
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import psycopg2
from fixtures.collector import Collector
from fixtures.platform import bucket_connection, deploy_recorder, postgres_connection, subscribe
from fixtures.process import wait_until
from minio import Minio
from wisp_cluster.faults import kill_pods
from wisp_cluster.install import NAMESPACE as SYSTEM
from wisp_cluster.kubectl import Kubectl

OBJECTS = 1000
ROWS = 20
UPDATES = 50
SECONDS = 75
"""Over which the 1,000 objects and the 1,000 row changes are spread, so that each kill falls among them."""


def paced(count: int, seconds: float, action: Callable[[int], None]) -> None:
    """Call `action(0..count-1)` evenly spread over `seconds`, or as fast as it goes where that is slower."""
    start = time.monotonic()
    for number in range(count):
        time.sleep(max(0.0, start + number * seconds / count - time.monotonic()))
        action(number)


def put_objects(minio: Minio, bucket: str) -> None:
    """One object after the other, each with a key of its own; some keys are awkward."""

    def put(number: int) -> None:
        minio.put_object(bucket, f"in/ö +%{number}.txt", io.BytesIO(b"x"), 1)

    paced(OBJECTS, SECONDS, put)


def change_rows(dsn: str) -> None:
    """Count each row from 1 to UPDATES, all rows round about, one transaction a change."""
    with psycopg2.connect(dsn) as connection:
        connection.autocommit = True
        cursor = connection.cursor()

        def change(number: int) -> None:
            cursor.execute("UPDATE counters SET n = n + 1 WHERE id = %s", [number % ROWS])

        paced(ROWS * UPDATES, SECONDS, change)


def kill_in_turn(system: Kubectl, own: Kubectl, done: threading.Event) -> list[str]:
    """SIGKILL each part, wait until its pod is ready again, go on to the next, until the traffic is over; at least once each."""
    parts = [
        (system, "app.kubernetes.io/component=router"),
        (own, "app.kubernetes.io/component=reader"),
        (system, "app.kubernetes.io/component=ingest"),
        (system, "app.kubernetes.io/component=nats"),
        (system, "app.kubernetes.io/component=operator"),
    ]
    killed: list[str] = []
    for where, selector in itertools.cycle(parts):
        if done.is_set() and len(killed) >= len(parts):
            return killed
        kill_pods(where.namespace, selector)
        killed.append(selector.partition("=")[2])
        where("wait", "pod", "-l", selector, "--for=condition=Ready", "--timeout=120s")
        done.wait(5)
    return killed


def first_deliveries(reports: list[dict[str, Any]]) -> dict[str, list[int]]:
    """For each row, the values of n in the order in which each was seen first."""
    order: dict[str, list[int]] = defaultdict(list)
    for report in reports:
        value = report["data"]["new"]["n"]
        if value not in order[report["partitionkey"]]:
            order[report["partitionkey"]].append(value)
    return order


def test_kills_lose_nothing_and_keep_rows_in_order(
    kubectl: Kubectl, namespace: Kubectl, reports: Collector, record_property: Callable[[str, object], None]
) -> None:
    """With router, reader, ingest, NATS and operator killed in turn, every object and every row change arrives, rows in order."""
    deploy_recorder(namespace, "recorder", reports, minimum=1)
    minio = bucket_connection(namespace, "my-s3", buckets=["faults"])
    dsn = postgres_connection(namespace)
    with psycopg2.connect(dsn) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE counters (id int PRIMARY KEY, n int NOT NULL)")
        cursor.execute("INSERT INTO counters SELECT id, 0 FROM generate_series(0, %s) id", [ROWS - 1])
    subscribe(
        namespace,
        "objects",
        "recorder",
        {"bucket": {"name": "faults", "events": ["ObjectCreated:*"], "connection": {"name": "my-s3"}}},
    )
    subscribe(
        namespace, "rows", "recorder", {"postgres": {"tables": ["public.counters"], "connection": {"name": "shop-db"}}}
    )

    traffic = [
        threading.Thread(target=put_objects, args=(minio, "faults")),
        threading.Thread(target=change_rows, args=(dsn,)),
    ]
    over = threading.Event()

    def watch() -> None:
        for thread in traffic:
            thread.join()
        over.set()

    for thread in [*traffic, threading.Thread(target=watch, daemon=True)]:
        thread.start()
    killed = kill_in_turn(kubectl.within(SYSTEM), namespace, over)

    def arrived(kind: str) -> list[dict[str, Any]]:
        return [report for report in reports.seen() if report["type"].startswith(kind)]

    wait_until(
        lambda: len({report["id"] for report in arrived("com.amazonaws.s3")}) >= OBJECTS,
        "not every object arrived",
        240,
    )
    wait_until(
        lambda: len({report["id"] for report in arrived("dev.wisp.postgres")}) >= ROWS * UPDATES,
        "not every change arrived",
        240,
    )
    assert {report["subject"] for report in arrived("com.amazonaws.s3")} == {
        f"in/ö +%{number}.txt" for number in range(OBJECTS)
    }
    assert first_deliveries(arrived("dev.wisp.postgres")) == {
        f"public.counters:[{row}]": list(range(1, UPDATES + 1)) for row in range(ROWS)
    }
    duplicates = {
        kind: len(arrived(kind)) - len({report["id"] for report in arrived(kind)})
        for kind in ("com.amazonaws.s3", "dev.wisp.postgres")
    }
    record_property("killed", dict(Counter(killed)))
    record_property("duplicates", duplicates)
    print(
        f"\nkilled {dict(Counter(killed))}; lost 0 of {OBJECTS} objects and {ROWS * UPDATES} changes; duplicates {duplicates}"
    )
