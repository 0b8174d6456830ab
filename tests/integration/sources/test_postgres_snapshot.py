"""Rows that tables had before they were followed: consistent with the changes that follow, once, for those who asked."""

import random
import threading

import psycopg2
from fixtures.dataplane import Part
from fixtures.postgres import major
from fixtures.process import wait_until
from fixtures.rows import applied, applied_loosely, data, rows
from fixtures.shop import ALL, Shop
from wisp_api import names
from wisp_events.sources.row_given import Given

from .test_postgres_changes import types
from .test_postgres_slot import lose_slot

SNAPSHOT = "dev.wisp.postgres.snapshot"


class Writer:
    """Somebody who writes to the table meanwhile."""

    def __init__(self, shop: Shop, keys: int) -> None:
        """Begin."""
        self._shop = shop
        self._keys = keys
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write)
        self._thread.start()

    def _write(self) -> None:
        chance = random.Random(7)
        session = psycopg2.connect(self._shop.server.dsn(database=self._shop.database))
        session.autocommit = True
        with session.cursor() as cursor:
            while not self._stop.is_set():
                key = chance.randrange(2 * self._keys)
                if chance.random() < 0.3:
                    cursor.execute("DELETE FROM orders WHERE id = %s", (key,))
                else:
                    upsert = "INSERT INTO orders VALUES (%s, 0) ON CONFLICT (id) DO UPDATE SET n = orders.n + 1"
                    cursor.execute(upsert, (key,))
                self._stop.wait(0.002)  # who looks at all events again and again must keep up
        session.close()

    def stop(self) -> dict[int, int]:
        """End; returns the table then."""
        self._stop.set()
        self._thread.join()
        return dict(self._shop.server.execute("SELECT id, n FROM orders", database=self._shop.database))


def test_events_make_the_table_whoever_writes_to_it_meanwhile(shop: Shop) -> None:
    """The rows stand behind every change that they contain and before every other: applied one by one they make the table, and none contradicts."""
    shop.sql("CREATE TABLE orders (id int PRIMARY KEY, n int)", "CREATE TABLE others (id int PRIMARY KEY)")
    shop.sql("INSERT INTO orders SELECT i, 0 FROM generate_series(0, 2999) AS i", "INSERT INTO others VALUES (1)")
    shop.wish(("public.orders", ALL), ("public.others", ALL))
    shop.wait_ready()
    writer = Writer(shop, 3000)
    try:
        wait_until(lambda: len(shop.events()) > 100, "changes")
        shop.wish(("public.orders", ALL), ("public.others", ALL), rows={"public.orders": ["uid-1"]})
        wait_until(lambda: len(rows(shop)) >= 2000, "rows")
        before = len(shop.events())
        wait_until(lambda: len(shop.events()) > before + 100, "changes after them")
    finally:
        table = writer.stop()
    wait_until(lambda: applied(shop.events()) == table, "the events make the table")
    subjects = {event.subject for event in rows(shop)}
    assert subjects == {"public.orders"}, "nobody asked for the other table's rows"
    assert data(rows(shop)[0])["old"] is None


def killed_amid_rows(shop: Shop) -> Part:
    """The reader, killed while it writes the 10,000 rows of `orders` for uid-1."""
    shop.sql("CREATE TABLE orders (id int PRIMARY KEY, n int)")
    shop.sql("INSERT INTO orders SELECT i, 0 FROM generate_series(1, 10000) AS i")
    shop.wish(("public.orders", ALL), rows={"public.orders": ["uid-1"]})
    wait_until(lambda: len(rows(shop)) > 0, "rows")
    assert shop.reader
    shop.reader.kill()
    return shop.reader


def test_who_dies_in_the_middle_begins_anew_and_nobody_gets_rows_twice(shop: Shop) -> None:
    """Killed while it writes rows, a reader takes a new snapshot: rows that come again have the same ids, the table comes out right, and it is done once."""
    reader = killed_amid_rows(shop)
    shop.sql("UPDATE orders SET n = 1 WHERE id % 1000 = 0", "DELETE FROM orders WHERE id = 7")
    reader.start()
    shop.wait_ready()
    ids = {i: int(i % 1000 == 0) for i in range(1, 10001) if i != 7}
    wait_until(lambda: len({event.id for event in rows(shop)}) >= len(ids), "all rows", seconds=120)
    wait_until(lambda: applied_loosely(shop.events()) == ids, "the table")
    keys = {event.id: event.partitionkey for event in rows(shop)}
    assert len(set(keys.values())) == len(keys), "one id for each row"
    key = names.position_key(shop.namespace, shop.kind, shop.connection)
    wait_until(
        lambda: bool((shop.plane.get(names.KV_STATUS, key, Given) or Given()).snapshots),
        "who has the rows is not remembered",
    )
    count = len(rows(shop))
    reader.stop()
    reader.start()
    shop.sql("CREATE TABLE late (id int PRIMARY KEY)", "INSERT INTO late VALUES (1)")
    shop.wish(("public.orders", ALL), ("public.late", ALL), rows={"public.orders": ["uid-1"], "public.late": ["uid-1"]})
    wait_until(lambda: any(event.subject == "public.late" for event in rows(shop)), "the late table's row")
    assert len(rows(shop)) == count + 1, "a table's rows come once"


def test_rows_look_as_their_changes_do(shop: Shop) -> None:
    """Each value of every type, and the key, is in a snapshot as in the change that follows; generated columns are in neither."""
    known = types()
    columns = ", ".join(f"c{number} {kind}" for number, kind in enumerate(known))
    twice = "GENERATED ALWAYS AS (id * 2) STORED" if major() >= 12 else ""
    below = "PARTITION BY RANGE (id)" if major() >= 13 else ""
    shop.sql(
        "CREATE TYPE mood AS ENUM ('glad')",
        "CREATE DOMAIN small AS int CHECK (VALUE < 10)",
        "CREATE DOMAIN smaller AS small CHECK (VALUE < 5)",
        "CREATE DOMAIN amount AS numeric(12,2)",
        "CREATE DOMAIN payload AS jsonb",
        "CREATE DOMAIN moods AS mood[]",
        "CREATE TYPE pair AS (a int, b text)",
        f'CREATE TABLE "Every thing" (gone int, id int, "b""c" text, {columns}, twice int {twice}, PRIMARY KEY ("b""c", id))',
        'ALTER TABLE "Every thing" DROP COLUMN gone',
        f"INSERT INTO \"Every thing\" VALUES (1, 'k', {', '.join(sql for sql, _ in known.values())})",
        f"CREATE TABLE parted (id int PRIMARY KEY) {below}",
        *["CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10)"] * bool(below),
        "INSERT INTO parted VALUES (5)",
    )
    tables = [("public.Every thing", ALL), ("public.parted", ALL)]
    shop.wish(*tables, rows={name: ["uid-1", "uid-2"] for name, _ in tables})
    shop.wait_events(4)
    shop.sql('UPDATE "Every thing" SET id = 1', "UPDATE parted SET id = 5")
    events = shop.wait_events(6)
    for table, _ in tables:
        one, other, update = [event for event in events if event.subject == table]
        assert (one.type, other.type) == (SNAPSHOT, SNAPSHOT)
        assert one.id != other.id
        assert one.partitionkey == other.partitionkey == update.partitionkey
        assert data(one)["new"] == data(update)["new"]
        assert data(one)["key"] == data(update)["key"]


def test_an_open_transaction_holds_up_rows_and_nothing_else(shop: Shop) -> None:
    """While a snapshot waits for a transaction that is open, changes are carried on; when it ends the rows come, its own among them."""
    shop.sql("CREATE TABLE orders (id int PRIMARY KEY, n int)", "CREATE TABLE busy (id int PRIMARY KEY)")
    shop.wish(("public.orders", ALL))
    shop.wait_ready()
    with shop.transaction("INSERT INTO busy VALUES (1)"):
        shop.wish(("public.orders", ALL), rows={"public.orders": ["uid-1"]})
        shop.wait_status(lambda status: "rows of public.orders are still to come" in status.message, "a message")
        shop.sql("INSERT INTO orders VALUES (1, 1)")
        assert [event.type.rpartition(".")[2] for event in shop.wait_events(1)] == ["insert"]
    (_, row) = shop.wait_events(2)
    assert (row.type, data(row)["new"]) == (SNAPSHOT, {"id": 1, "n": 1})


def test_rows_come_anew_behind_the_gap_of_a_lost_slot(shop: Shop) -> None:
    """Once, under ids of their own, or who knows the first ones would pass over what changed in between; to those who asked alone."""
    shop.sql("CREATE TABLE orders (id int PRIMARY KEY, n int)", "CREATE TABLE others (id int PRIMARY KEY)")
    shop.sql("INSERT INTO orders VALUES (1, 1), (2, 1)", "INSERT INTO others VALUES (1)")
    tables = (("public.orders", ALL), ("public.others", ALL))
    shop.wish(*tables, rows={"public.orders": ["uid-1"]})
    first = shop.wait_events(2)
    key = names.position_key(shop.namespace, shop.kind, shop.connection)
    wait_until(
        lambda: bool((shop.plane.get(names.KV_STATUS, key, Given) or Given()).snapshots),
        "who has the rows is not remembered",
    )
    lose_slot(shop)
    shop.sql(
        "UPDATE orders SET n = 2 WHERE id = 1", "DELETE FROM orders WHERE id = 2", "INSERT INTO orders VALUES (3, 2)"
    )
    assert shop.reader
    shop.reader.start()
    wait_until(lambda: len(rows(shop)) == 4, "the rows come anew")
    orders = [event for event in shop.events() if event.subject == "public.orders"]
    assert [event.type.rpartition(".")[2] for event in orders] == ["snapshot"] * 2 + ["gap"] + ["snapshot"] * 2
    assert {data(event)["key"]["id"]: data(event)["new"]["n"] for event in orders[3:]} == {1: 2, 3: 2}
    assert not {event.id for event in first} & {event.id for event in orders[3:]}
    wait_until(
        lambda: shop.plane.get(names.KV_STATUS, key, Given) == Given({"public.orders": ["uid-1"]}, round=2),
        "who has them",
    )
    shop.sql("UPDATE orders SET n = 3 WHERE id = 1")
    wait_until(lambda: shop.events()[-1].type.endswith("update"), "the change that follows")
    assert len(rows(shop)) == 4


def test_a_part_of_the_rows_is_as_good_as_none_when_the_slot_is_lost(shop: Shop) -> None:
    """A slot that is lost while rows are written has all of them come anew, and none under an id that the part before the gap had."""
    reader = killed_amid_rows(shop)
    first = {event.id for event in rows(shop)}
    assert len(first) < 10000, "the reader was done before it was killed"
    lose_slot(shop)
    reader.start()
    wait_until(lambda: len({event.id for event in rows(shop)} - first) == 10000, "all rows anew", seconds=120)


def test_a_table_that_was_left_out_for_a_time_has_its_rows_anew(shop: Shop) -> None:
    """Its changes were missed meanwhile; who kept it gets nothing again."""
    shop.sql("CREATE TABLE orders (id int PRIMARY KEY, n int)", "CREATE TABLE others (id int PRIMARY KEY)")
    shop.sql("INSERT INTO orders VALUES (1, 1)")
    tables = (("public.orders", ALL), ("public.others", ALL))
    key = names.position_key(shop.namespace, shop.kind, shop.connection)
    shop.wish(*tables, rows={"public.orders": ["uid-1", "uid-2"]})
    wait_until(
        lambda: shop.plane.get(names.KV_STATUS, key, Given) == Given({"public.orders": ["uid-1", "uid-2"]}, round=2),
        "both have them",
    )
    shop.wish(*tables, rows={"public.orders": ["uid-2"]})
    wait_until(
        lambda: shop.plane.get(names.KV_STATUS, key, Given) == Given({"public.orders": ["uid-2"]}, round=2), "one left"
    )
    shop.wish(*tables, rows={"public.orders": ["uid-1", "uid-2"]})
    wait_until(lambda: len(rows(shop)) == 3, "the row comes anew")
    assert len({event.id for event in rows(shop)}) == 3
    shop.wish(*tables)
    wait_until(lambda: shop.plane.get(names.KV_STATUS, key, Given) == Given(round=3), "nobody asks any more")


def test_the_rows_of_a_replaced_table_come_when_it_was_left_out(shop: Shop) -> None:
    """The gap alone, which says that they are others, brings none."""
    shop.sql("CREATE TABLE orders (id int PRIMARY KEY)", "CREATE TABLE others (id int PRIMARY KEY)")
    shop.sql("INSERT INTO orders VALUES (1)")
    tables, asked = (("public.orders", ALL), ("public.others", ALL)), {"public.orders": ["uid-1"]}
    shop.wish(*tables, rows=asked)
    key = names.position_key(shop.namespace, shop.kind, shop.connection)

    def had() -> bool:
        return bool((shop.plane.get(names.KV_STATUS, key, Given) or Given()).snapshots)

    wait_until(had, "who has the rows is not remembered")
    shop.sql("DROP TABLE orders", "CREATE TABLE orders (id int PRIMARY KEY)", "INSERT INTO orders VALUES (2)")
    shop.wish(*tables, rows=asked)
    assert shop.wait_events(2)[1].type.endswith(".gap")
    shop.wish(tables[1])
    wait_until(lambda: not had(), "nobody asks any more")
    shop.sql("INSERT INTO orders VALUES (3)")
    shop.wish(*tables, rows=asked)
    wait_until(lambda: len(rows(shop)) >= 3, "the rows come")
    assert sorted(data(event)["new"]["id"] for event in rows(shop)) == [1, 2, 3]


def test_tables_that_cannot_be_read_hold_up_nothing_else(shop: Shop) -> None:
    """One is forbidden, one breaks off at a row: both are told of; the other's rows come, once, and so do changes. Theirs come when they can be read."""
    shop.server.execute("DROP ROLE IF EXISTS reader")
    shop.server.execute("CREATE ROLE reader LOGIN REPLICATION PASSWORD 'reader'")
    shop.server.execute(f"GRANT CREATE ON DATABASE {shop.database} TO reader")
    shop.sql("CREATE TYPE mood AS ENUM ('glad', 'lost')", "CREATE TABLE broken (id int PRIMARY KEY, mood mood)")
    shop.sql("CREATE TABLE forbidden (id int PRIMARY KEY)", "CREATE TABLE orders (id int PRIMARY KEY)")
    shop.sql("INSERT INTO broken VALUES (1, 'glad'), (2, 'lost')", "DELETE FROM pg_enum WHERE enumlabel = 'lost'")
    shop.sql("INSERT INTO forbidden VALUES (1)", "INSERT INTO orders VALUES (1)")
    those = ["broken", "forbidden", "orders"]
    shop.sql(*(f"ALTER TABLE {name} OWNER TO reader" for name in those), "REVOKE SELECT ON forbidden FROM reader")
    shop.write_dsn(shop.server.dsn("reader", "reader", shop.database))
    tables = [(f"public.{name}", ALL) for name in those]
    shop.wish(*tables, rows={name: ["uid-1"] for name, _ in tables})
    told = {f"rows of public.{name} are still to come" for name in those[:2]}
    shop.wait_status(lambda status: all(one in status.message for one in told), "a message")
    assert [event.subject for event in rows(shop)] == ["public.orders"]
    shop.sql("INSERT INTO orders VALUES (2)")
    shop.wait_events(2)
    shop.sql("GRANT SELECT ON forbidden TO reader", "DELETE FROM broken WHERE id = 2")
    wait_until(lambda: len(rows(shop)) == 3, "the others' rows")
    shop.wait_status(lambda status: not status.message, "the message stays")
    assert sorted(event.subject or "" for event in rows(shop)) == ["public.broken", "public.forbidden", "public.orders"]
