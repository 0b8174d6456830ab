"""Changes of documents -> CloudEvents: those of a row (docs/decisions/0003), with what MongoDB tells besides.

Invariant: the same change read again gives the same event under the same id, whoever reads it: the id is the server's own resume token of
the change, behind the epoch. Tokens of a collection sort as text as its changes do, which MongoDB promises, so the id is the sequence, too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from wisp_api import names
from wisp_api.cloudevent import Event

from wisp_events.sources.mongodb_values import decode, to_json
from wisp_events.sources.row_events import BARRIER_LANE, SNAPSHOT, Table
from wisp_events.sources.rows import Begin, Malformed

OPERATIONS: Final = {"insert": "insert", "update": "update", "replace": "update", "delete": "delete"}
"""The server's word for a change of a document, and the event's."""
BARRIERS: Final = ("drop", "rename")
"""Changes of the collection as a whole, after which the server ends the stream with `invalidate`."""
TOKEN_CHARACTERS: Final = 512
"""Of a token, in an id: the time, the place in a transaction and the collection stand in front; what is long is the document's `_id`."""
_BEFORE_ALL: Final = "0"


@dataclass(frozen=True, slots=True)
class Mapper:
    """Maps the changes of one collection."""

    namespace: str
    connection: str
    collection: str
    """`database.collection`."""
    epoch: int
    kind: str = "mongodb"
    """The source's, in types, subjects and source."""

    def change(self, change: Mapping[str, Any], token: str, *, looked_up: bool) -> tuple[str, Event]:
        """(subject, event) of a document's change; `looked_up`: an update's new document is that of the time of reading.

        Raises:
            Malformed: a value that has no JSON.
            KeyError: it is no change of a document.
        """
        operation = OPERATIONS[change["operationType"]]
        identity = to_json(change["documentKey"]["_id"])
        old, new = to_json(change.get("fullDocumentBeforeChange")), to_json(change.get("fullDocument"))
        data = b'{"op":"%b","key":{"_id":%b},"old":%b,"new":%b' % (operation.encode(), identity, old, new)
        if change["operationType"] == "update":
            data += b',"changed":' + _changed(change.get("updateDescription") or {})
            data += b',"lookedUp":true' if looked_up else b""
        key = f"{self.collection}:[{identity.decode()}]"
        return self._event(operation, token, data + b"}", when(change), key)

    def row(self, place: str, row: tuple[bytes], _: Table, begin: Begin, number: int) -> Event:
        """The event of a document (in BSON) that the collection has, the `number`-th (from 1) at a place, a token that no change has.

        Raises:
            Malformed: it has no JSON.
        """
        document = decode(row[0])
        if "_id" not in document:
            raise Malformed("the document has no _id")
        identity = to_json(document["_id"])
        data = b'{"op":"%b","key":{"_id":%b},"old":null,"new":%b}' % (SNAPSHOT.encode(), identity, to_json(document))
        time = datetime.fromtimestamp(begin.commit_microseconds / 1e6, UTC)
        key = f"{self.collection}:[{identity.decode()}]"
        return self._event(SNAPSHOT, f"{place}-{number:08X}", data, time, key)[1]

    def barrier(self, change: Mapping[str, Any], token: str) -> tuple[str, Event] | None:
        """(subject, event) of a change of the whole collection; None of one that says nothing of its documents."""
        if change["operationType"] == "drop":
            data = b'{"op":"truncate","key":{},"old":null,"new":null}'
            return self._event("truncate", token, data, when(change))
        if change["operationType"] == "rename":
            to, here = _name(change.get("to")), _name(change.get("ns"))
            why = f"the collection {here} was renamed to {to}; what was in {self.collection} is not there any more"
            return self._event("gap", token, _gap(why), when(change))
        return None

    def gap(self, why: str) -> tuple[str, Event]:
        """(subject, event) that says that changes from before the epoch may be missing."""
        return self._event("gap", _BEFORE_ALL, _gap(why), datetime.now(UTC))

    def _event(
        self, operation: str, token: str, data: bytes, time: datetime, key: str | None = None
    ) -> tuple[str, Event]:
        """Without a key it is a barrier for the collection's other events."""
        database, _, collection = self.collection.partition(".")
        lane = BARRIER_LANE if key is None else names.lane(key)
        subject = names.row_subject(self.namespace, self.connection, database, collection, lane, kind=self.kind)
        identity = f"{self.epoch:08x}-{token[:TOKEN_CHARACTERS]}"
        return subject, Event(
            id=identity,
            source=f"urn:wisp:{self.kind}:{self.namespace}:{self.connection}",
            type=f"dev.wisp.{self.kind}.{operation}",
            subject=self.collection,
            time=time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            datacontenttype="application/json",
            partitionkey=key,
            sequence=identity,
            data=msgspec.Raw(data),
        )


def epoch_of(sequence: str) -> int:
    """The epoch that a sequence begins with; 0 where it is none of ours."""
    try:
        return int(sequence.partition("-")[0], 16)
    except ValueError:
        return 0


def when(change: Mapping[str, Any]) -> datetime:
    """When the change was made: by the server's clock, or where it does not tell, by the cluster's time, in whole seconds."""
    wall = change.get("wallTime")
    if isinstance(wall, datetime):
        return wall
    return datetime.fromtimestamp(change["clusterTime"].time, UTC)


def _changed(description: Mapping[str, Any]) -> bytes:
    """Which fields an update set, removed and shortened; by path, as `address.city`."""
    truncated = [{"field": one["field"], "size": one["newSize"]} for one in description.get("truncatedArrays") or []]
    changed = {"set": description.get("updatedFields") or {}, "unset": description.get("removedFields") or []}
    return to_json(changed | ({"truncated": truncated} if truncated else {}))


def _gap(why: str) -> bytes:
    return b'{"op":"gap","key":{},"old":null,"new":null,"message":%b}' % to_json(why)


def _name(namespace: Any) -> str:
    return f"{namespace['db']}.{namespace['coll']}" if isinstance(namespace, Mapping) else "?"
