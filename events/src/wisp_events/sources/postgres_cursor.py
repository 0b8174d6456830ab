"""Cursors that wait for a PostgreSQL server for a time only.

libpq waits for an answer for ever, and keepalives tell of a machine that is gone, not of a server that hangs or was paused while it was
asked. Whoever waits in vain neither reports nor takes up a mended Secret. Invariant: what asks the server something ends in time, with
an answer or an `OperationalError`, however slowly the answer comes.
"""

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any, Final

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812 - a class with a lower-case name
from psycopg2.extensions import cursor as Plain  # noqa: N812 - as well
from psycopg2.extras import ReplicationCursor as Replicating

ANSWER_SECONDS: Final = 90.0
"""The server's own bounds, which tell more, are shorter."""
ROWS_SECONDS: Final = 3600.0
"""Between a table's first rows there may be a terabyte of dead ones."""


class Cursor(Plain):
    """Of a usual session."""

    def execute(self, *given: Any) -> None:
        """As psycopg2's."""
        with _within(self.connection, ANSWER_SECONDS):
            super().execute(*given)

    def fetchmany(self, *given: Any) -> list[tuple[Any, ...]]:
        """As psycopg2's, which asks the server where the cursor has a name."""
        with _within(self.connection, ROWS_SECONDS):
            return super().fetchmany(*given)


class ReplicationCursor(Replicating):
    """Of a replication session."""

    def execute(self, *given: Any) -> None:
        """As psycopg2's."""
        with _within(self.connection, ANSWER_SECONDS):
            super().execute(*given)

    def start_replication(self, *given: Any, **named: Any) -> None:
        """As psycopg2's."""
        with _within(self.connection, ANSWER_SECONDS):
            super().start_replication(*given, **named)


@contextlib.contextmanager
def _within(session: Connection, seconds: float) -> Iterator[None]:
    """End the session's connection where the block takes longer.

    Raises:
        psycopg2.OperationalError: it did.
    """
    late = threading.Event()
    held = socket.socket(fileno=os.dup(session.fileno()))  # stays the session's own whoever closes what

    def cut() -> None:
        late.set()
        with contextlib.suppress(OSError):  # it has ended by itself
            held.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    except psycopg2.Error:
        if late.is_set():
            raise psycopg2.OperationalError(f"the server did not answer within {seconds:g} s") from None
        raise
    finally:
        timer.cancel()
        timer.join()
        held.close()
