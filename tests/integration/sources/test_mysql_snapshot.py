"""Rows that tables of MariaDB had before they were followed: consistent with the changes that follow, once, for those who asked."""

import random
import re
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, cast

import pytest
from fixtures.mariadb_shop import MariaShop
from fixtures.process import wait_until
from fixtures.rows import applied, applied_loosely, data, rows
from fixtures.shop import ALL
from wisp_api import conditions
from wisp_events.sources import mysql_snapshot
from wisp_events.sources.mysql_gtid import GtidSet
from wisp_events.sources.mysql_snapshot import Origin
from wisp_events.sources.reader import Trouble
from wisp_events.sources.row_given import Given

from .test_mysql_changes import TYPES

NUMBERS = "WITH RECURSIVE r AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM r WHERE i < {}) SELECT i, 0 FROM r"


def fill(shop: MariaShop, count: int) -> None:
    """A table with so many rows."""
    numbers = f"INSERT INTO orders {NUMBERS.format(count)}"
    shop.sql("CREATE TABLE orders (id int PRIMARY KEY, n int)")
    limit = "cte_max_recursion_depth" if shop.server.mysql else "max_recursive_iterations"
    shop.sql(f"SET {limit} = {count + 1}", numbers)


class Writer:
    """Somebody who writes to the table meanwhile, on several connections."""

    def __init__(self, shop: MariaShop, keys: int, connections: int = 3) -> None:
        """Begin."""
        self._shop = shop
        self._keys = keys
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(seed,)) for seed in range(connections)]
        for thread in self._threads:
            thread.start()

    def _write(self, seed: int) -> None:
        chance, table = random.Random(seed), self._shop.table("orders")
        with self._shop.server.session() as cursor:
            while not self._stop.is_set():
                key = chance.randrange(1, 2 * self._keys)
                cursor.execute("BEGIN")
                if chance.random() < 0.3:
                    cursor.execute(f"DELETE FROM {table} WHERE id = %s", (key,))
                else:
                    cursor.execute(f"INSERT INTO {table} VALUES (%s, 0) ON DUPLICATE KEY UPDATE n = n + 1", (key,))
                cursor.execute("COMMIT")
                self._stop.wait(0.005)  # who looks at all events again and again must keep up

    def stop(self) -> dict[int, int]:
        """End; returns the table then."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        return dict(self._shop.server.execute(f"SELECT id, n FROM {self._shop.table('orders')}"))


def test_events_make_the_table_whoever_writes_to_it_meanwhile(maria: MariaShop) -> None:
    """The rows stand behind every change that they contain and before every other: applied one by one they make the table, and none contradicts."""
    fill(maria, 3000)
    maria.sql("CREATE TABLE others (id int PRIMARY KEY)", "INSERT INTO others VALUES (1)")
    orders, others = maria.table("orders"), maria.table("others")
    maria.wish((orders, ALL), (others, ALL))
    maria.wait_ready()
    writer = Writer(maria, 3000)
    try:
        wait_until(lambda: len(maria.events()) > 100, "changes")
        maria.wish((orders, ALL), (others, ALL), rows={orders: ["uid-1"]})
        wait_until(lambda: len(rows(maria)) >= 2000, "rows")
        before = len(maria.events())
        wait_until(lambda: len(maria.events()) > before + 100, "changes after them")
    finally:
        table = writer.stop()
    wait_until(lambda: applied(maria.events()) == table, "the events make the table")
    assert {event.subject for event in rows(maria)} == {orders}, "nobody asked for the other table's rows"
    assert data(rows(maria)[0])["old"] is None


def transactions(position: str) -> int:
    """How many a position has, up to a number that stays: MySQL writes intervals, also of tags and of other servers, MariaDB the last one's number."""
    intervals = re.findall(r":(\d+)(?:-(\d+))?(?=[:,]|$)", position)
    return sum(int(last or first) - int(first) + 1 for first, last in intervals) or int(position.rpartition("-")[2])


def test_a_snapshot_has_the_transactions_of_its_position_and_no_other(maria: MariaShop) -> None:
    """However often one is taken while four connections count up, a transaction each time: rows and position count the same."""
    maria.sql(
        "CREATE TABLE counters (id int PRIMARY KEY, n int)", "INSERT INTO counters VALUES (1,0), (2,0), (3,0), (4,0)"
    )
    stop, table = threading.Event(), maria.table("counters")
    origin = origin_of(maria)

    def count(row: int) -> None:
        with maria.server.session() as cursor:
            while not stop.is_set():
                cursor.execute(f"UPDATE {table} SET n = n + 1 WHERE id = {row}")

    def difference() -> int:
        snapshot = origin.take([table])
        try:
            assert snapshot.open(table)
            counted = sum(int(n) for _, n in cast("Any", snapshot.fetch()))
            return transactions(str(snapshot.position)) - counted
        finally:
            snapshot.close()

    before = difference()
    writers = [threading.Thread(target=count, args=(row,)) for row in (1, 2, 3, 4)]
    for writer in writers:
        writer.start()
    try:
        assert {difference() for _ in range(100)} == {before}
    finally:
        stop.set()
        for writer in writers:
            writer.join()


def test_who_dies_in_the_middle_begins_anew_and_nobody_gets_rows_twice(maria: MariaShop) -> None:
    """Killed while it writes rows, a reader takes a new snapshot: rows that come again have the same ids, the table comes out right, and it is done once."""
    fill(maria, 10000)
    orders, late = maria.table("orders"), maria.table("late")
    maria.wish((orders, ALL), rows={orders: ["uid-1"]})
    wait_until(lambda: len(rows(maria)) > 0, "rows")
    assert maria.reader
    maria.reader.kill()
    maria.sql("UPDATE orders SET n = 1 WHERE id % 1000 = 0", "DELETE FROM orders WHERE id = 7")
    maria.reader.start()
    maria.wait_ready()
    ids = {i: int(i % 1000 == 0) for i in range(1, 10001) if i != 7}
    wait_until(lambda: applied_loosely(maria.events()) == ids, "the table", seconds=120)
    keys = {event.id: event.partitionkey for event in rows(maria)}
    assert len(set(keys.values())) == len(keys), "one id for each row"
    given = Given({orders: ["uid-1"]}, round=1)
    wait_until(lambda: (kept := maria.position()) is not None and kept.given == given, "it is not remembered")
    count = len(rows(maria))
    maria.reader.stop()
    maria.reader.start()
    maria.sql("CREATE TABLE late (id int PRIMARY KEY)", "INSERT INTO late VALUES (1)")
    maria.wish((orders, ALL), (late, ALL), rows={orders: ["uid-1"], late: ["uid-1"]})
    wait_until(lambda: any(event.subject == late for event in rows(maria)), "the late table's row")
    assert len(rows(maria)) == count + 1, "a table's rows come once"


def test_rows_look_as_their_changes_do(maria: MariaShop) -> None:
    """Each value of every type, and the key, is in a snapshot as in the change that follows."""
    types = TYPES | {
        "int(4) zerofill": ("42", 0),
        "decimal(9,3) zerofill": ("0.5", 0),
        "float ": ("16777217.25", 0),
        "binary(4)": ("x'41200000'", 0),
        "varchar(9) ": ("_binary x''", 0),
    }
    if not maria.server.mysql:
        types |= {
            "uuid": ("'6ccd780c-baba-1026-9564-5b8c656024db'", 0),
            "uuid ": ("'f47ac10b-58cc-0372-8567-0e02b2c3d479'", 0),
            "inet6": ("'::ffff:192.0.2.128'", 0),
        }
    columns = ", ".join(f"c{number} {kind}" for number, kind in enumerate(types))
    maria.sql(f'CREATE TABLE `every``thing` (id int, `b"c` varchar(5), {columns}, PRIMARY KEY (`b"c`, id))')
    empty = ", ".join("NULL" for _ in types)
    values = ", ".join(sql for sql, _ in types.values())
    maria.sql(
        "SET time_zone = '+00:00', sql_mode = ''",
        f"INSERT INTO `every``thing` VALUES (1, 'k', {values}), (2, 'k', {empty})",
        "CREATE TABLE keyed (a int, b int NOT NULL, c int NOT NULL, twice int AS (a * 2) STORED, UNIQUE (a), UNIQUE (b, c))",
        "INSERT INTO keyed (a, b, c) VALUES (5, 6, 7)",
    )
    tables = [(maria.table(name), ALL) for name in ("every`thing", "keyed")]
    maria.wish(*tables, rows={name: ["uid-1", "uid-2"] for name, _ in tables})
    maria.wait_events(6)
    maria.sql("UPDATE `every``thing` SET c0 = c0 + 1", "UPDATE keyed SET a = 6")
    for change in sorted(maria.wait_events(8), key=lambda event: event.sequence or "")[-2:]:
        told = [row for row in rows(maria) if row.partitionkey == change.partitionkey]
        assert len({row.id for row in told}) == len(told) == 2, f"one for each who asked: {change.partitionkey}"
        assert [data(row)["key"] for row in told] == [data(change)["key"]] * 2
        for row in told:
            shown, old = data(row)["new"], data(change)["old"]
            assert {name: (value, old[name]) for name, value in shown.items() if value != old[name]} == {}
            assert shown.keys() == old.keys()


def test_what_is_in_the_way_holds_up_rows_and_nothing_else(maria: MariaShop) -> None:
    """A missing right, an engine without snapshots and a transaction that is open are told of; changes and other tables' rows are carried on."""
    fill(maria, 3)
    maria.sql("CREATE TABLE busy (id int PRIMARY KEY)", "CREATE TABLE loose (id int PRIMARY KEY) ENGINE = MyISAM")
    maria.sql("INSERT INTO loose VALUES (7)")
    maria.server.execute("DROP USER IF EXISTS rower", "CREATE USER rower IDENTIFIED BY 'word'")
    maria.server.execute("GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO rower")
    maria.server.execute(f"GRANT SELECT ON {maria.database}.* TO rower")
    maria.write_dsn(maria.server.dsn("rower", "word"))
    orders, busy, loose = (maria.table(name) for name in ("orders", "busy", "loose"))
    maria.wish((orders, ALL), (busy, ALL), (loose, ALL), rows={name: ["uid-1"] for name in (orders, busy, loose)})
    maria.wait_status(lambda status: "GRANT LOCK TABLES" in status.message, "the missing right is not told of")
    with maria.server.session() as cursor:
        cursor.execute("BEGIN")
        cursor.execute(f"INSERT INTO {busy} VALUES (1)")
        maria.server.execute(f"GRANT LOCK TABLES ON {maria.database}.* TO rower")
        wait_until(lambda: len(rows(maria)) == 3, "the rows of the table that nothing is in the way of")
        told = (f"the rows of {busy} are still to come: Lock wait timeout", "ENGINE = InnoDB")
        maria.wait_status(
            lambda status: all(one in status.message for one in told), "what is in the way is not told of"
        )
        maria.sql("INSERT INTO orders VALUES (4, 4)")
        wait_until(lambda: len(maria.events()) == 4, "a change")
        maria.server.execute(f"ALTER TABLE {loose} ENGINE = InnoDB")
        wait_until(lambda: len(rows(maria)) == 4, "the rows of the table that can be read now")
    assert {(event.subject, data(event)["key"]["id"]) for event in rows(maria)} == {
        *((orders, number) for number in (1, 2, 3)),
        (loose, 7),
    }


def origin_of(shop: MariaShop, kind: type[Origin] = Origin) -> Origin:
    """The server's, without a stream."""
    return kind(shop.server.dsn(), "", not shop.server.mysql, cast("Any", None))


def waiting(shop: MariaShop) -> list[str]:
    """Statements that wait for a lock on a table."""
    found = shop.server.execute("SELECT info FROM information_schema.processlist WHERE state LIKE '%metadata lock%'")
    return [str(info) for (info,) in found]


def test_an_alter_that_comes_behind_the_lock_ends_the_snapshot_and_not_the_writers(maria: MariaShop) -> None:
    """It waits for the lock, and whoever opens the table for it: the snapshot gives up. A session that only holds the lock is not kept for hours."""
    fill(maria, 1)
    table = maria.table("orders")
    alter = f"ALTER TABLE {table} ADD COLUMN more int"
    patience: list[int] = []
    altering: list[Future[Any]] = []

    class Interrupted(Origin):
        def _position(self, cursor: Any) -> GtidSet:
            cursor.execute("SELECT @@wait_timeout")
            patience.append(cursor.fetchall()[0][0])
            altering.append(pool.submit(maria.server.execute, alter))
            wait_until(lambda: alter in waiting(maria), "the ALTER does not wait")
            return super()._position(cursor)

    with ThreadPoolExecutor() as pool:
        with pytest.raises(Trouble) as raised:
            origin_of(maria, Interrupted).take([table])
        altering[0].result(60)
    assert raised.value.reason == conditions.WAITING_FOR_TRANSACTIONS
    assert patience == [10]


def test_locks_of_many_tables_wait_no_longer_than_that_of_one(
    maria: MariaShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the server lets each be waited for: then all are free again."""
    maria.sql("CREATE TABLE free (id int PRIMARY KEY)", "CREATE TABLE busy (id int PRIMARY KEY)")
    free, busy = maria.table("free"), maria.table("busy")
    monkeypatch.setattr(mysql_snapshot, "_LOCK_TIMEOUT", "SET lock_wait_timeout = 3600")
    with maria.server.session() as cursor:
        cursor.execute("BEGIN")
        cursor.execute(f"INSERT INTO {busy} VALUES (1)")
        with pytest.raises(Trouble) as raised:
            origin_of(maria).take([free, busy])
        assert raised.value.reason == conditions.WAITING_FOR_TRANSACTIONS
        wait_until(lambda: not waiting(maria), "the lock is waited for")
        maria.sql("INSERT INTO free VALUES (1)")
