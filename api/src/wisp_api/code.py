"""The code store as its parties speak of it: where an archive is, who may do what there, and what a fetch is told and answers.

An archive's address is its namespace and SHA-256. A capability is a right to one namespace's part of the store: an HMAC of both with
the store's key, so that the store checks it without asking anybody, and the operator can mint it again at any time. A ticket is the right to
bring one archive for a while: the ingest, which knows callers, makes it of a key of its own, and who has it hands the bytes to the store.
"""

import hashlib
import hmac
from typing import Annotated, Final

import msgspec

READ: Final = "read"
"""Download: what pods hold."""
WRITE: Final = "write"
"""Upload, too: what the fetch Job holds."""
MANAGE: Final = "manage"
"""List and delete, in every namespace: what the operator holds; its capability names no namespace."""

SECRET: Final = "wisp-code"  # noqa: S105 - a name
"""In each namespace with such Functions: its capabilities, by right."""
STORE_SECRET: Final = "wisp-store"  # noqa: S105 - a name
"""In the platform's namespace: the key that capabilities are made of."""
STORE_KEY: Final = "key"
TICKET_KEY: Final = "tickets"
"""In STORE_SECRET, too: the key that tickets are made of; it is all that the ingest has of it."""
TICKET_SECONDS: Final = 600
"""How long a ticket is good to begin an upload."""
UNPACKED_BYTES: Final = 250 << 20
"""What a function's archives may hold in all."""
_STAMP: Final = 16
"""Digits of a time, and more."""
Sha256 = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]


def capability(key: str, right: str, namespace: str = "") -> str:
    """The bearer token for a right to a namespace's code."""
    return hmac.new(key.encode(), f"{right}\n{namespace}".encode(), hashlib.sha256).hexdigest()


def make_ticket(key: str, namespace: str, sha256: str, expires: int) -> str:
    """The bearer token for bringing one archive into a namespace's part of the store, until a time in Unix seconds."""
    text = f"{namespace}\n{sha256}\n{expires}"
    return f"{expires}.{hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()}"


def is_ticket(key: str, token: str, namespace: str, sha256: str, now: float) -> bool:
    """Whether a token is a ticket for this archive that has not expired."""
    stamp = token.partition(".")[0]
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) < _STAMP):
        return False
    return now < int(stamp) and hmac.compare_digest(
        make_ticket(key, namespace, sha256, int(stamp)).encode(), token.encode()
    )


class Ticket(msgspec.Struct, kw_only=True):
    """What the ingest answers whoever may bring an archive."""

    ticket: str


class ArchiveTask(msgspec.Struct, rename="camel", omit_defaults=True, kw_only=True):
    """An object to fetch."""

    bucket: str
    key: str
    connection: str
    """Name of the Secret; its keys are files of that name below the fetch's folder of connections."""
    version_id: str = ""
    sha256: str = ""
    """What it must be; empty: whatever it is."""
    etag: str = ""
    """Of what was fetched before: the same object is not fetched again."""
    fetched: str = ""
    """SHA-256 of what was fetched before."""
    unpacked: int = 0
    """Bytes that it held."""


class FetchTask(msgspec.Struct, rename="camel", kw_only=True):
    """What a fetch Job is to do: in its environment, so there is nothing secret in it."""

    namespace: str
    store: str
    """The store's URL."""
    archives: list[ArchiveTask]


class BuildTask(msgspec.Struct, rename="camel", kw_only=True):
    """What a Job is to do that builds requirements: in its environment, so there is nothing secret in it."""

    namespace: str
    store: str
    """The store's URL."""
    index: str
    """The package index, unless the namespace's Secret names another."""
    secret: str
    """Name of that Secret; its keys are files in the Job's folder of the index."""
    requirements: list[str]


class Fetched(msgspec.Struct, rename="camel", kw_only=True):
    """An archive that stands in the store."""

    sha256: Sha256
    etag: Annotated[str, msgspec.Meta(max_length=256)]
    unpacked: Annotated[int, msgspec.Meta(ge=0)]
    """Bytes that it holds."""


class FetchResult(msgspec.Struct, rename="camel", omit_defaults=True, kw_only=True):
    """What a fetch Job says at its end, in its pod's termination message: the archives in the task's order, or why not.

    The tenant can make such a pod, too, so nothing is believed that it says but what concerns its own namespace.
    """

    archives: list[Fetched] = []
    packages: Annotated[list[Annotated[str, msgspec.Meta(max_length=256)]], msgspec.Meta(max_length=1000)] = []
    """Of requirements: what was installed, as name==version."""
    reason: Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z]{0,64}\Z")] = ""
    """A constant of `conditions`; empty where all is well."""
    message: str = ""


class StoredArchive(msgspec.Struct, rename="camel", kw_only=True):
    """A line of the store's list."""

    namespace: str
    sha256: str
    age_seconds: float


class StoredPage(msgspec.Struct, rename="camel", kw_only=True):
    """A part of the store's list; `next`, where it isn't empty, asks for the part behind it."""

    archives: list[StoredArchive]
    next: str = ""
