"""The order-stream example: the totals of the example's own database, moved by batches that the real runtime hands over."""

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fixtures.examples import EXAMPLES, sample, served
from integration.examples.conftest import query

KINDS = ("insert", "update", "delete")


@pytest.fixture
def url(shop: str, tmp_path: Path) -> Iterator[str]:
    """The function, with the tables that its README makes."""
    query(shop, (EXAMPLES / "order-stream" / "totals.sql").read_text())
    with served("order-stream", EXAMPLES / "order-stream", tmp_path / "function.log", {"DSN": shop}) as running:
        yield running


def post(url: str, events: list[dict[str, Any]]) -> int:
    """Post a batch as the router does."""
    headers = {"Content-Type": "application/cloudevents-batch+json"}
    with urllib.request.urlopen(
        urllib.request.Request(url, json.dumps(events).encode(), headers), timeout=60
    ) as answer:
        return int(answer.status)


def order(number: int, total: float, second: int) -> dict[str, Any]:
    """An order that came at a second of 12 o'clock."""
    event = sample("order-stream/events/insert.json")
    event |= {"id": f"order-{number}", "time": f"2026-01-01T12:{second // 60:02d}:{second % 60:02d}Z"}
    event["data"] |= {"new": {"id": number, "customer": "Ada", "total": total, "status": "new"}}
    return event


def stream(dsn: str) -> list[tuple[Any, ...]]:
    """The totals as a reader sees them."""
    columns = (
        "to_char(minute AT TIME ZONE 'UTC', 'HH24:MI'), orders, total::text, orders_so_far::int, total_so_far::text"
    )
    return query(dsn, f"SELECT {columns} FROM order_stream ORDER BY minute")


def test_totals_run_per_minute(shop: str, url: str) -> None:
    """Each change counts in the minute of its commit, whatever batch it comes in, and the sums so far go on."""
    assert post(url, [order(n, 10.25, n) for n in range(50, 70)]) in (200, 204)
    assert post(url, [order(1, 1.5, 0)]) in (200, 204)
    assert stream(shop) == [("12:00", 11, "104.00", 11, "104.00"), ("12:01", 10, "102.50", 21, "206.50")]


def test_what_comes_again_counts_once(shop: str, url: str) -> None:
    """Whole, in other company, and twice in one batch."""
    first, second, third = (order(n, 5, n) for n in range(3))
    for batch in ([first, second], [first, second], [second, third], [third, third, first]):
        post(url, batch)
    assert stream(shop) == [("12:00", 3, "15.00", 3, "15.00")]


def test_an_order_that_is_deleted_is_worth_nothing(shop: str, url: str) -> None:
    """The three samples are one order's life: it came, it was paid, it went."""
    post(url, [sample(f"order-stream/events/{kind}.json") for kind in KINDS])
    assert stream(shop)[-1][3:] == (0, "0.00")


def test_a_batch_counts_whole_or_not_at_all(shop: str, url: str) -> None:
    """One event that the database refuses leaves no other counted, so the batch can come again."""
    bad = order(2, 1, 0) | {"time": "no time"}
    with pytest.raises(urllib.error.HTTPError) as raised:
        post(url, [order(1, 1, 0), bad])
    raised.value.close()
    assert stream(shop) == []
    post(url, [order(1, 1, 0)])
    assert [row[1] for row in stream(shop)] == [1]
