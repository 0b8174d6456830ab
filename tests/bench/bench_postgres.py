"""How fast row changes get from PostgreSQL into the log: one row a transaction, a hundred, and all in one.

Run: `uv run python tests/bench/bench_postgres.py`. The rows are there before the reader starts, so that only reading,
decoding and durable publishing (`sync_interval: always`) are timed: from the first event to the confirmation of the last
one, which comes within a second of it (so the figures are a little low).
The latency is of single rows committed one after the other, from the commit's answer to the frame's arrival at a
subscriber of its subject.
"""

import asyncio
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import nats
import psycopg2
from fixtures.dataplane import data_plane
from fixtures.nats import nats_server
from fixtures.postgres import postgres
from fixtures.process import wait_until
from fixtures.shop import Shop, shop_on

ROWS = 200_000
SINGLE = 300
COLUMNS = "id bigserial PRIMARY KEY, customer int, total numeric(12,2), note text, made timestamptz DEFAULT now()"
VALUES = "SELECT n % 1000, n / 100.0, 'a note of some forty characters, number ' || n FROM generate_series(1, {}) AS n"


def write(shop: Shop, per_transaction: int) -> None:
    """Insert ROWS rows, so many a transaction, inside the server."""
    rounds = ROWS // per_transaction
    insert = f"INSERT INTO orders (customer, total, note) {VALUES.format(per_transaction)}"
    body = f"BEGIN FOR i IN 1..{rounds} LOOP {insert}; COMMIT; END LOOP; END"
    session = psycopg2.connect(shop.server.dsn(database=shop.database))
    session.autocommit = True
    with session.cursor() as cursor:
        cursor.execute("SET synchronous_commit = off")
        cursor.execute(f"DO $$ {body} $$")
    session.close()


def throughput(shop: Shop, per_transaction: int) -> tuple[float, float]:
    """Rows a second from the first to the confirmed last, and its memory at the end, MiB."""
    reader = shop.reader
    assert reader
    reader.kill()
    write(shop, per_transaction)
    rows = f"SELECT 1 FROM pg_replication_slots WHERE slot_name = '{shop.slot}' AND confirmed_flush_lsn >= %s::pg_lsn"
    [(target,)] = shop.server.execute("SELECT pg_current_wal_lsn()::text")
    reader.start()
    wait_until(lambda: shop.read() > 0, "nothing arrives")
    started = time.monotonic()
    wait_until(lambda: bool(shop.server.execute(rows, target)), "rows are missing", seconds=300)
    seconds = time.monotonic() - started
    return ROWS / seconds, reader.resident_mebibytes()


async def latencies(shop: Shop) -> list[float]:
    """Seconds from a commit's answer to the event's frame, sorted."""
    client = await nats.connect(shop.plane.server.url)
    subscription = await client.subscribe("wisp.events.>")
    session = psycopg2.connect(shop.server.dsn(database=shop.database))
    session.autocommit = True
    found = []
    with session.cursor() as cursor:
        for _ in range(SINGLE):
            cursor.execute("INSERT INTO orders (customer, total, note) VALUES (1, 2.5, 'x')")
            committed = time.monotonic()
            await subscription.next_msg(timeout=10)
            found.append(time.monotonic() - committed)
    session.close()
    await client.close()
    return sorted(found)


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        with (
            nats_server(directory) as nats_process,
            data_plane(nats_process, directory) as plane,
            postgres(directory) as server,
            shop_on(plane, server, directory) as shop,
        ):
            shop.sql(f"CREATE TABLE orders ({COLUMNS})")
            shop.wish(("public.orders", ["insert", "update", "delete"]))
            shop.wait_ready()
            assert shop.reader
            print(f"reader at rest: {shop.reader.resident_mebibytes():.0f} MiB")
            found = asyncio.run(latencies(shop))
            print(
                f"latency: p50 {found[len(found) // 2] * 1e3:.1f} ms, p99 {found[int(len(found) * 0.99)] * 1e3:.1f} ms"
            )
            for per_transaction in (1, 100, ROWS):
                rate, memory = throughput(shop, per_transaction)
                print(f"{per_transaction} rows a transaction: {rate:,.0f} rows/s, reader {memory:.0f} MiB")


main()
