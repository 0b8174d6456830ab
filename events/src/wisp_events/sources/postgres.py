"""PostgreSQL reader: follows the wanted tables of one database (docs/decisions/0005).

Invariant: `ready` is reported only while a started replication connection reads the wanted tables, so that a row
committed after it will be delivered. Whatever stops that becomes a condition, and is tried again until it is put right.
"""

import asyncio
import logging
from typing import Final

import msgspec
import nats.errors
import nats.js.errors
from nats.js import JetStreamContext
from wisp_api import cloudevent, conditions, names
from wisp_api.source import PostgresConfig

from wisp_events import log
from wisp_events.sources import postgres_catalog, postgres_stream
from wisp_events.sources.postgres_events import Mapper, Place
from wisp_events.sources.reader import Reader, Trouble, Wish

logger = logging.getLogger(__name__)

RETRY_SECONDS: Final = (1.0, 2.0, 5.0)
CHECK_SECONDS: Final = 30.0
LOG_SECONDS: Final = 15.0


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
    config, dsn = task(wish), wish.value("dsn")
    held = await _held(js, wish)
    prepared = await asyncio.to_thread(postgres_catalog.prepare, dsn, config, held.values())
    mapper = Mapper(wish.config.namespace, wish.config.connection, prepared.epoch)
    if prepared.gap:
        await reader.report(
            wish.report(Trouble(conditions.SLOT_LOST, f"{prepared.gap}; making a new slot"), prepared.items)
        )
        await _write_gap(js, config.stream, mapper, prepared, held)
        await asyncio.to_thread(postgres_catalog.make_slot, dsn, config.slot, prepared.epoch)
    cursor = await postgres_stream.open_stream(dsn, config.slot)
    stream = postgres_stream.Stream(cursor, js, config.stream, mapper, prepared.tables)
    working = [asyncio.create_task(stream.run()), asyncio.create_task(_tend(reader, wish, stream, prepared))]
    try:
        done, _ = await asyncio.wait(working, return_when=asyncio.FIRST_COMPLETED)
        for finished in done:
            finished.result()
    finally:
        for each in working:
            each.cancel()
        await asyncio.gather(*working, return_exceptions=True)


async def _tend(
    reader: Reader, wish: Wish, stream: postgres_stream.Stream, prepared: postgres_catalog.Prepared
) -> None:
    """Keep tables and report up to date while the stream runs; returns when the wish needs another connection."""
    loop = asyncio.get_running_loop()
    warning = f"{prepared.gap}; changes before this may be missing, gap events say so" if prepared.gap else ""
    items, trouble, checked = prepared.items, None, loop.time()
    while True:
        stuck = (
            Trouble(conditions.LOG_UNAVAILABLE, f"{stream.trouble}; events wait in the database")
            if stream.trouble
            else None
        )
        status = wish.report(trouble or stuck, items)
        await reader.report(msgspec.structs.replace(status, message=status.message or warning))
        newest = await reader.changed(wish, 1) or wish
        if newest == wish and loop.time() - checked < (CHECK_SECONDS if trouble is None else RETRY_SECONDS[-1]):
            continue
        if newest.config.draining or newest.connection != wish.connection or not _same_place(newest, wish):
            return
        wish, checked = newest, loop.time()
        try:
            found = await asyncio.to_thread(postgres_catalog.prepare, wish.value("dsn"), task(wish), ())
        except Trouble as error:
            trouble = error  # the stream goes on with the tables it has
            continue
        if found.gap or found.epoch != prepared.epoch:
            return
        stream.tables, items, trouble = found.tables, found.items, None


def _same_place(one: Wish, other: Wish) -> bool:
    """Whether two wishes differ in tables at most, of which there are some."""
    new, old = task(one), task(other)
    return (new.slot, new.stream) == (old.slot, old.stream) and bool(new.tables)


async def _held(js: JetStreamContext, wish: Wish) -> dict[str, Place]:
    """The place of the last event that the log holds of each wanted table, over all its lanes.

    Raises:
        Trouble: the log does not answer.
    """
    places: dict[str, Place] = {}
    for table in task(wish).tables:
        schema, _, name = table.name.partition(".")
        for lane in range(names.LANES):
            subject = names.row_subject(wish.config.namespace, wish.config.connection, schema, name, lane)
            try:
                last = await js.get_msg(task(wish).stream, subject=subject, direct=True)
            except nats.js.errors.NotFoundError:
                continue
            except (nats.errors.Error, OSError) as error:
                raise Trouble(conditions.LOG_UNAVAILABLE, f"{log.describe(error)}; trying again") from None
            event = cloudevent.decode(cloudevent.decode_frame(last.data or b"")[-1])
            if place := Place.parse(event.sequence or ""):
                places[table.name] = max(place, places.get(table.name, place))
    return places


async def _write_gap(
    js: JetStreamContext, stream: str, mapper: Mapper, prepared: postgres_catalog.Prepared, held: dict[str, Place]
) -> None:
    """Write a gap event for every table whose newest event is none already; they are in the log when this returns.

    Raises:
        Trouble: the log did not take them in time.
        Fenced: another reader writes to our subjects.
    """
    writer: log.FrameWriter[int] = log.FrameWriter(js, stream, lambda _: None)
    try:
        for table in prepared.tables:
            if table in held and held[table].ordinal == 0:
                continue  # an attempt before this one wrote it
            schema, _, name = table.partition(".")
            subject, event = mapper.gap(schema, name, prepared.position, prepared.gap)
            writer.add(subject, event, 0)
        async with asyncio.timeout(LOG_SECONDS):
            await writer.flush()
    except TimeoutError:
        raise Trouble(conditions.LOG_UNAVAILABLE, f"{writer.trouble or 'the log is slow'}; trying again") from None
    finally:
        await writer.close()
