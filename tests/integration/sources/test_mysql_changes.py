"""Row changes of a real MariaDB, through the reader process, in the log."""

import json
from typing import Any

from fixtures.mariadb_shop import MariaShop
from fixtures.process import wait_until
from fixtures.shop import ALL
from wisp_api import conditions
from wisp_api.cloudevent import Event


def data(event: Event) -> dict[str, Any]:
    """An event's data."""
    found: dict[str, Any] = json.loads(bytes(event.data or b"null"))
    return found


def test_insert_update_and_delete_reach_the_log_in_order(maria: MariaShop) -> None:
    """Each change is one event with key, old and new values as the server has them, ordered by its sequence."""
    maria.sql("CREATE TABLE orders (id int PRIMARY KEY, total decimal(12,2), note text)")
    maria.wish((maria.table("orders"), ALL))
    maria.wait_ready()
    maria.sql("INSERT INTO orders VALUES (1, 12.50, 'first')")
    maria.sql("UPDATE orders SET total = -99.95 WHERE id = 1", "INSERT INTO orders VALUES (2, 0, NULL), (3, 1, '')")
    maria.sql("DELETE FROM orders WHERE id = 1")
    events = maria.wait_events(5)
    first = {"id": 1, "total": 12.5, "note": "first"}
    changed = first | {"total": -99.95}
    assert [data(event) for event in sorted(events, key=lambda event: event.sequence or "")] == [
        {"op": "insert", "key": {"id": 1}, "old": None, "new": first},
        {"op": "update", "key": {"id": 1}, "old": first, "new": changed},
        {"op": "insert", "key": {"id": 2}, "old": None, "new": {"id": 2, "total": 0.0, "note": None}},
        {"op": "insert", "key": {"id": 3}, "old": None, "new": {"id": 3, "total": 1.0, "note": ""}},
        {"op": "delete", "key": {"id": 1}, "old": changed, "new": None},
    ]
    assert {event.type for event in events} == {f"dev.wisp.mysql.{kind}" for kind in ALL}
    assert {event.source for event in events} == {"urn:wisp:mysql:shop:shop-db"}
    assert {event.subject for event in events} == {maria.table("orders")}
    assert events[0].partitionkey == f"{maria.table('orders')}:[1]"
    assert all(event.sequence == event.id for event in events)


TYPES: dict[str, tuple[str, Any]] = {
    "tinyint": ("-128", -128),
    "tinyint unsigned": ("255", 255),
    "smallint": ("-32768", -32768),
    "mediumint": ("-8388608", -8388608),
    "mediumint unsigned": ("16777215", 16777215),
    "year": ("2026", 2026),
    "int unsigned": ("4294967295", 4294967295),
    "bigint": ("-9223372036854775808", -9223372036854775808),
    "bigint unsigned": ("18446744073709551615", 18446744073709551615),
    "decimal(30,10)": ("-12345678901234567890.0123456789", "-12345678901234567890.0123456789"),
    "decimal(4,4)": ("0.0001", 0.0001),
    "float": ("0.1", 0.1),
    "double": ("1e300", 1e300),
    "boolean": ("true", 1),
    "bit(10)": ("b'1000000011'", "1000000011"),
    "char(3)": ("'aü'", "aü"),
    "char(255)": ("'x'", "x"),
    "varchar(300)": (r"'a\"b\\c\n😀'", 'a"b\\c\n😀'),
    "varchar(5) character set latin1": ("'ü€'", "ü€"),
    "text character set ucs2": ("'ü'", "ü"),
    "longtext": ("'long'", "long"),
    "binary(3)": ("x'00ff10'", "AP8Q"),
    "varbinary(3)": ("x'00ff'", "AP8="),
    "blob": ("x'01'", "AQ=="),
    "date": ("'2026-11-20'", "2026-11-20"),
    "date ": ("'0000-00-00'", "0000-00-00"),
    "time": ("'-838:59:59'", "-838:59:59"),
    "time(3)": ("'-00:00:01.500'", "-00:00:01.500"),
    "time(6)": ("'10:00:00.000001'", "10:00:00.000001"),
    "datetime": ("'2026-11-20 10:00:00'", "2026-11-20T10:00:00"),
    "datetime(1)": ("'2026-11-20 10:00:00.5'", "2026-11-20T10:00:00.5"),
    "datetime(6)": ("'9999-12-31 23:59:59.123456'", "9999-12-31T23:59:59.123456"),
    "datetime ": ("'0000-00-00 00:00:00'", "0000-00-00T00:00:00"),
    "timestamp null": ("'2026-02-28 23:59:59'", "2026-02-28T23:59:59Z"),
    "timestamp(3) null": ("'2024-02-29 12:00:00.123'", "2024-02-29T12:00:00.123Z"),
    "enum('glad','sad, ''ü''')": ("'sad, ''ü'''", "sad, 'ü'"),
    "set('a','b','c')": ("'a,c'", ["a", "c"]),
    "set('a') ": ("''", []),
    "json": ("'{\"a\": 1}'", '{"a": 1}'),
    "point": ("point(1, 2)", "AAAAAAEBAAAAAAAAAAAA8D8AAAAAAAAAQA=="),
}
"""Type: SQL for a value, and what the event says; of a name, trailing spaces only tell cases apart."""


def test_values_of_every_type_are_json(maria: MariaShop) -> None:
    """Each value is a JSON value of its kind, exact where JSON allows it; NULL is null."""
    columns = ", ".join(f"c{number} {kind}" for number, kind in enumerate(TYPES))
    maria.sql(f"CREATE TABLE everything (id int PRIMARY KEY, {columns})")
    maria.wish((maria.table("everything"), ALL))
    maria.wait_ready()
    values = ", ".join(sql for sql, _ in TYPES.values())
    maria.sql("SET time_zone = '+00:00', sql_mode = ''", f"INSERT INTO everything VALUES (1, {values})")
    maria.sql("INSERT INTO everything (id) VALUES (2)")
    event, empty = sorted(maria.wait_events(2), key=lambda event: event.sequence or "")
    assert b":-12345678901234567890.0123456789," in bytes(event.data or b""), "a decimal is not exact on the wire"
    new = data(event)["new"]
    types = TYPES | ({"json": ("", {"a": 1})} if maria.server.mysql else {})
    for number, (kind, (_, expected)) in enumerate(types.items()):
        if kind != "decimal(30,10)":
            assert new[f"c{number}"] == expected, kind
    assert set(data(empty)["new"].values()) == {2, None}


def test_a_changed_key_is_told_under_both(maria: MariaShop) -> None:
    """Two events with the same rows, one under each key."""
    maria.sql("CREATE TABLE t (a int, b varchar(5), n int, PRIMARY KEY (b, a))", "INSERT INTO t VALUES (1, 'x', 0)")
    maria.wish((maria.table("t"), ALL))
    maria.wait_ready()
    maria.sql("UPDATE t SET b = 'y'")
    events = sorted(maria.wait_events(2), key=lambda event: event.sequence or "")
    assert [data(event)["key"] for event in events] == [{"b": "x", "a": 1}, {"b": "y", "a": 1}]
    assert data(events[0])["old"] == data(events[1])["old"] == {"a": 1, "b": "x", "n": 0}


def test_columns_are_those_of_the_time_of_the_change(maria: MariaShop) -> None:
    """Rows before and after ALTER TABLE have the columns they had, also where the reader was away meanwhile."""
    maria.sql("CREATE TABLE t (id int PRIMARY KEY, a int)")
    maria.wish((maria.table("t"), ALL))
    maria.wait_ready()
    assert maria.reader
    maria.reader.kill()
    maria.sql("INSERT INTO t VALUES (1, 10)")
    maria.sql("ALTER TABLE t DROP COLUMN a, ADD COLUMN b varchar(5) FIRST")
    maria.sql("INSERT INTO t VALUES ('x', 2)")
    maria.start()
    events = sorted(maria.wait_events(2), key=lambda event: event.sequence or "")
    assert [data(event)["new"] for event in events] == [{"id": 1, "a": 10}, {"b": "x", "id": 2}]


def test_only_wanted_tables_and_operations_are_told(maria: MariaShop) -> None:
    """Others pass unread; TRUNCATE comes with delete, as a barrier without a key."""
    maria.sql("CREATE TABLE t (id int PRIMARY KEY)", "CREATE TABLE u (id int)", "CREATE TABLE v (id int)")
    maria.wish((maria.table("t"), ["delete"]), (maria.table("u"), ["insert"]))
    maria.wait_ready()
    maria.sql("INSERT INTO t VALUES (1)", "INSERT INTO v VALUES (1)", "DELETE FROM t")
    maria.server.execute(f"TRUNCATE {maria.table('u')}", f"/* all */ truncate table `{maria.database}`.`t`")
    maria.sql("INSERT INTO u VALUES (7)")
    events = sorted(maria.wait_events(3), key=lambda event: event.sequence or "")
    assert [(event.subject, data(event)["op"]) for event in events] == [
        (maria.table("t"), "delete"),
        (maria.table("t"), "truncate"),
        (maria.table("u"), "insert"),
    ]
    assert events[1].partitionkey is None
    assert (events[2].partitionkey, data(events[2])["key"]) == (f"{maria.table('u')}:[]", {})


def test_a_table_that_another_took_the_place_of(maria: MariaShop) -> None:
    """Dropped and made anew, or replaced by one with rows from under another name, while the reader follows or is away: a gap, in its place."""
    maria.sql("CREATE TABLE t (id int PRIMARY KEY)", "CREATE TABLE other (id int PRIMARY KEY)")
    maria.wish((maria.table("t"), ["insert"]), (maria.table("other"), ["insert"]))
    maria.wait_ready()
    maria.sql("INSERT INTO t VALUES (1)", "DROP TABLE t", "CREATE TABLE t (id bigint PRIMARY KEY, n int)")
    maria.sql("INSERT INTO t VALUES (2, 0)", "CREATE TABLE u LIKE t", "INSERT INTO u VALUES (3, 0)")
    maria.wait_events(3)
    assert maria.reader
    maria.reader.kill()
    maria.sql("RENAME TABLE t TO old, u TO t", "INSERT INTO t VALUES (4, 0)")
    maria.sql("INSERT INTO other VALUES (5)")
    maria.start()
    events = sorted(maria.wait_events(6), key=lambda event: event.sequence or "")
    assert [(event.subject, data(event)["op"]) for event in events] == [
        *((maria.table("t"), op) for op in ("insert", "gap", "insert", "gap", "insert")),
        (maria.table("other"), "insert"),
    ]
    assert [
        data(event)["message"].rpartition(f"{maria.database}.t ")[2] for event in events if data(event)["op"] == "gap"
    ] == [
        "was dropped with its rows",
        "was renamed, or another took its name",
    ]
    assert all(event.partitionkey is None for event in events[1:4:2]), "a barrier for its table"


def test_a_table_that_is_there_again_is_a_gap(maria: MariaShop) -> None:
    """It was gone or might not be read, when the reader looked, which is killed then: a gap event says that changes are missing, once."""
    maria.server.execute("CREATE USER IF NOT EXISTS clerk IDENTIFIED BY 'x'")
    for right in ["REPLICATION SLAVE", "REPLICATION CLIENT", *["BINLOG MONITOR"] * (not maria.server.mysql)]:
        maria.server.execute(f"GRANT {right} ON *.* TO clerk")
    maria.sql("CREATE TABLE t (id int PRIMARY KEY)")
    grant = f"GRANT SELECT ON {maria.table('t')} TO clerk"
    maria.server.execute(grant)
    maria.write_dsn(maria.server.dsn("clerk", "x"))
    look = (maria.table("t"), ["insert"])
    maria.wish(look)
    maria.wait_ready()
    maria.server.execute(f"REVOKE SELECT ON {maria.table('t')} FROM clerk")
    maria.wish(look)
    assert grant[:12] in maria.wait_item(maria.table("t"), conditions.TABLE_NOT_FOUND).message
    wait_until(
        lambda: (kept := maria.position()) is not None and kept.tables == {look[0]: False}, "it is not remembered"
    )
    maria.sql("INSERT INTO t VALUES (1)")
    assert maria.reader
    maria.reader.kill()
    maria.reader.start()
    maria.server.execute(grant)
    maria.wish(look)
    maria.wait_ready()
    gap, *_ = maria.wait_events(1)
    assert "might not be read" in data(gap)["message"]
    wait_until(
        lambda: (kept := maria.position()) is not None and kept.tables == {look[0]: True}, "it is not remembered"
    )
    maria.sql("INSERT INTO t VALUES (2)")
    wait_until(lambda: data(maria.events()[-1])["new"] == {"id": 2}, "the row")
    assert [data(event)["op"] for event in maria.events()].count("gap") == 1


def test_a_statement_logged_as_text_is_a_gap(maria: MariaShop) -> None:
    """Changes that are not in row format can't be read: every table's readers are told, once a transaction."""
    maria.sql("CREATE TABLE t (id int PRIMARY KEY)")
    maria.wish((maria.table("t"), ["insert"]))
    maria.wait_ready()
    use = f"USE {maria.database}"
    maria.server.execute(
        "SET SESSION binlog_format = 'STATEMENT'",
        use,
        "BEGIN",
        *(f"INSERT INTO t VALUES ({n})" for n in (1, 2)),
        "COMMIT",
    )
    maria.sql("INSERT INTO t VALUES (3)")
    gap, insert = sorted(maria.wait_events(2), key=lambda event: event.sequence or "")
    assert data(gap)["op"] == "gap"
    assert "binlog_format" in data(gap)["message"]
    assert data(insert)["new"] == {"id": 3}
