"""One binary log connection: events of the server in, events into the log, positions kept.

Invariants:
- A position is kept only when every event before it is acknowledged by the log, so that what is not is sent again after any crash; what
  was in the log already is skipped there by its sequence, which depends on nothing but the binary log's own bytes.
- A change that can't become an event (malformed, too large) is a dead letter before its position is kept; changes that nobody can read
  (not in row format) are a gap event of every table.
- A TRUNCATE stands in the log after everything before it and before everything after it, in whatever lanes.
- Memory is bounded: nothing is received while the log's writer has no room, and no transaction is held as a whole.

The socket blocks in a thread, one hop for as many bytes as have come.
"""

import asyncio
import contextlib
import logging
import socket
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import msgspec
from nats.js import JetStreamContext
from wisp_api import conditions
from wisp_api.cloudevent import Event

from wisp_events import log
from wisp_events.sources import binlog, mysql_gtid, mysql_session, row_letters, row_log
from wisp_events.sources.binlog import End, Hidden, Rows, Start, Truncated
from wisp_events.sources.mysql_catalog import Prepared
from wisp_events.sources.mysql_position import Position
from wisp_events.sources.reader import Trouble
from wisp_events.sources.row_events import COUNTED, ORDINALS_PER_MESSAGE, Mapper
from wisp_events.sources.row_log import Kept
from wisp_events.sources.rows import Begin, Malformed, Relation

if TYPE_CHECKING:
    from wisp_api.route import DeadLetter

    from wisp_events.sources.mysql_gtid import Gtid

logger = logging.getLogger(__name__)

RECEIVE_BYTES: Final = 64 * 1024
KEEP_SECONDS: Final = 1.0
_COUNT_SHIFT, _OFFSET_BITS = 20, 31
"""A place's first number: the transaction's, and what of the offset in it does not fit the second."""


class Stream:
    """Carries one connection's changes into the log."""

    def __init__(
        self,
        session: Any,
        js: JetStreamContext,
        stream: str,
        mapper: Mapper,
        prepared: Prepared,
        *,
        position: Position,
        kept: Kept[Position],
    ) -> None:
        """`session` comes from `mysql_session.open_dump` at this position; `stream` is the log's; `kept` is where positions are."""
        self.tables = prepared.tables
        """By `database.table`; may be replaced at any time."""
        self._socket: socket.socket = session._sock  # noqa: SLF001 - PyMySQL shows it nowhere else
        self._session = session
        self._js = js
        self._mapper = mapper
        self._writer: log.FrameWriter[int] = log.FrameWriter(js, stream, self._confirm)
        self._decoder = binlog.Decoder(prepared.server.charsets)
        self._packets = mysql_session.Packets()
        self._kept = position
        self._positions = kept
        self._confirmed = position.count
        self._gtids = mysql_gtid.parse(position.gtids, mariadb=position.mariadb)
        self._pending: deque[tuple[int, Gtid, int]] = deque()
        """Transactions that were read to their end and are not confirmed."""
        # The transaction that is being read.
        self._count = position.count
        self._gtid: Gtid | None = None
        self._seconds = 0
        self._offset = 0
        """Bytes of its events that changes come from."""
        self._before = position.count
        """The transaction that its events confirm: the one before."""
        self._hidden = False
        self._letters: list[DeadLetter] = []
        self._barriers: list[tuple[str, Event]] = []

    @property
    def trouble(self) -> str:
        """Why the log takes nothing now; empty while it does."""
        return self._writer.trouble

    async def run(self) -> None:
        """Read until cancelled.

        Raises:
            Trouble: the connection broke.
            Purged: the server has not what comes next.
            Fenced: another reader writes to our subjects, or keeps its position.
        """
        keeping = asyncio.create_task(self._keep())
        try:
            while True:
                for packet in self._packets.feed(await asyncio.to_thread(self._receive)):
                    self._handle(mysql_session.event(packet))
                    if self._letters or self._barriers:
                        await self._settle()
                    await self._writer.room()
                await asyncio.sleep(0)
                if keeping.done():
                    keeping.result()
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)  # ends the thread that waits for it
            await self._writer.close()
            self._session._force_close()  # noqa: SLF001 - an orderly end would wait for the server

    def _receive(self) -> bytes:
        """What has come, waiting for something; the server sends a heartbeat every few seconds."""
        try:
            data = self._socket.recv(RECEIVE_BYTES)
        except TimeoutError:
            silent = f"the server was silent for {mysql_session.SILENT_SECONDS} s; trying again"
            raise Trouble(conditions.SERVER_UNREACHABLE, silent) from None
        except OSError as error:
            raise Trouble(conditions.SERVER_UNREACHABLE, f"the connection broke: {error}; trying again") from None
        if not data:
            raise Trouble(conditions.SERVER_UNREACHABLE, "the connection broke: the server closed it; trying again")
        return data

    def _handle(self, event: bytes) -> None:
        """Queue what one event says; what can't be queued becomes a letter."""
        try:
            message = self._decoder.decode(event)
            if isinstance(message, Rows):
                self._rows(message)
                self._offset += len(message.body)  # what a compressed event holds is longer than it
            elif isinstance(message, Start):
                self._end()
                self._count += 1
                self._gtid, self._seconds, self._offset, self._hidden = message.gtid, message.seconds, 0, False
            elif isinstance(message, End):
                self._end()
            elif isinstance(message, Truncated):
                self._offset += len(event)
                self._truncate(message)
            elif isinstance(message, Hidden):
                self._offset += len(event)
                self._hide(message)
        except Malformed as error:
            self._offset += len(event)
            self._letters.append(row_letters.letter(self._mapper, "Malformed", str(error), payload=event))

    def _end(self) -> None:
        """All of a transaction has been read."""
        if self._gtid is None:
            return
        self._pending.append((self._count, self._gtid, self._seconds))
        self._gtid, self._before = None, self._count
        self._writer.mark(self._count)

    def _place(self, offset: int) -> tuple[Begin, int]:
        """The transaction and the message's number in it, for a place in its bytes."""
        first = self._count << _COUNT_SHIFT | offset >> _OFFSET_BITS
        return Begin(first, self._seconds * 1_000_000), offset & ((1 << _OFFSET_BITS) - 1)

    def _rows(self, rows: Rows) -> None:
        table = self.tables.get(rows.table.name)
        if table is None or rows.operation not in table.operations:
            return
        for at, change in rows.changes():
            begin, message = self._place(self._offset + at)
            for subject, event in self._mapper.change(change, table, begin, message):
                self._add(subject, event)
            COUNTED[change.operation].inc()

    def _truncate(self, truncated: Truncated) -> None:
        name = f"{truncated.schema}.{truncated.table}"
        table = self.tables.get(name)
        if table and "delete" in table.operations:
            begin, message = self._place(self._offset)
            relation = Relation(0, truncated.schema, truncated.table, "d", ())
            self._barriers.append(self._mapper.truncate(relation, begin, message))
            COUNTED["truncate"].inc()

    def _hide(self, hidden: Hidden) -> None:
        """Changes of whatever table are missing: say so once a transaction."""
        if self._hidden:
            return
        self._hidden = True
        logger.warning("changes can't be read: %s", hidden.why)
        begin, message = self._place(self._offset)
        for table in self.tables:
            gap = self._mapper.gap(table, begin.commit_lsn, hidden.why, message * ORDINALS_PER_MESSAGE)
            self._barriers.append(gap)

    async def _settle(self) -> None:
        """Store letters, and what has to stand behind all lanes before it and in front of all after it."""
        for letter in self._letters:
            await row_letters.bury(self._js, letter)
        self._letters.clear()
        if self._barriers:
            await self._writer.flush()
            for subject, event in self._barriers:
                self._add(subject, event)
            await self._writer.flush()
            self._barriers.clear()

    def _add(self, subject: str, event: Event) -> None:
        try:
            self._writer.add(subject, event, self._before)
        except log.EventTooLarge as error:
            message = f"{error}; the row's values are left out"
            self._letters.append(row_letters.letter(self._mapper, "EventTooLarge", message, event=event))

    def _confirm(self, count: int) -> None:
        """All transactions up to this one are in the log."""
        seconds = 0
        while self._pending and self._pending[0][0] <= count:
            self._confirmed, gtid, seconds = self._pending.popleft()
            self._gtids.add(gtid)
        if seconds:
            row_log.BEHIND.set(max(0.0, time.time() - seconds))

    async def _keep(self) -> None:
        """Write down how far the log has everything; what is not written is read again.

        Raises:
            Fenced: another reader wrote.
        """
        while True:
            await asyncio.sleep(KEEP_SECONDS)
            if self._confirmed == self._kept.count:
                continue
            position = msgspec.structs.replace(self._kept, count=self._confirmed, gtids=str(self._gtids))
            try:
                await self._positions.write(position)
            except Trouble as trouble:
                logger.warning("the position was not kept: %s", trouble.message)
            else:
                self._kept = position
