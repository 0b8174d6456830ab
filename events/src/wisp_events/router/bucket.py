"""Reading key-value buckets by polling, without consumers or watches.

Every read is one request that any replica of NATS answers (one may lag: who reads what it has read before has to
compare revisions), and that answers for itself, so there is nothing that a restart of NATS could leave dead. Reading
"the next message of this bucket after revision r" returns changes and deletions in order, and at the end "none".

Invariant: `changes` returns every key whose last change is after the revision given, or raises.
"""

from dataclasses import dataclass
from typing import Final

import nats.errors
import nats.js.errors
from nats.js import JetStreamContext
from nats.js.api import Header

LOG_ERRORS: Final = (nats.errors.Error, OSError)
"""What an unreachable NATS raises."""
MISSING: Final = (nats.js.errors.NotFoundError, nats.js.errors.NoStreamResponseError, nats.errors.NoRespondersError)
"""What a reachable NATS raises for a bucket or stream that is not there."""
_WRONG_LAST_SEQUENCE: Final = (10071, 10164)


class Changed(Exception):  # noqa: N818 - states what was found
    """Raised when an entry is not at the revision that a write expected."""


@dataclass(slots=True, frozen=True)
class Entry:
    """A key's state at a revision of the bucket."""

    key: str
    value: bytes | None
    """None: deleted."""
    revision: int


async def changes(js: JetStreamContext, bucket: str, after: int = 0) -> list[Entry]:
    """The last state of each key changed after a revision, in the order of the changes; from 0: of all keys.

    Raises:
        nats.errors.Error, OSError: the bucket could not be read to its end.
    """
    found: list[Entry] = []
    prefix = f"$KV.{bucket}."
    while True:
        try:
            message = await js.get_msg(f"KV_{bucket}", after + 1, f"{prefix}>", direct=True, next=True)
        except nats.js.errors.NotFoundError:
            return found
        found.append(_entry(message.subject or "", message.data, message.headers, message.seq or 0, prefix))
        after = found[-1].revision


async def last_revision(js: JetStreamContext, bucket: str) -> int:
    """The revision of the bucket's last change, by its leader, which doesn't lag.

    Raises:
        nats.errors.Error, OSError: the bucket could not be read.
    """
    return (await js.stream_info(f"KV_{bucket}")).state.last_seq


async def read(js: JetStreamContext, bucket: str, key: str) -> Entry | None:
    """A key's entry; None where there never was one.

    Raises:
        nats.errors.Error, OSError: the bucket could not be read.
    """
    prefix = f"$KV.{bucket}."
    try:
        message = await js.get_msg(f"KV_{bucket}", subject=f"{prefix}{key}", direct=True)
    except nats.js.errors.NotFoundError:
        return None
    return _entry(message.subject or "", message.data, message.headers, message.seq or 0, prefix)


async def write(js: JetStreamContext, bucket: str, key: str, value: bytes, expected: int | None = None) -> int:
    """Store a value, where `expected` is given only if the key is at this revision (0: has none); returns the new revision.

    Raises:
        Changed: the key is at another revision.
        nats.errors.Error, OSError: not acknowledged; stored or not.
    """
    headers = {} if expected is None else {Header.EXPECTED_LAST_SUBJECT_SEQUENCE.value: str(expected)}
    try:
        return (await js.publish(f"$KV.{bucket}.{key}", value, headers=headers)).seq
    except nats.js.errors.APIError as error:
        if error.err_code in _WRONG_LAST_SEQUENCE:
            raise Changed(f"{bucket} {key} is not at revision {expected}") from error
        raise


async def delete(js: JetStreamContext, bucket: str, key: str) -> None:
    """Delete a key.

    Raises:
        nats.errors.Error, OSError: not acknowledged.
    """
    await js.publish(f"$KV.{bucket}.{key}", headers={"KV-Operation": "DEL"})


def _entry(subject: str, data: bytes | None, headers: dict[str, str] | None, revision: int, prefix: str) -> Entry:
    headers = headers or {}
    gone = "KV-Operation" in headers or "Nats-Marker-Reason" in headers
    return Entry(subject.removeprefix(prefix), None if gone else data or b"", revision)
