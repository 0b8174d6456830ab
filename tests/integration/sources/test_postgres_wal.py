"""What a PostgreSQL server keeps for the reader's slot is watched, and told of before it is too much."""

import re
from collections.abc import Iterator

import pytest
from fixtures.postgres import needs
from fixtures.process import wait_until
from fixtures.shop import ALL, Shop

LIMIT = 160 * 1024**2
RETAINED = "SELECT pg_current_wal_lsn() - restart_lsn FROM pg_replication_slots WHERE slot_name = %s"


@pytest.fixture
def limited(shop: Shop) -> Iterator[Shop]:
    """A shop whose server keeps at most LIMIT bytes for a slot."""
    needs(13, "max_slot_wal_keep_size")
    shop.server.execute(f"ALTER SYSTEM SET max_slot_wal_keep_size = '{LIMIT >> 20}MB'")
    shop.server.execute("SELECT pg_reload_conf()")
    shop.sql("CREATE TABLE orders (id int PRIMARY KEY)", "CREATE TABLE others (id int)")
    shop.wish(("public.orders", ALL))
    shop.wait_ready()
    yield shop
    shop.server.execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
    shop.server.execute("SELECT pg_reload_conf()")


def retained(shop: Shop) -> int:
    """Bytes of WAL that the server keeps for the slot."""
    return int(shop.server.execute(RETAINED, shop.slot)[0][0])


def test_a_slot_near_its_limit_is_warned_of_and_still_followed(limited: Shop) -> None:
    """An open transaction keeps the server's log: the report is ready, warns and says what to do, and the warning goes with its cause."""
    assert limited.reader
    with limited.transaction("INSERT INTO others VALUES (1)"):
        while retained(limited) < LIMIT * 0.8:
            limited.sql("SELECT pg_logical_emit_message(true, 'test', 'x')", "SELECT pg_switch_wal()")
        limited.wish(("public.orders", ALL))
        status = limited.wait_status(lambda status: status.reason == "SlotAtRisk", "no warning")
        assert status.ready
        assert "max_slot_wal_keep_size" in status.message
        assert limited.slot in status.message
        metrics = limited.reader.fetch("/metrics")
        safe = re.search(r"^wisp_reader_slot_safe_bytes (\S+)$", metrics, re.MULTILINE)
        assert safe
        assert 0 < float(safe[1]) < LIMIT / 4
        limited.sql("INSERT INTO orders VALUES (1)")
        limited.wait_events(1)

    def freed() -> bool:
        limited.server.execute("CHECKPOINT")  # tells decoding that no transaction is open any more
        return retained(limited) < LIMIT / 2

    wait_until(freed, "the slot does not advance")
    limited.wish(("public.orders", ALL))
    limited.wait_status(lambda status: status.ready and not status.reason and not status.message, "the warning stays")
