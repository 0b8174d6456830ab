"""A row event in Debezium's envelope, as its connectors write it as JSON without schema.

Specification: Debezium reference documentation, "Data change events" of the connectors for PostgreSQL, MySQL and MongoDB.

Invariant: rows are copied, not decoded: their values are those of the CloudEvent. MongoDB's are JSON in a string, as its connector has them.
"""

import base64
from typing import Any, Final

import msgspec
from wisp_api.cloudevent import Event

from wisp_events.router.formats import rows

OPERATIONS: Final = {"insert": "c", "update": "u", "delete": "d", "snapshot": "r", "truncate": "t", "gap": "m"}
"""`m` is what Debezium calls a message: something in the source's log that is no change of a row."""
GAP: Final = "dev.wisp.gap"
"""The prefix of such a message."""
UNAVAILABLE: Final = "__debezium_unavailable_value"
"""Stands for a value that the server did not send."""
_MONGODB: Final = "mongodb"
_CONNECTORS: Final = {"postgres": "postgresql"}
"""Debezium's names where they are not ours."""


class _Changed(msgspec.Struct):
    set: msgspec.Raw = msgspec.Raw(b"{}")
    unset: list[str] = []
    truncated: list[dict[str, Any]] = []


class _Row(msgspec.Struct):
    op: str
    key: dict[str, msgspec.Raw]
    old: dict[str, msgspec.Raw] | None = None
    new: dict[str, msgspec.Raw] | None = None
    unchanged: list[str] = []
    message: str | None = None
    changed: _Changed | None = None


_decoder = msgspec.json.Decoder(_Row)
_encode = msgspec.json.Encoder().encode
_UNAVAILABLE = msgspec.Raw(_encode(UNAVAILABLE))


def record(_: str, event: Event, stored: float) -> bytes:
    """The event in its envelope.

    Raises:
        ValueError: the event tells of no row.
        RecursionError: a value is nested too deeply.
    """
    row = _decoder.decode(rows.data(event))
    done = rows.operation(row.op, row.key, row.old, row.new)
    kind = event.type.removeprefix("dev.wisp.").partition(".")[0]
    before, after = (None if done == rows.INSERT else row.old), (None if done == rows.DELETE else row.new)
    if after is not None:
        after |= dict.fromkeys(row.unchanged, _UNAVAILABLE)
    in_text = kind == _MONGODB
    made = {
        "before": _text(before) if in_text else before,
        "after": _text(after) if in_text else after,
        "source": _source(kind, event, stored, snapshot=done == "snapshot"),
        "op": OPERATIONS.get(done, done),
        "ts_ms": int(stored * 1000),
        "transaction": None,
    }
    if row.changed:
        made["updateDescription"] = _description(row.changed)
    if row.message is not None:
        made["message"] = {"prefix": GAP, "content": base64.b64encode(row.message.encode()).decode()}
    return _encode(made)


def _source(kind: str, event: Event, stored: float, *, snapshot: bool) -> dict[str, Any]:
    """Where it comes from; the database of PostgreSQL's tables is known by its connection alone."""
    connection, (schema, name) = rows.connection(event), rows.table(event)
    where = {"db": connection, "schema": schema, "table": name} if kind == "postgres" else {"db": schema, "table": name}
    if kind == _MONGODB:
        where = {"db": schema, "collection": name}
    return {
        "version": "wisp",
        "connector": _CONNECTORS.get(kind, kind),
        "name": connection,
        "ts_ms": int(rows.moment(event, stored) * 1000),
        "snapshot": "true" if snapshot else "false",
        **where,
        **_position(kind, event),
        "eventId": event.id,
    }


def _position(kind: str, event: Event) -> dict[str, int]:
    """PostgreSQL's position of the commit, which stands in the event's sequence."""
    parts = (event.sequence or "").split("-")
    if kind != "postgres" or len(parts) != 3:  # noqa: PLR2004 - see `sources.row_events.Place`
        return {}
    return {"lsn": int(parts[1], 16)}


def _text(document: rows.Row | None) -> str | None:
    return None if document is None else _encode(document).decode()


def _description(changed: _Changed) -> dict[str, Any]:
    return {
        "updatedFields": bytes(changed.set).decode(),
        "removedFields": changed.unset or None,
        "truncatedArrays": changed.truncated or None,
    }
