"""Sessions with a PostgreSQL server, and what its refusals mean to the user.

Invariant: every error of the server or the network leaves here as a `Trouble` with a cure, and none quotes the DSN. Whoever asks is
answered in time (`postgres_cursor`).
"""

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg2
import psycopg2.errors
from psycopg2.extensions import connection as Connection  # noqa: N812 - a class with a lower-case name
from psycopg2.extensions import parse_dsn
from psycopg2.extras import LogicalReplicationConnection
from wisp_api import conditions

from wisp_events.sources.postgres_cursor import Cursor, ReplicationCursor
from wisp_events.sources.reader import Trouble

CONNECT_SECONDS: Final = 5
_FORM: Final = "write postgresql://user:password@host:5432/database, and in the password %40 for @, %2F for /, %3A for :, %25 for %"
_PORTS: Final = re.compile(r"[\d, ]*")
"""Empty where the DSN has none."""
_PARAMETERS: Final[dict[str, Any]] = {
    "connect_timeout": CONNECT_SECONDS,
    "client_encoding": "UTF8",
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
    "application_name": "wisp-reader",
}


def open_session(dsn: str, **parameters: Any) -> Connection:
    """Connect.

    Raises:
        Trouble: the server can't be reached, or refuses; with the reason and the cure.
    """
    try:
        _check(dsn)
        session: Connection = psycopg2.connect(dsn, **_PARAMETERS, **parameters)
        replicating = isinstance(session, LogicalReplicationConnection)
        session.cursor_factory = ReplicationCursor if replicating else Cursor
    except psycopg2.ProgrammingError:  # its message may quote the DSN, password and all
        raise Trouble(
            conditions.INVALID_CONNECTION, f"key dsn of the connection's Secret can't be parsed; {_FORM}"
        ) from None
    except psycopg2.OperationalError as error:
        raise _refusal(str(error)) from None
    return session


def _check(dsn: str) -> None:
    """Refuse a DSN of whose password libpq would take a part for the host or the port, which its errors quote.

    Raises:
        Trouble: such a one.
        psycopg2.ProgrammingError: it can't be parsed.
    """
    parts = parse_dsn(dsn)
    named = f"{parts.get('host', '')},{parts.get('hostaddr', '')}"
    rest = dsn.partition("://")[2].partition("/")[2].partition("?")[0]
    if "@" in named + rest or not _PORTS.fullmatch(parts.get("port", "")):
        raise Trouble(
            conditions.INVALID_CONNECTION,
            f"key dsn of the connection's Secret has a host or a port that is none; {_FORM}",
        )


@contextmanager
def connect(dsn: str) -> Iterator[Connection]:
    """A session that is closed at the end of the block.

    Raises:
        Trouble: as `open_session`.
    """
    session = open_session(dsn)
    try:
        yield session
    finally:
        session.close()


def _refusal(message: str) -> Trouble:
    """Why a connection failed; libpq gives no error code here, so the server's words decide."""
    brief = " ".join(message.split())
    if "no pg_hba.conf entry" in message:
        return Trouble(conditions.PERMISSION_DENIED, f"{brief}; add an entry for this user and database to pg_hba.conf")
    if "authentication failed" in message or "no password supplied" in message:
        return Trouble(
            conditions.AUTHENTICATION_FAILED, f"{brief}; put the right user and password into the connection's Secret"
        )
    if "to start" in message and re.search(r"wal ?sender", message, re.IGNORECASE):
        return Trouble(conditions.PERMISSION_DENIED, f"{brief}; run: ALTER ROLE <user> REPLICATION")
    if re.search(r'((database|role) ".*"|local user with ID \d+) does not exist', message):
        return Trouble(conditions.INVALID_CONNECTION, f"{brief}; correct key dsn of the connection's Secret")
    return Trouble(conditions.SERVER_UNREACHABLE, f"{brief}; trying again")


@contextmanager
def explained() -> Iterator[None]:
    """Turn the server's refusals of what this module asks into conditions with a cure.

    Raises:
        Trouble: instead of any psycopg2 error.
    """
    try:
        yield
    except psycopg2.Error as error:
        brief = (error.diag.message_primary or " ".join(str(error).split()) or type(error).__name__).rstrip(".")
        raise _trouble(error, brief) from None


def _trouble(error: psycopg2.Error, brief: str) -> Trouble:
    if isinstance(error, psycopg2.errors.InsufficientPrivilege):
        return Trouble(
            conditions.PERMISSION_DENIED,
            f"{brief}; the connection's role needs REPLICATION, CREATE on the database and ownership of the tables: "
            "ALTER ROLE <user> REPLICATION; GRANT CREATE ON DATABASE <database> TO <user>; GRANT <table owner> TO <user>",
        )
    if isinstance(error, psycopg2.errors.ConfigurationLimitExceeded):
        return Trouble(conditions.LOGICAL_DECODING_OFF, f"{brief}; raise max_replication_slots and max_wal_senders")
    if isinstance(error, psycopg2.errors.ReadOnlySqlTransaction):
        return Trouble(conditions.INVALID_CONNECTION, f"{brief}; name the primary server in key dsn")
    if isinstance(error, psycopg2.errors.QueryCanceled | psycopg2.errors.LockNotAvailable):
        return Trouble(
            conditions.WAITING_FOR_TRANSACTIONS,
            f"{brief}; a transaction that was open before holds up the slot or a table: see pg_stat_activity; trying again",
        )
    return Trouble(conditions.SERVER_UNREACHABLE, f"{brief}; trying again")


def blocker(cursor: Any, pids: Collection[int]) -> str:
    """The oldest of the transactions of these backends, what waits for it and what to do; empty without any.

    It names the time at which the transaction began, not its age: a report that stays the same is written once.
    """
    cursor.execute(
        "SELECT pid, usename::text, to_char(xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') "
        "FROM pg_stat_activity WHERE pid = ANY(%s) ORDER BY xact_start LIMIT 1",
        (list(pids),),
    )
    if found := cursor.fetchone():
        pid, role, since = found
        return (
            f"a transaction of role {role} that is open since {since or 'before'} has to end first: "
            f"end it, or run SELECT pg_terminate_backend({pid})"
        )
    if 0 in pids:
        return "a prepared transaction has to end first: see pg_prepared_xacts, and run COMMIT PREPARED or ROLLBACK PREPARED"
    return ""
