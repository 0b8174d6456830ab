"""How fast row changes get from MariaDB into the log: one row a transaction, a hundred, and all in one.

Run: `uv run python tests/bench/bench_mysql.py`. The rows are there before the reader starts, so that only reading, decoding and durable
publishing (`sync_interval: always`) are timed: from the first event to the keeping of the last position, which comes within a second of it
(so the figures are a little low). The latency is of single rows committed one after the other, from the commit's answer to the frame's
arrival at a subscriber of its subject.
"""

import asyncio
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import nats
from fixtures.dataplane import data_plane
from fixtures.mariadb import mariadb
from fixtures.mariadb_shop import MariaShop, maria_shop_on
from fixtures.nats import nats_server
from fixtures.process import wait_until

ROWS = 100_000
SINGLE = 300
COLUMNS = "id bigint AUTO_INCREMENT PRIMARY KEY, customer int, total decimal(12,2), note text, made timestamp(6) DEFAULT now(6)"


def write(shop: MariaShop, per_transaction: int) -> None:
    """Insert ROWS rows, so many a transaction, inside the server."""
    values = f"SELECT seq % 1000, seq / 100, concat('a note of some forty characters, number ', seq) FROM seq_1_to_{per_transaction}"
    insert = f"INSERT INTO orders (customer, total, note) {values}"
    body = f"FOR i IN 1..{ROWS // per_transaction} DO {insert}; END FOR"
    shop.server.execute(f"USE {shop.database}", f"BEGIN NOT ATOMIC {body}; END")


def throughput(shop: MariaShop, per_transaction: int) -> tuple[float, float]:
    """Rows a second from the first to the last one's kept position, and the reader's memory at the end, MiB."""
    reader = shop.reader
    assert reader
    reader.kill()
    write(shop, per_transaction)
    [(target,)] = shop.server.execute("SELECT @@gtid_binlog_pos")

    def kept() -> bool:
        position = shop.position()
        return position is not None and position.gtids == target

    reader.start()
    wait_until(lambda: shop.read() > 0, "nothing arrives")
    started = time.monotonic()
    wait_until(kept, "rows are missing", seconds=300)
    return ROWS / (time.monotonic() - started), reader.resident_mebibytes()


async def latencies(shop: MariaShop) -> list[float]:
    """Seconds from a commit's answer to the event's frame, sorted."""
    client = await nats.connect(shop.plane.server.url)
    subscription = await client.subscribe("wisp.events.>")
    found = []
    with shop.server.session() as cursor:
        for _ in range(SINGLE):
            cursor.execute(f"INSERT INTO {shop.table('orders')} (customer, total, note) VALUES (1, 2.5, 'x')")
            committed = time.monotonic()
            await subscription.next_msg(timeout=10)
            found.append(time.monotonic() - committed)
    await client.close()
    return sorted(found)


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        with (
            nats_server(directory) as log,
            data_plane(log, directory) as plane,
            mariadb(directory) as server,
            maria_shop_on(plane, server, directory) as shop,
        ):
            shop.sql(f"CREATE TABLE orders ({COLUMNS})")
            shop.wish((shop.table("orders"), ["insert", "update", "delete"]))
            shop.wait_ready()
            for per_transaction in (1, 100, ROWS):
                rows, memory = throughput(shop, per_transaction)
                print(f"{per_transaction:>7} rows a transaction: {rows:>8,.0f} rows/s, reader {memory:.0f} MiB")
            found = asyncio.run(latencies(shop))
            middle, late = (found[int(len(found) * part)] * 1000 for part in (0.5, 0.99))
            print(f"commit to event in the log: p50 {middle:.1f} ms, p99 {late:.1f} ms")


if __name__ == "__main__":
    main()
