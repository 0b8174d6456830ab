"""A TRUNCATE is a barrier for its table, in the log and at the function, whatever lanes its rows are in."""

from collections import Counter
from pathlib import Path

from fixtures.function_server import MARKED, Answer, Request, ok
from fixtures.postgres import needs
from fixtures.router_world import event, world
from fixtures.shop import ALL, Shop
from wisp_api import names
from wisp_api.cloudevent import Event
from wisp_api.route import Retry


def kinds(events: list[Event]) -> list[str]:
    """What was done, in short."""
    return [event.type.rpartition(".")[2] for event in events]


def test_truncate_stands_once_between_what_came_before_and_after(shop: Shop) -> None:
    """Rows of every lane stand before it in the log's order, later rows after it; it has no partition key and comes once."""
    needs(11, "TRUNCATE in publications")
    shop.sql("CREATE TABLE orders (id int PRIMARY KEY)", "CREATE TABLE items (id int PRIMARY KEY)")
    shop.wish(("public.orders", ALL), ("public.items", ALL))
    shop.wait_ready()
    rows = "INSERT INTO orders SELECT generate_series(1, 50)"
    shop.sql(rows, "INSERT INTO items VALUES (1)", "TRUNCATE orders, items", rows)
    shop.sql("TRUNCATE orders")
    events = shop.wait_events(104)
    orders = [event for event in events if event.subject == "public.orders"]
    assert kinds(orders) == ["insert"] * 50 + ["truncate"] + ["insert"] * 50 + ["truncate"]
    assert kinds([event for event in events if event.subject == "public.items"]) == ["insert", "truncate"]
    assert [event.partitionkey for event in events if event.type.endswith("truncate")] == [None] * 3
    assert len({event.id for event in events}) == 104, "one TRUNCATE of two tables is two events"


async def test_the_router_lets_nothing_of_the_table_pass(tmp_path: Path) -> None:
    """Rows of other lanes are done before it is attempted, and it is done before later rows of any lane are."""
    async with world(tmp_path) as w:
        w.router()
        fails = Counter({"1": 2, "2": 1})

        def answer(request: Request) -> Answer:
            fails[request.id] -= 1
            return (500, MARKED, b"") if fails[request.id] >= 0 else ok(request)

        w.function.answer = answer
        before, after = "public.orders:[1]", "public.orders:[2]"
        assert len({names.lane(""), names.lane(before), names.lane(after)}) == 3
        await w.publish(event(1, before), event(2, None), event(3, after))
        await w.subscribe(retry=Retry(max_attempts=9, initial_seconds=0.05, max_seconds=0.1))
        await w.delivered(3)
        assert [request.id for request in w.function.requests] == ["1", "1", "1", "2", "2", "3"]
