"""The code store's HTTP interface, plain ASGI: archives by namespace and SHA-256, each request with a bearer capability or ticket.

    PUT    /v1/code/<namespace>/<sha256>   store an archive (right: write, or a ticket for it)
    POST   /v1/code/<namespace>/<sha256>   200 where it is there, and as if it had been stored now; 404 (write, or a ticket for it)
    GET    /v1/code/<namespace>/<sha256>   307 to a URL from which this one object can be read for a while (read or write)
    HEAD   /v1/code/<namespace>/<sha256>   200 or 404 (read or write)
    DELETE /v1/code/<namespace>/<sha256>?older=<seconds>   409 where it has been stored since (manage)
    GET    /v1/code?after=...              what there is, in pages (manage)

Invariant: what can be read here has the SHA-256 of its address and keeps the rules of `wisp_runtime.archive`, because nothing
else is ever written; a capability opens its own namespace only, a ticket one archive; and what was stored, or said to be there, since
so many seconds is not deleted: one process looks and deletes under that archive's lock. Bytes of downloads don't pass through here: the object
store serves them itself, so that a hundred pods that start at once cost this process a hundred small answers.
"""

import asyncio
import hmac
import logging
import re
import tempfile
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar
from urllib.parse import parse_qs
from weakref import WeakValueDictionary

import msgspec
import prometheus_client
from wisp_api.caller import HEADER
from wisp_api.code import MANAGE, READ, WRITE, capability, is_ticket
from wisp_api.conditions import CODE_STORAGE_EXCEEDED
from wisp_runtime import archive

from wisp_events.code.bucket import FAILURES, Bucket
from wisp_events.code.turns import Turns
from wisp_events.web import Body, Receive, Refusal, Send

logger = logging.getLogger(__name__)

_PATH = re.compile(r"/v1/code/([a-z0-9][-a-z0-9]{0,62})/([0-9a-f]{64})")
_LIST: Final = "/v1/code"
_MIB: Final = 1 << 20

REQUESTS = prometheus_client.Counter("wisp_store_requests", "Requests by method and answer", ["method", "status"])
T = TypeVar("T")


class Store:
    """The ASGI application."""

    def __init__(self, bucket: Bucket, key: str, ticket_key: str = "", most: int = 0) -> None:
        """`key` is what capabilities are made of, `ticket_key` what tickets are; without it there are none. `most`: bytes of a namespace; 0: any."""
        self._most = most
        self._bucket = bucket
        self._key = key
        self._ticket_key = ticket_key
        self._jobs, self._people = Turns(), Turns()
        """Of who has the right to write and of who has a ticket: no line to the cluster is so slow that Jobs wait for it."""
        self._locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()
        """Of archives that are being written or deleted."""

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        headers: dict[str, str] = {}
        body, coming = b"", Body(receive)
        try:
            status, headers, body = await self._answer(scope, coming)
        except Refusal as refusal:
            await coming.drop()
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
        given = dict(scope["headers"])
        shown = given.get(HEADER.encode()) or given.get(b"authorization", b"")
        token = shown.removeprefix(b"Bearer ").decode("latin-1")
        query = {name: values[0] for name, values in parse_qs(scope["query_string"].decode()).items()}
        if scope["path"] == _LIST and scope["method"] == "GET":
            self._authorize(token, (MANAGE, ""))
            page = await _in_thread(lambda: self._bucket.page(query.get("after", "")))
            return 200, {"content-type": "application/json"}, msgspec.json.encode(page)
        match = _PATH.fullmatch(scope["path"])
        if match is None:
            raise Refusal(404, "archives are at /v1/code/<namespace>/<sha256 in hex>")
        namespace, sha256 = match[1], match[2]
        if scope["method"] in {"PUT", "POST"}:
            turns = self._uploads(token, namespace, sha256)
            if scope["method"] == "POST":
                with turns.counted(namespace):
                    return (200 if await self._keep(namespace, sha256) else 404), {}, b""
            await self._store(turns, namespace, sha256, receive)
            return 201, {}, b""
        if scope["method"] == "DELETE":
            self._authorize(token, (MANAGE, ""))
            return (204 if await self._delete(namespace, sha256, query.get("older", "")) else 409), {}, b""
        return await self._read(scope["method"], token, namespace, sha256)

    async def _read(self, method: str, token: str, namespace: str, sha256: str) -> tuple[int, dict[str, str], bytes]:
        """Answer who wants an archive, or to know of it; raises as `_answer`."""
        if method not in {"GET", "HEAD"}:
            raise Refusal(405, "send GET, HEAD, POST, PUT or DELETE", allow="GET, HEAD, POST, PUT, DELETE")
        self._authorize(token, (READ, namespace), (WRITE, namespace), (MANAGE, ""))
        if method == "GET":
            return 307, {"location": self._bucket.download_url(namespace, sha256)}, b""
        there = await _in_thread(lambda: self._bucket.age(namespace, sha256)) is not None
        return (200 if there else 404), {}, b""

    def _authorize(self, token: str, *rights: tuple[str, str]) -> None:
        """Compare the token with the capabilities that would do.

        Raises:
            Refusal: it is none of them.
        """
        fit = [hmac.compare_digest(capability(self._key, *right).encode(), token.encode()) for right in rights]
        if not any(fit):
            raise Refusal(401, "no capability for this: wrong or missing bearer token", www_authenticate="Bearer")

    def _uploads(self, token: str, namespace: str, sha256: str) -> Turns:
        """The turns of who has a ticket for this archive, or the right to write.

        Raises:
            Refusal: neither.
        """
        if self._ticket_key and is_ticket(self._ticket_key, token, namespace, sha256, time.time()):
            return self._people
        self._authorize(token, (WRITE, namespace))
        return self._jobs

    async def _store(self, turns: Turns, namespace: str, sha256: str, receive: Receive) -> None:
        """Take an archive whole, verify it, and only then store it.

        Raises:
            Refusal: it is not what its address says, or breaks a rule.
        """
        async with turns.turn(namespace):
            with tempfile.TemporaryFile() as file:
                found = await turns.take(namespace, receive, file)
                if found != sha256:
                    raise Refusal(422, f"HashMismatch: the bytes have SHA-256 {found}")
                try:
                    await _in_thread(lambda: archive.check(file))
                except archive.ArchiveError as error:
                    raise Refusal(422, f"{error.reason}: {error}") from None
                size = file.seek(0, 2)
                file.seek(0)
                await self._check_room(namespace, sha256, size)
                async with self._lock(namespace, sha256):
                    await _in_thread(lambda: self._bucket.put(namespace, sha256, file, size))

    async def _check_room(self, namespace: str, sha256: str, size: int) -> None:
        """Uploads that are under way elsewhere aren't seen: each turn may exceed the bound by one archive.

        Raises:
            Refusal: with this one the namespace would keep too much.
        """
        if not self._most:
            return
        held = await _in_thread(lambda: self._bucket.size(namespace, sha256))
        if held + size > self._most:
            raise Refusal(
                507,
                f"{CODE_STORAGE_EXCEEDED}: the archives of namespace {namespace} take {held / _MIB:.1f} MiB in the code store, with this one "
                f"{(held + size) / _MIB:.1f} of at most {self._most / _MIB:.1f}: delete Functions or revisions that aren't needed, whose archives "
                "go some hours later, or let an administrator raise store.namespaceMaxBytes",
            )

    async def _keep(self, namespace: str, sha256: str) -> bool:
        """Whether an archive is there; then it stays as long as one that was stored now."""
        async with self._lock(namespace, sha256):
            return await _in_thread(lambda: self._bucket.keep(namespace, sha256))

    async def _delete(self, namespace: str, sha256: str, older: str) -> bool:
        """Delete an archive that was stored longer ago; whether it is gone.

        Raises:
            Refusal: nobody said how long.
        """
        if not older.isdecimal():
            raise Refusal(400, "say ?older=SECONDS: what was stored since is somebody's who is about to name it")
        lock = self._lock(namespace, sha256)
        if lock.locked():
            return False
        async with lock:
            age = await _in_thread(lambda: self._bucket.age(namespace, sha256))
            if age is not None and age <= int(older):
                return False
            await _in_thread(lambda: self._bucket.delete(namespace, sha256))
            return True

    def _lock(self, namespace: str, sha256: str) -> asyncio.Lock:
        """An archive's: what is said of it, and done to it, goes one after the other."""
        return self._locks.setdefault((namespace, sha256), asyncio.Lock())


async def _in_thread(work: Callable[[], T]) -> T:
    return await asyncio.to_thread(work)
