"""The code store's HTTP interface, plain ASGI: archives by namespace and SHA-256, each request with a bearer capability.

    PUT    /v1/code/<namespace>/<sha256>   store an archive (right: write)
    GET    /v1/code/<namespace>/<sha256>   307 to a URL from which this one object can be read for a while (read or write)
    HEAD   /v1/code/<namespace>/<sha256>   200 or 404 (read or write)
    DELETE /v1/code/<namespace>/<sha256>   (manage)
    GET    /v1/code?after=...              what there is, in pages (manage)

Invariant: what can be read here has the SHA-256 of its address and keeps the rules of `wisp_runtime.archive`, because nothing
else is ever written; and a capability opens its own namespace only. Bytes of downloads don't pass through here: the object
store serves them itself, so that a hundred pods that start at once cost this process a hundred small answers.
"""

import asyncio
import contextlib
import hashlib
import hmac
import logging
import re
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from typing import IO, Any, Final, TypeVar
from urllib.parse import parse_qs

import msgspec
import prometheus_client
from wisp_api.code import MANAGE, READ, WRITE, capability
from wisp_runtime import archive

from wisp_events.code.bucket import FAILURES, Bucket
from wisp_events.web import Receive, Refusal, Send

logger = logging.getLogger(__name__)

LARGEST: Final = 256 * 1024 * 1024
"""Bytes of an archive, packed."""
CHUNK_SECONDS: Final = 30
UPLOAD_SECONDS: Final = 120
UPLOADS: Final = 2
"""At once, of different namespaces; others wait. Each takes an archive's size of disk, and a processor while it is verified."""
SLOWEST: Final = 64 * 1024
"""Bytes a second of an upload that others wait for, on average from GRACE_SECONDS on; less than slow lines have, or they end each other's for ever."""
GRACE_SECONDS: Final = 5
LOOK_SECONDS: Final = 1
_PATH = re.compile(r"/v1/code/([a-z0-9][-a-z0-9]{0,62})/([0-9a-f]{64})")
_LIST: Final = "/v1/code"

REQUESTS = prometheus_client.Counter("wisp_store_requests", "Requests by method and answer", ["method", "status"])
T = TypeVar("T")


class Store:
    """The ASGI application."""

    def __init__(self, bucket: Bucket, key: str) -> None:
        """`key` is what capabilities are made of."""
        self._bucket = bucket
        self._key = key
        self._turn = asyncio.Semaphore(UPLOADS)
        self._turns: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(1))
        self._waiting = 0
        """Namespaces that wait for a turn."""

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        headers: dict[str, str] = {}
        body = b""
        try:
            status, headers, body = await self._answer(scope, receive)
        except Refusal as refusal:
            status, headers, body = refusal.status, refusal.headers, f"{refusal}\n".encode()
        except FAILURES as error:
            logger.warning("the object store: %s", error)
            status, body = 503, f"the object store behind the code store: {error}\n".encode()
        except Exception:
            logger.exception("a request failed")
            status, body = 500, b"an error in the code store; its log says more\n"
        REQUESTS.labels(scope["method"], status).inc()
        lines = [(name.encode(), value.encode()) for name, value in headers.items()]
        lines.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": status, "headers": lines})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: dict[str, Any], receive: Receive) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body.

        Raises:
            Refusal: the caller may not, or sent what is no archive.
        """
        token = dict(scope["headers"]).get(b"authorization", b"").removeprefix(b"Bearer ").decode("latin-1")
        method = scope["method"]
        if scope["path"] == _LIST and method == "GET":
            self._authorize(token, (MANAGE, ""))
            after = parse_qs(scope["query_string"].decode()).get("after", [""])[0]
            page = await _in_thread(lambda: self._bucket.page(after))
            return 200, {"content-type": "application/json"}, msgspec.json.encode(page)
        match = _PATH.fullmatch(scope["path"])
        if match is None:
            raise Refusal(404, "archives are at /v1/code/<namespace>/<sha256 in hex>")
        namespace, sha256 = match[1], match[2]
        if method == "PUT":
            self._authorize(token, (WRITE, namespace))
            await self._store(namespace, sha256, receive)
            return 201, {}, b""
        if method == "DELETE":
            self._authorize(token, (MANAGE, ""))
            await _in_thread(lambda: self._bucket.delete(namespace, sha256))
            return 204, {}, b""
        if method not in {"GET", "HEAD"}:
            raise Refusal(405, "send GET, HEAD, PUT or DELETE", allow="GET, HEAD, PUT, DELETE")
        self._authorize(token, (READ, namespace), (WRITE, namespace), (MANAGE, ""))
        if method == "GET":
            return 307, {"location": self._bucket.download_url(namespace, sha256)}, b""
        there = await _in_thread(lambda: self._bucket.has(namespace, sha256))
        return (200 if there else 404), {}, b""

    def _authorize(self, token: str, *rights: tuple[str, str]) -> None:
        """Compare the token with the capabilities that would do.

        Raises:
            Refusal: it is none of them.
        """
        fit = [hmac.compare_digest(capability(self._key, *right).encode(), token.encode()) for right in rights]
        if not any(fit):
            raise Refusal(401, "no capability for this: wrong or missing bearer token", www_authenticate="Bearer")

    async def _store(self, namespace: str, sha256: str, receive: Receive) -> None:
        """Take an archive whole, verify it, and only then store it.

        Raises:
            Refusal: it is not what its address says, or breaks a rule.
        """
        async with self._own_turn(namespace):
            with tempfile.TemporaryFile() as file:
                found = await self._take(receive, file)
                if found != sha256:
                    raise Refusal(422, f"HashMismatch: the bytes have SHA-256 {found}")
                try:
                    await _in_thread(lambda: archive.check(file))
                except archive.ArchiveError as error:
                    raise Refusal(422, f"{error.reason}: {error}") from None
                size = file.seek(0, 2)
                file.seek(0)
                await _in_thread(lambda: self._bucket.put(namespace, sha256, file, size))

    @contextlib.asynccontextmanager
    async def _own_turn(self, namespace: str) -> AsyncIterator[None]:
        """One of the turns, in the order in which they are asked for; a namespace asks for one at a time."""
        async with self._turns[namespace]:
            self._waiting += 1
            try:
                await self._turn.acquire()
            finally:
                self._waiting -= 1
            try:
                yield
            finally:
                self._turn.release()

    async def _take(self, receive: Receive, file: IO[bytes]) -> str:
        """Write the body to the file, its SHA-256; a body that trickles keeps its turn only while nobody waits for one.

        Raises:
            Refusal: it is too large, slow, stalled, or was cut off.
        """
        loop = asyncio.get_running_loop()
        began, taking = loop.time(), asyncio.create_task(_receive(receive, file))
        try:
            while not (await asyncio.wait([taking], timeout=LOOK_SECONDS))[0]:
                took = loop.time() - began
                if took > UPLOAD_SECONDS:
                    raise Refusal(408, f"the body took longer than {UPLOAD_SECONDS} s", connection="close")
                if self._waiting and took > GRACE_SECONDS and file.tell() < SLOWEST * took:
                    raise Refusal(
                        503,
                        "others wait, and the body comes too slowly; try again",
                        connection="close",
                        retry_after="5",
                    )
            return taking.result()
        finally:
            taking.cancel()
            await asyncio.wait([taking])


async def _receive(receive: Receive, file: IO[bytes]) -> str:
    """Write the body to the file; its SHA-256.

    Raises:
        Refusal: it is too large, stalled, or was cut off.
    """
    found, more = hashlib.sha256(), True
    while more:
        try:
            async with asyncio.timeout(CHUNK_SECONDS):
                message = await receive()
        except TimeoutError:
            raise Refusal(408, f"nothing of the body came for {CHUNK_SECONDS} s") from None
        if message["type"] == "http.disconnect":
            raise Refusal(400, "the body was cut off")
        chunk, more = message.get("body", b""), message.get("more_body", False)
        found.update(chunk)
        file.write(chunk)
        if file.tell() > LARGEST:
            raise Refusal(413, f"CodeTooLarge: more than {LARGEST} bytes", connection="close")
    file.flush()
    return found.hexdigest()


async def _in_thread(work: Callable[[], T]) -> T:
    return await asyncio.to_thread(work)
