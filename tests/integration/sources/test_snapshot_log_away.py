"""The event log goes away while a snapshot is on its way to its place: the database is not held up for it, and the rows come later."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection
from typing import Any

import nats
import pytest
from fixtures import tasks
from fixtures.mariadb_shop import MariaShop
from fixtures.rows import applied
from fixtures.shop import ALL, Followed, Shop
from wisp_events import log
from wisp_events.sources import interlude, mysql, mysql_snapshot, postgres, postgres_snapshot
from wisp_events.sources.reader import Reader, run_until_one_ends

Run = Callable[[Reader, Any], Any]


@contextlib.asynccontextmanager
async def reading(shop: Followed, run: Run) -> AsyncIterator[None]:
    """The reader in this process, in place of its own."""
    assert shop.reader
    await asyncio.to_thread(shop.reader.stop)

    async def quiet(_: Exception) -> None:
        pass

    client = await nats.connect(
        shop.plane.server.url, max_reconnect_attempts=-1, reconnect_time_wait=0.1, error_cb=quiet
    )
    reader = Reader(client, shop.namespace, shop.kind, shop.connection, shop.secret)
    work = asyncio.create_task(run_until_one_ends(reader.follow(), run(reader, client.jetstream())))
    try:
        yield
    finally:
        await tasks.end(work)
        await client.close()


async def lose_log(
    shop: Shop | MariaShop, run: Run, origin: Any, monkeypatch: pytest.MonkeyPatch, *, table: str
) -> None:
    """Have a row written and the log killed as the first snapshot is taken; then alter the table, and let the log come back."""
    take, taken = origin.take, asyncio.Event()
    loop = asyncio.get_running_loop()

    def losing(self: Any, tables: Collection[str]) -> Any:
        if taken.is_set():
            return take(self, tables)
        shop.sql("INSERT INTO orders VALUES (2, 2)")
        shop.plane.server.kill()
        snapshot = take(self, tables)
        loop.call_soon_threadsafe(taken.set)
        return snapshot

    monkeypatch.setattr(origin, "take", losing)
    monkeypatch.setattr(interlude, "STUCK_SECONDS", 1.0)
    monkeypatch.setattr(log, "PUBLISH_SECONDS", 2.0)
    async with reading(shop, run):
        await asyncio.to_thread(shop.wait_ready)
        shop.wish((table, ALL), rows={table: ["uid-1"]})
        async with asyncio.timeout(120):
            await taken.wait()
            await asyncio.to_thread(shop.sql, "ALTER TABLE orders ADD COLUMN more int")
            await asyncio.to_thread(shop.plane.server.start)
        events = await asyncio.to_thread(shop.wait_events, 3)
    assert applied(events) == {1: 1, 2: 2}
    assert [event.type.rpartition(".")[2] for event in events] == ["insert", "snapshot", "snapshot"]


async def test_postgresql_is_let_go(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ALTER TABLE gets its turn while the log is away; then the rows come, behind the change that was held up."""
    await asyncio.to_thread(
        shop.sql, "CREATE TABLE orders (id int PRIMARY KEY, n int)", "INSERT INTO orders VALUES (1, 1)"
    )
    await asyncio.to_thread(shop.wish, ("public.orders", ALL))
    await lose_log(shop, postgres.run, postgres_snapshot.Origin, monkeypatch, table="public.orders")


async def test_mysql_is_let_go(maria: MariaShop, monkeypatch: pytest.MonkeyPatch) -> None:
    """As PostgreSQL."""
    await asyncio.to_thread(
        maria.sql, "CREATE TABLE orders (id int PRIMARY KEY, n int)", "INSERT INTO orders VALUES (1, 1)"
    )
    await asyncio.to_thread(maria.wish, (maria.table("orders"), ALL))
    await lose_log(maria, mysql.run, mysql_snapshot.Origin, monkeypatch, table=maria.table("orders"))
