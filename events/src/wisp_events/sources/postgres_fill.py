"""Giving a Subscription that asks for it the rows that its tables have, before the changes that follow (docs/decisions/0049).

Invariants:
- The rows stand in the log behind every change that they contain and before every change that they don't: the stream stands still at the
  snapshot's place while they are written.
- Only the Subscription that asked reads them: they have a subject of its own. It gets them once, which is remembered after the log has
  all of them. Whoever dies before takes a new snapshot: rows that come again have the ids of the first time.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import msgspec
from nats.js import JetStreamContext
from wisp_api import names
from wisp_api.cloudevent import Event
from wisp_api.source import PostgresConfig

from wisp_events import log
from wisp_events.sources import postgres_snapshot, row_letters, row_log
from wisp_events.sources.postgres_snapshot import Snapshot
from wisp_events.sources.postgres_stream import Put, Stream
from wisp_events.sources.reader import Reader, Trouble, Wish
from wisp_events.sources.row_events import COUNTED, Mapper
from wisp_events.sources.rows import Begin, Change, Relation, Value

LOOK_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 5.0
OPERATION: Final = "snapshot"


class Given(msgspec.Struct, rename="camel"):
    """What is remembered."""

    snapshots: dict[str, list[str]] = {}
    """Table -> uids of the Subscriptions that have its rows."""


def missing(config: PostgresConfig, given: Given, followed: set[str]) -> dict[str, list[str]]:
    """Of the tables that are followed, who is to get their rows."""
    found = {
        table.name: [uid for uid in table.snapshots if uid not in given.snapshots.get(table.name, [])]
        for table in config.tables
        if table.name in followed
    }
    return {table: uids for table, uids in found.items() if uids}


class Filling:
    """Watches what one connection's Subscriptions ask for, and gives it."""

    def __init__(self, reader: Reader, js: JetStreamContext, wish: Wish, stream: Stream, mapper: Mapper) -> None:
        """Give what `reader`'s wish asks for by way of `stream`; `wish` is the one that the stream was made for."""
        self._reader = reader
        self._js = js
        self._wish = wish
        self._stream = stream
        self._mapper = mapper
        self._tables = ""
        self._snapshot: Snapshot | None = None
        self.message = ""
        """What is under way, or in the way; empty when nothing is."""

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            try:
                await self._turn()
            except Trouble as trouble:
                self.message = f"{self._tables or 'the rows of tables'} are still to come: {trouble.message}"
                await asyncio.sleep(RETRY_SECONDS)
            await asyncio.sleep(LOOK_SECONDS)

    async def _turn(self) -> None:
        config = (self._reader.wish or self._wish).config
        if config.draining or not config.postgres or not any(table.snapshots for table in config.postgres.tables):
            return
        key = names.position_key(config.namespace, config.kind, config.connection)
        given = await row_log.read_position(self._js, key, Given) or Given()
        wanted = missing(config.postgres, given, set(self._stream.tables))
        if not wanted:
            return
        self._tables = f"the rows of {', '.join(wanted)}"
        if not self.message:
            self.message = f"{self._tables} are being written"
        taking = partial(postgres_snapshot.take, self._wish.value("dsn"), config.postgres.slot)
        try:
            await self._stream.at(partial(self._take, taking), partial(self._write, wanted))
        finally:
            if self._snapshot:
                self._snapshot.close()
            self._snapshot = None
        asking = {table.name: table.snapshots for table in config.postgres.tables}
        had = {name: set(given.snapshots.get(name, [])) | set(wanted.get(name, [])) for name in asking}
        kept = {name: sorted(uids & set(asking[name])) for name, uids in had.items() if uids & set(asking[name])}
        await row_log.write_position(self._js, key, Given(kept))
        self.message = ""

    async def _take(self, taking: Callable[[], Snapshot]) -> int:
        self._snapshot = await asyncio.to_thread(taking)
        return self._snapshot.position

    async def _write(self, wanted: dict[str, list[str]], put: Put) -> None:
        """Store the rows of the tables; the stream stands still meanwhile."""
        snapshot = self._snapshot
        assert snapshot  # noqa: S101 - it was taken before
        begin = Begin(snapshot.position - 1, int(time.time() * 1e6))  # no transaction's place: those are multiples of 8
        number = 0
        for table, uids in wanted.items():
            relation = await asyncio.to_thread(snapshot.open, table)
            while relation and (rows := await asyncio.to_thread(snapshot.fetch)):
                events: list[tuple[str, Event]] = []
                for row in rows:
                    number += 1
                    try:
                        events += self._events(relation, row, begin, number, uids)
                    except ValueError as error:
                        message = f"row {number} of {table}: {error}"
                        await row_letters.bury(self._js, row_letters.letter(self._mapper, "Malformed", message))
                await put(events)
                COUNTED[OPERATION].inc(len(rows))

    def _events(
        self, relation: Relation, row: tuple[Value, ...], begin: Begin, number: int, uids: list[str]
    ) -> Iterator[tuple[str, Event]]:
        """A row, for each who asked."""
        change = Change(OPERATION, relation, None, old_is_key=False, new=row)
        table = self._stream.tables[relation.name]
        for _, event in self._mapper.change(change, table, begin, number):
            for uid in uids:
                yield (
                    names.snapshot_subject(
                        self._mapper.namespace, self._mapper.connection, relation.schema, relation.table, uid
                    ),
                    msgspec.structs.replace(event, id=_identity(uid, event)),
                )


def _identity(uid: str, event: Event) -> str:
    """Of a row with a key the same in every snapshot for a Subscription."""
    if (event.partitionkey or "").endswith(":[]"):
        return event.id
    return log.fingerprint(OPERATION, uid, event.partitionkey or "")[:32]
