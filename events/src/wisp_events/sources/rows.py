"""Changes of rows, as every database's decoder tells them and `row_events` makes them into events."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, TypeAlias

Convert: TypeAlias = Callable[[bytes], bytes]


class Malformed(ValueError):  # noqa: N818 - the reason that dead letters carry
    """Raised when bytes are no message of the protocol, or a value can't be decoded."""


class Missing(Enum):
    """Stands for a value that the server did not send because it did not change."""

    UNCHANGED = "unchanged"


Value: TypeAlias = bytes | Missing | None
"""A column as its source writes it, SQL NULL, or not sent."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table."""

    name: str
    identity: bool
    """Part of what identifies a row: the replica identity, or the primary key."""
    label: bytes
    """The name as a JSON member, colon included."""
    convert: Convert
    """From the source's bytes to JSON."""


@dataclass(frozen=True, slots=True)
class Relation:
    """A table as the server announced it before the first change of its current shape."""

    oid: int
    """The server's number for it."""
    schema: str
    table: str
    replica_identity: str
    """PostgreSQL's pg_class.relreplident: d(efault), n(othing), f(ull), i(ndex). d, too, where the server sends whole rows and names the key."""
    columns: tuple[Column, ...]

    @property
    def name(self) -> str:
        """`schema.table`, unquoted."""
        return f"{self.schema}.{self.table}"


class Begin(NamedTuple):
    """Start of a transaction."""

    commit_lsn: int
    """Its place in the source, which grows."""
    commit_microseconds: int
    """Unix time."""


class Change(NamedTuple):
    """One row's change."""

    operation: str
    """insert, update or delete."""
    relation: Relation
    old: tuple[Value, ...] | None
    """Absent unless the server sent it: all columns under replica identity FULL, else the identity's (others None)."""
    old_is_key: bool
    new: tuple[Value, ...] | None


class Truncate(NamedTuple):
    """TRUNCATE of one or more tables."""

    relations: tuple[Relation, ...]
