"""The replication connection of a PostgreSQL reader: taken over from a predecessor, started, ready to be read.

Setting it up blocks, and runs in a thread.
"""

import asyncio
import logging
from typing import Any, Final

import psycopg2
import psycopg2.errors
from psycopg2.extras import LogicalReplicationConnection
from wisp_api import conditions

from wisp_events.sources.postgres_session import open_session
from wisp_events.sources.postgres_slot import insert_only, release_slot
from wisp_events.sources.reader import Trouble

logger = logging.getLogger(__name__)

TAKEOVER_SECONDS: Final = 2.0
"""How long a predecessor that still holds the slot is given to end by itself."""
SESSION: Final = (
    "SET datestyle = 'ISO'",
    "SET intervalstyle = 'postgres'",
    "SET timezone = 'UTC'",
    "SET bytea_output = 'hex'",
    "SET extra_float_digits = 3",
    "SET wal_sender_timeout = '15s'",  # PostgreSQL 12 or newer lets a session set it; a dead reader's slot is free sooner
)


async def open_cursor(dsn: str, slot: str) -> Any:
    """A replication cursor that has started; takes the slot over from a predecessor that no longer lives.

    Raises:
        Trouble: the server refuses, or the slot stays in use.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + TAKEOVER_SECONDS
    while True:
        try:
            return await asyncio.to_thread(_start, dsn, slot)
        except psycopg2.errors.ObjectInUse:
            if loop.time() > deadline:
                logger.warning("ending the connection that still holds slot %s", slot)
                await asyncio.to_thread(release_slot, dsn, slot)
                deadline = loop.time() + TAKEOVER_SECONDS
            await asyncio.sleep(0.2)


def _start(dsn: str, slot: str) -> Any:
    session = open_session(dsn, connection_factory=LogicalReplicationConnection)
    try:
        cursor: Any = session.cursor()
        for statement in SESSION:
            try:
                cursor.execute(statement)
            except (psycopg2.errors.CantChangeRuntimeParam, psycopg2.errors.InsufficientPrivilege):
                logger.info("this server does not let a session do: %s", statement)
        names = f'"{slot}","{insert_only(slot)}"'
        cursor.start_replication(
            slot_name=slot,
            decode=False,
            status_interval=10,
            options={"proto_version": "1", "publication_names": names},
        )
    except psycopg2.errors.ObjectInUse:
        session.close()
        raise
    except psycopg2.Error as error:
        session.close()
        raise Trouble(conditions.SERVER_UNREACHABLE, f"{' '.join(str(error).split())}; trying again") from None
    return cursor
