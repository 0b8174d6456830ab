"""A row event read, as `row_events` and `mongodb_events` of the sources write it, and what it says to those who know rows by their keys.

A change of key comes as two updates, one under each key. For who keeps a copy by key it is what DynamoDB and Debezium make of it: the
old row is gone, and a new one is there.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import msgspec
from wisp_api.cloudevent import Event

Row = Mapping[str, Any]
INSERT: Final = "insert"
UPDATE: Final = "update"
DELETE: Final = "delete"


def operation(op: str, key: Row, old: Row | None, new: Row | None) -> str:
    """What happened to the row with this key: the event's word, or the half of a change of key that it stands for."""
    if op != UPDATE or not old or not new:
        return op
    if all(old.get(name, new.get(name)) == new.get(name) for name in key):
        return UPDATE
    return DELETE if all(old.get(name) == value for name, value in key.items()) else INSERT


def data(event: Event) -> msgspec.Raw:
    """The event's data.

    Raises:
        ValueError: it has none.
    """
    if event.data is None:
        raise ValueError("the event has no data in JSON")
    return event.data


def moment(event: Event, stored: float) -> float:
    """Unix time of what the event tells, or where it does not say, of its storing."""
    try:
        return datetime.fromisoformat(event.time).timestamp() if event.time else stored
    except ValueError:
        return stored


def table(event: Event) -> tuple[str, str]:
    """Schema and table, or database and collection."""
    schema, _, name = (event.subject or "").partition(".")
    return schema, name


def connection(event: Event) -> str:
    """The connection that the event's source names."""
    return event.source.rpartition(":")[2]
