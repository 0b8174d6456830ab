"""Keeps the history of every order: each change of a row becomes a row of order_history.

Idempotent: an event's id is the same whenever it is delivered, and order_history takes each id once. Events of one
order arrive one at a time and in the order of their commits, so its history's ids grow in that order too. A TRUNCATE
arrives when everything before it is done, and ends the history of every order that there was; a gap is no change of an
order, but has to be looked into: changes before it never came.
"""

import json
import os
from typing import Any

import psycopg2

INSERT = """
    INSERT INTO order_history (event_id, order_id, op, old, new) VALUES (%s, %s, %s, %s, %s)
    ON CONFLICT (event_id) DO NOTHING
"""
TRUNCATE = """
    INSERT INTO order_history (event_id, order_id, op, old)
    SELECT %(id)s || '/' || order_id, order_id, 'truncate', new FROM (
        SELECT DISTINCT ON (order_id) order_id, new FROM order_history
        WHERE event_id < %(id)s COLLATE "C" ORDER BY order_id, id DESC
    ) AS last_known WHERE new IS NOT NULL
    ON CONFLICT (event_id) DO NOTHING
"""
"""Ids sort as the changes do: orders that are newer than the TRUNCATE stay out of it when it is delivered again."""

_connections: list[Any] = []
"""The connection that the next event uses, if there is one."""


def handler(event: Any) -> None:
    """Handle a CloudEvent of type dev.wisp.postgres.*.

    Raises:
        psycopg2.Error: The database refused or is away; the event comes again.
    """
    event_id, change = event.get_id(), event.get_data()
    if change["op"] == "gap":
        print(json.dumps({"level": "warning", "event": event_id, "message": change["message"]}))
        return
    statement = (TRUNCATE, {"id": event_id}) if change["op"] == "truncate" else (INSERT, history_row(event_id, change))
    connection = _connections.pop() if _connections else psycopg2.connect(os.environ["DSN"], connect_timeout=5)
    with connection, connection.cursor() as cursor:  # commits, or rolls back where this fails
        cursor.execute(*statement)
    _connections.append(connection)  # only a connection that worked is kept
    print(json.dumps({"event": event_id, "key": change["key"], "op": change["op"]}))


def history_row(event_id: str, change: dict[str, Any]) -> tuple[str, Any, str, str | None, str | None]:
    """Return (event id, order's id, operation, old row, new row); the rows as JSON, None where there is none."""
    old, new = (None if change[side] is None else json.dumps(change[side]) for side in ("old", "new"))
    return event_id, change["key"]["id"], change["op"], old, new
