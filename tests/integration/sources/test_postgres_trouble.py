"""What the PostgreSQL reader says when something is wrong, and that it heals when it is put right."""

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from fixtures.dataplane import DataPlane
from fixtures.postgres import Postgres, major, needs, postgres
from fixtures.process import free_port, wait_until
from fixtures.shop import ALL, Shop, shop_on
from wisp_api import cloudevent


@pytest.fixture
def orders(shop: Shop) -> Shop:
    """A shop with a table that is followed."""
    shop.sql("CREATE TABLE orders (id int PRIMARY KEY, note text)")
    shop.wish(("public.orders", ALL))
    shop.wait_ready()
    return shop


def test_a_missing_table_heals_when_it_is_made_and_holds_nobody_up(orders: Shop) -> None:
    """A table that is not there is TableNotFound; the others are followed meanwhile; made, it is followed too."""
    orders.wish(("public.orders", ALL), ("public.customers", ALL))
    assert "public.customers" in orders.wait_item("public.customers", "TableNotFound").message
    orders.sql("INSERT INTO orders VALUES (1, 'x')")
    orders.wait_events(1)
    orders.sql("CREATE TABLE customers (id int PRIMARY KEY)")
    orders.wish(("public.orders", ALL), ("public.customers", ALL))
    orders.wait_ready()
    orders.sql("INSERT INTO customers VALUES (1)")
    assert [event.subject for event in orders.wait_events(2)] == ["public.orders", "public.customers"]


def test_a_table_without_replica_identity_is_refused_and_stays_usable(orders: Shop) -> None:
    """It is refused with the ALTER to run, and the application's own UPDATE and DELETE go on working; after the ALTER it is followed."""
    orders.sql('CREATE TABLE "Visits" (page text)', "INSERT INTO \"Visits\" VALUES ('a')")
    orders.wish(("public.orders", ALL), ("public.Visits", ALL))
    message = orders.wait_item("public.Visits", "NoReplicaIdentity").message
    cure = 'ALTER TABLE public."Visits" REPLICA IDENTITY FULL'
    assert cure in message
    orders.sql("UPDATE \"Visits\" SET page = 'b'", 'DELETE FROM "Visits"')
    orders.sql(cure)
    orders.wish(("public.orders", ALL), ("public.Visits", ALL))
    orders.wait_ready()
    orders.sql("INSERT INTO \"Visits\" VALUES ('c')")
    assert [event.subject for event in orders.wait_events(1)] == ["public.Visits"]


def test_a_table_without_replica_identity_is_followed_for_inserts_only(orders: Shop) -> None:
    """Where only inserts are wanted, it goes into a publication of inserts, and UPDATE goes on working."""
    orders.sql("CREATE TABLE visits (page text)")
    orders.wish(("public.orders", ALL), ("public.visits", ["insert"]))
    orders.wait_ready()
    orders.sql("INSERT INTO visits VALUES ('a')")
    orders.sql("UPDATE visits SET page = 'b'")
    orders.sql("INSERT INTO orders VALUES (1, 'x')")
    assert [(event.subject, event.type.rpartition(".")[2]) for event in orders.wait_events(2)] == [
        ("public.visits", "insert"),
        ("public.orders", "insert"),
    ]


def test_a_view_and_a_table_of_somebody_else_are_named(orders: Shop) -> None:
    """A view is no table; a table that the role does not own is PermissionDenied with the grants to run."""
    orders.server.execute("DROP ROLE IF EXISTS clerk")
    orders.server.execute("CREATE ROLE clerk LOGIN REPLICATION PASSWORD 'clerk'")
    orders.server.execute(f"GRANT CREATE ON DATABASE {orders.database} TO clerk")
    orders.sql("CREATE VIEW everything AS SELECT * FROM orders", "CREATE SCHEMA AUTHORIZATION clerk")
    orders.sql("CREATE TABLE clerk.notes (id int PRIMARY KEY)", "ALTER TABLE clerk.notes OWNER TO clerk")
    orders.wish(draining=True)
    orders.wait_status(lambda status: status.drained, "the reader does not drain")
    orders.write_dsn(orders.server.dsn("clerk", "clerk", orders.database))
    orders.wish(("public.orders", ALL), ("public.everything", ALL), ("clerk.notes", ALL))
    assert "GRANT" in orders.wait_item("public.orders", "PermissionDenied").message
    orders.wait_item("public.everything", "TableNotFound")
    orders.sql("INSERT INTO clerk.notes VALUES (1)")
    assert [event.subject for event in orders.wait_events(1)] == ["clerk.notes"]


def test_a_role_that_may_not_replicate_is_told_so(shop: Shop) -> None:
    """PermissionDenied, with the ALTER ROLE to run."""
    shop.server.execute("DROP ROLE IF EXISTS guest")
    shop.server.execute("CREATE ROLE guest LOGIN PASSWORD 'guest'")
    shop.sql("CREATE TABLE orders (id int PRIMARY KEY)")
    shop.write_dsn(shop.server.dsn("guest", "guest", shop.database))
    shop.wish(("public.orders", ALL))
    status = shop.wait_status(lambda status: status.reason == "PermissionDenied", "the role is not refused")
    assert "ALTER ROLE" in status.message


def test_a_wrong_password_heals_when_the_secret_is_put_right(shop: Shop) -> None:
    """AuthenticationFailed, without the password in message or log; the right one in the Secret is taken without a restart."""
    shop.sql("CREATE TABLE orders (id int PRIMARY KEY)")
    shop.write_dsn(shop.server.dsn(password="hunter2", database=shop.database))
    shop.wish(("public.orders", ALL))
    status = shop.wait_status(lambda status: status.reason == "AuthenticationFailed", "the password is not refused")
    assert "hunter2" not in status.message + shop.log()
    assert shop.reader
    assert "AuthenticationFailed" in shop.reader.fetch("/readyz") or not shop.reader.fetch("/readyz")
    shop.write_dsn(shop.server.dsn(database=shop.database))
    shop.wait_ready()
    shop.sql("INSERT INTO orders VALUES (1)")
    shop.wait_events(1)


@pytest.mark.parametrize(
    ("dsn", "reason"),
    [
        ("postgresql://me:hunter2@127.0.0.1:{closed}/shop", "ServerUnreachable"),
        ("host=127.0.0.1 port={open} user=postgres password='{password}' dbname=nosuch", "InvalidConnection"),
        ("postgresql://me:hunter2@host:port/?x", "InvalidConnection"),
        ("hunter2 is no dsn", "InvalidConnection"),
        ("", "InvalidConnection"),
    ],
)
def test_each_wrong_dsn_is_named_without_its_password(shop: Shop, dsn: str, reason: str) -> None:
    """A server that is away, a database that is not there, a text that can't be parsed: a reason each, and no secret told."""
    password = "secret of the superuser"
    shop.write_dsn(dsn.format(closed=free_port(), open=shop.server.port, password=password))
    shop.wish(("public.orders", ALL))
    status = shop.wait_status(lambda status: status.reason == reason, f"{dsn} is not {reason}")
    assert status.message
    assert not {"hunter2", password} & set(status.message.split())
    assert "hunter2" not in shop.log()


def test_an_absent_secret_is_named_and_heals(shop: Shop) -> None:
    """SecretNotFound says which Secret; made, it is used."""
    dsn = (shop.secret / "dsn").read_text()
    (shop.secret / "dsn").unlink()
    shop.sql("CREATE TABLE orders (id int PRIMARY KEY)")
    shop.wish(("public.orders", ALL))
    status = shop.wait_status(lambda status: status.reason == "SecretNotFound", "the Secret is not missed")
    assert "shop-db" in status.message
    shop.write_dsn(dsn)
    shop.wait_ready()


def test_draining_leaves_nothing_behind_even_without_the_secret(orders: Shop) -> None:
    """Slot and publications are gone when `drained` is reported, although the Secret went first, as with a namespace."""
    (orders.secret / "dsn").unlink()
    orders.wish(("public.orders", ALL), draining=True)
    orders.wait_status(lambda status: status.drained, "the reader does not drain")
    left = f"SELECT pubname::text FROM pg_publication UNION ALL SELECT slot_name::text FROM pg_replication_slots WHERE slot_name = '{orders.slot}'"
    assert orders.server.execute(left, database=orders.database) == []


def test_no_table_left_means_no_slot(orders: Shop) -> None:
    """When the last table is not wanted any more, the slot goes, so that it holds back no log; a new wish begins anew."""
    slots = f"SELECT slot_name FROM pg_replication_slots WHERE slot_name = '{orders.slot}'"
    orders.wish()
    orders.wait_status(lambda status: status.ready and not status.items, "the reader does not report")
    assert orders.server.execute(slots) == []
    orders.sql("INSERT INTO orders VALUES (1, 'not followed')")
    orders.wish(("public.orders", ALL))
    orders.wait_ready()
    orders.sql("INSERT INTO orders VALUES (2, 'followed')")
    [event] = orders.wait_events(1)
    assert json.loads(bytes(event.data or b""))["key"] == {"id": 2}


def test_rows_that_can_not_become_events_are_dead_letters_and_hold_up_nothing(orders: Shop) -> None:
    """A row above the log's limit is dead-lettered with its key; the next one is delivered, and the slot passes both."""
    orders.sql("INSERT INTO orders VALUES (1, repeat('x', 7000000))")
    orders.sql("INSERT INTO orders VALUES (2, 'small')")
    [event] = orders.wait_events(1)
    assert event.partitionkey == "public.orders:[2]"
    [letter] = orders.plane.dead_letters()
    assert (letter.reason, letter.namespace, letter.source) == ("EventTooLarge", "shop", "postgres/shop-db")
    assert letter.event
    assert b'"key":{"id":1}' in bytes(letter.event)


def test_a_dropped_slot_is_reported_and_begun_anew_with_gap_events(orders: Shop) -> None:
    """Somebody drops the slot: SlotLost, a gap event for the table, and the changes from then on, with greater sequences."""
    orders.sql("INSERT INTO orders VALUES (1, 'before')")
    orders.wait_events(1)
    assert orders.reader
    orders.reader.kill()
    free = f"SELECT 1 FROM pg_replication_slots WHERE slot_name = '{orders.slot}' AND NOT active"
    wait_until(lambda: bool(orders.server.execute(free)), "the slot stays in use")
    orders.server.execute("SELECT pg_drop_replication_slot(%s)", orders.slot)
    orders.sql("INSERT INTO orders VALUES (2, 'lost')")
    orders.reader.start()
    status = orders.wait_status(lambda status: status.ready and "gap" in status.message, "the gap is not reported")
    assert orders.slot in status.message
    orders.sql("INSERT INTO orders VALUES (3, 'after')")
    events = orders.wait_events(3)
    assert [event.type.rpartition(".")[2] for event in events] == ["insert", "gap", "insert"]
    assert [event.partitionkey for event in events] == ["public.orders:[1]", None, "public.orders:[3]"]
    assert sorted(event.sequence or "" for event in events) == [event.sequence for event in events]


@pytest.mark.parametrize("dropped", ["", "_ins"])
def test_a_dropped_publication_is_a_gap_not_a_dead_end(orders: Shop, dropped: str) -> None:
    """The server could never read past it: the reader makes publications and slot anew, and says what may be missing."""
    orders.sql(f"DROP PUBLICATION {orders.slot}{dropped}")
    orders.sql("INSERT INTO orders VALUES (1, 'lost')")
    orders.wait_status(lambda status: status.ready and "gap" in status.message, "the gap is not reported")
    orders.sql("INSERT INTO orders VALUES (2, 'after')")
    read_past = ["insert"] if dropped and major() >= 18 else []  # 18 goes on with the publications that are left
    wanted = [*read_past, "gap", "insert"]
    assert [event.type.rpartition(".")[2] for event in orders.wait_events(len(wanted))] == wanted


def test_positions_that_went_back_begin_a_new_epoch(orders: Shop) -> None:
    """After a restore the server's positions are below those in the log: what follows is not taken for what is held already."""
    orders.sql("INSERT INTO orders VALUES (1, 'before')")
    [event] = orders.wait_events(1)
    assert orders.reader
    orders.reader.kill()
    epoch, _, ordinal = event.id.split("-")
    later = msgspec.structs.replace(event, sequence=f"{epoch}-{'f' * 16}-{ordinal}")
    orders.plane.publish(orders.plane.records(orders.stream)[0][0], cloudevent.encode_frame([cloudevent.encode(later)]))
    orders.reader.start()
    orders.wait_status(lambda status: status.ready and "went back" in status.message, "the restore is not noticed")
    orders.sql("INSERT INTO orders VALUES (1, 'after') ON CONFLICT (id) DO UPDATE SET note = excluded.note")
    assert [event.type.rpartition(".")[2] for event in orders.wait_events(4)[2:]] == ["gap", "update"]


@pytest.fixture
def small_server(tmp_path: Path) -> Iterator[Postgres]:
    """A PostgreSQL that keeps little log for slots."""
    needs(13, "max_slot_wal_keep_size")
    with postgres(tmp_path, max_slot_wal_keep_size="1MB", min_wal_size="32MB", max_wal_size="32MB") as server:
        yield server


def test_a_slot_that_the_server_gave_up_is_lost_and_replaced(
    small_server: Postgres, plane: DataPlane, tmp_path: Path
) -> None:
    """While the reader is dead the server removes the log that the slot needs: the reader replaces the slot and says so."""
    with shop_on(plane, small_server, tmp_path) as shop:
        shop.sql("CREATE TABLE orders (id int PRIMARY KEY, note text)")
        shop.wish(("public.orders", ALL))
        shop.wait_ready()
        assert shop.reader
        shop.reader.kill()
        lost = f"SELECT 1 FROM pg_replication_slots WHERE slot_name = '{shop.slot}' AND wal_status = 'lost'"

        def overflow() -> bool:
            shop.sql(
                "CREATE TABLE noise AS SELECT repeat('x', 1000) FROM generate_series(1, 20000)", "DROP TABLE noise"
            )
            small_server.execute("SELECT pg_switch_wal()")
            small_server.execute("CHECKPOINT")
            return bool(small_server.execute(lost))

        wait_until(overflow, "the slot is not lost")
        shop.reader.start()
        status = shop.wait_status(lambda status: status.ready and "gap" in status.message, "the gap is not reported")
        assert "max_slot_wal_keep_size" in status.message
        shop.sql("INSERT INTO orders VALUES (3, 'after')")
        assert [event.type.rpartition(".")[2] for event in shop.wait_events(2)] == ["gap", "insert"]


def test_a_server_without_logical_decoding_is_told_what_to_set(plane: DataPlane, tmp_path: Path) -> None:
    """wal_level below logical is LogicalDecodingOff, with the setting."""
    with postgres(tmp_path, wal_level="replica") as server, shop_on(plane, server, tmp_path) as shop:
        shop.wish(("public.orders", ALL))
        status = shop.wait_status(lambda status: status.reason == "LogicalDecodingOff", "wal_level is not refused")
        assert "wal_level" in status.message
