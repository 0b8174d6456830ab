"""Giving a Subscription that asks for it the rows that its tables have, before the changes that follow (docs/decisions/0049).

Invariants:
- The rows stand in the log behind every change that they contain and before every change that they don't: the stream stands still at the
  snapshot's place while they are written.
- Only the Subscription that asked reads them: they have a subject of its own. It gets them once, which is remembered after the log has
  all of the table's. That it begins is remembered before the first row, with a number that the ids tell: whoever dies in between takes a
  new snapshot, and rows that come again have the ids of the first time.
- Where changes may be missing between the rows and those that follow, the rows come anew, under ids of their own, whether all had been
  written or some: after a lost place, and to a Subscription that left the table out for a time. To no other.
- A table that can't be read holds up neither the others nor the stream.
- A snapshot is taken when the log has all that came before, and ended where the log takes nothing for a minute, of its rows or of the
  changes before them.
"""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, Generic, Protocol, TypeVar

import msgspec
from nats.js import JetStreamContext
from wisp_api import conditions, names
from wisp_api.cloudevent import Event
from wisp_api.source import TableConfig

from wisp_events import log
from wisp_events.sources import row_letters
from wisp_events.sources.interlude import STUCK_SECONDS, Put, Work
from wisp_events.sources.reader import Reader, Trouble, Wish
from wisp_events.sources.row_events import COUNTED, SNAPSHOT, Table
from wisp_events.sources.row_given import Given, Wanted, begun, forgotten, missing, remembered
from wisp_events.sources.rows import Begin

LOOK_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 5.0
RESTS: Final = 20
"""A table that broke off is left alone this many times as long as it took."""
REST_SECONDS: Final = 3600.0
"""At most."""
BYTES_AT_ONCE: Final = 1024 * 1024
"""So much is fetched at once, as far as the rows before tell."""
ROWS: Final = (1, 10, 2000)
"""Fetched at once: at least, at first, at most."""
P_co = TypeVar("P_co", covariant=True)
P = TypeVar("P")


class Paused(Trouble):
    """Raised when a table's rows break off where they are gone on with the next time: it needs no rest."""


class Mapper(row_letters.Owner, Protocol):
    """Makes rows into events."""

    def row(self, opened: Any, row: Any, table: Table, begin: Begin, number: int) -> Event:
        """The event of a row of a table that a snapshot opened; ValueError: a value can't be decoded."""


class Snapshot(Protocol[P_co]):
    """What tables held at one place of the server's log. All of it but the properties blocks, and raises Trouble."""

    @property
    def position(self) -> P_co:
        """The place."""

    @property
    def refused(self) -> Mapping[str, Trouble]:
        """Tables that can't be read in it."""

    def open(self, table: str) -> Any:
        """Begin with a table (`schema.table`), for the mapper; None where there is none."""

    def fetch(self) -> Sequence[Any]:
        """The next rows of the table; none at its end."""

    def give_up(self) -> None:
        """End the table that is open, after Trouble with it; raises where it is not the table's fault."""

    def close(self) -> None:
        """End the transaction."""


class Origin(Protocol[P]):
    """What one connection's reader does for its tables' rows."""

    @property
    def followed(self) -> Mapping[str, Table]:
        """The tables whose changes are read, by name."""

    async def given(self) -> Given:
        """What is remembered."""

    async def remember(self, given: Given) -> None:
        """Keep it."""

    def refusal(self, table: str) -> Trouble | None:
        """Why a table can't be read now, if it can't; blocks."""

    def take(self, tables: Collection[str]) -> Snapshot[P]:
        """A snapshot of these as of now; blocks."""

    async def at(self, place: Callable[[], Awaitable[P]], work: Work) -> None:
        """Let `work` put events where all transactions before a position are in the log and none after it."""


def rows_at_once(rows: Sequence[Sequence[Any]]) -> int:
    """How many rows to fetch next, after these."""
    size = sum(len(value) for row in rows for value in row if isinstance(value, bytes)) or 1
    return max(ROWS[0], min(ROWS[2], BYTES_AT_ONCE * len(rows) // size))


class Filling(Generic[P]):
    """Watches what one connection's Subscriptions ask for, and gives it."""

    def __init__(self, reader: Reader, js: JetStreamContext, wish: Wish, origin: Origin[P], mapper: Mapper) -> None:
        """Give what `reader`'s wish asks for by way of `origin`; `wish` is the one that it was made for."""
        self._reader = reader
        self._js = js
        self._wish = wish
        self._origin = origin
        self._mapper = mapper
        self._snapshot: Snapshot[P] | None = None
        self._written: dict[str, Wanted] = {}
        """Tables whose rows were put."""
        self._failed: dict[str, Trouble] = {}
        """Tables that can't be read."""
        self._rested: dict[str, float] = {}
        """When tables that can't be read, or broke off, are tried again, so that nobody waits for them but at times."""
        self._given = Given()
        """As it was read or written last."""
        self._asked = False
        """Whether it was."""
        self.message = ""
        """What is under way, or in the way; empty when nothing is."""

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            try:
                await self._turn()
            except Trouble as trouble:
                self.message = trouble.message
                await asyncio.sleep(RETRY_SECONDS)
            await asyncio.sleep(LOOK_SECONDS)

    async def _turn(self) -> None:
        config = (self._reader.wish or self._wish).config
        tables = config.database.tables if config.database and not config.draining else None
        wanted: dict[str, Wanted] = {}
        if tables is not None and not self._nobody(tables):
            await self._ask(tables)
            wanted = missing(tables, self._given, self._origin.followed)
        if not wanted:
            self.message = ""
            return
        if not self.message:
            self.message = f"the rows of {', '.join(wanted)} are being written"
        self._written = {}
        now = time.monotonic()
        self._failed = {
            name: one for name, one in self._failed.items() if name in wanted and now < self._rested.get(name, 0)
        }
        await self._remember(begun(self._given, wanted))
        try:
            await self._give(wanted)
        except Trouble as trouble:
            self._failed |= {name: trouble for name in wanted if name not in self._failed | self._written}
        finally:
            self._close()
        if self._written:
            await self._remember(remembered(self._given, self._written))
        self.message = ""
        if self._failed:
            raise _still_to_come(self._failed)

    def _close(self) -> None:
        if self._snapshot:
            self._snapshot.close()
        self._snapshot = None

    def _nobody(self, tables: Collection[TableConfig]) -> bool:
        """Whether nobody asks for rows, nor is remembered to have some."""
        some = self._given.snapshots or self._given.begun
        return self._asked and not some and not any(table.snapshots for table in tables)

    async def _ask(self, tables: Collection[TableConfig]) -> None:
        """See who has which rows, and forget those who left."""
        self._given = await self._origin.given()
        self._asked = True
        await self._remember(forgotten(tables, self._given))

    async def _remember(self, given: Given) -> None:
        if given != self._given:
            await self._origin.remember(given)
            self._given = given

    async def _give(self, wanted: dict[str, Wanted]) -> None:
        """Write the rows of the tables that can be read now."""
        for name in wanted.keys() - self._failed.keys():
            started = time.monotonic()
            if refusal := await asyncio.to_thread(self._origin.refusal, name):
                self._fail(name, refusal, started)
        readable = {name: one for name, one in wanted.items() if name not in self._failed}
        if readable:
            await self._origin.at(partial(self._take, [*readable]), partial(self._write, readable))

    def _fail(self, name: str, trouble: Trouble, started: float) -> None:
        now = time.monotonic()
        self._failed[name] = trouble
        self._rested[name] = now + (0 if isinstance(trouble, Paused) else min(RESTS * (now - started), REST_SECONDS))

    async def _take(self, tables: list[str]) -> P:
        started = time.monotonic()
        try:
            self._snapshot = await asyncio.to_thread(self._origin.take, tables)
        except Trouble as trouble:
            for name in tables:
                self._fail(name, trouble, started)
            raise
        self._failed |= self._snapshot.refused
        return self._snapshot.position

    async def _write(self, wanted: dict[str, Wanted], number: int, put: Put) -> None:
        """Store the rows of the tables; the stream stands still meanwhile."""
        try:
            await self._write_tables(wanted, number, put)
        finally:
            self._close()  # the log may not have it all for long

    async def _write_tables(self, wanted: dict[str, Wanted], number: int, put: Put) -> None:
        snapshot = self._snapshot
        assert snapshot  # noqa: S101 - it was taken before
        begin = Begin(number, int(time.time() * 1e6))
        numbers = itertools.count(1)
        for name, one in wanted.items():
            if name in self._failed:
                continue
            started = time.monotonic()
            try:
                await self._write_table(snapshot, name, one, begin, numbers, put=put)
            except Trouble as trouble:
                self._fail(name, trouble, started)
                await asyncio.to_thread(snapshot.give_up)
            except TimeoutError:
                stuck = Trouble(
                    conditions.LOG_UNAVAILABLE, f"the log took none for {STUCK_SECONDS:.0f} s; trying again"
                )
                self._fail(name, stuck, started)
                raise stuck from None
            else:
                self._written[name] = one

    async def _write_table(
        self, snapshot: Snapshot[P], name: str, wanted: Wanted, begin: Begin, numbers: Iterator[int], *, put: Put
    ) -> None:
        opened, begun = await asyncio.to_thread(snapshot.open, name), self._given.begun[name]
        while opened and (rows := await asyncio.to_thread(snapshot.fetch)):
            events: list[tuple[str, Event]] = []
            async with asyncio.timeout(STUCK_SECONDS):
                for row, number in zip(rows, numbers, strict=False):
                    try:
                        event = self._mapper.row(opened, row, wanted.table, begin, number)
                    except ValueError as error:
                        message = f"row {number} of {name}: {error}"
                        await row_letters.bury(self._js, row_letters.letter(self._mapper, "Malformed", message))
                    else:
                        events += self._for_each(name, event, begun)
                await put(events)
            COUNTED[SNAPSHOT].inc(len(rows))

    def _for_each(self, name: str, event: Event, begun: Mapping[str, int]) -> Iterator[tuple[str, Event]]:
        """A row, for each who asked."""
        mapper, (schema, _, table) = self._mapper, name.partition(".")
        for uid, under in begun.items():
            subject = names.snapshot_subject(mapper.namespace, mapper.connection, schema, table, uid, kind=mapper.kind)
            yield subject, msgspec.structs.replace(event, id=_identity(uid, under, event))


def _still_to_come(failed: Mapping[str, Trouble]) -> Trouble:
    """What is in the way of which tables' rows."""
    tables: dict[str, list[str]] = {}
    for name, trouble in failed.items():
        tables.setdefault(trouble.message, []).append(name)
    told = [f"the rows of {', '.join(those)} are still to come: {message}" for message, those in tables.items()]
    return Trouble(next(iter(failed.values())).reason, "; ".join(told))


def _identity(uid: str, number: int, event: Event) -> str:
    """Of a row with a key the same in every snapshot under one number for a Subscription."""
    if (event.partitionkey or "").endswith(":[]"):
        return event.id
    return log.fingerprint(SNAPSHOT, uid, event.partitionkey or "", str(number))[:32]
