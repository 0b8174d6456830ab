"""A replication slot that is gone: what is said, and that a gap is told of wherever the reader dies on the way to a new one."""

import contextlib

import pytest
from fixtures.process import wait_until
from fixtures.shop import ALL, Shop
from wisp_api.source import ReaderStatus


@pytest.fixture
def orders(shop: Shop) -> Shop:
    """A shop with a table that is followed and has had a change."""
    shop.sql("CREATE TABLE orders (id int PRIMARY KEY)", "CREATE TABLE others (id int)")
    shop.wish(("public.orders", ALL))
    shop.wait_ready()
    shop.sql("INSERT INTO orders VALUES (1)")
    shop.wait_events(1)
    return shop


def writing(shop: Shop) -> contextlib.AbstractContextManager[int]:
    """A transaction that holds up the making of any slot."""
    return shop.transaction("INSERT INTO others VALUES (1)")


def lose_slot(shop: Shop) -> None:
    """End the reader, and drop its slot."""
    assert shop.reader
    shop.reader.kill()
    free = f"SELECT 1 FROM pg_replication_slots WHERE slot_name = '{shop.slot}' AND NOT active"
    wait_until(lambda: bool(shop.server.execute(free)), "the slot stays in use")
    shop.server.execute("SELECT pg_drop_replication_slot(%s)", shop.slot)


def wait_waiting(shop: Shop, pid: int) -> ReaderStatus:
    """Wait until the report names the backend that is waited for."""
    return shop.wait_status(
        lambda status: status.reason == "WaitingForTransactions" and f"pg_terminate_backend({pid})" in status.message,
        "the waiting is not reported",
    )


def kinds(shop: Shop, count: int) -> list[str]:
    """The kinds of the events in the log once there are so many."""
    events = shop.wait_events(count)
    assert len({event.id for event in events}) == len(events)
    return [event.type.rpartition(".")[2] for event in events]


def wait_comment(shop: Shop, text: str) -> None:
    """Wait until the reader has written this into the publication's comment."""
    comment = f"SELECT obj_description(oid, 'pg_publication') FROM pg_publication WHERE pubname = '{shop.slot}'"
    wait_until(lambda: text in shop.server.execute(comment, database=shop.database)[0][0], f"no comment {text!r}")


def test_the_first_slot_waits_for_open_transactions_and_says_so(shop: Shop) -> None:
    """The report names the backend and what to do; when the transaction has ended the table is followed, without a gap."""
    shop.sql("CREATE TABLE orders (id int PRIMARY KEY)", "CREATE TABLE others (id int)")
    with writing(shop) as pid:
        shop.wish(("public.orders", ALL))
        wait_waiting(shop, pid)
    shop.wait_ready()
    shop.sql("INSERT INTO orders VALUES (1)")
    assert kinds(shop, 1) == ["insert"]


def test_standbys_get_the_slot_where_the_server_can_give_it_to_them(orders: Shop) -> None:
    """From PostgreSQL 17 on it is made as one that is synchronized, so that a failover is no gap; older servers have no such slots."""
    slots = "SELECT to_jsonb(s) ->> 'failover', current_setting('server_version_num')::int FROM pg_replication_slots s WHERE slot_name = %s"
    [(failover, version)] = orders.server.execute(slots, orders.slot)
    assert failover == ("true" if version >= 170000 else None)


def test_killed_while_the_new_slot_waits(orders: Shop) -> None:
    """The status names the transaction, not the slot; no gap is told of before the slot is there, whoever makes it."""
    lose_slot(orders)
    assert orders.reader
    with writing(orders) as pid:
        orders.reader.start()
        assert "gone" in wait_waiting(orders, pid).message
        orders.reader.kill()
        orders.sql("INSERT INTO orders VALUES (2)")
        assert kinds(orders, 1) == ["insert"]
    orders.reader.start()
    orders.wait_ready()
    orders.sql("INSERT INTO orders VALUES (3)")
    assert kinds(orders, 3) == ["insert", "gap", "insert"]


def slot_without_gap_event(orders: Shop) -> None:
    """Bring it to where the new slot is made and the log takes no gap event."""
    lose_slot(orders)
    assert orders.reader
    with writing(orders) as pid:
        orders.reader.start()
        wait_waiting(orders, pid)
        orders.plane.server.kill()
    wait_comment(orders, "gap pending")


def test_killed_between_slot_and_gap_event(orders: Shop) -> None:
    """The successor writes the gap event and keeps the slot: what was committed meanwhile comes after it."""
    slot_without_gap_event(orders)
    assert orders.reader
    orders.reader.kill()
    orders.sql("INSERT INTO orders VALUES (3)")
    orders.plane.server.start()
    orders.reader.start()
    assert kinds(orders, 3) == ["insert", "gap", "insert"]
    status = orders.wait_status(lambda status: status.ready and "gap" in status.message, "the gap is not reported")
    assert orders.slot in status.message


def test_killed_between_gap_event_and_comment(orders: Shop) -> None:
    """The successor writes the gap event again, under the same id: the log holds it once."""
    slot_without_gap_event(orders)
    assert orders.reader
    with orders.transaction(f"COMMENT ON PUBLICATION {orders.slot} IS 'held up'"):
        orders.plane.server.start()
        assert kinds(orders, 2) == ["insert", "gap"]
        waits = "application_name = 'wisp-reader' AND wait_event_type = 'Lock'"
        wait_until(lambda: bool(orders.server.execute(f"SELECT 1 FROM pg_stat_activity WHERE {waits}")), "nobody waits")
        orders.reader.kill()
        orders.server.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {waits}")
    orders.sql("INSERT INTO orders VALUES (3)")
    orders.reader.start()
    orders.wait_ready()
    assert kinds(orders, 3) == ["insert", "gap", "insert"]
    wait_comment(orders, "Wisp, epoch")


def test_all_publications_and_the_slot_are_gone_half_way(orders: Shop) -> None:
    """Killed while it replaces a slot whose publications were both dropped: that is no first start, and the gap is told of."""
    assert orders.reader
    orders.reader.kill()
    orders.sql(f"DROP PUBLICATION {orders.slot}, {orders.slot}_ins")
    with writing(orders) as pid:
        orders.reader.start()
        wait_waiting(orders, pid)
        orders.reader.kill()
    orders.reader.start()
    orders.wait_ready()
    orders.sql("INSERT INTO orders VALUES (3)")
    assert kinds(orders, 3) == ["insert", "gap", "insert"]
