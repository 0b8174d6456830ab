"""Row changes of a real PostgreSQL, through the reader process, in the log."""

import json
from typing import Any

from fixtures.shop import Shop
from wisp_api.cloudevent import Event

ALL = ["insert", "update", "delete"]


def data(event: Event) -> dict[str, Any]:
    """An event's data."""
    return json.loads(bytes(event.data or b"null"))


def test_insert_update_and_delete_reach_the_log_in_order(shop: Shop) -> None:
    """Each change is one event with key, old and new values as the server has them, ordered by its sequence."""
    shop.sql("CREATE TABLE orders (id int PRIMARY KEY, total numeric(12,2), note text)")
    shop.wish(("public.orders", ALL))
    shop.wait_ready()
    shop.sql("INSERT INTO orders VALUES (1, 12.50, 'first')")
    shop.sql("UPDATE orders SET total = 99.95 WHERE id = 1")
    shop.sql("DELETE FROM orders WHERE id = 1")
    events = shop.wait_events(3)
    assert [event.type for event in events] == [f"dev.wisp.postgres.{kind}" for kind in ALL]
    assert [data(event) for event in events] == [
        {"op": "insert", "key": {"id": 1}, "old": None, "new": {"id": 1, "total": 12.5, "note": "first"}},
        {"op": "update", "key": {"id": 1}, "old": None, "new": {"id": 1, "total": 99.95, "note": "first"}},
        {"op": "delete", "key": {"id": 1}, "old": {"id": 1}, "new": None},
    ]
    assert {event.partitionkey for event in events} == {"public.orders:[1]"}
    assert {(event.source, event.subject) for event in events} == {("urn:wisp:postgres:shop:shop-db", "public.orders")}
    assert sorted(event.sequence or "" for event in events) == [event.id for event in events]
