"""Row changes of a real PostgreSQL, through the reader process, in the log."""

import json
from typing import Any

from fixtures.postgres import major, needs
from fixtures.shop import ALL, Shop
from wisp_api.cloudevent import Event


def data(event: Event) -> dict[str, Any]:
    """An event's data."""
    found: dict[str, Any] = json.loads(bytes(event.data or b"null"))
    return found


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


TYPES: dict[str, tuple[str, Any]] = {
    "smallint": ("-32768", -32768),
    "bigint": ("9223372036854775807", 9223372036854775807),
    "numeric": ("12345678901234567890.123456789", "12345678901234567890.123456789"),
    "numeric(1000,500)": ("1e400::numeric", None),
    "numeric ": ("'NaN'", "NaN"),
    "real": ("1.5", 1.5),
    "double precision": ("1e300", 1e300),
    "double precision ": ("'-Infinity'", "-Infinity"),
    "boolean": ("true", True),
    "text": ("E'a\"b\\\\c\\n\\u00fc\\U0001F600'", 'a"b\\c\nü😀'),
    "varchar(5)": ("''", ""),
    "char(3)": ("'a'", "a  "),
    "uuid": ("'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    "bytea": (r"'\x00ff10'", "AP8Q"),
    "date": ("'2026-11-20'", "2026-11-20"),
    "time": ("'10:00:00.5'", "10:00:00.5"),
    "timestamp": ("'2026-11-20 10:00:00.123456'", "2026-11-20T10:00:00.123456"),
    "timestamptz": ("'2026-11-20 10:00:00+02'", "2026-11-20T08:00:00Z"),
    "timestamptz ": ("'infinity'", "infinity"),
    "timestamptz  ": ("'0044-03-15 12:00:00+00 BC'", "0044-03-15 12:00:00+00 BC"),
    "interval": ("'1 day 2 hours'", "1 day 02:00:00"),
    "json": ("'{\"a\": [1, 2.50, null]}'", {"a": [1, 2.5, None]}),
    "jsonb": ("'\"x\"'", "x"),
    "inet": ("'10.0.0.1/8'", "10.0.0.1/8"),
    "int[]": ("'[0:1][1:2]={{1,2},{3,NULL}}'", [[1, 2], [3, None]]),
    "text[]": ("ARRAY['a,b', 'NULL', NULL, '', 'q\"\\{']", ["a,b", "NULL", None, "", 'q"\\{']),
    "boolean[]": ("ARRAY[true, NULL]", [True, None]),
    "jsonb[]": ("ARRAY['{\"a\": 1}'::jsonb]", [{"a": 1}]),
    "timestamptz[]": ("ARRAY['2026-11-20 10:00:00+00'::timestamptz]", ["2026-11-20T10:00:00Z"]),
    "numeric[]": ("'{}'", []),
    "bytea[]": (r"ARRAY['\x01'::bytea]", ["AQ=="]),
    "int4range": ("'[1,5)'", "[1,5)"),
    "int4multirange": ("'{[1,5),[7,9)}'", "{[1,5),[7,9)}"),
    "tstzrange": ("'[2026-11-20 10:00:00+02,infinity)'", '["2026-11-20 08:00:00+00",infinity)'),
    "real ": ("'NaN'", "NaN"),
    "double precision[]": ("'{1.5,NaN,-Infinity,NULL}'", [1.5, "NaN", "-Infinity", None]),
    "uuid[]": ("ARRAY['a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid]", ["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]),
    "int4range[]": ("ARRAY['[1,5)'::int4range]", ["[1,5)"]),
    "bit(3)": ("B'101'", "101"),
    "xml": ("'<a/>'", "<a/>"),
    "mood": ("'glad'", "glad"),
    "mood[]": ("ARRAY['glad', NULL]::mood[]", ["glad", None]),
    "small": ("7", 7),
    "smaller": ("3", 3),
    "small[]": ("ARRAY[1, NULL]::small[]", [1, None]),
    "amount": ("12.50", 12.5),
    "payload": ("'{\"a\": 1}'", {"a": 1}),
    "moods": ("ARRAY['glad']::moods", ["glad"]),
    "pair": ("ROW(1, 'a b')", '(1,"a b")'),
    "pair[]": ("ARRAY[ROW(1, 'a')::pair]", ["(1,a)"]),
}
"""Type: SQL for a value, and what the event says; of a name, trailing spaces only tell cases apart."""
SINCE = {"small[]": 11, "int4multirange": 14}
"""The version from which on a server has the type."""


def types() -> dict[str, tuple[str, Any]]:
    """Those that the server has."""
    return {kind: value for kind, value in TYPES.items() if major() >= SINCE.get(kind, 0)}


def test_values_of_every_type_are_json(shop: Shop) -> None:
    """Each value is a JSON value of its kind, exact where JSON allows it, PostgreSQL's text elsewhere."""
    known = types()
    columns = ", ".join(f"c{number} {kind}" for number, kind in enumerate(known))
    shop.sql(
        "CREATE TYPE mood AS ENUM ('glad')",
        "CREATE DOMAIN small AS int CHECK (VALUE < 10)",
        "CREATE DOMAIN smaller AS small CHECK (VALUE < 5)",
        "CREATE DOMAIN amount AS numeric(12,2)",
        "CREATE DOMAIN payload AS jsonb",
        "CREATE DOMAIN moods AS mood[]",
        "CREATE TYPE pair AS (a int, b text)",
        f"CREATE TABLE everything (id int PRIMARY KEY, {columns})",
    )
    shop.wish(("public.everything", ALL))
    shop.wait_ready()
    shop.server.execute(f"ALTER DATABASE {shop.database} SET timezone = 'Asia/Tokyo'")
    shop.server.execute(f"ALTER DATABASE {shop.database} SET datestyle = 'German'")
    shop.sql(
        "SET datestyle = 'ISO'", f"INSERT INTO everything VALUES (1, {', '.join(sql for sql, _ in known.values())})"
    )
    shop.sql("INSERT INTO everything VALUES (2)")
    [event, empty] = shop.wait_events(2)
    assert b'"c2":12345678901234567890.123456789,' in bytes(event.data or b""), "numeric is not exact on the wire"
    new = data(event)["new"]
    for number, (kind, (_, expected)) in enumerate(known.items()):
        if kind == "numeric":
            continue
        if expected is None:
            assert new[f"c{number}"].startswith("1000"), "a number beyond a double is a string"
        else:
            assert new[f"c{number}"] == expected, kind
    assert set(data(empty)["new"].values()) == {2, None}


def test_a_changed_key_belongs_to_both_lanes(shop: Shop) -> None:
    """An update of the primary key is two events with the same values, one in the order of each key."""
    shop.sql(
        "CREATE TABLE orders (a int, b text, note text, PRIMARY KEY (b, a))", "INSERT INTO orders VALUES (1, 'x', 'n')"
    )
    shop.wish(("public.orders", ALL))
    shop.wait_ready()
    shop.sql("UPDATE orders SET a = 2 WHERE a = 1")
    events = sorted(shop.wait_events(2), key=lambda event: event.id)
    assert [event.partitionkey for event in events] == ['public.orders:[1,"x"]', 'public.orders:[2,"x"]']
    assert [data(event)["key"] for event in events] == [{"a": 1, "b": "x"}, {"a": 2, "b": "x"}]
    assert {json.dumps([data(event)["old"], data(event)["new"]]) for event in events} == {
        '[{"a": 1, "b": "x"}, {"a": 2, "b": "x", "note": "n"}]'
    }


def test_full_replica_identity_gives_old_values_and_the_primary_key_orders(shop: Shop) -> None:
    """`old` is the whole row, and the key is the primary key, not every column."""
    shop.sql("CREATE TABLE orders (id int PRIMARY KEY, note text)", "ALTER TABLE orders REPLICA IDENTITY FULL")
    shop.wish(("public.orders", ALL))
    shop.wait_ready()
    shop.sql("INSERT INTO orders VALUES (1, 'a')", "UPDATE orders SET note = 'b'", "DELETE FROM orders")
    events = shop.wait_events(3)
    assert [data(event)["old"] for event in events] == [None, {"id": 1, "note": "a"}, {"id": 1, "note": "b"}]
    assert {event.partitionkey for event in events} == {"public.orders:[1]"}


def test_values_stored_out_of_line_that_did_not_change(shop: Shop) -> None:
    """Such a value comes from the old row where the server sends it; elsewhere it is left out of `new` and named."""
    long = "(SELECT string_agg(md5(n::text), '') FROM generate_series(1, 2000) AS n)"
    shop.sql(
        "CREATE TABLE plain (id int PRIMARY KEY, n int, body text)", "CREATE TABLE whole (LIKE plain INCLUDING ALL)"
    )
    shop.sql("ALTER TABLE whole REPLICA IDENTITY FULL")
    shop.wish(("public.plain", ALL), ("public.whole", ALL))
    shop.wait_ready()
    for table in ("plain", "whole"):
        shop.sql(f"INSERT INTO {table} VALUES (1, 1, {long})")
        shop.sql(f"UPDATE {table} SET n = 2")
    [_, plain, _, whole] = [data(event) for event in shop.wait_events(4)]
    assert plain["new"] == {"id": 1, "n": 2}
    assert plain["unchanged"] == ["body"]
    assert len(whole["new"]["body"]) == 64000
    assert "unchanged" not in whole


def test_schema_changes_are_followed(shop: Shop) -> None:
    """Columns that come, go and change their name or type are in the next event as they are then."""
    shop.sql("CREATE TABLE orders (id int PRIMARY KEY, a int)")
    shop.wish(("public.orders", ALL))
    shop.wait_ready()
    shop.sql("INSERT INTO orders VALUES (1, 1)")
    shop.sql("ALTER TABLE orders ADD COLUMN b text DEFAULT 'x'", "INSERT INTO orders VALUES (2, 2)")
    shop.sql("ALTER TABLE orders RENAME COLUMN a TO c", "ALTER TABLE orders ALTER COLUMN c TYPE text")
    shop.sql("ALTER TABLE orders DROP COLUMN b", "INSERT INTO orders VALUES (3, 'three')")
    prices = "price[]" if major() >= SINCE["small[]"] else "numeric[]"
    shop.sql("CREATE DOMAIN price AS numeric", f"ALTER TABLE orders ADD COLUMN d {prices}")
    shop.sql("INSERT INTO orders VALUES (4, 'four', '{1.5}')")
    assert [data(event)["new"] for event in shop.wait_events(4)] == [
        {"id": 1, "a": 1},
        {"id": 2, "a": 2, "b": "x"},
        {"id": 3, "c": "three"},
        {"id": 4, "c": "four", "d": [1.5]},
    ]


def test_only_wanted_operations_of_wanted_tables_arrive(shop: Shop) -> None:
    """What nobody subscribed to is not in the log, and the place of what is there does not depend on it."""
    shop.sql("CREATE TABLE orders (id int PRIMARY KEY, n int)", "CREATE TABLE others (id int PRIMARY KEY)")
    shop.wish(("public.orders", ["insert", "delete"]))
    shop.wait_ready()
    shop.sql(
        "INSERT INTO others VALUES (1)",
        "INSERT INTO orders VALUES (1, 1)",
        "UPDATE orders SET n = 2",
        "DELETE FROM orders",
    )
    events = shop.wait_events(2)
    assert [event.type.rpartition(".")[2] for event in events] == ["insert", "delete"]
    assert [event.id[-8:] for event in events] == ["00000002", "00000006"]


def test_partitioned_tables_report_as_one(shop: Shop) -> None:
    """Rows of every partition, also of one made later, are changes of the table that was named."""
    needs(13, "partitioned tables in publications")
    shop.sql("CREATE TABLE orders (id int PRIMARY KEY) PARTITION BY RANGE (id)")
    shop.sql("CREATE TABLE orders_1 PARTITION OF orders FOR VALUES FROM (0) TO (10)")
    shop.wish(("public.orders", ALL))
    shop.wait_ready()
    shop.sql("INSERT INTO orders VALUES (1)")
    shop.sql("CREATE TABLE orders_2 PARTITION OF orders FOR VALUES FROM (10) TO (20)")
    shop.sql("INSERT INTO orders VALUES (11)", "UPDATE orders SET id = 12 WHERE id = 11")
    events = shop.wait_events(4)
    assert {event.subject for event in events} == {"public.orders"}
    assert [data(event)["key"] for event in sorted(events, key=lambda event: event.id)] == [
        {"id": 1},
        {"id": 11},
        {"id": 11},
        {"id": 12},
    ]


def test_the_readers_memory_at_rest(shop: Shop) -> None:
    """A reader that follows and has nothing to do stays well under 60 MiB."""
    shop.sql("CREATE TABLE orders (id int PRIMARY KEY)")
    shop.wish(("public.orders", ALL))
    shop.wait_ready()
    assert shop.reader
    assert shop.reader.resident_mebibytes() < 60
