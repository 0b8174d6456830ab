"""Which tables are followed, and for what, while wishes and tables change."""

import psycopg2
import pytest
from fixtures.shop import ALL, Shop


@pytest.fixture
def orders(shop: Shop) -> Shop:
    """A shop with a table that is followed."""
    shop.sql("CREATE TABLE orders (id int PRIMARY KEY)")
    shop.wish(("public.orders", ALL))
    shop.wait_ready()
    return shop


def kinds(shop: Shop, count: int) -> list[tuple[str, str]]:
    """Table and kind of the events in the log once there are so many."""
    return [((event.subject or ""), event.type.rpartition(".")[2]) for event in shop.wait_events(count)]


def test_inserts_go_on_when_somebody_wants_more_than_the_table_gives(orders: Shop) -> None:
    """A table without replica identity stays followed for inserts when updates are wanted too; the report tells what is missing."""
    orders.sql("CREATE TABLE visits (page text)")
    orders.wish(("public.orders", ALL), ("public.visits", ["insert"]))
    orders.wait_ready()
    orders.sql("INSERT INTO visits VALUES ('a')")
    orders.wait_events(1)
    orders.wish(("public.orders", ALL), ("public.visits", ALL))
    item = orders.wait_item("public.visits", "NoReplicaIdentity")
    assert item.operations == ["insert"]
    assert "ALTER TABLE" in item.message
    orders.sql("INSERT INTO visits VALUES ('b')", "UPDATE visits SET page = 'c'")
    assert kinds(orders, 2) == [("public.visits", "insert")] * 2
    orders.sql("ALTER TABLE visits REPLICA IDENTITY FULL")
    orders.wish(("public.orders", ALL), ("public.visits", ALL))
    orders.wait_ready()
    orders.sql("UPDATE visits SET page = 'd' WHERE page = 'b'", "INSERT INTO orders VALUES (1)")
    assert kinds(orders, 3)[2:] == [("public.orders", "insert")]
    orders.sql("UPDATE visits SET page = 'e'")
    assert kinds(orders, 5)[3:] == [("public.visits", "update")] * 2


def test_a_table_that_loses_its_primary_key_and_gets_it_back(orders: Shop) -> None:
    """Meanwhile it is followed for inserts and the application's UPDATE works; then a gap event says that changes are missing."""
    orders.sql("ALTER TABLE orders DROP CONSTRAINT orders_pkey")
    orders.wish(("public.orders", ALL))
    orders.wait_item("public.orders", "NoReplicaIdentity")
    orders.sql("INSERT INTO orders VALUES (1)", "UPDATE orders SET id = 2")
    orders.wish(("public.orders", ALL))
    orders.wait_item("public.orders", "NoReplicaIdentity")
    assert kinds(orders, 1) == [("public.orders", "insert")]
    orders.sql("ALTER TABLE orders ADD PRIMARY KEY (id)")
    orders.wish(("public.orders", ALL))
    orders.wait_ready()
    orders.wait_events(2)
    orders.sql("DELETE FROM orders")
    assert [kind for _, kind in kinds(orders, 3)] == ["insert", "gap", "delete"]


def test_a_table_whose_publication_can_not_be_changed_is_still_followed(shop: Shop) -> None:
    """Its owner changed: what is wanted more is refused with the reason, and what is published goes on."""
    shop.server.execute("DROP ROLE IF EXISTS keeper")
    shop.server.execute("CREATE ROLE keeper LOGIN REPLICATION PASSWORD 'keeper'")
    shop.server.execute(f"GRANT CREATE ON DATABASE {shop.database} TO keeper")
    shop.sql("CREATE TABLE visits (id int PRIMARY KEY)", "ALTER TABLE visits OWNER TO keeper")
    shop.write_dsn(shop.server.dsn("keeper", "keeper", shop.database))
    shop.wish(("public.visits", ["insert"]))
    shop.wait_ready()
    shop.sql("ALTER TABLE visits OWNER TO postgres")
    shop.wish(("public.visits", ALL))
    assert shop.wait_item("public.visits", "PermissionDenied").operations == ["insert"]
    shop.sql("INSERT INTO visits VALUES (1)")
    assert kinds(shop, 1) == [("public.visits", "insert")]


def test_a_table_is_added_when_its_writers_have_ended(orders: Shop) -> None:
    """A row that is written before the table is published and committed after `ready` would be missed: so `ready` waits for its transaction."""
    orders.sql("CREATE TABLE items (id int PRIMARY KEY)")
    writer = psycopg2.connect(orders.server.dsn(database=orders.database))
    with writer.cursor() as cursor:
        cursor.execute("INSERT INTO items VALUES (1)")
        orders.wish(("public.orders", ALL), ("public.items", ALL))
        item = orders.wait_item("public.items", "WaitingForTransactions")
        assert f"pg_terminate_backend({writer.info.backend_pid})" in item.message
        orders.sql("INSERT INTO orders VALUES (1)")
        orders.sql("INSERT INTO items VALUES (2)")
        assert kinds(orders, 1) == [("public.orders", "insert")], "nobody else is held up"
        cursor.execute("INSERT INTO items VALUES (3)")
    writer.commit()
    orders.wait_ready()
    writer.close()
    orders.sql("INSERT INTO items VALUES (4)")
    assert kinds(orders, 2)[1:] == [("public.items", "insert")]


REPLACE = {
    "renamed": ["ALTER TABLE orders RENAME TO old", "CREATE TABLE orders (id int PRIMARY KEY)"],
    "made anew": ["DROP TABLE orders", "CREATE TABLE orders (id int PRIMARY KEY)"],
}


@pytest.mark.parametrize("dead", [False, True], ids=["alive", "dead"])
@pytest.mark.parametrize("how", REPLACE)
def test_a_table_that_another_took_the_place_of(orders: Shop, how: str, *, dead: bool) -> None:
    """Changes of the new table before it is published are missing: a gap event says so, in its place, once."""
    orders.sql("INSERT INTO orders VALUES (1)")
    orders.wait_events(1)
    assert orders.reader
    if dead:
        orders.reader.kill()
    orders.sql(*REPLACE[how])
    orders.sql("INSERT INTO orders VALUES (2)")
    if dead:
        orders.reader.start()
    else:
        orders.wish(("public.orders", ALL))
    events = orders.wait_events(2)
    assert b"public.orders was replaced" in bytes(events[1].data or b"")
    orders.wait_ready()
    orders.sql("INSERT INTO orders VALUES (3)")
    assert kinds(orders, 3) == [("public.orders", kind) for kind in ("insert", "gap", "insert")]
    orders.wish(("public.orders", ALL))
    orders.wait_ready()
    orders.reader.kill()
    orders.reader.start()
    orders.sql("INSERT INTO orders VALUES (4)")
    assert kinds(orders, 4)[3:] == [("public.orders", "insert")]
    assert sorted(event.sequence or "" for event in orders.events()) == [event.sequence for event in orders.events()]
