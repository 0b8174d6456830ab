"""Checks a reader's proof that its key may read a bucket: a presigned request that the S3 server itself answers.

The operator holds no tenant's keys, and a tenant may name any bucket. So the reader signs `HEAD bucket` for a few minutes and the
operator sends it; only the server's own 200 counts. It goes nowhere but to the servers of the configuration, and follows no redirect.
"""

import logging
import time
from datetime import UTC, datetime
from enum import Enum
from typing import Final
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

import aiohttp
from wisp_api.source import S3Server

_TIMEOUT: Final = aiohttp.ClientTimeout(total=5)
_VALID_SECONDS: Final = 60.0
_URL_LENGTH: Final = 8192
"""Of a proof; a key with a session's token makes some 2,000 characters. Readers' reports are their tenants' to write, and may have 8 MiB."""
_CLOCK_SECONDS: Final = 15
"""How far the clocks of operator, reader and S3 server may differ."""
_OK: Final = 200
_REFUSALS: Final = {400, 401, 403, 404}
_log = logging.getLogger(__name__)


class Proof(Enum):
    """What is known of a reader's right to a bucket."""

    GRANTED = "granted"
    REFUSED = "refused"
    UNKNOWN = "unknown"


class Proofs:
    """Sends each proof once; a new one, which the reader makes every minute, is sent anew."""

    def __init__(self, servers: list[S3Server]) -> None:
        """`servers` are the only places where proofs are sent."""
        self._servers = {server.name: server for server in servers}
        self._known: dict[str, tuple[float, Proof]] = {}

    async def check(self, server: str, bucket: str, url: str) -> Proof:
        """What the server says of this presigned HEAD request for the bucket."""
        if len(url) > _URL_LENGTH:
            return Proof.REFUSED
        now = time.monotonic()
        self._known = {key: value for key, value in self._known.items() if now - value[0] < _VALID_SECONDS}
        if url not in self._known:
            if expired(url, time.time()):
                return Proof.UNKNOWN  # the reader is away; that says nothing of its key's rights
            result = await self._send(url) if self._admitted(server, bucket, url) else Proof.REFUSED
            if result is Proof.UNKNOWN:
                return result
            self._known[url] = (now, result)
        return self._known[url][1]

    def _admitted(self, server: str, bucket: str, url: str) -> bool:
        """Whether the request goes to the server's own endpoint and asks for this bucket and nothing else."""
        if server not in self._servers:
            return False
        try:
            asked, own = urlsplit(url), urlsplit(self._servers[server].endpoint)
            same = (asked.scheme, asked.hostname, _port(asked), asked.username) == (
                own.scheme,
                own.hostname,
                _port(own),
                None,
            )
        except ValueError:
            return False
        return same and unquote(asked.path).strip("/") == bucket and ".." not in bucket

    async def _send(self, url: str) -> Proof:
        try:
            async with (
                aiohttp.ClientSession(timeout=_TIMEOUT) as session,
                session.head(url, allow_redirects=False) as answer,
            ):
                status = answer.status
        except (aiohttp.ClientError, TimeoutError) as error:
            _log.warning("a bucket's proof could not be checked: %s", type(error).__name__)
            return Proof.UNKNOWN
        if status == _OK:
            return Proof.GRANTED
        return Proof.REFUSED if status in _REFUSALS else Proof.UNKNOWN


def expired(url: str, now: float) -> bool:
    """Whether a presigned request is past its time at `now` (seconds since the epoch), which a server answers as it does a refused one."""
    query = parse_qs(urlsplit(url).query)
    try:
        signed = datetime.strptime(query["X-Amz-Date"][0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        return now > signed.timestamp() + int(query["X-Amz-Expires"][0]) - _CLOCK_SECONDS
    except (KeyError, ValueError):
        return False


def _port(url: SplitResult) -> int | None:
    return url.port or {"http": 80, "https": 443}.get(url.scheme)
