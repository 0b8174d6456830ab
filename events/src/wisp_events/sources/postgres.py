"""PostgreSQL reader: follows the wanted tables of one database (docs/decisions/0005).

Invariant: `ready` is reported only while a started replication connection reads the wanted tables, so that a row
committed after it will be delivered. Whatever stops that becomes a condition, and is tried again until it is put right.
"""

import asyncio
import contextlib
import dataclasses
import functools
import logging
from collections.abc import Callable
from typing import Final

import msgspec
from nats.js import JetStreamContext
from wisp_api import conditions
from wisp_api.source import PostgresConfig, ReaderStatus

from wisp_events import log
from wisp_events.sources import (
    behind,
    postgres_catalog,
    postgres_connection,
    postgres_slot,
    postgres_stream,
    postgres_tables,
    row_log,
)
from wisp_events.sources.postgres_snapshot import Origin, give_anew, kept_by
from wisp_events.sources.reader import Reader, Trouble, Wish, run_until_one_ends, unexpected
from wisp_events.sources.row_events import Mapper, Place
from wisp_events.sources.row_fill import Filling

logger = logging.getLogger(__name__)

KIND: Final = "postgres"
RETRY_SECONDS: Final = (1.0, 2.0, 5.0)
CHECK_SECONDS: Final = 30.0
WAITING_SECONDS: Final = 0.5


async def run(reader: Reader, js: JetStreamContext) -> None:
    """Fulfil wish after wish, until cancelled."""
    wish: Wish | None = None
    failures = 0
    while True:
        wish = await reader.changed(None) or wish
        if wish is None:
            continue
        started = asyncio.get_running_loop().time()
        try:
            if wish.config.draining or not task(wish).tables:
                behind.only(())
                await asyncio.to_thread(postgres_catalog.drop, wish.value("dsn"), task(wish).slot)
                await reader.report(msgspec.structs.replace(wish.report(None), drained=wish.config.draining))
                await reader.changed(wish)
            else:
                await _follow(reader, js, wish)
            continue
        except Trouble as trouble:
            await reader.report(wish.report(trouble))
        except log.Fenced as fenced:
            logger.warning("starting over: %s", fenced)
        except Exception as error:  # noqa: BLE001 - as in `Reader.fulfil`
            await reader.report(wish.report(unexpected(error, wish)))
        failures = 0 if asyncio.get_running_loop().time() - started > CHECK_SECONDS else failures + 1
        await reader.changed(wish, RETRY_SECONDS[min(failures, len(RETRY_SECONDS)) - 1])


def task(wish: Wish) -> PostgresConfig:
    """The PostgreSQL part of a config."""
    return wish.config.postgres or PostgresConfig(slot="", stream="")


async def _follow(reader: Reader, js: JetStreamContext, wish: Wish) -> None:
    """Carry changes into the log until the wish asks for another connection.

    Raises:
        Trouble: it can't be done now.
        Fenced: another reader writes to our subjects.
    """
    lag = behind.of(KIND)  # from now on nobody knows, until the server says that there is nothing
    config, dsn = task(wish), wish.value("dsn")
    held = await row_log.last_places(js, task(wish).stream, wish.config, [table.name for table in task(wish).tables])
    prepared = await asyncio.to_thread(postgres_catalog.prepare, dsn, config, held)
    progress = prepared.progress
    mapper = Mapper(wish.config.namespace, wish.config.connection, progress.epoch)
    if progress.stage == postgres_slot.NEW_SLOT:
        progress = await _make_slot(reader, wish, prepared)
    if progress.stage == postgres_slot.GAP_PENDING:
        await reader.report(
            wish.report(
                Trouble(conditions.SLOT_LOST, f"{progress.gap}; there is a new one, and gap events will say so"),
                prepared.items,
            )
        )
        await row_log.write_gaps(js, config.stream, [mapper.gap(table, 0, progress.gap) for table in prepared.tables])
        await give_anew(js, wish.config)
        await asyncio.to_thread(
            postgres_slot.write, dsn, config.slot, progress._replace(stage=postgres_slot.FOLLOWED, gap="")
        )
    cursor = await postgres_connection.open_cursor(dsn, config.slot)
    types = functools.partial(postgres_catalog.types, dsn)
    stream = postgres_stream.Stream(cursor, js, config.stream, mapper, prepared, types=types, behind=lag)
    filling = Filling(reader, js, wish, Origin(dsn, config.slot, stream, kept_by(js, wish.config)), mapper)
    gap = f"{progress.gap}; changes before this may be missing, gap events say so" if progress.gap else ""
    tending = _tend(reader, wish, stream, prepared, lambda: [gap, filling.message, behind.message()])
    await run_until_one_ends(stream.run(), filling.run(), tending)


async def _make_slot(reader: Reader, wish: Wish, prepared: postgres_catalog.Prepared) -> postgres_slot.Progress:
    """Make the slot; the report names the transaction that holds it up.

    Raises:
        Trouble: it can't be done now.
    """
    dsn, slot, begun = wish.value("dsn"), task(wish).slot, prepared.progress
    lost = f"{begun.gap}; " if begun.gap else ""
    making = asyncio.create_task(asyncio.to_thread(postgres_slot.make_slot, dsn, slot, begun))
    while not (await asyncio.wait([making], timeout=WAITING_SECONDS))[0]:
        with contextlib.suppress(Trouble):  # then `making` has it too
            if cause := await asyncio.to_thread(postgres_slot.held_up_by, dsn, slot):
                waiting = Trouble(conditions.WAITING_FOR_TRANSACTIONS, f"{lost}for the new slot {cause}")
                await reader.report(wish.report(waiting, prepared.items))
    return making.result()


async def _tend(
    reader: Reader,
    wish: Wish,
    stream: postgres_stream.Stream,
    prepared: postgres_catalog.Prepared,
    beside: Callable[[], list[str]],
) -> None:
    """Keep tables and report up to date while the stream runs; returns when the wish needs another connection.

    `beside` says what is to be told where all is well: what may be missing from before the slot, and which rows are still to come.
    """
    loop = asyncio.get_running_loop()
    found, trouble, checked = prepared, None, loop.time()
    while True:
        away = f"{stream.trouble}; events wait in the database"
        stuck = Trouble(conditions.LOG_UNAVAILABLE, away) if stream.trouble else None
        await reader.report(
            _with_warnings(wish.report(trouble or stuck, found.items), found, "; ".join(filter(None, beside())))
        )
        found = await _tell_replaced(wish, stream, found)
        newest = await reader.changed(wish, 1) or wish
        waiting = trouble or any(item.reason == conditions.WAITING_FOR_TRANSACTIONS for item in found.items.values())
        if newest == wish and loop.time() - checked < (RETRY_SECONDS[-1] if waiting else CHECK_SECONDS):
            continue
        if newest.config.draining or newest.connection != wish.connection or not _same_place(newest, wish):
            return
        wish, checked, trouble = newest, loop.time(), None
        try:
            held = [Place(prepared.progress.epoch, 0, 0)]
            found = await asyncio.to_thread(postgres_catalog.prepare, wish.value("dsn"), task(wish), held)
        except Trouble as error:
            trouble = error  # the stream goes on with the tables it has
            continue
        if found.progress.stage or found.progress.epoch != prepared.progress.epoch:
            return
        stream.tables, stream.expected = found.tables, found.position


def _with_warnings(status: ReaderStatus, found: postgres_catalog.Prepared, beside: str) -> ReaderStatus:
    """The report with what threatens: a slot at risk, or else a gap, beside the trouble if there is one."""
    risk = ""
    if found.retention:
        found.retention.expose()
        risk = found.retention.warning()
    reason = status.reason or (conditions.SLOT_AT_RISK if risk else "")
    message = "; ".join(text for text in (status.message, risk) if text) or beside
    return msgspec.structs.replace(status, reason=reason, message=message)


async def _tell_replaced(
    wish: Wish, stream: postgres_stream.Stream, found: postgres_catalog.Prepared
) -> postgres_catalog.Prepared:
    """Write gap events for replaced tables, and remember that; what takes too long is found again by the next check."""
    if found.replaced:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(row_log.LOG_SECONDS):
                await stream.tell_gap(found.replaced, found.position)
            await asyncio.to_thread(postgres_tables.remember, wish.value("dsn"), task(wish).slot, found.oids)
    return dataclasses.replace(found, replaced=frozenset())


def _same_place(one: Wish, other: Wish) -> bool:
    """Whether two wishes differ in tables at most, of which there are some."""
    new, old = task(one), task(other)
    return (new.slot, new.stream) == (old.slot, old.stream) and bool(new.tables)
