"""Where events go besides to functions, and what Subscriptions do with several: sinks, replies, destinations, windows, rows that were there, MongoDB."""

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg2
from fixtures.collector import Collector
from fixtures.functions import function
from fixtures.mongod import Mongod
from fixtures.platform import (
    deploy_recorder,
    expose,
    host_address,
    post_events,
    post_invocation,
    postgres_connection,
    subscribe,
)
from fixtures.process import wait_until
from wisp_cluster.demo import write_secret
from wisp_cluster.kubectl import Kubectl

RECORDER = {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": "recorder"}
"""The recorder's Knative Service, an Addressable that is not Wisp's."""

PRICE = """
from cloudevents.core.v1.event import CloudEvent


def handler(event):
    order = event.get_data()
    if not order["total"]:
        raise ValueError("nothing to price")
    return CloudEvent(
        {"id": f"price-of-{event.get_id()}", "source": "/price", "type": "order.priced", "specversion": "1.0"},
        {"total": order["total"] * 2},
    )
"""

SUM = """
import json, os, urllib.request


def handler(event, context):
    call = event["data"]
    total = call["state"].get("total", 0) + sum(one["data"]["n"] for one in call["Records"])
    if call["isFinalInvokeForWindow"]:
        told = json.dumps({"shard": call["shardId"], "window": call["window"], "total": total})
        urllib.request.urlopen(urllib.request.Request(os.environ["COLLECTOR"], told.encode()), timeout=10).read()
    return {"state": {"total": total}}
"""


def types(reports: Collector) -> dict[str, dict[str, Any]]:
    """The last report of each type of event."""
    return {report["type"]: report for report in reports.seen() if "type" in report}


def test_what_functions_return_goes_on(namespace: Kubectl, reports: Collector) -> None:
    """A reply goes by a bus to a sink that is an Addressable, records of invocations to a bus and to a function, and a bus to a Service of Kubernetes."""
    deploy_recorder(namespace, "recorder", reports, minimum=1)
    namespace("patch", "function", "recorder", "--type=merge", "-p", '{"spec": {"async": {}}}')
    destinations = {"onSuccess": {"bus": {"name": "done"}}, "onFailure": {"function": {"name": "recorder"}}}
    namespace.apply(
        function(
            "price",
            {"files": {"app.py": PRICE}},
            signature="cloudevent",
            scale={"min": 1},
            **{"async": {"maxAttempts": 1, **destinations}},
        )
    )
    expose(namespace, "legacy", reports.url)
    subscribe(namespace, "price", "price", bus("orders"), reply={"bus": {"name": "priced"}})
    subscribe(namespace, "to-addressable", None, bus("priced"), sink={"ref": RECORDER})
    subscribe(namespace, "to-function", "recorder", bus("done"))
    subscribe(
        namespace,
        "to-service",
        None,
        bus("plain"),
        sink={"ref": {"apiVersion": "v1", "kind": "Service", "name": "legacy"}},
    )
    post_events(namespace, "orders", [made(1, {"total": 21})])
    post_events(namespace, "plain", [made(2, {"plain": True})])
    post_invocation(namespace, "price", {"total": 4})
    post_invocation(namespace, "price", {"total": 0})
    wanted = {"order.priced", "dev.wisp.invocation.succeeded", "dev.wisp.invocation.failed"}
    wait_until(lambda: wanted <= types(reports).keys(), "reply and both records arrive", 120)
    wait_until(lambda: any(report.get("plain") for report in reports.seen()), "the Service has its event", 120)
    told = types(reports)
    assert (told["order.priced"]["id"], told["order.priced"]["data"]) == ("price-of-1", {"total": 42})
    assert told["dev.wisp.invocation.succeeded"]["data"]["requestPayload"] == {"total": 4}
    failed = told["dev.wisp.invocation.failed"]["data"]
    assert failed["requestContext"]["condition"] == "RetriesExhausted"
    assert failed["responsePayload"]["errorType"] == "ValueError"


def test_windows_sum_up(namespace: Kubectl, reports: Collector) -> None:
    """Each event is in the sum of one window, and each window of a shard is told of once it is over."""
    env = [{"name": "COLLECTOR", "value": reports.url}]
    namespace.apply(function("sums", {"files": {"app.py": SUM}}, env=env, scale={"min": 1}))
    batch = {"size": 10, "tumblingWindowSeconds": 2}
    subscribe(namespace, "sums", "sums", bus("numbers"), order="key", batch=batch)
    for part in range(3):
        post_events(
            namespace,
            "numbers",
            [made(n, {"n": n}, partitionkey=f"k{n % 7}") for n in range(part * 100, part * 100 + 100)],
        )

    def told() -> int:
        """The sum of all windows; a last call that comes twice has the same total."""
        return sum({(one["shard"], one["window"]["start"]): one["total"] for one in reports.seen()}.values())

    wait_until(lambda: told() == sum(range(300)), "the windows have all numbers", 120)


def test_rows_that_were_there_come_first(namespace: Kubectl, reports: Collector) -> None:
    """With `snapshot: initial` a table's rows come, then its changes; MongoDB's reader follows a collection besides."""
    deploy_recorder(namespace, "recorder", reports, minimum=1)
    dsn = postgres_connection(namespace)
    with contextlib.closing(psycopg2.connect(dsn)) as connection, mongod(namespace) as server:
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute("CREATE TABLE stock (id int PRIMARY KEY, n int NOT NULL)")
        cursor.execute("INSERT INTO stock SELECT id, 0 FROM generate_series(1, 100) id")
        tables = {"connection": {"name": "shop-db"}, "tables": ["public.stock"], "snapshot": "initial"}
        subscribe(namespace, "stock", "recorder", {"postgres": tables})
        collections = {"connection": {"name": "shop-mongo"}, "collections": ["shop.orders"]}
        subscribe(namespace, "orders", "recorder", {"mongodb": collections})
        wait_until(
            lambda: len({report["id"] for report in reports.seen()}) == 100,
            "the rows that were there arrive: Ready does not wait for them",
            120,
        )
        cursor.execute("UPDATE stock SET n = 1 WHERE id <= 10")
        server.insert("shop.orders", {"_id": 1, "total": 7})
        wait_until(
            lambda: len({report["id"] for report in reports.seen()}) == 111,
            "rows, changes and the document arrive",
            120,
        )
    rows = [report for report in reports.seen() if report["partitionkey"] == "public.stock:[1]"]
    assert [row["data"]["op"] for row in rows] == ["snapshot", "update"]
    assert [row["data"]["new"]["n"] for row in rows] == [0, 1]
    assert types(reports)["dev.wisp.mongodb.insert"]["data"]["new"] == {"_id": 1, "total": 7}


def bus(name: str) -> dict[str, Any]:
    """A bus as a Subscription's source."""
    return {"bus": {"name": name}}


def made(number: int, data: Any, **attributes: str) -> dict[str, Any]:
    """A CloudEvent."""
    time = datetime.now(UTC).isoformat()
    return {
        "specversion": "1.0",
        "id": str(number),
        "source": "/e2e",
        "type": "order",
        "time": time,
        "data": data,
        **attributes,
    }


@contextlib.contextmanager
def mongod(own: Kubectl) -> Iterator[Mongod]:
    """A server that speaks MongoDB's protocol, on this machine, and a connection to it, the Secret shop-mongo."""
    server = Mongod(host=host_address(own))
    server.start()
    try:
        write_secret(own, "shop-mongo", {"dsn": server.dsn()})
        yield server
    finally:
        server.kill()
