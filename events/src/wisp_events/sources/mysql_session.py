"""Sessions with a MySQL or MariaDB server, and what its refusals mean to the user.

Invariant: every error of the server or the network leaves here as a `Trouble` with a cure, and none quotes the DSN.
"""

import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

import pymysql
from wisp_api import conditions

from wisp_events.sources.binlog_payload import LARGEST_BYTES
from wisp_events.sources.mysql_gtid import GtidSet, MysqlSet
from wisp_events.sources.reader import Trouble

CONNECT_SECONDS: Final = 5
SESSION_SECONDS: Final = 20
SILENT_SECONDS: Final = 30
HEARTBEAT_SECONDS: Final = 1
PATIENT_SECONDS: Final = 86_400
"""How long the server may wait for the reader to take more: it stands still while rows are written, or the log is away."""
OPEN_CURE: Final = "a transaction that is open has to end first: see information_schema.innodb_trx; trying again"
_DUMP, _DUMP_GTID = 0x12, 0x1E
_THROUGH_GTID: Final = 4
_FORM: Final = "mysql://user:password@host:3306, with ?ssl-mode=required or verify for TLS"
_DENIED: Final = (1044, 1142, 1143, 1227, 1370)
"""The account may log in, and not do this."""
_PASSWORD: Final = (1045, 1698, 1251, 2061)
_PURGED: Final = (
    "purged",
    "could not find gtid state",
    "is not in the master's binlog",
    "missing the gtid",
    "more gtids than",
)
"""The server's words for transactions that it can't send any more, or never had."""


class Purged(Exception):  # noqa: N818 - states what was found
    """Raised when the server does not have what follows the given position."""


def parse(dsn: str, authority: str = "") -> dict[str, Any]:
    """What PyMySQL needs of a DSN; `authority` is a certificate authority in PEM.

    Raises:
        Trouble: it is none.
    """
    try:
        parts = urlsplit(dsn)
        options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        (parts.hostname or "").encode("idna")  # the driver would raise it where nobody expects it
        mode, port = options.pop("ssl-mode", "disabled"), parts.port or 3306
        fits = parts.scheme in ("mysql", "mariadb") and parts.hostname and parts.username and not options
    except ValueError:  # its message may quote the DSN, password and all
        fits = False
    if not fits or mode not in ("disabled", "required", "verify"):
        raise Trouble(
            conditions.INVALID_CONNECTION, f"key dsn of the connection's Secret can't be parsed; write {_FORM}"
        )
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    found: dict[str, Any] = {"host": parts.hostname, "port": port, "user": user, "password": password}
    if mode == "disabled":
        return found | {"ssl_disabled": True}
    return found | {"ssl": _tls(authority, verify=mode == "verify")}


class _InTheClear:
    """Answers a server, or who is between, that asks for the password itself: with nothing, where there is no TLS."""

    def __init__(self, session: object) -> None:
        del session
        message = "the server asks for the password in the clear, and is told it through TLS only"
        raise Trouble(conditions.INVALID_CONNECTION, f"{message}: add ?ssl-mode=verify or required to the Secret's dsn")


def _tls(authority: str, *, verify: bool) -> ssl.SSLContext:
    """Raises: Trouble: the authority's certificate can't be read."""
    try:
        context = ssl.create_default_context(cadata=authority or None)
    except ssl.SSLError as error:
        message = f"key ca.crt of the connection's Secret is no certificate in PEM: {error}"
        raise Trouble(conditions.INVALID_CONNECTION, message) from None
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def open_session(dsn: str, authority: str = "", *, seconds: float = SESSION_SECONDS) -> Any:
    """Connect.

    Raises:
        Trouble: the server can't be reached, or refuses; with the reason and the cure.
    """
    given = parse(dsn, authority)
    with explained():
        return pymysql.connect(
            **given,
            auth_plugin_map={} if "ssl" in given else {"mysql_clear_password": _InTheClear},
            charset="utf8mb4",
            autocommit=True,
            connect_timeout=CONNECT_SECONDS,
            read_timeout=seconds,
            write_timeout=seconds,
            program_name="wisp-reader",
        )


@contextmanager
def connect(dsn: str, authority: str = "") -> Iterator[Any]:
    """A cursor of a session that is closed at the end of the block.

    Raises:
        Trouble: the server can't be reached, or refuses what is asked.
    """
    session = open_session(dsn, authority)
    try:
        with explained(), session.cursor() as cursor:
            yield cursor
    finally:
        session.close()


@contextmanager
def explained() -> Iterator[None]:
    """Turn the server's refusals into conditions with a cure.

    Raises:
        Trouble: instead of any error of PyMySQL or the network.
    """
    try:
        yield
    except (pymysql.Error, OSError, RuntimeError) as error:
        raise refusal(error) from None


def refusal(error: Exception) -> Trouble:
    """What an error means to the user."""
    code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    brief = " ".join(str(error.args[-1] if error.args else error).split()).rstrip(".") or type(error).__name__
    if code in _PASSWORD:
        return Trouble(
            conditions.AUTHENTICATION_FAILED, f"{brief}; put the right user and password into the connection's Secret"
        )
    if code in _DENIED:
        return Trouble(
            conditions.PERMISSION_DENIED,
            f"{brief}; run: GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO <user> (MariaDB: also BINLOG MONITOR), "
            "and GRANT SELECT on the tables; for the rows of tables also GRANT LOCK TABLES on their databases",
        )
    if code == 1205:  # noqa: PLR2004 - a lock was waited for in vain
        return Trouble(conditions.WAITING_FOR_TRANSACTIONS, f"{brief.partition(';')[0]}; {OPEN_CURE}")
    if code == 1049:  # noqa: PLR2004 - unknown database
        return Trouble(conditions.INVALID_CONNECTION, f"{brief}; correct key dsn of the connection's Secret")
    return Trouble(conditions.SERVER_UNREACHABLE, f"{brief}; trying again")


def open_dump(dsn: str, authority: str, server_id: int, read: GtidSet) -> Any:
    """A connection on which the server sends all transactions that are not in `read`, and waits for more.

    A predecessor that still holds a connection under this server id is ended by the server.

    Raises:
        Trouble: the server refuses.
    """
    session = open_session(dsn, authority, seconds=SILENT_SECONDS)
    mysql = isinstance(read, MysqlSet)
    try:
        with explained():
            with session.cursor() as cursor:
                cursor.execute("SET net_write_timeout = %s", (PATIENT_SECONDS,))
                cursor.execute("SET @master_binlog_checksum = @@global.binlog_checksum")
                cursor.execute("SET @master_heartbeat_period = %s", (HEARTBEAT_SECONDS * 1_000_000_000,))
                if mysql:
                    cursor.execute("SET @source_binlog_checksum = @@global.binlog_checksum")
                    cursor.execute("SET @source_heartbeat_period = %s", (HEARTBEAT_SECONDS * 1_000_000_000,))
                else:
                    cursor.execute("SET @mariadb_slave_capability = 4")
                    cursor.execute("SET @slave_connect_state = %s", (str(read),))
                    cursor.execute("SET @slave_gtid_strict_mode = 1, @slave_gtid_ignore_duplicates = 0")
            _ask(session, server_id, read)
    except BaseException:
        session.close()
        raise
    return session


def _ask(session: Any, server_id: int, read: GtidSet) -> None:
    """Send the request for the binary log."""
    if isinstance(read, MysqlSet):
        encoded = read.encoded()
        body = struct.pack("<HIIQI", _THROUGH_GTID, server_id, 0, 4, len(encoded)) + encoded
        session._execute_command(_DUMP_GTID, body)  # noqa: SLF001 - PyMySQL has no other way to send one
    else:
        session._execute_command(_DUMP, struct.pack("<IHI", 4, 0, server_id))  # noqa: SLF001


def receive(connection: socket.socket, most: int) -> bytes:
    """What has come on a connection of `open_dump`, waiting for something; the server sends a heartbeat every second.

    Raises:
        Trouble: the connection broke.
    """
    try:
        data = connection.recv(most)
    except TimeoutError:
        silent = f"the server was silent for {SILENT_SECONDS} s; trying again"
        raise Trouble(conditions.SERVER_UNREACHABLE, silent) from None
    except OSError as error:
        raise Trouble(conditions.SERVER_UNREACHABLE, f"the connection broke: {error}; trying again") from None
    if not data:
        raise Trouble(conditions.SERVER_UNREACHABLE, "the connection broke: the server closed it; trying again")
    return data


class Packets:
    """Cuts what the server sends into packets; of one that is too large the beginning is kept."""

    def __init__(self) -> None:
        """Nothing has come."""
        self._buffer = bytearray()
        self._long = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The packets that are complete now."""
        self._buffer += data
        at, have = 0, len(self._buffer)
        while have - at >= 4:  # noqa: PLR2004 - a packet's header
            length = int.from_bytes(self._buffer[at : at + 3], "little")
            if have - at < 4 + length:
                break
            packet = bytes(self._buffer[at + 4 : at + 4 + length])
            at += 4 + length
            if len(self._long) < LARGEST_BYTES:
                self._long += packet
            if length == 0xFFFFFF:  # noqa: PLR2004 - the next one continues it
                continue
            whole, self._long = self._long, b""
            yield whole
        del self._buffer[:at]


def event(packet: bytes) -> bytes:
    """The binary log event in a packet.

    Raises:
        Purged: the server has not what was asked for.
        Trouble: it ends the stream.
    """
    if packet[:1] == b"\0":
        return packet[1:]
    if packet[:1] != b"\xff":
        raise Trouble(conditions.SERVER_UNREACHABLE, "the server ended the stream; trying again")
    code = int.from_bytes(packet[1:3], "little")
    message = packet[9:].decode(errors="replace") if packet[3:4] == b"#" else packet[3:].decode(errors="replace")
    if code == 1236 and any(words in message.lower() for words in _PURGED):  # noqa: PLR2004 - reading the log failed
        raise Purged(" ".join(message.split()).rstrip("."))
    raise refusal(pymysql.OperationalError(code, message))
