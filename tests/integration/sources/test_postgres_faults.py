"""The reader, the database and the log are killed or cut off while rows change: nothing is lost, doubled or out of order."""

import json
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fixtures.dataplane import DataPlane
from fixtures.postgres import Postgres, postgres
from fixtures.process import wait_until
from fixtures.shop import ALL, Shop, shop_on
from wisp_api.cloudevent import Event

ROWS = 20
CHANGES = 1000


@pytest.fixture
def orders(shop: Shop) -> Shop:
    """A followed table with some rows."""
    return with_rows(shop)


def with_rows(shop: Shop) -> Shop:
    """Make the table, have it followed, and wait until its rows are in the log."""
    shop.sql("CREATE TABLE orders (id int PRIMARY KEY, version int)")
    shop.wish(("public.orders", ALL))
    shop.wait_ready()
    shop.sql(f"INSERT INTO orders SELECT id, 0 FROM generate_series(0, {ROWS - 1}) AS id")
    shop.wait_events(ROWS)
    return shop


def change_rows(shop: Shop, disturb: Callable[[], None], at: int) -> None:
    """Change rows one transaction each, round and round; `disturb` runs beside it from change number `at` on."""
    disturbing = threading.Thread(target=disturb)
    for number in range(CHANGES):
        if number == at:
            disturbing.start()
        shop.sql(f"UPDATE orders SET version = {number + 1} WHERE id = {number % ROWS}")
    disturbing.join()


def check(events: list[Event], changes: int = CHANGES) -> None:
    """Every change is there once, and each row's in the order of their commits."""
    assert len({event.id for event in events}) == len(events), "an event stands twice in the log"
    versions = defaultdict(list)
    for event in events:
        new = json.loads(bytes(event.data or b""))["new"]
        versions[new["id"]].append(new["version"])
    expected = {row: [0, *range(row + 1, changes + 1, ROWS)] for row in range(ROWS)}
    assert versions == expected


def test_the_reader_is_killed_while_rows_change(orders: Shop) -> None:
    """SIGKILL in the middle, twice, and a start anew: the log holds each change once, in order."""

    def kill() -> None:
        for _ in range(2):
            assert orders.reader
            orders.reader.kill()
            orders.reader.start()
            orders.reader.wait_ready()

    change_rows(orders, kill, CHANGES // 3)
    check(orders.wait_events(ROWS + CHANGES))


def test_nats_is_killed_while_rows_change(orders: Shop) -> None:
    """The log's server dies and comes back: the changes made meanwhile wait in PostgreSQL, none is lost or doubled."""

    def kill() -> None:
        orders.plane.server.kill()
        orders.wait_log_trouble()
        orders.plane.server.start()

    change_rows(orders, kill, CHANGES // 3)
    check(orders.wait_events(ROWS + CHANGES))


def test_nats_hangs_while_rows_change(orders: Shop) -> None:
    """The log's server stops in its tracks for longer than a publish waits: frames sent again are stored once."""

    def hang() -> None:
        orders.plane.server.pause()
        orders.wait_log_trouble()
        orders.plane.server.resume()

    change_rows(orders, hang, CHANGES // 3)
    check(orders.wait_events(ROWS + CHANGES))


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Postgres]:
    """A PostgreSQL of the test's own, to be killed."""
    with postgres(tmp_path) as server:
        yield server


def test_postgres_is_killed_and_the_reader_heals(own_server: Postgres, plane: DataPlane, tmp_path: Path) -> None:
    """The database crashes: the reader says that it is away, and follows again by itself without a gap or a copy."""
    with shop_on(plane, own_server, tmp_path) as shop:
        with_rows(shop)
        for number in range(ROWS):
            shop.sql(f"UPDATE orders SET version = {number + 1} WHERE id = {number}")
        own_server.kill()
        status = shop.wait_status(lambda status: not status.ready, "the reader does not notice")
        assert status.reason == "ServerUnreachable"
        own_server.start()
        shop.wait_ready()
        for number in range(ROWS, 2 * ROWS):
            shop.sql(f"UPDATE orders SET version = {number + 1} WHERE id = {number - ROWS}")
        check(shop.wait_events(3 * ROWS), changes=2 * ROWS)


def test_nothing_is_confirmed_before_the_log_has_it(orders: Shop) -> None:
    """While NATS is away the slot stays before the first change that is not in the log, and the reader is behind; afterwards it passes all of them."""
    slot = "SELECT confirmed_flush_lsn - '0/0', pg_current_wal_lsn() - '0/0' FROM pg_replication_slots WHERE slot_name = %s"
    orders.plane.server.kill()
    [(_, before)] = orders.server.execute(slot, orders.slot)
    orders.sql("UPDATE orders SET version = 1 WHERE id = 0")
    [(_, after)] = orders.server.execute(slot, orders.slot)
    orders.wait_log_trouble()
    wait_until(lambda: orders.behind() > 0, "the metric does not tell")
    orders.sql("CREATE TABLE noise AS SELECT generate_series(1, 1000)")
    [(confirmed, _)] = orders.server.execute(slot, orders.slot)
    assert confirmed <= after
    assert before < after
    orders.plane.server.start()
    orders.wait_events(ROWS + 1)
    wait_until(lambda: orders.server.execute(slot, orders.slot)[0][0] > after, "the slot does not advance")
    wait_until(lambda: orders.behind() == 0, "the metric stays")


def test_an_idle_slot_advances(orders: Shop) -> None:
    """Log written by other tables does not pile up behind a slot whose own tables are silent."""
    position = "SELECT pg_current_wal_lsn() - '0/0'"
    slot = "SELECT confirmed_flush_lsn - '0/0' FROM pg_replication_slots WHERE slot_name = %s"
    orders.sql("CREATE TABLE noise AS SELECT generate_series(1, 10000)")
    [(target,)] = orders.server.execute(position)
    wait_until(lambda: orders.server.execute(slot, orders.slot)[0][0] >= target, "the slot does not advance")


def test_a_large_transaction_in_bounded_memory(orders: Shop) -> None:
    """A transaction of 200,000 rows arrives whole and once, without the reader holding it."""
    rows = 200_000
    assert orders.reader
    orders.sql("TRUNCATE orders")
    orders.sql(f"INSERT INTO orders SELECT id, 7 FROM generate_series(1, {rows}) AS id")
    orders.wait_count(ROWS + 1 + rows)
    assert orders.reader.resident_mebibytes() < 200
    events = [event for event in orders.events() if b'"version":7' in bytes(event.data or b"")]
    assert len(events) == len({event.id for event in events}) == rows


def test_the_reader_is_killed_inside_a_transaction(orders: Shop) -> None:
    """Part of a transaction is in the log when the reader dies: its successor adds the rest, and nothing twice."""
    rows = 100_000
    orders.sql(f"INSERT INTO orders SELECT id, 7 FROM generate_series(1000, {999 + rows}) AS id")
    wait_until(lambda: orders.read() > rows // 3, "the reader does not read")
    held = len(orders.events())
    assert orders.reader
    orders.reader.kill()
    assert held < rows
    orders.reader.start()
    orders.wait_count(ROWS + rows)
    keys = [event.partitionkey for event in orders.events()]
    assert len(keys) == len(set(keys)) == ROWS + rows


def test_a_second_reader_takes_over(orders: Shop) -> None:
    """A successor gets the slot within seconds although its predecessor still holds it, as after a partition."""
    predecessor = orders.reader
    assert predecessor
    assert predecessor.process
    predecessor.pause()
    orders.start()
    orders.reader.wait_ready() if orders.reader else None
    orders.sql("UPDATE orders SET version = 1 WHERE id = 0")
    orders.wait_events(ROWS + 1)
    predecessor.resume()
    predecessor.kill()
