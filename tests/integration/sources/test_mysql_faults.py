"""The reader, MariaDB and the log are killed while rows change, or take something away: nothing is lost, doubled or silent."""

import json
import re
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fixtures.dataplane import DataPlane
from fixtures.mariadb import mariadb
from fixtures.mariadb_shop import MariaShop, maria_shop_on
from fixtures.process import wait_until
from fixtures.shop import ALL
from wisp_api import conditions, names
from wisp_api.cloudevent import Event

ROWS = 10
CHANGES = 200


def data(event: Event) -> dict[str, Any]:
    """An event's data."""
    found: dict[str, Any] = json.loads(bytes(event.data or b"null"))
    return found


@pytest.fixture
def own(plane: DataPlane, tmp_path: Path) -> Iterator[MariaShop]:
    """A shop on a MariaDB of its own."""
    with (
        mariadb(
            tmp_path, sync_binlog="1", innodb_flush_log_at_trx_commit="1", binlog_expire_logs_seconds="100000"
        ) as server,
        maria_shop_on(plane, server, tmp_path) as made,
    ):
        yield made


def follow(shop: MariaShop) -> MariaShop:
    """Make a table with some rows, have it followed, and wait until its rows are in the log."""
    shop.sql("CREATE TABLE orders (id int PRIMARY KEY, version int)")
    shop.wish((shop.table("orders"), ALL))
    shop.wait_ready()
    shop.sql(f"INSERT INTO orders VALUES {', '.join(f'({row}, 0)' for row in range(ROWS))}")
    shop.wait_events(ROWS)
    return shop


def change_rows(shop: MariaShop, disturb: Callable[[], None]) -> None:
    """Change rows one transaction each, round and round, while something goes wrong."""
    disturbing = threading.Thread(target=disturb)
    for number in range(CHANGES):
        if number == CHANGES // 3:
            disturbing.start()
        named = f"SET gtid_next = 'AUTOMATIC{':shop' * (number % 2)}'"  # MySQL 8.3 and newer
        change = f"UPDATE {shop.table('orders')} SET version = {number + 1} WHERE id = {number % ROWS}"
        shop.server.execute(*[named] * shop.server.mysql, change)
    disturbing.join()


def check(events: list[Event]) -> None:
    """Every change is there once, and each row's in the order of their commits."""
    assert len({event.id for event in events}) == len(events), "an event stands twice in the log"
    versions = defaultdict(list)
    for event in events:
        versions[data(event)["new"]["id"]].append(data(event)["new"]["version"])
    assert versions == {row: [0, *range(row + 1, CHANGES + 1, ROWS)] for row in range(ROWS)}


def test_the_reader_is_killed_while_rows_change(maria: MariaShop) -> None:
    """SIGKILL in the middle, twice, and a start anew: the log holds each change once, in order."""
    follow(maria)

    def kill() -> None:
        for _ in range(2):
            assert maria.reader
            maria.reader.kill()
            maria.reader.start()
            maria.reader.wait_ready()

    change_rows(maria, kill)
    check(maria.wait_events(ROWS + CHANGES))


def test_nats_is_killed_while_rows_change(maria: MariaShop) -> None:
    """The log's server dies and comes back: the changes made meanwhile wait in the binary log, none is lost or doubled."""
    follow(maria)

    def kill() -> None:
        maria.plane.server.kill()
        maria.wait_log_trouble()
        maria.plane.server.start()

    change_rows(maria, kill)
    check(maria.wait_events(ROWS + CHANGES))


def test_the_database_is_killed_between_changes(own: MariaShop) -> None:
    """The server dies and comes back, with its tables' numbers given anew: the reader goes on where it was."""
    follow(own)
    own.server.kill()
    own.wait_status(lambda status: status.reason == conditions.SERVER_UNREACHABLE, "nobody notices")
    own.server.start()
    own.sql(
        "CREATE TABLE other (name varchar(5))",
        "INSERT INTO other VALUES ('x')",
        "UPDATE orders SET version = 1 WHERE id = 0",
    )
    events = own.wait_events(ROWS + 1)
    assert data(events[-1])["new"] == {"id": 0, "version": 1}
    assert len(events) == ROWS + 1


def test_what_the_server_purged_is_a_gap(own: MariaShop) -> None:
    """Changes that the server does not have any more are told of, before what comes after them."""
    follow(own)
    before = own.position()
    assert own.reader
    own.reader.kill()
    own.sql("INSERT INTO orders VALUES (100, 0)")
    own.server.execute("FLUSH BINARY LOGS", "FLUSH BINARY LOGS")
    last = own.server.execute("SHOW BINARY LOGS")[-1][0]
    wait_until(lambda: purged(own, last), "the server keeps its old logs")
    own.start()
    status = own.wait_status(lambda status: status.ready and "missing" in status.message, "nobody is told")
    assert "purged" in status.message or "GTID" in status.message
    own.sql("INSERT INTO orders VALUES (101, 0)")
    gap, insert = sorted(own.wait_events(ROWS + 2), key=lambda event: event.sequence or "")[-2:]
    assert (data(gap)["op"], gap.partitionkey) == ("gap", None)
    assert data(insert)["new"]["id"] == 101
    after = own.position()
    assert before
    assert after
    assert after.epoch > before.epoch


def test_what_may_be_purged_unread_is_warned_of(own: MariaShop) -> None:
    """While the log takes nothing, a transaction is nearly as old as the server's log may get: beside the trouble stands a warning, until it is stored."""
    follow(own)
    reader = own.reader
    assert reader
    own.plane.server.kill()
    own.server.execute("SET timestamp = unix_timestamp() - 80000", f"INSERT INTO {own.table('orders')} VALUES (100, 0)")
    wait_until(lambda: "binlog_expire_logs_seconds" in own.log(), "no warning")
    wait_until(lambda: 0 < left(reader.fetch("/metrics")) <= 20000, "the metric does not tell")
    assert own.behind() >= 80000
    own.plane.server.start()
    own.wait_events(ROWS + 1)
    wait_until(lambda: own.behind() == 0, "the metric stays")
    own.wait_status(lambda status: status.ready and not status.reason and not status.message, "the warning stays")


def left(metrics: str) -> float:
    """Seconds until what is not stored may be purged."""
    found = re.search(r"^wisp_reader_binlog_left_seconds (\S+)$", metrics, re.MULTILINE)
    return float(found[1]) if found else 0


def purged(shop: MariaShop, last: str) -> bool:
    """Whether the server has dropped every log before the last one; it keeps what a connection still reads."""
    shop.server.execute(f"PURGE BINARY LOGS TO '{last}'")
    return len(shop.server.execute("SHOW BINARY LOGS")) == 1


def test_a_lost_position_is_a_gap(maria: MariaShop) -> None:
    """Without its key the reader can't know what it has not seen: it says so, and goes on from now."""
    follow(maria)
    assert maria.reader
    maria.reader.kill()
    key = names.position_key(maria.namespace, maria.kind, maria.connection)
    maria.plane.publish(f"$KV.{names.KV_STATUS}.{key}", b"")
    maria.start()
    maria.wait_events(ROWS + 1)
    maria.sql("INSERT INTO orders VALUES (100, 0)")
    gap, insert = sorted(maria.wait_events(ROWS + 2), key=lambda event: event.sequence or "")[-2:]
    assert (data(gap)["op"], data(insert)["new"]["id"]) == ("gap", 100)


def test_what_is_wrong_is_a_condition_until_it_is_put_right(maria: MariaShop) -> None:
    """A wrong DSN, a wrong password, a missing right and an unfit setting each have their reason and cure, and heal by themselves."""
    maria.server.execute("CREATE USER reader IDENTIFIED BY 'word'")
    maria.sql("CREATE TABLE t (id int PRIMARY KEY)")
    maria.write_dsn("postgres://what")
    maria.wish((maria.table("t"), ALL))

    def wait_reason(reason: str) -> str:
        status = maria.wait_status(lambda status: status.reason == reason, f"it is not {reason}")
        assert not status.ready
        return status.message

    assert "mysql://" in wait_reason(conditions.INVALID_CONNECTION)
    maria.write_dsn(maria.server.dsn("reader", "secret-word"))
    wait_reason(conditions.AUTHENTICATION_FAILED)
    assert "secret-word" not in maria.log()
    maria.write_dsn(maria.server.dsn("reader", "word"))
    assert "GRANT" in wait_reason(conditions.PERMISSION_DENIED)
    maria.server.execute("GRANT REPLICATION CLIENT ON *.* TO reader")
    maria.wait_status(
        lambda status: status.items.get(maria.table("t")) is not None or status.reason == conditions.PERMISSION_DENIED,
        "no report",
    )
    maria.server.execute("GRANT REPLICATION SLAVE ON *.* TO reader", f"GRANT SELECT ON {maria.table('t')} TO reader")
    maria.server.execute("SET GLOBAL binlog_row_metadata = MINIMAL")
    maria.write_dsn(maria.server.dsn("reader", "word") + "/")
    assert "SET GLOBAL binlog_row_metadata = FULL" in wait_reason(conditions.BINLOG_UNFIT)
    maria.server.execute("SET GLOBAL binlog_row_metadata = FULL")
    maria.wait_ready()
    maria.wish((maria.table("t"), ALL), (maria.table("nothing"), ALL))
    maria.wait_item(maria.table("nothing"), conditions.TABLE_NOT_FOUND)
    maria.sql("INSERT INTO t VALUES (1)")
    maria.wait_events(1)


def test_poison_passes(maria: MariaShop) -> None:
    """A row above the log's limit, and one that is no text of its character set, are dead letters; what follows is delivered."""
    maria.sql("CREATE TABLE t (id int PRIMARY KEY, body longtext)")
    maria.wish((maria.table("t"), ALL))
    maria.wait_ready()
    maria.sql("INSERT INTO t VALUES (1, repeat('x', 7000000))")
    maria.sql("INSERT INTO t VALUES (2, 'small')")
    (event,) = maria.wait_events(1)
    assert data(event)["key"] == {"id": 2}
    (letter,) = maria.plane.dead_letters()
    assert (letter.reason, letter.source) == ("EventTooLarge", "mysql/shop-db")


def test_many_rows_in_one_transaction_and_compressed_ones(own: MariaShop) -> None:
    """A transaction larger than what may wait passes through in bounded memory, also where the server compresses its log."""
    own.server.execute(f"SET GLOBAL {'binlog_transaction_compression' if own.server.mysql else 'log_bin_compress'} = 1")
    own.sql("CREATE TABLE t (id int PRIMARY KEY, body varchar(2000))")
    own.wish((own.table("t"), ALL))
    own.wait_ready()
    doubled = [f"INSERT INTO t SELECT id + {2**power}, body FROM t" for power in range(14)]
    own.sql("INSERT INTO t VALUES (1, repeat('x', 2000))", *doubled)
    own.wait_count(2**14)
    assert {data(event)["key"]["id"] for event in own.events()} == set(range(1, 2**14 + 1))
    assert own.reader
    assert own.reader.resident_mebibytes() < 250


def test_a_drained_reader_says_so(maria: MariaShop) -> None:
    """With the last Subscription gone there is nothing at the server to take away."""
    follow(maria)
    maria.wish(draining=True)
    maria.wait_status(lambda status: status.drained, "it is not drained")


def test_a_position_that_another_reader_wrote_is_gone_on_from(maria: MariaShop) -> None:
    """One that was cut off doesn't write its own over it, with an epoch in which changes would count as told."""
    follow(maria)
    before = maria.position()
    assert before
    other = msgspec.structs.replace(before, epoch=before.epoch + 100)
    maria.plane.put(names.KV_STATUS, names.position_key(maria.namespace, maria.kind, maria.connection), other)
    maria.sql("INSERT INTO orders VALUES (100, 0)")

    def kept() -> bool:
        now = maria.position()
        assert now
        assert now.epoch == other.epoch
        return now.count > other.count

    wait_until(kept, "the position stays where it was")
    assert 100 in {data(event)["new"]["id"] for event in maria.plane.events(maria.stream)}
