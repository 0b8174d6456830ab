"""One replication connection: pgoutput messages in, events into the log, confirmed positions back.

Invariants:
- PostgreSQL hears only of positions before which every event is acknowledged by the log, so that what is not is sent
  again after any crash; what was in the log already is skipped there by its sequence.
- A change that can't become an event (malformed, too large) is a dead letter before its position is confirmed.
- A TRUNCATE stands in the log after everything before it and before everything after it, in whatever lanes.
- Memory is bounded: nothing is read while the log's writer has no room, and no transaction is held as a whole.

The connection is read without blocking on the event loop: libpq has the socket, the loop waits for it.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import psycopg2
from nats.js import JetStreamContext
from wisp_api import conditions
from wisp_api.cloudevent import Event

from wisp_events import log
from wisp_events.sources import postgres_wal, row_letters
from wisp_events.sources.behind import Behind
from wisp_events.sources.interlude import Interlude, Work
from wisp_events.sources.pgoutput import Commit, Decoder, Type
from wisp_events.sources.postgres_catalog import Prepared
from wisp_events.sources.postgres_values import UserType
from wisp_events.sources.reader import Trouble
from wisp_events.sources.row_events import COUNTED, Mapper
from wisp_events.sources.rows import Begin, Change, Malformed, Truncate

if TYPE_CHECKING:
    from wisp_api.route import DeadLetter

Types: TypeAlias = Callable[[int], dict[int, UserType]]

MESSAGES_PER_TURN: Final = 256
"""Read in one turn of the event loop, about 5 ms of work."""
FEEDBACK_SECONDS: Final = 1.0
SILENT_SECONDS: Final = 30.0
_REPLACED: Final = "table {} was replaced by another of that name, or was not published in full for a time; changes before this may be missing"


class Stream:
    """Carries one replication connection's changes into the log."""

    def __init__(
        self,
        cursor: Any,
        js: JetStreamContext,
        stream: str,
        mapper: Mapper,
        prepared: Prepared,
        *,
        types: Types,
        behind: Behind,
    ) -> None:
        """`cursor` comes from `postgres_connection.open_cursor`; `stream` is the log's; `types` looks one up, blocking."""
        self.tables = prepared.tables
        """By `schema.table`; may be replaced at any time."""
        self.expected = prepared.position
        """Where the server's log was when it was asked last; before that place an empty socket says nothing. May be replaced, too."""
        self._behind = behind
        self._cursor = cursor
        self._js = js
        self._mapper = mapper
        self._writer: log.FrameWriter[int] = log.FrameWriter(js, stream, self._confirm)
        self._decoder = Decoder()
        self._types = types
        self._unknown: list[int] = []
        """Types that were announced and have to be looked up before anything else is decoded."""
        self._confirmed = 0
        self._begun: deque[Begin] = deque()
        """Transactions that were begun to be read and are not confirmed."""
        # The transaction that is being read.
        self._begin = Begin(0, 0)
        self._message = 0
        self._before = 0
        """End of the transaction before it: the position that its events confirm."""
        self._letters: list[DeadLetter] = []
        self._inside = False
        self._barriers: list[tuple[str, Event]] = []
        self._gaps: dict[str, int] = {}
        """Tables that are owed a gap event, and the position before which changes are missing."""
        self._told = asyncio.Event()
        self._interlude: Interlude[int] | None = None
        self._due = False
        """Whether the stream has come to the interlude."""

    @property
    def trouble(self) -> str:
        """Why the log takes nothing now; empty while it does."""
        return self._writer.trouble

    async def tell_gap(self, tables: Collection[str], position: int) -> None:
        """Write a gap event for each table when the stream has come to a position; returns when the log has them."""
        self._gaps = dict.fromkeys(tables, position) | self._gaps
        self._told.clear()
        await self._told.wait()

    async def at(self, place: Callable[[], Awaitable[int]], work: Work) -> None:
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
            Fenced: another reader writes to our subjects.
        """
        self._behind.watch(lambda: self._begun[0].commit_microseconds / 1e6 if self._begun else 0)
        feedback = asyncio.create_task(self._give_feedback())
        try:
            while True:
                more = self._read()
                if not more and not self._inside:
                    self._pass(self._cursor.wal_end)
                    if self._cursor.wal_end >= self.expected:
                        self._behind.caught_up()
                for letter in self._letters:
                    await row_letters.bury(self._js, letter)
                self._letters.clear()
                if self._barriers:
                    await self._write_barriers()
                if self._due:
                    await self._play()
                while self._unknown:
                    self._decoder.types |= await asyncio.to_thread(self._types, self._unknown.pop())
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
        while self._begun and self._begun[0].commit_lsn < position:
            self._behind.stored(self._begun.popleft().commit_microseconds / 1e6)

    def _read(self) -> bool:
        """Handle what has arrived, up to a turn's worth; whether there may be more."""
        for _ in range(MESSAGES_PER_TURN):
            message = self._cursor.read_message()
            if message is None:
                return False
            self._handle(message.payload)
            if self._letters or self._barriers or self._unknown or self._due:
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
                self._pass(message.commit_lsn)
                self._begin, self._message, self._inside = message, 0, True
                self._begun.append(message)
            elif isinstance(message, Commit):
                self._inside = False
                self._writer.mark(message.end_lsn)
                self._before = message.end_lsn
            elif isinstance(message, Truncate):
                self._truncate(message)
            elif isinstance(message, Type) and message.oid not in self._decoder.types:
                self._unknown.append(message.oid)
        except Malformed as error:
            if not row:
                raise Trouble(conditions.SERVER_UNREACHABLE, f"the server sent what can't be read: {error}") from None
            self._letters.append(row_letters.letter(self._mapper, "Malformed", str(error), payload=payload))

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
        COUNTED[change.operation].inc()

    def _truncate(self, truncate: Truncate) -> None:
        for relation in truncate.relations:
            self._message += 1  # one event each, and ids differ
            table = self.tables.get(relation.name)
            if table and "delete" in table.operations:
                self._barriers.append(self._mapper.truncate(relation, self._begin, self._message))
                COUNTED["truncate"].inc()

    def _pass(self, position: int) -> None:
        """Between two transactions, all before `position` having been read: queue the gap events that are due.

        The place of one is above that of all that was read, wherever it was that changes went missing.
        """
        self._due = self._interlude is not None and (self._interlude.position or 0) <= position
        for table, missing in list(self._gaps.items()):
            if missing <= position:
                del self._gaps[table]
                self._barriers.append(
                    self._mapper.gap(table, max(missing, self._begin.commit_lsn + 1), _REPLACED.format(table))
                )

    async def _write_barriers(self) -> None:
        """Store what has to stand behind all lanes before it and in front of all after it."""
        await self._writer.flush()
        for subject, event in self._barriers:
            self._add(subject, event)
        await self._writer.flush()
        self._barriers.clear()
        if not self._gaps:
            self._told.set()

    async def _play(self) -> None:
        """Find the interlude's place, or let its events be stored there."""
        interlude = self._interlude
        assert interlude  # noqa: S101 - it is due
        if interlude.position is None:
            await self._writer.flush()  # a snapshot should not wait for a log that is away
            over = not await interlude.find()
        else:
            await self._writer.flush()
            number = interlude.position - 1  # no transaction's place: those are multiples of 8
            await interlude.play(number, self._put, self._writer.flush)
            over = True
        if over and self._interlude is interlude:  # one that was given up may have a successor
            self._interlude = None
        self._due = False

    async def _put(self, events: list[tuple[str, Event]]) -> None:
        for subject, event in events:
            self._add(subject, event)
        for letter in self._letters:
            await row_letters.bury(self._js, letter)
        self._letters.clear()
        await self._writer.room()

    def _add(self, subject: str, event: Event) -> None:
        try:
            self._writer.add(subject, event, self._before)
        except log.EventTooLarge as error:
            message = f"{error}; the row's values are left out"
            self._letters.append(row_letters.letter(self._mapper, "EventTooLarge", message, event=event))

    async def _give_feedback(self) -> None:
        """Confirm what the log has, show that this side lives, and notice when the other does not.

        Raises:
            Trouble: the server has been silent although it was asked to answer.
        """
        loop = asyncio.get_running_loop()
        heard = loop.time()
        while True:
            if self._cursor.io_timestamp > self._cursor.feedback_timestamp or self.trouble or self._due:
                heard = loop.time()
            if loop.time() - heard > SILENT_SECONDS:
                raise Trouble(
                    conditions.SERVER_UNREACHABLE, f"the server was silent for {SILENT_SECONDS:.0f} s; trying again"
                )
            self._cursor.send_feedback(write_lsn=self._confirmed, flush_lsn=self._confirmed, reply=True, force=True)
            postgres_wal.UNCONFIRMED.set(max(0, self._cursor.wal_end - self._confirmed))
            await asyncio.sleep(FEEDBACK_SECONDS)


def _settle(arrived: "asyncio.Future[None]") -> None:
    if not arrived.done():
        arrived.set_result(None)
