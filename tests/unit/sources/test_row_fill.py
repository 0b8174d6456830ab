"""What becomes of a snapshot that can't be taken or written."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from wisp_api import conditions
from wisp_api.cloudevent import Event
from wisp_api.source import TableConfig
from wisp_events.sources import row_fill
from wisp_events.sources.interlude import Work
from wisp_events.sources.reader import Trouble
from wisp_events.sources.row_events import Mapper, Table
from wisp_events.sources.row_fill import Filling, Paused
from wisp_events.sources.row_given import Given
from wisp_events.sources.rows import Column, Relation

TABLE = "shop.orders"
RELATION = Relation(0, "shop", "orders", "d", (Column("id", identity=True, label=b'"id":', convert=bytes),))


class Snapshot:
    """One row."""

    position = 7
    refused: dict[str, Trouble] = {}  # noqa: RUF012 - as the protocol has it

    def __init__(self) -> None:
        """It is open."""
        self.closed = False

    def open(self, table: str) -> Relation | None:
        """As `row_fill.Snapshot`."""
        return RELATION if table == TABLE else None

    def fetch(self) -> list[tuple[bytes]]:
        """As `row_fill.Snapshot`."""
        return [(b"1",)]

    def give_up(self) -> None:
        """As `row_fill.Snapshot`."""
        raise AssertionError("the table is not to blame")

    def close(self) -> None:
        """As `row_fill.Snapshot`."""
        self.closed = True


class Origin:
    """A server whose log never takes a row, or that has no snapshot."""

    followed = {TABLE: Table(frozenset({"insert"}), ("id",))}  # noqa: RUF012 - as the protocol has it

    def __init__(self, *, refuses: bool) -> None:
        """Nobody has rows."""
        self._refuses = refuses
        self._given = Given()
        self.asked = self.taken = 0
        self.snapshot = Snapshot()
        self.closed_in_time = False

    async def given(self) -> Given:
        """As `row_fill.Origin`."""
        self.asked += 1
        return self._given

    async def remember(self, given: Given) -> None:
        """As `row_fill.Origin`."""
        self._given = given

    def refusal(self, _: str) -> Trouble | None:
        """As `row_fill.Origin`."""
        return None

    def take(self, _: Any) -> Snapshot:
        """As `row_fill.Origin`."""
        self.taken += 1
        if self._refuses:
            raise Trouble(conditions.WAITING_FOR_TRANSACTIONS, "a transaction is open")
        return self.snapshot

    async def at(self, place: Callable[[], Awaitable[int]], work: Work) -> None:
        """As `row_fill.Origin`."""

        async def put(_: list[tuple[str, Event]]) -> None:
            await asyncio.Event().wait()

        try:
            await work(await place(), put)
        finally:
            self.closed_in_time = self.snapshot.closed


@contextlib.asynccontextmanager
async def filling(origin: Origin) -> AsyncIterator[Filling[int]]:
    """Watches, for a Subscription that wants the table's rows."""
    tables = [TableConfig(name=TABLE, operations=["insert"], snapshots=["uid-1"])]
    wish = SimpleNamespace(config=SimpleNamespace(database=SimpleNamespace(tables=tables), draining=False))
    reader = cast("Any", SimpleNamespace(wish=wish))
    one = Filling[int](reader, cast("Any", None), cast("Any", wish), origin, Mapper("default", "db", 1, "mysql"))
    task = asyncio.create_task(one.run())
    try:
        async with asyncio.timeout(60):
            while origin.asked < 5 or "still to come" not in one.message:  # noqa: ASYNC110 - nobody tells of a turn
                await asyncio.sleep(0.01)
        yield one
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns come at once, what failed rests for long, a log is stuck soon."""
    monkeypatch.setattr(row_fill, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(row_fill, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(row_fill, "RESTS", 10**9)
    monkeypatch.setattr(row_fill, "STUCK_SECONDS", 0.1)


async def test_a_snapshot_that_could_not_be_taken_rests() -> None:
    """Whoever writes to the tables waits while it is tried."""
    origin = Origin(refuses=True)
    async with filling(origin) as one:
        assert origin.taken == 1
        assert one.message == f"the rows of {TABLE} are still to come: a transaction is open"


async def test_rows_that_can_be_gone_on_with_do_not_rest() -> None:
    """What the server has forgotten is asked for anew at once: nobody waited for what was written before."""

    class Pausing(Origin):
        def take(self, _: Any) -> Snapshot:
            self.taken += 1
            raise Paused(conditions.SERVER_UNREACHABLE, "the moment is forgotten")

    origin = Pausing(refuses=True)
    async with filling(origin) as one:
        assert origin.taken > 1
        assert "the moment is forgotten" in one.message


async def test_a_snapshot_does_not_wait_for_a_log_that_takes_nothing() -> None:
    """It is closed at once, not when the log is back: whoever alters the table waits for it."""
    origin = Origin(refuses=False)
    async with filling(origin) as one:
        assert origin.closed_in_time
        assert "the log took none for" in one.message
        assert origin.taken == 1
