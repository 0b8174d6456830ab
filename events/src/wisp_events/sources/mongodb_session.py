"""Clients of a MongoDB deployment, and what its refusals mean to the user.

Invariant: every error of the server or the network leaves here as a `Trouble` with a cure, and none quotes the DSN.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, TypeAlias, TypeVar
from urllib.parse import parse_qs, urlsplit

from bson.raw_bson import RawBSONDocument
from pymongo import AsyncMongoClient, MongoClient
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import ConfigurationError, OperationFailure, PyMongoError
from wisp_api import conditions

from wisp_events.sources.reader import Trouble

Client: TypeAlias = AsyncMongoClient[RawBSONDocument]
Collection: TypeAlias = AsyncCollection[RawBSONDocument]
Blocking: TypeAlias = MongoClient[RawBSONDocument]
"""For threads."""
C = TypeVar("C", Client, Blocking)

CONNECT_SECONDS: Final = 5
SILENT_SECONDS: Final = 30
_FORM: Final = "mongodb://user:password@host:27017/?authSource=admin, with &tls=true for TLS"
_PASSWORD: Final = (18, 8000)
_DENIED: Final = (13,)
_NO_COLLECTION: Final = (166,)
"""A view; a time series is one."""
_NO_STREAMS: Final = (40573,)
"""Not a replica set."""
LOST: Final = (136, 260, 280, 286)
"""The server's codes for a place in its oplog that it has not, or not any more."""
TOO_LARGE: Final = 10334
"""An event of more than 16 MiB, which the server refuses to make."""


@asynccontextmanager
async def connect(dsn: str, authority: str = "") -> AsyncIterator[Client]:
    """A client that is closed at the end of the block; `authority` is a certificate authority in PEM.

    Raises:
        Trouble: the DSN is none, or the block was refused something.
    """
    with _file(authority if _encrypted(dsn) else "") as path:
        client = _client(AsyncMongoClient[RawBSONDocument], dsn, path)
        try:
            with explained():
                yield client
        finally:
            await client.close()


@asynccontextmanager
async def connect_blocking(dsn: str, authority: str = "") -> AsyncIterator[Blocking]:
    """As `connect`, for threads."""
    with _file(authority if _encrypted(dsn) else "") as path:
        client = await asyncio.to_thread(_client, MongoClient[RawBSONDocument], dsn, path)
        try:
            yield client
        finally:
            await asyncio.to_thread(client.close)


def _client(kind: type[C], dsn: str, authority: str) -> C:
    milliseconds = CONNECT_SECONDS * 1000
    tls: dict[str, Any] = {"tlsCAFile": authority} if authority else {}
    try:
        _check(dsn)
        return kind(
            dsn,
            connect=False,
            document_class=RawBSONDocument,  # decoded one by one, so that a malformed one is no other one's trouble
            appname="wisp-reader",
            serverSelectionTimeoutMS=milliseconds,
            connectTimeoutMS=milliseconds,
            socketTimeoutMS=SILENT_SECONDS * 1000,
            maxPoolSize=0,  # each collection waits on a connection of its own
            **tls,
        )
    except (PyMongoError, ValueError, TypeError, OSError):  # their messages may quote the DSN, password and all
        message = f"key dsn of the connection's Secret (or its ca.crt) can't be used; write {_FORM}"
        raise Trouble(conditions.INVALID_CONNECTION, message) from None


def _check(dsn: str) -> None:
    """Raises: ValueError: with a / in its password, of which the driver would take what stands before it for the server's port, and tell it."""
    if "@" in urlsplit(dsn).path:
        raise ValueError("a / in the password")


def _encrypted(dsn: str) -> bool:
    """Whether it asks for TLS; what can't be parsed is refused by the driver."""
    try:
        parts = urlsplit(dsn)
    except ValueError:
        return False
    options = {name.lower(): values[-1].lower() for name, values in parse_qs(parts.query).items()}
    wanted = options.get("tls", options.get("ssl", "true" if parts.scheme == "mongodb+srv" else "false"))
    return wanted == "true"


@contextmanager
def _file(text: str) -> Iterator[str]:
    """A path of a file with this text that is on no disk; empty where the text is. The driver takes certificates by path alone."""
    if not text:
        yield ""
        return
    handle = os.memfd_create("ca.crt")
    try:
        os.write(handle, text.encode())
        yield f"/proc/self/fd/{handle}"
    finally:
        os.close(handle)


@contextmanager
def explained() -> Iterator[None]:
    """Turn the server's refusals into conditions with a cure.

    Raises:
        Trouble: instead of any error of the driver or the network.
    """
    try:
        yield
    except (PyMongoError, OSError) as error:
        raise refusal(error) from None


def refusal(error: Exception) -> Trouble:
    """What an error means to the user."""
    code = error.code if isinstance(error, OperationFailure) else None
    brief = _brief(error)
    if code in _PASSWORD:
        cure = "put the right user, password and authSource into the connection's Secret"
        return Trouble(conditions.AUTHENTICATION_FAILED, f"{brief}; {cure}")
    if code in _DENIED:
        cure = "run on the server: db.grantRolesToUser('<user>', [{role: 'read', db: '<database>'}])"
        return Trouble(conditions.PERMISSION_DENIED, f"{brief}; {cure}")
    if code in _NO_COLLECTION:
        return Trouble(conditions.TABLE_NOT_FOUND, f"{brief}; only a collection has changes, no view")
    if code in _NO_STREAMS or isinstance(error, ConfigurationError):
        cure = (
            "MongoDB 6.0 or newer as a replica set or sharded cluster is needed; one server can be a replica set, too"
        )
        return Trouble(conditions.CHANGE_STREAMS_OFF, f"{brief}; {cure}")
    return Trouble(conditions.SERVER_UNREACHABLE, f"{brief}; trying again")


def _brief(error: Exception) -> str:
    """The first of what it says; the driver adds what it knows of all servers."""
    said = error.details.get("errmsg") if isinstance(error, OperationFailure) and error.details else None
    text = (
        str(said or error)
        .partition(", full error:")[0]
        .partition(" (configured timeouts:")[0]
        .partition(", Timeout:")[0]
    )
    return " ".join(text.split()).rstrip(".") or type(error).__name__


def collection(client: Client, name: str) -> Collection:
    """The collection that `database.collection` names."""
    database, _, rest = name.partition(".")
    return client[database][rest]


async def now(client: Client, name: str) -> str:
    """The token of a collection's present: all that comes after it will be told.

    Raises:
        Trouble: the server gives none.
    """
    with explained():
        async with await collection(client, name).watch() as stream:
            token: Any = stream.resume_token
    if token is None:
        raise Trouble(conditions.CHANGE_STREAMS_OFF, "the server gives no resume token; MongoDB 6.0 or newer is needed")
    return str(token["_data"])
