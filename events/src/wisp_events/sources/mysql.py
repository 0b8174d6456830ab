"""MySQL and MariaDB reader: follows the wanted tables of one server (docs/decisions/0046).

Invariant: `ready` is reported only while the server sends its binary log from a position that is kept, so that a row committed after it
will be delivered. Whatever stops that becomes a condition, and is tried again until it is put right.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec
from nats.js import JetStreamContext
from wisp_api import conditions, names
from wisp_api.source import MysqlConfig, ReaderStatus

from wisp_events.sources import (
    behind,
    mysql_catalog,
    mysql_gtid,
    mysql_position,
    mysql_retention,
    mysql_session,
    mysql_stream,
    row_log,
)
from wisp_events.sources.mysql_catalog import Prepared
from wisp_events.sources.mysql_position import Position
from wisp_events.sources.mysql_session import Purged
from wisp_events.sources.mysql_snapshot import Origin
from wisp_events.sources.reader import CHECK_SECONDS, RETRY_SECONDS, Reader, Trouble, Wish, run_until_one_ends
from wisp_events.sources.row_events import Mapper
from wisp_events.sources.row_fill import Filling
from wisp_events.sources.row_log import Kept

KIND: Final = "mysql"


async def run(reader: Reader, js: JetStreamContext) -> None:
    """Fulfil wish after wish, until cancelled. Nothing of ours is at the server; the position goes with the operator's own record of the reader."""
    await reader.fulfil(lambda wish: bool(task(wish).tables), lambda wish: _follow(reader, js, wish))


def task(wish: Wish) -> MysqlConfig:
    """The MySQL part of a config."""
    return wish.config.mysql or MysqlConfig(server_id=0, stream="")


def _key(wish: Wish) -> str:
    return names.position_key(wish.config.namespace, KIND, wish.config.connection)


def _authority(wish: Wish) -> str:
    return wish.connection.get("ca.crt", "")


async def _follow(reader: Reader, js: JetStreamContext, wish: Wish) -> None:
    """Carry changes into the log until the wish asks for another connection.

    Raises:
        Trouble: it can't be done now.
        Fenced: another reader writes to our subjects.
    """
    behind.of(KIND)  # from now on nobody knows, until the server says that there is nothing
    dsn, kept = wish.value("dsn"), row_log.Kept(js, _key(wish), Position)
    held = await row_log.last_places(js, task(wish).stream, wish.config, [table.name for table in task(wish).tables])
    known = await kept.read()
    prepared = await asyncio.to_thread(mysql_catalog.prepare, dsn, _authority(wish), task(wish))
    position = mysql_position.begin(known, prepared.server, held)
    try:
        await _carry(reader, js, wish, prepared, position=position, known=known, kept=kept)
    except Purged as purged:
        why = f"the server has not what comes next: {purged}"
        again = mysql_position.after_gap(position, prepared.server, held, why)
        await kept.write(again)
        raise Trouble(conditions.CHANGES_MISSED, f"{why}; going on from now, and gap events will say so") from None


async def _carry(
    reader: Reader,
    js: JetStreamContext,
    wish: Wish,
    prepared: Prepared,
    *,
    position: Position,
    known: Position | None,
    kept: Kept[Position],
) -> None:
    """Write down where to begin, tell of what is missing, then stream.

    Raises:
        Trouble, Fenced: as `_follow`.
        Purged: the server has not what comes next.
    """
    config = task(wish)
    mapper = Mapper(wish.config.namespace, wish.config.connection, position.epoch, KIND)
    if position != known:
        await kept.write(position)
    missed = ""
    if position.pending:
        missed = f"{position.gap}; changes before this may be missing, gap events say so"
        gaps = [mapper.gap(table.name, 0, position.gap) for table in config.tables]
        await row_log.write_gaps(js, config.stream, gaps)
        position = msgspec.structs.replace(position, gap="", pending=False)
        await kept.write(position)
    read = mysql_gtid.parse(position.gtids, mariadb=position.mariadb)
    session = await asyncio.to_thread(
        mysql_session.open_dump, wish.value("dsn"), _authority(wish), config.server_id, read
    )
    lag = behind.of(KIND)
    stream = mysql_stream.Stream(session, js, config.stream, mapper, prepared, position=position, kept=kept, behind=lag)
    origin = Origin(wish.value("dsn"), _authority(wish), prepared.server.mariadb, stream)
    filling = Filling(reader, js, wish, origin, mapper)
    tending = _tend(reader, wish, stream, prepared, lambda: [missed, filling.message, behind.message()])
    await run_until_one_ends(stream.run(), filling.run(), tending)


async def _tend(
    reader: Reader, wish: Wish, stream: mysql_stream.Stream, prepared: Prepared, beside: Callable[[], list[str]]
) -> None:
    """Keep tables and report up to date while the stream runs; returns when the wish needs another connection.

    `beside` says what is to be told where all is well: what may be missing from before, and which rows are still to come.
    """
    loop = asyncio.get_running_loop()
    found, trouble, checked = prepared, None, loop.time()
    while True:
        away = f"{stream.trouble}; events wait in the binary log"
        stuck = Trouble(conditions.LOG_UNAVAILABLE, away) if stream.trouble else None
        risk = mysql_retention.warning(found.server.kept_seconds, stream.oldest)
        told = "; ".join(filter(None, beside()))
        await reader.report(_with_told(wish.report(trouble or stuck, found.items), risk, told))
        newest = await reader.changed(wish, 1) or wish
        if newest == wish and loop.time() - checked < (RETRY_SECONDS[-1] if trouble else CHECK_SECONDS):
            continue
        if newest.config.draining or newest.connection != wish.connection or not _same_place(newest, wish):
            return
        wish, checked, trouble = newest, loop.time(), None
        try:
            found = await asyncio.to_thread(mysql_catalog.prepare, wish.value("dsn"), _authority(wish), task(wish))
        except Trouble as error:
            trouble = error  # the stream goes on with the tables it has
            continue
        stream.follow(found)


def _with_told(status: ReaderStatus, risk: str, told: str) -> ReaderStatus:
    """The report with what threatens beside its trouble, or else with what is to be told."""
    reason = status.reason or (conditions.BINLOG_AT_RISK if risk else "")
    message = "; ".join(text for text in (status.message, risk) if text) or told
    return msgspec.structs.replace(status, reason=reason, message=message)


def _same_place(one: Wish, other: Wish) -> bool:
    """Whether two wishes differ in tables at most, of which there are some."""
    new, old = task(one), task(other)
    return (new.server_id, new.stream) == (old.server_id, old.stream) and bool(new.tables)
