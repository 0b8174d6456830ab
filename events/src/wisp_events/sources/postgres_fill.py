"""Giving a Subscription that asks for it the rows that its tables have, before the changes that follow (docs/decisions/0049).

Invariants:
- The rows stand in the log behind every change that they contain and before every change that they don't: the stream stands still at the
  snapshot's place while they are written.
- Only the Subscription that asked reads them: they have a subject of its own. It gets them once, which is remembered after the log has
  all of the table's. Whoever dies before takes a new snapshot: rows that come again have the ids of the first time.
- Where changes may be missing between the rows and those that follow, the rows come anew, under ids of their own: after a lost slot, and to a
  Subscription that left the table out for a time.
- A table that can't be read holds up neither the others nor the stream.
"""

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Final, NamedTuple

import msgspec
from nats.js import JetStreamContext
from wisp_api import names
from wisp_api.cloudevent import Event
from wisp_api.source import PostgresConfig, ReaderConfig

from wisp_events import log
from wisp_events.sources import postgres_snapshot, row_letters, row_log
from wisp_events.sources.postgres_snapshot import Snapshot
from wisp_events.sources.postgres_stream import Put, Stream
from wisp_events.sources.reader import Reader, Trouble, Wish
from wisp_events.sources.row_events import COUNTED, Mapper, Table
from wisp_events.sources.rows import Begin, Change, Relation, Value

LOOK_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 5.0
RESTS: Final = 20
"""A table that broke off is left alone this many times as long as it took."""
REST_SECONDS: Final = 3600.0
"""At most."""
OPERATION: Final = "snapshot"


class Given(msgspec.Struct, rename="camel"):
    """What is remembered."""

    snapshots: dict[str, list[str]] = {}
    """Table -> uids of the Subscriptions that have its rows."""
    round: int = 0
    """How often rows had to be given anew: ids tell it, or who passes over ids that are known would miss what changed meanwhile."""


class Wanted(NamedTuple):
    """A table's rows, and who is to get them."""

    table: Table
    uids: list[str]


def missing(config: PostgresConfig, given: Given, followed: Mapping[str, Table]) -> dict[str, Wanted]:
    """Of the tables that are followed, those with rows that somebody is to get."""
    found = {
        table.name: Wanted(
            followed[table.name], [uid for uid in table.snapshots if uid not in given.snapshots.get(table.name, [])]
        )
        for table in config.tables
        if table.name in followed
    }
    return {name: wanted for name, wanted in found.items() if wanted.uids}


def remembered(given: Given, written: Mapping[str, Wanted]) -> Given:
    """Who has which rows when these tables' are written."""
    found = {name: {*given.snapshots.get(name, ()), *wanted.uids} for name, wanted in written.items()}
    return Given(given.snapshots | {name: sorted(uids) for name, uids in found.items()}, given.round)


def forgotten(config: PostgresConfig, given: Given) -> Given:
    """Who has which rows, without those who don't ask any more: they miss changes from now on."""
    asked = {table.name: table.snapshots for table in config.tables}
    found = {name: [uid for uid in uids if uid in asked.get(name, ())] for name, uids in given.snapshots.items()}
    kept = {name: uids for name, uids in found.items() if uids}
    return given if kept == given.snapshots else Given(kept, given.round + 1)


def kept_by(js: JetStreamContext, config: ReaderConfig) -> row_log.Kept[Given]:
    """Where it is remembered."""
    return row_log.Kept(js, names.position_key(config.namespace, config.kind, config.connection), Given)


async def give_anew(js: JetStreamContext, config: ReaderConfig) -> None:
    """Forget who has which rows, because changes may be missing after them.

    Raises:
        Trouble: the log does not answer.
        Fenced: another reader remembered something.
    """
    position = kept_by(js, config)
    given = await position.read()
    if given and given.snapshots:
        await position.write(Given(round=given.round + 1))


class Filling:
    """Watches what one connection's Subscriptions ask for, and gives it."""

    def __init__(self, reader: Reader, js: JetStreamContext, wish: Wish, stream: Stream, mapper: Mapper) -> None:
        """Give what `reader`'s wish asks for by way of `stream`; `wish` is the one that the stream was made for."""
        self._reader = reader
        self._js = js
        self._wish = wish
        self._stream = stream
        self._mapper = mapper
        self._snapshot: Snapshot | None = None
        self._written: dict[str, Wanted] = {}
        """Tables whose rows were put."""
        self._failed: dict[str, Trouble] = {}
        """Tables that can't be read."""
        self._rested: dict[str, float] = {}
        """When tables that broke off are read again, so that the stream stands still for them at times only."""
        self._given: Given | None = None
        """As it was read or written last."""
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
        if config.draining or not config.postgres or self._nobody(config.postgres):
            self.message = ""
            return
        position = kept_by(self._js, config)
        held = await position.read() or Given()
        self._given = given = forgotten(config.postgres, held)
        if given != held:
            await position.write(given)
        wanted = missing(config.postgres, given, self._stream.tables)
        if not wanted:
            self.message = ""
            return
        dsn = self._wish.value("dsn")
        if not self.message:
            self.message = f"the rows of {', '.join(wanted)} are being written"
        self._written = {}
        now = time.monotonic()
        self._failed = {
            name: one for name, one in self._failed.items() if name in wanted and now < self._rested.get(name, 0)
        }
        try:
            self._failed |= await asyncio.to_thread(
                postgres_snapshot.unreadable, dsn, wanted.keys() - self._failed.keys()
            )
            readable = {name: one for name, one in wanted.items() if name not in self._failed}
            if readable:
                taking = partial(postgres_snapshot.take, dsn, config.postgres.slot)
                await self._stream.at(partial(self._take, taking), partial(self._write, readable))
        except Trouble as trouble:
            self._failed |= {name: trouble for name in wanted if name not in self._failed | self._written}
        finally:
            if self._snapshot:
                self._snapshot.close()
            self._snapshot = None
        if self._written:
            await position.write(remembered(given, self._written))
        self.message = ""
        if self._failed:
            raise _still_to_come(self._failed)

    def _nobody(self, config: PostgresConfig) -> bool:
        """Whether nobody asks for rows, nor is remembered to have some."""
        return (
            not any(table.snapshots for table in config.tables)
            and self._given is not None
            and not self._given.snapshots
        )

    async def _take(self, taking: Callable[[], Snapshot]) -> int:
        self._snapshot = await asyncio.to_thread(taking)
        return self._snapshot.position

    async def _write(self, wanted: dict[str, Wanted], put: Put) -> None:
        """Store the rows of the tables; the stream stands still meanwhile."""
        snapshot = self._snapshot
        assert snapshot  # noqa: S101 - it was taken before
        begin = Begin(snapshot.position - 1, int(time.time() * 1e6))  # no transaction's place: those are multiples of 8
        for name in wanted:
            try:
                await asyncio.to_thread(snapshot.hold, name)
            except Trouble as trouble:
                self._failed[name] = trouble
        numbers = itertools.count(1)
        for name, one in wanted.items():
            if name in self._failed:
                continue
            started = time.monotonic()
            try:
                await self._write_table(snapshot, name, one, begin, numbers, put=put)
            except Trouble as trouble:
                self._failed[name] = trouble
                took = time.monotonic() - started
                await asyncio.to_thread(
                    snapshot.give_up
                )  # raises where the connection broke, which is not the table's fault
                self._rested[name] = time.monotonic() + min(RESTS * took, REST_SECONDS)
            else:
                self._written[name] = one

    async def _write_table(
        self, snapshot: Snapshot, name: str, wanted: Wanted, begin: Begin, numbers: Iterator[int], *, put: Put
    ) -> None:
        relation = await asyncio.to_thread(snapshot.open, name)
        while relation and (rows := await asyncio.to_thread(snapshot.fetch)):
            events: list[tuple[str, Event]] = []
            for row, number in zip(rows, numbers, strict=False):
                try:
                    events += self._events(relation, row, begin, number, wanted)
                except ValueError as error:
                    message = f"row {number} of {name}: {error}"
                    await row_letters.bury(self._js, row_letters.letter(self._mapper, "Malformed", message))
            await put(events)
            COUNTED[OPERATION].inc(len(rows))

    def _events(
        self, relation: Relation, row: tuple[Value, ...], begin: Begin, number: int, wanted: Wanted
    ) -> Iterator[tuple[str, Event]]:
        """A row, for each who asked."""
        change = Change(OPERATION, relation, None, old_is_key=False, new=row)
        for _, event in self._mapper.change(change, wanted.table, begin, number):
            for uid in wanted.uids:
                yield (
                    names.snapshot_subject(
                        self._mapper.namespace, self._mapper.connection, relation.schema, relation.table, uid
                    ),
                    msgspec.structs.replace(event, id=self._identity(uid, event)),
                )

    def _identity(self, uid: str, event: Event) -> str:
        """Of a row with a key the same in every snapshot of a round for a Subscription."""
        if (event.partitionkey or "").endswith(":[]"):
            return event.id
        anew = [str(self._given.round)] if self._given and self._given.round else []
        return log.fingerprint(OPERATION, uid, event.partitionkey or "", *anew)[:32]


def _still_to_come(failed: Mapping[str, Trouble]) -> Trouble:
    """What is in the way of which tables' rows."""
    tables: dict[str, list[str]] = {}
    for name, trouble in failed.items():
        tables.setdefault(trouble.message, []).append(name)
    told = [f"the rows of {', '.join(those)} are still to come: {message}" for message, those in tables.items()]
    return Trouble(next(iter(failed.values())).reason, "; ".join(told))
