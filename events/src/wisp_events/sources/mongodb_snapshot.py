"""The documents that a collection has at one moment of the deployment's time, page by page. What is of a snapshot blocks, and runs in a thread.

The moment is a cluster time that the server chooses; a change is in the snapshot exactly if its own is not later. `position` is the token that
a stream has which begins behind that time: all tokens of earlier changes are smaller, those of later ones greater.

Invariants:
- Documents come in the order of `_id`, and whatever is asked for next is what stands behind the last one, of whatever type the two are.
- Nothing stays open at the server between two pages: each is a statement of its own, at the same moment.
- A server that can't read as of the moment any more (it keeps some minutes) ends the part: the next one begins behind the last document
  that the log has, at a later moment.
"""

import base64
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import bson
from bson import CodecOptions, Timestamp
from bson.codec_options import DatetimeConversion
from bson.raw_bson import RawBSONDocument
from wisp_api import conditions
from wisp_api.cloudevent import Event

from wisp_events.sources.interlude import Put, Work
from wisp_events.sources.mongodb_position import Book, Part
from wisp_events.sources.mongodb_session import Blocking, explained
from wisp_events.sources.mongodb_stream import Stream
from wisp_events.sources.reader import Trouble
from wisp_events.sources.row_events import Table
from wisp_events.sources.row_fill import ROWS, Paused, rows_at_once
from wisp_events.sources.row_given import Given

LONGEST_BYTES: Final = 4 * 1024
"""An `_id` that is longer is not remembered, so that the positions of many collections fit into a message: who goes on does so behind one before it."""
_CODEC: Final = CodecOptions(
    document_class=RawBSONDocument,
    datetime_conversion=DatetimeConversion.DATETIME_MS,
    unicode_decode_error_handler="replace",
)
"""So that an `_id` is the same when it is sent back, whatever else the document holds."""


class Snapshot:
    """What a collection (`database.collection`) holds at one moment."""

    def __init__(self, client: Blocking, name: str, after: bytes) -> None:
        """As of now, behind the document with this `{"_id": ...}` in BSON, or from the first on.

        Raises:
            Trouble: it can't be read.
        """
        database, _, self._collection = name.partition(".")
        self._database = client[database]
        self.refused: Mapping[str, Trouble] = {}
        self.after = after
        """Of the last document that was fetched."""
        self._count = ROWS[1]
        self._pages = 0
        with explained():
            self._moment: Timestamp = self._find(1, {"level": "snapshot"})["atClusterTime"]
            self.position = self._place()

    def open(self, _: str) -> str:
        """What the mapper makes places of."""
        return self.position

    def fetch(self) -> list[tuple[bytes]]:
        """The next documents; none at the end.

        Raises:
            Paused: they can be gone on with behind the last ones.
            Trouble: none was read.
        """
        try:
            with explained():
                cursor = self._find(self._count, {"level": "snapshot", "atClusterTime": self._moment})
            found: list[RawBSONDocument] = cursor["firstBatch"]
            if found:
                self.after = _identity(found[-1])
        except Trouble as trouble:
            if self._pages:
                raise Paused(trouble.reason, trouble.message) from None
            raise
        rows = [(bytes(document.raw),) for document in found]
        if rows:
            self._count = rows_at_once(rows)
            self._pages += 1
        return rows

    def give_up(self) -> None:
        """Nothing is open."""

    def close(self) -> None:
        """Nothing is open."""

    def _find(self, count: int, concern: dict[str, Any]) -> Any:
        """The server's answer. It may have fewer documents than there are, but none only if there is none."""
        command: dict[str, Any] = {"find": self._collection, "sort": {"_id": 1}}
        command |= {"limit": count, "batchSize": count, "singleBatch": True, "readConcern": concern}
        if self.after:
            last = bson.decode(self.after, _CODEC)["_id"]
            # A plain $gt passes over other types; `min` does not, and is where the index is entered, but has the last one again.
            command |= {
                "hint": {"_id": 1},
                "min": {"_id": last},
                "filter": {"$expr": {"$gt": ["$_id", {"$literal": last}]}},
            }
        return self._database.command(command, codec_options=_CODEC)["cursor"]

    def _place(self) -> str:
        """The token of a stream that begins behind the moment."""
        behind = Timestamp(self._moment.time, self._moment.inc + 1)
        with self._database[self._collection].watch(start_at_operation_time=behind, batch_size=0) as stream:
            token: Any = stream.resume_token
        if token is None:
            raise Trouble(
                conditions.CHANGE_STREAMS_OFF, "the server gives no resume token; MongoDB 6.0 or newer is needed"
            )
        return str(token["_data"])


def _identity(document: RawBSONDocument) -> bytes:
    """`{"_id": ...}` of a document, in BSON.

    Raises:
        Trouble: nobody could ask for what stands behind it.
    """
    found = bson.encode({"_id": document["_id"]}, codec_options=_CODEC)
    if found[4:-1] not in document.raw:
        raise Trouble(
            conditions.TABLE_NOT_FOUND,
            "a document has an _id of a type that MongoDB itself has given up, or one that is no UTF-8",
        )
    return found


@dataclass
class Origin:
    """What a MongoDB reader does for one collection's documents."""

    name: str
    """`database.collection`."""
    client: Blocking
    stream: Stream
    book: Book
    followed: Mapping[str, Table]
    """The collection alone."""
    _given: Given = field(default_factory=Given)
    _snapshot: Snapshot | None = None

    async def given(self) -> Given:
        """As `row_fill.Origin`."""
        self._given = self.book.collections[self.name].given
        return self._given

    async def remember(self, given: Given) -> None:
        """As `row_fill.Origin`.

        Raises:
            Trouble: it has been forgotten meanwhile, because another collection has this name.
        """
        if self.book.collections[self.name].given is not self._given:
            raise Trouble(conditions.CHANGES_MISSED, f"{self.name} was renamed meanwhile; trying again")
        self.book.note(self.name, given=given)
        self._given = given
        await self.book.write()

    def refusal(self, _: str) -> Trouble | None:
        """As `row_fill.Origin`; whoever takes a snapshot is told as soon."""
        return None

    def take(self, _: Collection[str]) -> Snapshot:
        """As `row_fill.Origin`.

        Raises:
            Trouble: the server refuses.
        """
        part = self.book.collections[self.name].part
        known = part is not None and part.begun == self._given.begun.get(self.name)
        self._snapshot = Snapshot(self.client, self.name, base64.b64decode(part.after) if part and known else b"")
        return self._snapshot

    async def at(self, place: Callable[[], Awaitable[str]], work: Work) -> None:
        """As `row_fill.Origin`; how far the documents are is kept as the log has them."""

        async def noted(number: int, put: Put) -> None:
            async def put_and_note(events: list[tuple[str, Event]]) -> None:
                await put(events)
                if self._snapshot and len(self._snapshot.after) <= LONGEST_BYTES:
                    after = base64.b64encode(self._snapshot.after).decode()
                    self.stream.mark(Part(after, self._given.begun.get(self.name, {})))

            await work(number, put_and_note)

        await self.stream.at(place, noted)
