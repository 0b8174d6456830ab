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
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from nats.js import JetStreamContext
from wisp_api.cloudevent import Event

from wisp_events import log
from wisp_events.sources import binlog, mysql_position, mysql_session, row_letters
from wisp_events.sources.behind import Behind
from wisp_events.sources.binlog import End, Hidden, Idle, Rows, Start, Truncated
from wisp_events.sources.interlude import Interlude, Work
from wisp_events.sources.mysql_catalog import Prepared
from wisp_events.sources.mysql_ddl import Redefined
from wisp_events.sources.mysql_gtid import GtidSet
from wisp_events.sources.mysql_position import Position
from wisp_events.sources.mysql_progress import Progress
from wisp_events.sources.row_events import COUNTED, ORDINALS_PER_MESSAGE, Mapper
from wisp_events.sources.row_given import Given
from wisp_events.sources.row_log import Kept
from wisp_events.sources.rows import Begin, Malformed, Relation

if TYPE_CHECKING:
    from wisp_api.route import DeadLetter

    from wisp_events.sources.mysql_gtid import Gtid

logger = logging.getLogger(__name__)

RECEIVE_BYTES: Final = 64 * 1024
_RETURNED: Final = "the table was not there for a time, or might not be read; changes before this may be missing"
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
        behind: Behind,
    ) -> None:
        """`session` comes from `mysql_session.open_dump` at this position; `stream` is the log's; `kept` is where positions are."""
        self._behind = behind
        self._socket: socket.socket = session._sock  # noqa: SLF001 - PyMySQL shows it nowhere else
        self._session = session
        self._js = js
        self._mapper = mapper
        self._progress = Progress(position, kept, behind)
        self._writer: log.FrameWriter[int] = log.FrameWriter(js, stream, self._progress.confirm)
        self.follow(prepared)
        self._decoder = binlog.Decoder(prepared.server.charsets)
        self._packets = mysql_session.Packets()
        self._interlude: Interlude[GtidSet] | None = None
        self._still = 0.0
        """Since when nothing is read, because an interlude is played; 0 while none is."""
        # The transaction that is being read.
        self._gtid: Gtid | None = None
        self._seconds = 0
        self._offset = 0
        """Bytes of its events that changes come from."""
        self._hidden = False
        self._letters: list[DeadLetter] = []
        self._barriers: list[tuple[str, Event]] = []

    def follow(self, prepared: Prepared) -> None:
        """Tell of the changes of these tables from now on."""
        self.tables = prepared.tables
        self._seen = mysql_position.seen(self._progress.tables, prepared.items, prepared.tables)

    @property
    def trouble(self) -> str:
        """Why the log takes nothing now; empty while it does."""
        return self._writer.trouble

    @property
    def oldest(self) -> float:
        """When the first transaction committed that is not in the log, as far as it was read, or when reading stopped; 0 without any."""
        return self._progress.oldest or (self._seconds if self._gtid else self._still)

    async def given(self) -> Given:
        """Who has which table's rows."""
        return self._progress.given

    async def remember(self, given: Given) -> None:
        """Keep who has which table's rows."""
        await self._progress.write(given=given)

    async def at(self, place: Callable[[], Awaitable[GtidSet]], work: Work) -> None:
        """Let `work` put events where all transactions before a position are in the log and none after it; the stream stands still then.

        So it does while `place` finds the position, which is one to come.

        Raises:
            Trouble: that of either; the log has what was put.
        """
        interlude = self._interlude = Interlude(place, work)
        await interlude.over(lambda: self.trouble)

    async def run(self) -> None:
        """Read until cancelled.

        Raises:
            Trouble: the connection broke.
            Purged: the server has not what comes next.
            Fenced: another reader writes to our subjects, or keeps its position.
        """
        self._behind.watch(lambda: self.oldest)
        keeping = asyncio.create_task(self._progress.keep())
        try:
            while True:
                for packet in self._packets.feed(
                    await asyncio.to_thread(mysql_session.receive, self._socket, RECEIVE_BYTES)
                ):
                    await self._take(mysql_session.event(packet))
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

    async def _take(self, event: bytes) -> None:
        """Queue what an event says, or each of those that it holds."""
        try:
            for count, one in enumerate(self._decoder.unpack(event)):
                if count:
                    await asyncio.sleep(0)  # a transaction may hold very many, of other tables too
                self._handle(one)
                if self._letters or self._barriers:
                    await self._settle()
                if self._gtid is None and self._seen != self._progress.tables:
                    await self._note_tables()
                if self._interlude and self._gtid is None:
                    await self._play(self._interlude)
                await self._writer.room()
        except Malformed as error:
            self._offset += len(event)
            self._hide(Hidden(str(error)))
            await self._settle()

    def _handle(self, event: bytes) -> None:
        """Queue what one event says; what can't be queued becomes a letter."""
        try:
            message = self._decoder.decode(event)
            if isinstance(message, Rows):
                self._rows(message)
                self._offset += len(message.body)  # what a compressed event holds is longer than it
            elif isinstance(message, Start):
                self._end()
                self._progress.begin()
                self._gtid, self._seconds, self._offset, self._hidden = message.gtid, message.seconds, 0, False
            elif isinstance(message, End | Idle):
                self._end()
                if isinstance(message, Idle):
                    self._behind.caught_up()
            elif isinstance(message, Truncated):
                self._offset += len(event)
                self._truncate(message)
            elif isinstance(message, Hidden):
                self._offset += len(event)
                self._hide(message)
            elif isinstance(message, Redefined):
                self._offset += len(event)
                for table in filter(message.concerns, self.tables):
                    self._miss(table, message.why.format(table))
        except Malformed as error:
            self._offset += len(event)
            self._letters.append(row_letters.letter(self._mapper, "Malformed", str(error), payload=event))

    def _end(self) -> None:
        """All of a transaction has been read."""
        if self._gtid is None:
            return
        self._progress.end(self._gtid, self._seconds)
        self._gtid = None
        self._writer.mark(self._progress.before)

    def _place(self, offset: int) -> tuple[Begin, int]:
        """The transaction and the message's number in it, for a place in its bytes."""
        first = self._progress.count << _COUNT_SHIFT | offset >> _OFFSET_BITS
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
        for table in self.tables:
            self._miss(table, hidden.why)

    def _miss(self, table: str, why: str) -> None:
        """Changes of a table are missing here: a gap event is to say so."""
        begin, message = self._place(self._offset)
        self._barriers.append(self._mapper.gap(table, begin.commit_lsn, why, message * ORDINALS_PER_MESSAGE))

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

    async def _note_tables(self) -> None:
        """Remember which tables are followed, when the log has the gap events of those that were not for a time."""
        seen = self._seen
        if missed := mysql_position.returned(self._progress.tables, seen):
            await self._writer.flush()
            number = await self._progress.insert()
            self._barriers += [self._mapper.gap(name, number << _COUNT_SHIFT, _RETURNED) for name in missed]
            await self._settle()
        await self._progress.write(tables=seen)

    async def _play(self, interlude: Interlude[GtidSet]) -> None:
        """Find the interlude's place, or let its events be stored where the stream has come to it."""
        over = False
        if interlude.position is None:
            await self._writer.flush()  # a snapshot should not wait for a log that is away
            over = not await interlude.find()
        elif interlude.position and self._progress.read.covers(interlude.position):
            self._still = time.time()
            await self._writer.flush()
            number = await self._progress.insert()
            await interlude.play(number << _COUNT_SHIFT, self._put, self._writer.flush)
            self._still, over = 0.0, True
        if over and self._interlude is interlude:  # one that was given up may have a successor
            self._interlude = None

    async def _put(self, events: list[tuple[str, Event]]) -> None:
        for subject, event in events:
            self._add(subject, event)
        await self._settle()
        await self._writer.room()

    def _add(self, subject: str, event: Event) -> None:
        try:
            self._writer.add(subject, event, self._progress.before)
        except log.EventTooLarge as error:
            message = f"{error}; the row's values are left out"
            self._letters.append(row_letters.letter(self._mapper, "EventTooLarge", message, event=event))
