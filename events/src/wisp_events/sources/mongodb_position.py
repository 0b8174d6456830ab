"""How far a MongoDB reader is in each collection: the server's resume tokens, in a key of the event log, fsynced as the events are.

Invariants:
- A token is written only when the log has all events up to it, so what is not there is read again after any crash.
- What can't be continued (the server's oplog begins later, another deployment, a lost key) begins a new epoch of that collection. Where
  changes may be missing the first thing that the log says of it is a gap event; until that is written, `gap` and `pending` stand here.
- No two times that a collection is followed number the givings of its documents alike, though nothing is kept of it in between.
"""

import asyncio
import logging
import time
from collections.abc import Collection
from typing import Any, Final

import msgspec

from wisp_events.sources import mongodb_events
from wisp_events.sources.reader import Trouble
from wisp_events.sources.row_given import Given, anew
from wisp_events.sources.row_log import Kept

logger = logging.getLogger(__name__)

KEEP_SECONDS: Final = 1.0
TOKENS_BYTES: Final = 512 * 1024
"""Of all collections together: they are one message of the log."""

_ROUNDS_BITS: Final = 20
"""Below a second: no collection's documents are given as often within one."""


class Part(msgspec.Struct, rename="camel", frozen=True):
    """How much of a collection's documents the log has, of those that are being written."""

    after: str
    """The last one's `{"_id": ...}` in BSON, base64: the documents come in the order of `_id`."""
    begun: dict[str, int]
    """Whom they are written for, as in `Given`: for others it is no part."""


class Position(msgspec.Struct, rename="camel", kw_only=True, omit_defaults=True, frozen=True):
    """All of a collection's changes up to the token are in the log."""

    epoch: int
    """Unix seconds at which the reader began; grows where tokens may be smaller than those before."""
    token: str
    """`_data` of the server's resume token."""
    gap: str = ""
    """Why changes from before the epoch may be missing; empty where none are."""
    pending: bool = False
    """The gap event is not written yet, or not known to be."""
    given: Given = Given()
    """Who has the collection's documents."""
    part: Part | None = None
    """Only of what is begun: all collections' positions are one message of the log."""


class Positions(msgspec.Struct, rename="camel", kw_only=True):
    """Of all collections of one connection."""

    collections: dict[str, Position] = {}


class Book:
    """The positions of one reader: as they are, and as they are written."""

    def __init__(self, kept: Kept[Positions], known: Positions | None) -> None:
        """`known` is what was read of `kept`."""
        self._kept = kept
        self._writing = asyncio.Lock()
        self._written = {} if known is None else dict(known.collections)
        self.collections = dict(self._written)

    def note(self, name: str, **changes: Any) -> None:
        """Change what `write` keeps of a collection: what the log has is not less. A part goes with what it is a part of.

        A token that holds a huge `_id` is not kept: who goes on does so at the one before, and the log passes over what it has.
        """
        if len(changes.get("token", "")) > TOKENS_BYTES // len(self.collections):
            del changes["token"]
        found = msgspec.structs.replace(self.collections[name], **changes)
        if found.part and found.part.begun != found.given.begun.get(name):
            found = msgspec.structs.replace(found, part=None)
        self.collections[name] = found

    def forget(self, name: str) -> None:
        """Nobody has the collection's documents, because it is another one."""
        self.note(name, given=anew(self.collections[name].given))

    async def write(self) -> None:
        """Keep all positions; returns when they are stored.

        Raises:
            Trouble: they may be stored or not.
            Fenced: others are kept.
        """
        async with self._writing:
            if self.collections != self._written:
                held = dict(self.collections)
                await self._kept.write(Positions(collections=held))
                self._written = held

    async def keep(self) -> None:
        """Write down how far the log has everything, until cancelled; what is not written is read again.

        Raises:
            Fenced: another reader wrote.
        """
        while True:
            await asyncio.sleep(KEEP_SECONDS)
            try:
                await self.write()
            except Trouble as trouble:
                logger.warning("the positions were not kept: %s", trouble.message)


def begin(token: str, held: Collection[str], *, lost: bool) -> Position:
    """A collection's beginning at a token; `held` are the sequences of the last events that the log has of it; `lost`: where it was, is not known."""
    why = "the reader's position was lost" if held and lost else ""
    epoch = _epoch(held)
    return Position(epoch=epoch, token=token, gap=why, pending=bool(why), given=Given(round=epoch << _ROUNDS_BITS))


def go_on(known: Position, held: Collection[str]) -> Position:
    """From where to go on: at the token that is kept, in a new epoch where the log holds a later one than the kept.

    Nothing is missing then, but changes told in the kept epoch would be taken for ones that the log has.
    """
    if any(mongodb_events.epoch_of(sequence) > known.epoch for sequence in held):
        return msgspec.structs.replace(known, epoch=_epoch(held))
    return known


def after_gap(known: Position, token: str, why: str) -> Position:
    """A new epoch at a token, before which changes may be missing."""
    epoch = max(int(time.time()), known.epoch + 1)
    return Position(epoch=epoch, token=token, gap=why, pending=True, given=anew(known.given))


def _epoch(held: Collection[str]) -> int:
    return max([int(time.time()), *(mongodb_events.epoch_of(sequence) + 1 for sequence in held)])
