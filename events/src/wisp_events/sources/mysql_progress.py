"""How far a MySQL reader has read, how far the log has it, and the writing down of that.

Invariants:
- What is written down is what the log has, never more.
- A transaction's number is kept beside the GTIDs before it. What is no transaction of the server (rows of a snapshot) has a number, too,
  which is written down before anything bears it; whoever fails to do so reads anew what is kept.
"""

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import msgspec

from wisp_events.sources import mysql_gtid
from wisp_events.sources.behind import Behind
from wisp_events.sources.mysql_position import Position
from wisp_events.sources.reader import Trouble
from wisp_events.sources.row_given import Given
from wisp_events.sources.row_log import Kept

if TYPE_CHECKING:
    from wisp_events.sources.mysql_gtid import Gtid, GtidSet

logger = logging.getLogger(__name__)

KEEP_SECONDS: Final = 1.0


class Progress:
    """Of one binary log connection."""

    def __init__(self, position: Position, kept: Kept[Position], behind: Behind) -> None:
        """From this position, which is kept; `behind` is told what is stored."""
        self._behind = behind
        self._position = position
        self._kept = kept
        self._writing = asyncio.Lock()
        self._pending: deque[tuple[int, Gtid, int]] = deque()
        """Transactions that were read to their end and are not confirmed, with the times of their commits."""
        self._confirmed = position.count
        self._gtids: GtidSet = mysql_gtid.parse(position.gtids, mariadb=position.mariadb)
        self.count = position.count
        """The number of the last transaction that began."""
        self.before = position.count
        """That of the last one that was read to its end."""
        self.read: GtidSet = mysql_gtid.parse(position.gtids, mariadb=position.mariadb)
        """Transactions that were read to their end."""

    @property
    def given(self) -> Given:
        """Who has which tables' rows."""
        return self._position.given

    @property
    def tables(self) -> dict[str, bool]:
        """Which tables are or were followed."""
        return self._position.tables

    @property
    def oldest(self) -> float:
        """When the first transaction committed that was read and is not in the log; 0 without any."""
        return self._pending[0][2] if self._pending else 0

    def begin(self) -> None:
        """Number the next transaction."""
        self.count += 1

    def end(self, gtid: "Gtid", seconds: int) -> None:
        """All of the transaction was read."""
        self._pending.append((self.count, gtid, seconds))
        self.read.add(gtid)
        self.before = self.count

    def confirm(self, count: int) -> None:
        """All transactions up to this one are in the log."""
        seconds = 0
        while self._pending and self._pending[0][0] <= count:
            self._confirmed, gtid, seconds = self._pending.popleft()
            self._gtids.add(gtid)
        if seconds:
            self._behind.stored(seconds)

    async def insert(self) -> int:
        """The number of what comes now, between two transactions, all before being in the log.

        Raises:
            Trouble: nobody knows whether it is kept.
            Fenced: another reader wrote.
        """
        self.count += 1
        self._confirmed = self.before = self.count
        await self.write()
        return self.count

    async def write(self, **changes: Any) -> None:
        """Write down how far the log has everything.

        Raises:
            Trouble: it may be stored or not.
            Fenced: another reader wrote.
        """
        async with self._writing:
            position = msgspec.structs.replace(self._position, count=self._confirmed, gtids=str(self._gtids), **changes)
            await self._kept.write(position)
            self._position = position

    async def keep(self) -> None:
        """Write it down at times, until cancelled; what is not written is read again.

        Raises:
            Fenced: another reader wrote.
        """
        while True:
            await asyncio.sleep(KEEP_SECONDS)
            if self._confirmed == self._position.count:
                continue
            try:
                await self.write()
            except Trouble as trouble:
                logger.warning("the position was not kept: %s", trouble.message)
