"""Keeps running totals of the orders, minute by minute, from the changes of their rows, a batch at a time.

Exactly once in effect: a batch is one statement, which remembers each change by its event's id beside the totals that it moves. A
batch that comes again, whole or in other company, moves nothing. The minute is that of the change's commit, not the clock's: what
comes late counts where it belongs.
"""

import json
import os
from typing import Any

import psycopg2

ADD = """
    WITH change AS (
        SELECT DISTINCT ON (id) id, date_trunc('minute', at) AS minute, orders, total
        FROM unnest(%s::text[], %s::timestamptz[], %s::bigint[], %s::numeric[]) AS given (id, at, orders, total)
    ), fresh AS (
        INSERT INTO order_totals_changes (event_id) SELECT id FROM change
        ON CONFLICT DO NOTHING RETURNING event_id
    )
    INSERT INTO order_totals AS t (minute, orders, total)
    SELECT minute, sum(change.orders), sum(change.total) FROM change JOIN fresh ON event_id = id
    GROUP BY minute ORDER BY minute
    ON CONFLICT (minute) DO UPDATE SET orders = t.orders + excluded.orders, total = t.total + excluded.total
"""
"""Minutes in their order, so that two batches at once never wait for each other."""
FORGET = "DELETE FROM order_totals_changes WHERE counted < now() - interval '8 days'"
"""Longer than events are kept: nothing older comes again."""

_connections: list[Any] = []
"""The connection that the next batch uses, if there is one."""


def handler(events: list[dict[str, Any]], context: Any) -> None:
    """Handle a batch of CloudEvents of type dev.wisp.postgres.*.

    Raises:
        psycopg2.Error: The database refused or is away; the batch comes again.
    """
    del context
    moves = [(event["id"], event["time"], *move(event["data"])) for event in events]
    columns = [list(column) for column in zip(*moves, strict=True)]
    connection = _connections.pop() if _connections else psycopg2.connect(os.environ["DSN"], connect_timeout=5)
    with connection, connection.cursor() as cursor:  # commits, or rolls back where this fails
        cursor.execute(ADD, columns)
        cursor.execute(FORGET)
    _connections.append(connection)  # only a connection that worked is kept
    print(json.dumps({"message": "counted", "changes": len(moves), "last": moves[-1][0]}))


def move(change: dict[str, Any]) -> tuple[int, str]:
    """Return by how much a change moves the number of orders and their worth; a gap or a TRUNCATE has no rows and moves neither."""
    old, new = change.get("old"), change.get("new")
    worth = (new["total"] if new else 0) - (old["total"] if old else 0)
    return (new is not None) - (old is not None), f"{worth:.2f}"
