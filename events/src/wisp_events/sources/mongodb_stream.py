"""One collection's change stream: changes of the server in, events into the log, tokens noted.

Invariants:
- A token is noted only when every event up to it is acknowledged by the log, so that what is not is sent again after any crash; what was in
  the log already is skipped there by its sequence.
- A change that can't become an event (malformed, too large for the log or for the server itself) is a dead letter before its token is noted.
- A drop and a rename stand in the log after everything before them and before everything after, in whatever lanes.
- Memory is bounded: nothing is received while the log's writer has no room.
- While an interlude is played nothing is taken; all changes before its place are in the log then, and none after it.
"""

import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

from bson.raw_bson import RawBSONDocument
from nats.js import JetStreamContext
from pymongo.asynchronous.change_stream import AsyncChangeStream
from pymongo.errors import OperationFailure, PyMongoError
from wisp_api import conditions
from wisp_api.cloudevent import Event

from wisp_events import log
from wisp_events.sources import mongodb_session, row_letters
from wisp_events.sources.behind import Behind
from wisp_events.sources.interlude import Interlude, Work
from wisp_events.sources.mongodb_catalog import Followed
from wisp_events.sources.mongodb_events import BARRIERS, OPERATIONS, Mapper, when
from wisp_events.sources.mongodb_position import Book, Part
from wisp_events.sources.mongodb_session import Collection
from wisp_events.sources.mongodb_values import decode
from wisp_events.sources.reader import Trouble
from wisp_events.sources.row_events import COUNTED

BATCH: Final = 500
IDLE_MILLISECONDS: Final = 1000
_LEAN: Final = {"$project": {"fullDocument": 0, "fullDocumentBeforeChange": 0, "updateDescription": 0}}


class Lost(Exception):  # noqa: N818 - states what was found
    """Raised when the server does not have what follows the given token."""


class _TooLarge(Exception):  # noqa: N818 - states what was found
    """Raised when the server can't send a change that comes next."""


class _Mark(NamedTuple):
    """Of what the log has when all before it is there."""

    token: str
    seconds: float = 0
    """When the change was made; 0 where it is none."""
    part: Part | None = None


class Stream:
    """Carries one collection's changes into the log."""

    def __init__(
        self,
        collection: Collection,
        js: JetStreamContext,
        stream: str,
        mapper: Mapper,
        followed: Followed,
        *,
        book: Book,
        behind: Behind,
        waiting_bytes: int = log.WAITING_BYTES,
    ) -> None:
        """`stream` is the log's; `book` is told of each token up to which the log has everything."""
        self._collection = collection
        self._js = js
        self._mapper = mapper
        self._followed = followed
        self._book = book
        self._behind = behind
        self._writer: log.FrameWriter[_Mark] = log.FrameWriter(js, stream, self._confirm, waiting_bytes)
        self._interlude: Interlude[str] | None = None
        self._token = ""
        """Of what was read last."""

    @property
    def trouble(self) -> str:
        """Why the log takes nothing now; empty while it does."""
        return self._writer.trouble

    async def at(self, place: Callable[[], Awaitable[str]], work: Work) -> None:
        """Let `work` put events where all changes before a token are in the log and none after it.

        Raises:
            Trouble: that of either; the log has what was put.
        """

        async def ahead() -> str:
            if (found := await place()) <= self._token:
                behind = "a member of the replica set was read that is behind; trying again"
                raise Trouble(conditions.SERVER_UNREACHABLE, behind)
            return found

        interlude = self._interlude = Interlude(ahead, work)
        await interlude.over(lambda: self.trouble)

    def mark(self, part: Part) -> None:
        """Tell the book of a part of the documents when the log has it."""
        self._writer.mark(_Mark(self._token, part=part))

    async def run(self, token: str, opened: Callable[[], object]) -> None:
        """Read what follows a token, until cancelled; calls `opened` whenever the server has agreed to send it.

        Raises:
            Trouble: the server can't be reached, or refuses.
            Lost: the server has not what comes next.
            Fenced: another reader writes to our subjects.
        """
        self._token = token
        self._behind.watch(lambda: self._writer.first.seconds if self._writer.first else 0)
        careful = False
        try:
            while True:
                try:
                    await self._read(1 if careful else BATCH, opened)
                except _TooLarge:
                    if careful:  # one at a time, so it is the next one
                        await self._pass_over()
                    careful = not careful
        finally:
            await self._writer.close()

    async def _read(self, batch: int, opened: Callable[[], object]) -> None:
        """Read until the server ends the stream, as it does after a drop; then there may be a new collection of this name."""
        try:
            async with await self._watch(batch) as stream:
                opened()
                while stream.alive:
                    if change := await stream.try_next():
                        await self._play(str(change["_id"]["_data"]))
                        await self._take(change)
                        await self._writer.room()
                    else:
                        self._idle(stream)
                        await self._play(self._token)
        except (PyMongoError, OSError) as error:
            raise _meaning(error) from None

    async def _watch(self, batch: int, *, lean: bool = False) -> AsyncChangeStream[RawBSONDocument]:
        """A stream of what follows the last token."""
        wanted = [word for word, operation in OPERATIONS.items() if operation in self._followed.operations]
        pipeline: list[dict[str, Any]] = [{"$match": {"operationType": {"$in": [*wanted, *BARRIERS, "invalidate"]}}}]
        full, before = ("whenAvailable", "whenAvailable") if self._followed.images else ("updateLookup", None)
        return await self._collection.watch(
            pipeline + ([_LEAN] if lean else []),
            full_document=None if lean else full,
            full_document_before_change=None if lean else before,
            start_after={"_data": self._token},
            max_await_time_ms=IDLE_MILLISECONDS,
            batch_size=batch,
        )

    async def _take(self, raw: RawBSONDocument) -> None:
        """Queue what one change says; what can't be queued is a dead letter."""
        self._token, seconds = str(raw["_id"]["_data"]), time.time()
        try:
            change = decode(bytes(raw.raw))
            seconds = when(change).timestamp()
            if change["operationType"] in OPERATIONS:
                made = self._mapper.change(change, self._token, looked_up=not self._followed.images)
                self._add(made, seconds)
                COUNTED[OPERATIONS[change["operationType"]]].inc()
            elif (barrier := self._mapper.barrier(change, self._token)) and self._wants(barrier[1]):
                await self._writer.flush()
                if change["operationType"] == "rename":  # documents of another collection may be here
                    self._book.forget(self._mapper.collection)
                self._add(barrier, seconds)
                await self._writer.flush()
            else:
                self._writer.mark(_Mark(self._token, seconds))
        except log.EventTooLarge as error:
            await self._bury("EventTooLarge", f"{error}; the document is left out", event=made[1])
        except (ValueError, KeyError, TypeError, AttributeError) as error:  # also a place that is not behind the last
            await self._bury("Malformed", f"{type(error).__name__}: {error}", payload=bytes(raw.raw))

    def _wants(self, barrier: Event) -> bool:
        """A truncate comes with delete, a gap whatever is wanted."""
        return barrier.type.endswith(".gap") or "delete" in self._followed.operations

    def _add(self, made: tuple[str, Event], seconds: float) -> None:
        self._writer.add(*made, _Mark(self._token, seconds))

    async def _bury(self, reason: str, message: str, *, event: Event | None = None, payload: bytes = b"") -> None:
        """Store a dead letter, then go on."""
        await row_letters.bury(
            self._js, row_letters.letter(self._mapper, reason, message, event=event, payload=payload)
        )
        self._writer.mark(_Mark(self._token))

    async def _pass_over(self) -> None:
        """Make the next change, which the server can't send whole, a dead letter of what it can."""
        try:
            async with await self._watch(1, lean=True) as stream:
                while stream.alive and not (raw := await stream.try_next()):
                    pass
        except (PyMongoError, OSError) as error:
            meaning = _meaning(error)
            if isinstance(meaning, _TooLarge):  # its token holds the `_id`, too, and none can be gone on from without
                raise Lost("a change whose _id alone is too large for the server to send") from None
            raise meaning from None
        if raw is None:
            return
        self._token = str(raw["_id"]["_data"])
        change = decode(bytes(raw.raw))
        if change["operationType"] not in OPERATIONS:
            await self._take(raw)
            return
        _, event = self._mapper.change(change, self._token, looked_up=False)
        await self._bury("EventTooLarge", "the server can't send a change of more than 16 MiB", event=event)

    def _idle(self, stream: AsyncChangeStream[RawBSONDocument]) -> None:
        """Nothing came: note how far the server has looked, so that the token never falls out of its oplog."""
        self._behind.caught_up()
        token = stream.resume_token
        if token is not None and (data := str(token["_data"])) != self._token:
            self._token = data
            self._writer.mark(_Mark(data))

    async def _play(self, coming: str) -> None:
        """Find an interlude's place, or let its events be stored where the stream has come to it; what is read next is not before `coming`."""
        interlude = self._interlude
        if interlude is None:
            return
        over = False
        if interlude.position is None:
            await self._writer.flush()  # a snapshot should not wait for a log that is away
            over = not await interlude.find()
        if interlude.position is not None and coming >= interlude.position:
            await self._writer.flush()
            await interlude.play(0, self._put, self._writer.flush)
            over = True
        if over and self._interlude is interlude:  # one that was given up may have a successor
            self._interlude = None

    async def _put(self, events: list[tuple[str, Event]]) -> None:
        for subject, event in events:
            try:
                self._add((subject, event), 0)
            except log.EventTooLarge as error:
                await self._bury("EventTooLarge", f"{error}; the document is left out", event=event)
        await self._writer.room()

    def _confirm(self, mark: _Mark) -> None:
        """All up to this token is in the log."""
        name = self._mapper.collection
        self._book.note(name, token=mark.token)
        if mark.part:
            self._book.note(name, part=mark.part)
        if mark.seconds:
            self._behind.stored(mark.seconds)


def _meaning(error: Exception) -> Exception:
    """What an error of the driver or the network means to the stream."""
    if isinstance(error, OperationFailure) and error.code in mongodb_session.LOST:
        return Lost(" ".join(str((error.details or {}).get("errmsg") or error).split()).rstrip("."))
    if isinstance(error, OperationFailure) and error.code == mongodb_session.TOO_LARGE:
        return _TooLarge(str(error))
    return mongodb_session.refusal(error)
