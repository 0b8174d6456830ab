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
from wisp_events.sources import behind, mongodb_catalog, mongodb_oplog, mongodb_position, mongodb_session, row_log
from wisp_events.sources.mongodb_catalog import Prepared
from wisp_events.sources.mongodb_events import Mapper
from wisp_events.sources.mongodb_oplog import Oplog
from wisp_events.sources.mongodb_position import Book, Positions
from wisp_events.sources.mongodb_session import Blocking, Client
from wisp_events.sources.mongodb_snapshot import Origin
from wisp_events.sources.mongodb_stream import Lost, Stream
from wisp_events.sources.reader import CHECK_SECONDS, RETRY_SECONDS, Reader, Trouble, Wish, run_until_one_ends
from wisp_events.sources.row_events import Table
from wisp_events.sources.row_fill import Filling

KIND: Final = "mongodb"
LEAST_WAITING_BYTES: Final = 1024 * 1024
OPLOG_SECONDS: Final = 10.0
"""How often the oplog is looked at: a busy server's may cover some minutes."""
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

    reader: Reader
    wish: Wish
    js: JetStreamContext
    client: Client
    blocking: Blocking
    prepared: Prepared
    book: Book
    lost: bool
    """No position is kept of any collection."""
    oplog: Oplog | None = None
    """As it was seen last."""
    troubles: dict[str, Trouble] = field(default_factory=dict)
    """By collection."""
    missed: dict[str, str] = field(default_factory=dict)
    """Why changes of a collection may be missing."""
    streams: dict[str, Stream] = field(default_factory=dict)
    fillings: dict[str, Filling[str]] = field(default_factory=dict)

    def report(self) -> ReaderStatus:
        """The reader's status, with what threatens beside its trouble."""
        known = self.book.collections
        risk = mongodb_oplog.warning(
            self.oplog, [known[name].token for name in self.prepared.collections if name in known]
        )
        status = self._status(risk)
        reason = status.reason or (conditions.OPLOG_AT_RISK if risk else "")
        return msgspec.structs.replace(status, reason=reason, message=_joined(status.message, risk))

    def _status(self, risk: str) -> ReaderStatus:
        """With what threatens beside the troubles that are collections' own, whose Subscriptions are told nothing else."""
        items = dict(self.prepared.items)
        for name, trouble in self.troubles.items():
            items[name] = ItemStatus(ready=False, reason=trouble.reason, message=_joined(trouble.message, risk))
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
        notes += [filling.message for filling in self.fillings.values() if filling.message]
        return msgspec.structs.replace(self.wish.report(None, items), message=_joined(*notes, behind.message()))


def _joined(*texts: str) -> str:
    return "; ".join(filter(None, texts))


async def _follow(reader: Reader, js: JetStreamContext, wish: Wish) -> None:
    """Carry changes into the log until the wish or the collections ask for other streams.

    Raises:
        Trouble: it can't be done now.
        Fenced: another reader writes to our subjects.
    """
    for table in task(wish).tables:
        behind.of(table.name)  # from now on nobody knows, until the server says that there is nothing
    key = names.position_key(wish.config.namespace, KIND, wish.config.connection)
    kept = row_log.Kept(js, key, Positions)
    known = await kept.read()
    where = wish.value("dsn"), wish.connection.get("ca.crt", "")
    async with mongodb_session.connect(*where) as client, mongodb_session.connect_blocking(*where) as blocking:
        prepared = await mongodb_catalog.prepare(client, task(wish))
        behind.only(prepared.collections)
        one = _Following(reader, wish, js, client, blocking, prepared, Book(kept, known), lost=known is None)
        await _prepare(one)
        carrying = [_carry(one, name) for name in one.prepared.collections]
        try:
            await run_until_one_ends(_tend(one), one.book.keep(), *carrying)
        finally:
            mongodb_oplog.warning(None, ())  # nobody looks
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
        one.book.note(name, gap="", pending=False)
        await one.book.write()
    room = max(LEAST_WAITING_BYTES, log.WAITING_BYTES // len(one.prepared.collections))
    stream = Stream(
        mongodb_session.collection(one.client, name),
        one.js,
        config.stream,
        mapper,
        one.prepared.collections[name],
        book=one.book,
        behind=behind.of(name),
        waiting_bytes=room,
    )
    one.streams[name] = stream
    followed = {name: Table(one.prepared.collections[name].operations, ("_id",))}
    origin = Origin(name, one.blocking, stream, one.book, followed)
    filling = one.fillings[name] = Filling(one.reader, one.js, one.wish, origin, mapper)
    await run_until_one_ends(stream.run(at.token, lambda: one.troubles.pop(name, None)), filling.run())


async def _tend(one: _Following) -> None:
    """Keep the report up to date while the streams run; returns when they have to be others."""
    loop = asyncio.get_running_loop()
    checked, looked = loop.time(), -OPLOG_SECONDS
    while True:
        if loop.time() - looked >= OPLOG_SECONDS:
            looked, one.oplog = loop.time(), await mongodb_oplog.look(one.client)
        await one.reader.report(one.report())
        newest = await one.reader.changed(one.wish, 1) or one.wish
        if newest.connection != one.wish.connection or _followed(newest) != _followed(one.wish):
            return
        one.wish = newest
        if loop.time() - checked < CHECK_SECONDS:
            continue
        checked = loop.time()
        found = await mongodb_catalog.prepare(one.client, task(one.wish))
        if found.collections != one.prepared.collections:
            return
        one.prepared = found


def _followed(wish: Wish) -> tuple[bool, str, list[tuple[str, list[str]]]]:
    """What of a wish needs other streams where it changes: not who asks for documents."""
    return wish.config.draining, task(wish).stream, [(one.name, one.operations) for one in task(wish).tables]
