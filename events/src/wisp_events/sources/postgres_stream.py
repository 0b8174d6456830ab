"""One replication connection: pgoutput messages in, events into the log, confirmed positions back.

Invariants:
- PostgreSQL hears only of positions before which every event is acknowledged by the log, so that what is not is sent
  again after any crash; what was in the log already is skipped there by its sequence.
- A change that can't become an event (malformed, too large) is a dead letter before its position is confirmed.
- Memory is bounded: nothing is read while the log's writer has no room, and no transaction is held as a whole.

The connection is read without blocking on the event loop (libpq has the socket, the loop waits for it); only setting it
up blocks, and runs in a thread.
"""

import asyncio
import logging
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import prometheus_client
import psycopg2
import psycopg2.errors
from nats.js import JetStreamContext
from psycopg2.extras import LogicalReplicationConnection
from wisp_api import conditions
from wisp_api.cloudevent import EVENT_BYTES, Event, encode
from wisp_api.route import DeadLetter

from wisp_events import log
from wisp_events.sources import postgres_catalog
from wisp_events.sources.pgoutput import Begin, Change, Commit, Decoder, Malformed, Truncate
from wisp_events.sources.postgres_events import Mapper, Table
from wisp_events.sources.postgres_session import open_session
from wisp_events.sources.reader import Trouble

logger = logging.getLogger(__name__)

MESSAGES_PER_TURN: Final = 256
"""Read in one turn of the event loop, about 5 ms of work."""
FEEDBACK_SECONDS: Final = 1.0
SILENT_SECONDS: Final = 30.0
TAKEOVER_SECONDS: Final = 2.0
"""How long a predecessor that still holds the slot is given to end by itself."""
INPUT_BYTES: Final = 4096
_SESSION: Final = (
    "SET datestyle = 'ISO'",
    "SET intervalstyle = 'postgres'",
    "SET timezone = 'UTC'",
    "SET bytea_output = 'hex'",
    "SET extra_float_digits = 3",
    "SET wal_sender_timeout = '15s'",  # PostgreSQL 12 or newer lets a session set it; a dead reader's slot is free sooner
)

EVENTS = prometheus_client.Counter("wisp_reader_events", "Row changes made into events", ["operation"])
_COUNTED = {operation: EVENTS.labels(operation) for operation in ("insert", "update", "delete", "truncate")}
DEAD_LETTERS = prometheus_client.Counter("wisp_reader_dead_letters", "Changes that could not become events", ["reason"])
LAG = prometheus_client.Gauge(
    "wisp_reader_unconfirmed_bytes", "Server's log position minus the confirmed one, in bytes of WAL"
)


async def open_stream(dsn: str, slot: str) -> Any:
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
                await asyncio.to_thread(postgres_catalog.release_slot, dsn, slot)
                deadline = loop.time() + TAKEOVER_SECONDS
            await asyncio.sleep(0.2)


def _start(dsn: str, slot: str) -> Any:
    session = open_session(dsn, connection_factory=LogicalReplicationConnection)
    try:
        cursor: Any = session.cursor()
        for statement in _SESSION:
            try:
                cursor.execute(statement)
            except (psycopg2.errors.CantChangeRuntimeParam, psycopg2.errors.InsufficientPrivilege):
                logger.info("this server does not let a session do: %s", statement)
        names = f'"{slot}","{postgres_catalog.insert_only(slot)}"'
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


class Stream:
    """Carries one replication connection's changes into the log."""

    def __init__(
        self, cursor: Any, js: JetStreamContext, stream: str, mapper: Mapper, tables: dict[str, Table]
    ) -> None:
        """`cursor` comes from `open_stream`; `stream` is the log's."""
        self.tables = tables
        """By `schema.table`; may be replaced at any time."""
        self._cursor = cursor
        self._js = js
        self._mapper = mapper
        self._writer: log.FrameWriter[int] = log.FrameWriter(js, stream, self._confirm)
        self._decoder = Decoder()
        self._confirmed = 0
        # The transaction that is being read.
        self._begin = Begin(0, 0)
        self._message = 0
        self._before = 0
        """End of the transaction before it: the position that its events confirm."""
        self._letters: list[DeadLetter] = []

    @property
    def trouble(self) -> str:
        """Why the log takes nothing now; empty while it does."""
        return self._writer.trouble

    async def run(self) -> None:
        """Read until cancelled.

        Raises:
            Trouble: the connection broke.
            Fenced: another reader writes to our subjects.
        """
        feedback = asyncio.create_task(self._give_feedback())
        try:
            while True:
                more = self._read()
                for letter in self._letters:
                    await self._bury(letter)
                self._letters.clear()
                await self._writer.room()
                if feedback.done():
                    feedback.result()
                await (asyncio.sleep(0) if more else self._readable())
        except psycopg2.Error as error:
            message = " ".join(str(error).split())
            raise Trouble(conditions.SERVER_UNREACHABLE, f"the connection broke: {message}; trying again") from None
        finally:
            feedback.cancel()
            await asyncio.gather(feedback, return_exceptions=True)
            await self._writer.close()
            self._cursor.connection.close()

    def _confirm(self, position: int) -> None:
        self._confirmed = max(self._confirmed, position)

    def _read(self) -> bool:
        """Handle what has arrived, up to a turn's worth; whether there may be more."""
        for _ in range(MESSAGES_PER_TURN):
            message = self._cursor.read_message()
            if message is None:
                return False
            self._handle(message.payload)
            if self._letters:
                return True
        return True

    async def _readable(self) -> None:
        """Wait until the socket has something, a second at most."""
        loop = asyncio.get_running_loop()
        arrived = loop.create_future()
        descriptor = self._cursor.connection.fileno()
        loop.add_reader(descriptor, _settle, arrived)
        try:
            await asyncio.wait([arrived], timeout=1)
        finally:
            loop.remove_reader(descriptor)

    def _handle(self, payload: bytes) -> None:
        """Queue what one message says; what can't be queued becomes a letter."""
        row = payload[:1] in (b"I", b"U", b"D")
        self._message += row
        try:
            message = self._decoder.decode(payload)
            if isinstance(message, Change):
                self._change(message)
            elif isinstance(message, Begin):
                self._begin, self._message = message, 0
            elif isinstance(message, Commit):
                self._writer.mark(message.end_lsn)
                self._before = message.end_lsn
            elif isinstance(message, Truncate):
                self._truncate(message)
        except Malformed as error:
            if not row:
                raise Trouble(conditions.SERVER_UNREACHABLE, f"the server sent what can't be read: {error}") from None
            self._letters.append(self._letter("Malformed", str(error), payload=payload))

    def _change(self, change: Change) -> None:
        table = self.tables.get(change.relation.name)
        if table is None or change.operation not in table.operations:
            return
        try:
            events = list(self._mapper.change(change, table, self._begin, self._message))
        except ValueError as error:
            raise Malformed(f"{change.operation} in {change.relation.name}: {error}") from error
        for subject, event in events:
            self._add(subject, event)
        _COUNTED[change.operation].inc()

    def _truncate(self, truncate: Truncate) -> None:
        self._message += 1
        for relation in truncate.relations:
            table = self.tables.get(relation.name)
            if table and "delete" in table.operations:
                for subject, event in self._mapper.truncate(relation, self._begin, self._message):
                    self._add(subject, event)
                _COUNTED["truncate"].inc()

    def _add(self, subject: str, event: Event) -> None:
        try:
            self._writer.add(subject, event, self._before)
        except log.EventTooLarge as error:
            self._letters.append(self._letter("EventTooLarge", f"{error}; the row's values are left out", event=event))

    def _letter(self, reason: str, message: str, *, event: Event | None = None, payload: bytes = b"") -> DeadLetter:
        namespace, connection = self._mapper.namespace, self._mapper.connection
        return DeadLetter(
            reason=reason,
            message=message,
            time=datetime.now(UTC).isoformat(timespec="milliseconds"),
            namespace=namespace,
            source=f"postgres/{connection}",
            event=msgspec.Raw(encode(_without_values(event))) if event else None,
            input=payload[:INPUT_BYTES].decode(errors="replace") if payload else None,
        )

    async def _bury(self, letter: DeadLetter) -> None:
        """Store a dead letter, however long the log is away."""
        while True:
            try:
                await log.dead_letter(self._js, letter)
            except log.LogUnavailable as error:
                logger.warning("a dead letter waits: %s", error)
                await asyncio.sleep(1)
            else:
                logger.warning("dead letter: %s: %s", letter.reason, letter.message)
                DEAD_LETTERS.labels(letter.reason).inc()
                return

    async def _give_feedback(self) -> None:
        """Confirm what the log has, show that this side lives, and notice when the other does not.

        Raises:
            Trouble: the server has been silent although it was asked to answer.
        """
        loop = asyncio.get_running_loop()
        heard = loop.time()
        while True:
            if self._cursor.io_timestamp > self._cursor.feedback_timestamp or self.trouble:
                heard = loop.time()
            if loop.time() - heard > SILENT_SECONDS:
                raise Trouble(
                    conditions.SERVER_UNREACHABLE, f"the server was silent for {SILENT_SECONDS:.0f} s; trying again"
                )
            self._cursor.send_feedback(write_lsn=self._confirmed, flush_lsn=self._confirmed, reply=True, force=True)
            LAG.set(max(0, self._cursor.wal_end - self._confirmed))
            await asyncio.sleep(FEEDBACK_SECONDS)


def _settle(arrived: "asyncio.Future[None]") -> None:
    if not arrived.done():
        arrived.set_result(None)


def _without_values(event: Event) -> Event:
    """The event with its data reduced to operation and key, so that a dead letter of a huge row is small."""
    data = msgspec.json.decode(bytes(event.data or b"{}"), type=dict[str, msgspec.Raw])
    kept = msgspec.json.encode({name: data[name] for name in ("op", "key") if name in data})
    return msgspec.structs.replace(event, data=msgspec.Raw(kept if len(kept) < EVENT_BYTES else b"{}"))
