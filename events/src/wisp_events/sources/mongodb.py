"""MongoDB reader: follows the wanted collections of one deployment, each by a change stream of its own (docs/decisions/0047).

Invariant: `ready` is reported only when a token of each followed collection is kept, so that a change made after it will be delivered.
Whatever stops that becomes a condition, and is tried again until it is put right; what is one collection's trouble stops no other one.
"""

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import Final

import msgspec
from nats.js import JetStreamContext
from wisp_api import conditions, names
from wisp_api.source import ItemStatus, MongodbConfig, ReaderStatus

from wisp_events import log
from wisp_events.sources import mongodb_catalog, mongodb_position, mongodb_session, row_log
from wisp_events.sources.mongodb_catalog import Prepared
from wisp_events.sources.mongodb_events import Mapper
from wisp_events.sources.mongodb_position import Book, Positions
from wisp_events.sources.mongodb_session import Client
from wisp_events.sources.mongodb_stream import Lost, Stream
from wisp_events.sources.reader import CHECK_SECONDS, RETRY_SECONDS, Reader, Trouble, Wish, run_until_one_ends

KIND: Final = "mongodb"
LEAST_WAITING_BYTES: Final = 1024 * 1024
_OWN: Final = (conditions.PERMISSION_DENIED, conditions.TABLE_NOT_FOUND)
"""Troubles of one collection, not of the deployment."""


async def run(reader: Reader, js: JetStreamContext) -> None:
    """Fulfil wish after wish, until cancelled. Nothing of ours is at the server; positions go with the operator's own record of the reader."""
    await reader.fulfil(lambda wish: bool(task(wish).tables), lambda wish: _follow(reader, js, wish))


def task(wish: Wish) -> MongodbConfig:
    """The MongoDB part of a config."""
    return wish.config.mongodb or MongodbConfig(stream="")


@dataclass
class _Following:
    """One connection's collections, and what is to be said of them."""

    wish: Wish
    js: JetStreamContext
    client: Client
    prepared: Prepared
    book: Book
    lost: bool
    """No position is kept of any collection."""
    troubles: dict[str, Trouble] = field(default_factory=dict)
    """By collection."""
    missed: dict[str, str] = field(default_factory=dict)
    """Why changes of a collection may be missing."""
    streams: dict[str, Stream] = field(default_factory=dict)

    def report(self) -> ReaderStatus:
        """The reader's status: troubles of collections are their own."""
        items = dict(self.prepared.items)
        for name, trouble in self.troubles.items():
            items[name] = ItemStatus(ready=False, reason=trouble.reason, message=trouble.message)
        if away := next((stream.trouble for stream in self.streams.values() if stream.trouble), ""):
            said = f"{away}; changes wait in the server's oplog"
            return self.wish.report(Trouble(conditions.LOG_UNAVAILABLE, said), items)
        notes = [
            f"{name}: {why}; changes before this may be missing, a gap event says so"
            for name, why in self.missed.items()
        ]
        notes += [
            f"there is no collection {name} yet, its first document will be told" for name in self.prepared.absent
        ]
        return msgspec.structs.replace(self.wish.report(None, items), message="; ".join(notes))


async def _follow(reader: Reader, js: JetStreamContext, wish: Wish) -> None:
    """Carry changes into the log until the wish or the collections ask for other streams.

    Raises:
        Trouble: it can't be done now.
        Fenced: another reader writes to our subjects.
    """
    key = names.position_key(wish.config.namespace, KIND, wish.config.connection)
    kept = row_log.Kept(js, key, Positions)
    known = await kept.read()
    async with mongodb_session.connect(wish.value("dsn"), wish.connection.get("ca.crt", "")) as client:
        prepared = await mongodb_catalog.prepare(client, task(wish))
        one = _Following(wish, js, client, prepared, Book(kept, known), lost=known is None)
        await _prepare(one)
        carrying = [_carry(one, name) for name in one.prepared.collections]
        try:
            await run_until_one_ends(_tend(reader, one), one.book.keep(), *carrying)
        finally:
            with contextlib.suppress(Trouble, log.Fenced):  # then more is read again
                await one.book.write()


async def _prepare(one: _Following) -> None:
    """Write down where to begin in each collection that can be read.

    Raises:
        Trouble: the server or the log does not answer.
    """
    book = one.book
    book.collections = {name: at for name, at in book.collections.items() if name in one.prepared.items}
    for name in one.prepared.collections:
        try:
            await _begin(one, name)
        except Trouble as trouble:
            if trouble.reason not in _OWN:
                raise
            one.troubles[name] = trouble
    await book.write()


async def _begin(one: _Following, name: str) -> None:
    """Find where to begin in a collection, or to go on.

    Raises:
        Trouble: the server or the log does not answer, or this collection may not be read.
    """
    held = await row_log.last_sequences(one.js, task(one.wish).stream, one.wish.config, name)
    if known := one.book.collections.get(name):
        one.book.collections[name] = mongodb_position.go_on(known, held)
        return
    token = await mongodb_session.now(one.client, name)
    one.book.collections[name] = mongodb_position.begin(token, held, lost=one.lost)


async def _carry(one: _Following, name: str) -> None:
    """Stream one collection, whatever becomes of it.

    Raises:
        Trouble: of the whole connection.
        Fenced: another reader writes to our subjects.
    """
    failures = 0
    while True:
        try:
            if name not in one.book.collections:
                await _begin(one, name)
            await one.book.write()
            await _stream(one, name)
        except Lost as lost:
            why = f"the server has not what comes next: {lost}"
            token = await mongodb_session.now(one.client, name)
            one.book.collections[name] = mongodb_position.after_gap(one.book.collections[name], token, why)
            await one.book.write()
        except Trouble as trouble:
            if trouble.reason not in _OWN:
                raise
            one.troubles[name] = trouble
            failures += 1
            await asyncio.sleep(RETRY_SECONDS[min(failures, len(RETRY_SECONDS)) - 1])


async def _stream(one: _Following, name: str) -> None:
    """Tell of what is missing, then stream.

    Raises:
        Trouble, Fenced: as `_carry`.
        Lost: the server has not what comes next.
    """
    config, at = task(one.wish), one.book.collections[name]
    mapper = Mapper(one.wish.config.namespace, one.wish.config.connection, name, at.epoch)
    if at.pending:
        one.missed[name] = at.gap
        await row_log.write_gaps(one.js, config.stream, [mapper.gap(at.gap)])
        one.book.collections[name] = msgspec.structs.replace(at, gap="", pending=False)
        await one.book.write()
    room = max(LEAST_WAITING_BYTES, log.WAITING_BYTES // len(one.prepared.collections))
    stream = Stream(
        mongodb_session.collection(one.client, name),
        one.js,
        config.stream,
        mapper,
        one.prepared.collections[name],
        note=lambda token: one.book.note(name, token),
        waiting_bytes=room,
    )
    one.streams[name] = stream
    await stream.run(at.token, lambda: one.troubles.pop(name, None))


async def _tend(reader: Reader, one: _Following) -> None:
    """Keep the report up to date while the streams run; returns when they have to be others."""
    loop = asyncio.get_running_loop()
    checked = loop.time()
    while True:
        await reader.report(one.report())
        newest = await reader.changed(one.wish, 1) or one.wish
        if newest.connection != one.wish.connection or newest.config != one.wish.config:
            return
        if loop.time() - checked < CHECK_SECONDS:
            continue
        checked = loop.time()
        found = await mongodb_catalog.prepare(one.client, task(one.wish))
        if found.collections != one.prepared.collections:
            return
        one.prepared = found
