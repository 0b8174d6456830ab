"""Keeps the history of every order: each change of a row becomes a row of order_history.

Idempotent: an event's id is the same whenever it is delivered, and order_history takes each id once. Events of one
order arrive one at a time and in the order of their commits, so its history's ids grow in that order too.
"""

import json
import os
from typing import Any

import psycopg2

INSERT = """
    INSERT INTO order_history (event_id, order_id, op, old, new) VALUES (%s, %s, %s, %s, %s)
    ON CONFLICT (event_id) DO NOTHING
"""

_connections: list[Any] = []
"""The connection that the next event uses, if there is one."""


def handler(event: Any) -> None:
    """Handle a CloudEvent of type dev.wisp.postgres.*.

    Raises:
        psycopg2.Error: The database refused or is away; the event comes again.
    """
    row = history_row(event.get_id(), event.get_data())
    connection = _connections.pop() if _connections else psycopg2.connect(os.environ["DSN"], connect_timeout=5)
    with connection, connection.cursor() as cursor:  # commits, or rolls back where this fails
        cursor.execute(INSERT, row)
    _connections.append(connection)  # only a connection that worked is kept
    print(json.dumps({"event": row[0], "order": row[1], "op": row[2]}))


def history_row(event_id: str, change: dict[str, Any]) -> tuple[str, Any, str, str | None, str | None]:
    """Return (event id, order's id, operation, old row, new row); the rows as JSON, None where there is none."""
    old, new = (None if change[side] is None else json.dumps(change[side]) for side in ("old", "new"))
    return event_id, (change.get("key") or {}).get("id"), change["op"], old, new
