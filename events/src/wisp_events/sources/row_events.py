"""Row changes -> CloudEvents, as docs/decisions/0003 lays down.

Invariant: the same transaction read again gives the same events, byte for byte, under the same ids: an id is made of the
source's epoch, the transaction's commit position and the message's place in the transaction, and nothing else decides.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, NamedTuple

import msgspec
import prometheus_client
from wisp_api import names
from wisp_api.cloudevent import Event

from wisp_events.sources.rows import Begin, Change, Missing, Relation, Value

ORDINALS_PER_MESSAGE: Final = 2
"""A change of key makes two events, so each message owns two numbers."""
BARRIER_LANE: Final = 0
"""Where a table's events without a key stand."""
EVENTS = prometheus_client.Counter("wisp_reader_events", "Row changes made into events", ["operation"])
SNAPSHOT: Final = "snapshot"
COUNTED = {operation: EVENTS.labels(operation) for operation in ("insert", "update", "delete", "truncate", SNAPSHOT)}

_UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SEQUENCE = re.compile(r"([0-9a-f]{8})-([0-9a-f]{16})-([0-9a-f]{8})")
_encoder = msgspec.json.Encoder()
_subject = lru_cache(maxsize=4096)(names.row_subject)


class Place(NamedTuple):
    """Where an event stands in its source; ordered as the events are."""

    epoch: int
    """Unix seconds at which the source was first followed without a break; grows where positions may start over."""
    commit_lsn: int
    ordinal: int
    """Within the transaction, from 2 (0: a gap before it)."""

    def __str__(self) -> str:
        """The event's id and sequence: sorts as text as the places do."""
        return f"{self.epoch:08x}-{self.commit_lsn:016x}-{self.ordinal:08x}"

    @classmethod
    def parse(cls, sequence: str) -> "Place | None":
        """The place that a sequence names, if it is one."""
        match = _SEQUENCE.fullmatch(sequence)
        return cls(*(int(part, 16) for part in match.groups())) if match else None


@dataclass(frozen=True, slots=True)
class Table:
    """What the reader does with a table's changes."""

    operations: frozenset[str]
    """Those that some Subscription wants; TRUNCATE counts as delete."""
    key: tuple[str, ...]
    """Primary key columns, in order; taken where the replica identity names none or all."""


@dataclass(frozen=True, slots=True)
class Mapper:
    """Maps the changes of one connection."""

    namespace: str
    connection: str
    epoch: int
    kind: str = "postgres"
    """The source's, in types, subjects and source."""

    @property
    def source(self) -> str:
        """The events' CloudEvents source."""
        return f"urn:wisp:{self.kind}:{self.namespace}:{self.connection}"

    def change(self, change: Change, table: Table, begin: Begin, message: int) -> Iterator[tuple[str, Event]]:
        """(subject, event) of a row change, the `message`-th (from 1) of its transaction; two where the row's key changed.

        Raises:
            ValueError: a value that can't be decoded.
        """
        relation = change.relation
        key_columns = _key_columns(relation, table)
        new_row = change.new
        old_row = change.old
        if new_row and old_row:
            new_row = _filled(new_row, old_row, key_only=change.old_is_key)
        keys = []
        for row in (old_row, new_row):
            if row is not None and (key := _key(relation, key_columns, row)) not in keys:
                keys.append(key)
        old = b"null" if old_row is None else _row(relation, old_row, key_columns if change.old_is_key else None)
        new = b"null" if new_row is None else _row(relation, new_row)
        tail = _unchanged(relation, new_row) if new_row and Missing.UNCHANGED in new_row else b""
        for index, (members, values) in enumerate(keys):
            data = b'{"op":"%b","key":%b,"old":%b,"new":%b%b}' % (change.operation.encode(), members, old, new, tail)
            place = Place(self.epoch, begin.commit_lsn, message * ORDINALS_PER_MESSAGE + index)
            event = self._event(change.operation, relation.name, begin, place, data=data, key=values)
            yield self.subject(relation, names.lane(event.partitionkey or "")), event

    def row(self, relation: Relation, row: tuple[Value, ...], table: Table, begin: Begin, number: int) -> Event:
        """The event of a row that a table has, the `number`-th (from 1) of a snapshot.

        Raises:
            ValueError: a value that can't be decoded.
        """
        found = Change(SNAPSHOT, relation, None, old_is_key=False, new=row)
        [(_, event)] = self.change(found, table, begin, number)
        return event

    def truncate(self, relation: Relation, begin: Begin, message: int) -> tuple[str, Event]:
        """(subject, event) of one table's TRUNCATE; without a key, so that it is a barrier for the table's other events."""
        place = Place(self.epoch, begin.commit_lsn, message * ORDINALS_PER_MESSAGE)
        data = b'{"op":"truncate","key":{},"old":null,"new":null}'
        event = self._event("truncate", relation.name, begin, place, data=data)
        return self.subject(relation, BARRIER_LANE), event

    def gap(self, table: str, position: int, message: str, ordinal: int = 0) -> tuple[str, Event]:
        """The event that says that changes of a table before a place may be missing; a barrier as well."""
        begin = Begin(position, int(datetime.now(UTC).timestamp() * 1e6))
        data = b'{"op":"gap","key":{},"old":null,"new":null,"message":%b}' % _encoder.encode(message)
        schema, _, name = table.partition(".")
        event = self._event("gap", table, begin, Place(self.epoch, position, ordinal), data=data)
        return _subject(self.namespace, self.connection, schema, name, BARRIER_LANE, kind=self.kind), event

    def subject(self, relation: Relation, lane: int) -> str:
        """The log subject of a lane of a table."""
        return _subject(self.namespace, self.connection, relation.schema, relation.table, lane, kind=self.kind)

    def _event(
        self, operation: str, table: str, begin: Begin, place: Place, *, data: bytes, key: bytes | None = None
    ) -> Event:
        identity = str(place)
        return Event(
            id=identity,
            source=self.source,
            type=f"dev.wisp.{self.kind}.{operation}",
            subject=table,
            time=_time(begin.commit_microseconds),
            datacontenttype="application/json",
            partitionkey=None if key is None else f"{table}:{key.decode()}",
            sequence=identity,
            data=msgspec.Raw(data),
        )


def _filled(new: tuple[Value, ...], old: tuple[Value, ...], *, key_only: bool) -> tuple[Value, ...]:
    """The new row with what was not sent taken from the old one; of a key-only row None says nothing."""
    return tuple(
        o if n is Missing.UNCHANGED and not (key_only and o is None) else n for n, o in zip(new, old, strict=True)
    )


def _unchanged(relation: Relation, row: tuple[Value, ...]) -> bytes:
    """The member that names the columns which were not sent."""
    cells = zip(relation.columns, row, strict=True)
    return b',"unchanged":' + _encoder.encode([column.name for column, value in cells if value is Missing.UNCHANGED])


def _key_columns(relation: Relation, table: Table) -> tuple[int, ...]:
    """Indexes of the columns that identify a row; none: the table's rows are one sequence."""
    if relation.replica_identity in "di":
        flagged = tuple(index for index, column in enumerate(relation.columns) if column.identity)
        if flagged:
            return flagged
    positions = {column.name: index for index, column in enumerate(relation.columns)}
    return tuple(positions[name] for name in table.key if name in positions)


def _key(relation: Relation, key_columns: tuple[int, ...], row: tuple[Value, ...]) -> tuple[bytes, bytes]:
    """A row's key as a JSON object and as a JSON array of its values."""
    labels = [relation.columns[index].label for index in key_columns]
    cells = [(relation.columns[index].convert, row[index]) for index in key_columns]
    values = [convert(value) if isinstance(value, bytes) else b"null" for convert, value in cells]
    members = b",".join([label + value for label, value in zip(labels, values, strict=True)])
    return b"{" + members + b"}", b"[" + b",".join(values) + b"]"


def _row(relation: Relation, row: tuple[Value, ...], only: tuple[int, ...] | None = None) -> bytes:
    """A row image as a JSON object without what was not sent, or its columns `only`."""
    columns = relation.columns
    if only is not None:
        columns, row = tuple(columns[index] for index in only), tuple(row[index] for index in only)
    members = [
        column.label + (b"null" if value is None else column.convert(value))
        for column, value in zip(columns, row, strict=True)
        if value is not Missing.UNCHANGED
    ]
    return b"{" + b",".join(members) + b"}"


@lru_cache(maxsize=16)
def _time(microseconds: int) -> str:
    """RFC 3339 in UTC."""
    return (_UNIX_EPOCH + timedelta(microseconds=microseconds)).isoformat().replace("+00:00", "Z")
