"""`python -m wisp_events fetch`: brings archives from the user's S3 into the code store, once, and says what they are.

A Job of the tenant's namespace runs it. Environment: WISP_FETCH (a `FetchTask`), WISP_FETCH_CONNECTIONS (/etc/wisp/connections, a
folder for each Secret), WISP_FETCH_TOKEN (/etc/wisp/code/write), WISP_TERMINATION_LOG (/dev/termination-log), where the
`FetchResult` goes.

Invariant: a result with archives means that each stands in the store. What may pass by itself is tried again for
`job.PATIENCE_SECONDS`; what is wrong until somebody does something is told at once, by a constant and a sentence.
"""

import asyncio
import hashlib
import http.client
import logging
import os
import re
import tempfile
from pathlib import Path
from typing import IO, Final
from urllib.parse import urlsplit

import msgspec
from wisp_api import conditions
from wisp_api.code import ArchiveTask, Fetched, FetchResult, FetchTask
from wisp_api.signing import Access
from wisp_runtime import archive

from wisp_events.code import job
from wisp_events.code.job import Transient, hand_over, patiently
from wisp_events.code.objects import S3Error, request
from wisp_events.code.turns import LARGEST
from wisp_events.sources.reader import Trouble, read_connection

logger = logging.getLogger(__name__)

_CHUNK: Final = 1 << 18
_ENDPOINT: Final = re.compile(r"https?://[^/?#@\s]+")
_LONGEST_ETAG: Final = 128
"""S3's have up to 40 characters."""
_KEY_REFUSED: Final = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken"})


async def main(stop: asyncio.Event) -> None:  # noqa: ARG001 - a Job that is deleted simply ends
    """Do the task; end with status 1 if it can't be done."""
    env = os.environ
    task = msgspec.json.decode(env["WISP_FETCH"], type=FetchTask)
    connections = Path(env.get("WISP_FETCH_CONNECTIONS", "/etc/wisp/connections"))
    token = Path(env.get("WISP_FETCH_TOKEN", job.TOKEN))
    await job.finish(lambda: FetchResult(archives=fetch(task, connections, token)))


def fetch(task: FetchTask, connections: Path, token: Path) -> list[Fetched]:
    """Bring every archive of the task into the store.

    Raises:
        Trouble: one of them can't be had, or breaks a rule.
    """
    found, room = [], archive.UNPACKED_BYTES
    for wanted in task.archives:
        with tempfile.TemporaryFile() as file:
            etag = patiently(lambda wanted=wanted, file=file: _download(wanted, task.namespace, connections, file))  # type: ignore[misc]
            if etag is None:
                logger.info("%s is unchanged", _name(wanted))
                room -= wanted.unpacked
                found.append(Fetched(sha256=wanted.fetched, etag=wanted.etag, unpacked=wanted.unpacked))
                continue
            sha256, used = _verify(wanted, file, room)
            room -= used
            url = f"{task.store}/v1/code/{task.namespace}/{sha256}"
            patiently(lambda url=url, file=file: hand_over(url, token.read_text().strip(), file))  # type: ignore[misc]
            logger.info("%s is in the store: sha256 %s, %d bytes unpacked", _name(wanted), sha256, used)
            found.append(Fetched(sha256=sha256, etag=etag, unpacked=used))
    return found


def _download(wanted: ArchiveTask, namespace: str, connections: Path, file: IO[bytes]) -> str | None:
    """Write the object to the file; its ETag, or None where it is the one that was fetched before.

    Raises:
        Trouble, Transient: it can't be had (now).
    """
    access = _access(wanted.connection, namespace, connections)
    query = {"versionId": wanted.version_id} if wanted.version_id else {}
    headers = {"if-none-match": wanted.etag} if wanted.etag and wanted.fetched else {}
    file.seek(0)
    file.truncate()
    try:
        with request(access, "GET", f"{wanted.bucket}/{wanted.key}", query, headers=headers) as answer:
            size = int(answer.headers.get("content-length") or 0)
            while file.tell() <= LARGEST and size <= LARGEST and (piece := answer.read(_CHUNK)):
                file.write(piece)
            if max(size, file.tell()) > LARGEST:
                raise Trouble(
                    conditions.CODE_TOO_LARGE,
                    f"{_name(wanted)} is larger than {LARGEST >> 20} MiB: leave out what the function doesn't need, or build an image",
                )
            if size != file.tell():
                raise Transient(conditions.SERVER_UNREACHABLE, f"{access.endpoint} broke off within {_name(wanted)}")
            return _etag(answer.headers.get("etag", ""))
    except S3Error as error:
        if error.status == http.client.NOT_MODIFIED:
            return None
        raise _meaning(error, wanted, access) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = str(error) or type(error).__name__
        raise Transient(conditions.SERVER_UNREACHABLE, f"{access.endpoint} does not answer: {reason}") from None


def _etag(told: str) -> str:
    """What the server calls this content; empty where it is no name that the verdict has room for, and the archive is fetched again."""
    return told if len(told) <= _LONGEST_ETAG and told.isascii() and told.isprintable() else ""


def _access(name: str, namespace: str, connections: Path) -> Access:
    """What the connection's Secret says.

    Raises:
        Trouble: it is missing or incomplete.
    """
    held = read_connection(connections / name)
    if not held:
        raise Trouble(
            conditions.SECRET_NOT_FOUND,
            f"there is no Secret {name} in namespace {namespace}, or it is empty; create it with endpoint, accessKey and secretKey",
        )
    for key in ("endpoint", "accessKey", "secretKey"):
        if not held.get(key):
            raise Trouble(conditions.INVALID_CONNECTION, f"Secret {name} has no key {key}; add it")
    if not _is_address(held["endpoint"].rstrip("/")):
        raise Trouble(
            conditions.INVALID_CONNECTION, f"key endpoint of Secret {name} is no address; write http(s)://host:port"
        )
    return Access(held["endpoint"].rstrip("/"), held["accessKey"], held["secretKey"], held.get("region") or "us-east-1")


def _is_address(endpoint: str) -> bool:
    """Whether a host and port can be read from it, and the host be a name."""
    try:
        parts = urlsplit(endpoint)
        name = (parts.hostname or "").encode("idna")
        return bool(name and parts.port != 0 and _ENDPOINT.fullmatch(endpoint))
    except ValueError:
        return False


def _meaning(error: S3Error, wanted: ArchiveTask, access: Access) -> Exception:
    """What a server's refusal means, and the cure."""
    if error.status >= http.client.INTERNAL_SERVER_ERROR or error.status == http.client.TOO_MANY_REQUESTS:
        return Transient(conditions.SERVER_UNREACHABLE, f"{access.endpoint} answers {error}")
    if error.code in _KEY_REFUSED:
        message = f"{access.endpoint} refuses the key ({error.code}); put the right accessKey and secretKey into Secret {wanted.connection}"
        return Trouble(conditions.AUTHENTICATION_FAILED, message)
    if error.code == "NoSuchBucket":
        return Trouble(conditions.BUCKET_NOT_FOUND, f"there is no bucket {wanted.bucket} at {access.endpoint}")
    if error.status == http.client.NOT_FOUND or error.code in {"NoSuchKey", "NoSuchVersion", "InvalidArgument"}:
        return Trouble(
            conditions.CODE_NOT_FOUND,
            f"{_name(wanted)} does not exist ({error}); upload it, or correct bucket, key and versionId",
        )
    if error.status == http.client.FORBIDDEN:
        message = f"the key of Secret {wanted.connection} may not read {_name(wanted)} ({error.code}); its policy must allow s3:GetObject"
        return Trouble(
            conditions.PERMISSION_DENIED, message + (" and s3:GetObjectVersion" if wanted.version_id else "")
        )
    return Trouble(conditions.FETCH_FAILED, f"{access.endpoint} answers {error} to {_name(wanted)}")


def _verify(wanted: ArchiveTask, file: IO[bytes], room: int) -> tuple[str, int]:
    """The archive's SHA-256 and how many bytes it holds.

    Raises:
        Trouble: it is another one than was asked for, or breaks a rule.
    """
    file.seek(0)
    found = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    if wanted.sha256 and found != wanted.sha256:
        raise Trouble(
            conditions.HASH_MISMATCH,
            f"{_name(wanted)} has SHA-256 {found}, not the one that the spec names; correct sha256, or upload the right archive",
        )
    try:
        return found, archive.check(file, room)
    except archive.ArchiveError as error:
        raise Trouble(error.reason, f"{_name(wanted)}: {error}") from None


def _name(wanted: ArchiveTask) -> str:
    return f"s3://{wanted.bucket}/{wanted.key}"
