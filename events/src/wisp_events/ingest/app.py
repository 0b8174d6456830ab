"""The ingest's HTTP interface, plain ASGI: `POST /v1/s3/<server>` for S3 servers, `POST /v1/namespaces/...` for everyone else.

An S3 server's token is compared here. 200: everything is in the log, or a dead letter. 401: wrong token. 404: unknown server or path.
408: the body stalled. 413: more than any server sends. 503 with Retry-After: the log is away or full, send it again. Ceph's gateway, which does
so without a pause, hears of a failure late. The other doors have their own modules, and calls whose callers wait a counter of their own (`call`).

Invariant: memory is bounded. At most CONCURRENT bodies of at most BODY_BYTES are held for S3 servers, and ROOM_BYTES for the others; other
requests wait with what their socket buffers hold, and nothing of a body is read before its token is checked.
"""

import asyncio
import base64
import contextlib
import hmac
import logging
import re
from pathlib import Path
from typing import Any, Final, TypeVar

import prometheus_client
from nats.aio.client import Client
from wisp_api import calling, names

from wisp_events.ingest.archives import Archives
from wisp_events.ingest.call import CALLS, Calls
from wisp_events.ingest.deadletters import DeadLetters
from wisp_events.ingest.door import Answer, Headers, Room, chunks, header
from wisp_events.ingest.doors import Doors
from wisp_events.ingest.lines import Lines
from wisp_events.ingest.receive import Receiver
from wisp_events.ingest.tokens import Tokens
from wisp_events.log import LogUnavailable
from wisp_events.web import Body, Receive, Refusal, Send

logger = logging.getLogger(__name__)

BODY_BYTES: Final = 4 * 1024 * 1024
"""A longer body becomes a dead letter."""
LONGEST_BODY: Final = 64 * 1024 * 1024
"""Of a longer one not even the end is awaited."""
CONCURRENT: Final = 32
START_BYTES: Final = 4096
HOLD_SECONDS: Final = 2.0
"""Before Ceph's gateway hears that something was not taken: it sends that again at once, and what stands behind it in its queue."""
HELD: Final = 256
"""Such answers at most; what comes beyond them is answered at once."""
ACTIVATOR: Final = "activator-service.knative-serving.svc:80"
ROOM_BYTES: Final = 32 * 1024 * 1024
CALLER_BYTES: Final = 16 * 1024 * 1024
"""Of these, what the requests of one namespace may hold."""
_FIRST_FAILURE: Final = 400
_S3 = re.compile(r"/v1/s3/([A-Za-z0-9][A-Za-z0-9.-]{0,252})")
_BUS = re.compile(r"/v1/namespaces/([a-z0-9-]{1,63})/buses/([a-z0-9-]{1,63})/events")
_FUNCTION = re.compile(r"/v1/namespaces/([a-z0-9-]{1,63})/functions/([a-z0-9-]{1,63})/invocations")
_DEAD = re.compile(r"/v1/namespaces/([a-z0-9-]{1,63})/deadletters(?:/([a-z0-9]{1,20}))?")
_LOGS = re.compile(r"/v1/namespaces/([a-z0-9-]{1,63})/functions/([a-z0-9-]{1,63})/logs/([a-z0-9-]{1,63})")
_ARCHIVE = re.compile(r"/v1/namespaces/([a-z0-9-]{1,63})/archives/([0-9a-f]{64})")
_WHERE: Final = (
    "post S3 event notifications to /v1/s3/<server>, CloudEvents to /v1/namespaces/<namespace>/buses/<bus>/events, "
    "invocations to /v1/namespaces/<namespace>/functions/<function>/invocations; dead letters are at /v1/namespaces/<namespace>/deadletters, "
    "log lines at /v1/namespaces/<namespace>/functions/<function>/logs/<uid of the function>, "
    "tickets for code archives at /v1/namespaces/<namespace>/archives/<sha256 in hex>"
)

T = TypeVar("T")
REQUESTS = prometheus_client.Counter("wisp_ingest_requests", "Requests by answer", ["status"])
SECONDS = prometheus_client.Histogram(
    "wisp_ingest_request_seconds",
    "From the token's check to the log's acknowledgement",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5, 20),
)


class App:
    """The ASGI application."""

    def __init__(self, tokens: Path, ticket_key: str = "", activator: str = ACTIVATOR) -> None:
        """`tokens` is a directory with one file a server: its token; `ticket_key` is what the code store's tickets are made of."""
        self._tokens = tokens
        self._ticket_key = ticket_key
        self._activator = activator
        self._turn = asyncio.Semaphore(CONCURRENT)
        self._held = 0
        self._receiver: Receiver | None = None
        self._doors: Doors | None = None
        self._calls: Calls | None = None
        self._dead: DeadLetters | None = None
        self._lines: Lines | None = None
        self._archives: Archives | None = None

    def connected(self, client: Client, system_namespace: str) -> None:
        """NATS was reached for the first time; `system_namespace` gets the dead letters that belong to nobody."""
        self._receiver = Receiver(client, system_namespace)
        tokens, room = Tokens(client.jetstream()), Room(ROOM_BYTES, CALLER_BYTES)
        self._doors = Doors(client.jetstream(), tokens, room)
        self._calls = Calls(tokens, self._activator)
        self._dead = DeadLetters(client, tokens, room)
        self._lines = Lines(client, tokens)
        self._archives = Archives(tokens, self._ticket_key)

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        body = Body(receive)
        try:
            answer = await self._answer(scope, body, send)
        except Refusal as refusal:
            await body.drop()
            answer = _said(refusal.status, str(refusal), refusal.headers)
        except LogUnavailable as error:
            answer = _said(503, f"the event log: {error}", {"retry-after": "3"})
        except Exception:
            logger.exception("a request failed")
            answer = _said(500, "an error in the ingest; its log says more", {})
        if answer is None:
            return
        if answer.status >= _FIRST_FAILURE and _is_ceph(scope["headers"]):
            await self._hold()
        (CALLS if _is_call(scope) else REQUESTS).labels(answer.status).inc()
        lines = {"content-length": str(len(answer.body))} | answer.headers
        encoded = [(name.encode(), value.encode()) for name, value in lines.items()]
        await send({"type": "http.response.start", "status": answer.status, "headers": encoded})
        await send({"type": "http.response.body", "body": answer.body})

    async def _answer(self, scope: dict[str, Any], receive: Receive, send: Send) -> Answer | None:
        """What is answered once everything is taken; None: it was sent already.

        Raises:
            Refusal: it is not.
            LogUnavailable: it could not be stored now.
        """
        bus, function = _BUS.fullmatch(scope["path"]), _FUNCTION.fullmatch(scope["path"])
        if match := bus or function:
            if scope["method"] != "POST":
                raise Refusal(405, "send POST", allow="POST")
            if _is_call(scope):
                await _reached(self._calls).answer(match[1], match[2], scope["headers"], receive, send)
                return None
            doors = _reached(self._doors)
            take = doors.post if bus else doors.invoke
            return await take(match[1], match[2], scope["headers"], receive)
        if match := _DEAD.fullmatch(scope["path"]):
            return await _reached(self._dead).answer(match[1], match[2] or "", scope, receive)
        if match := _LOGS.fullmatch(scope["path"]):
            return await _reached(self._lines).answer(match[1], names.log_subject(*match.groups()), scope, receive)
        if match := _ARCHIVE.fullmatch(scope["path"]):
            return await _reached(self._archives).answer(match[1], match[2], scope["method"], scope["headers"])
        if match := _S3.fullmatch(scope["path"]):
            await self._notified(match[1], scope["method"], scope["headers"], receive)
            return _said(200, "ok", {})
        raise Refusal(404, _WHERE)

    async def _notified(self, server: str, method: str, headers: Headers, receive: Receive) -> None:
        """Return once an S3 server's notification is taken; raises as `_answer`."""
        self._authenticate(server, header(headers, b"authorization"))
        if method in ("GET", "HEAD"):
            return  # probes of servers that look before they send
        if method != "POST":
            raise Refusal(405, "send POST", allow="POST")
        receiver = _reached(self._receiver)
        async with self._turn:
            start, size, body = await _read(receive)
            with SECONDS.time():
                if body is None:
                    await receiver.refuse(server, start, size, BODY_BYTES)
                elif body:
                    await receiver.receive(server, body)

    async def _hold(self) -> None:
        """Wait before an answer, unless many do."""
        if self._held >= HELD:
            return
        self._held += 1
        try:
            await asyncio.sleep(HOLD_SECONDS)
        finally:
            self._held -= 1

    def _authenticate(self, server: str, authorization: bytes) -> None:
        """Compare the token with the server's file as it is now.

        Raises:
            Refusal: unknown server, or not its token.
        """
        try:
            token = (self._tokens / server).read_bytes().strip()
        except OSError:
            token = b""
        if not token:
            raise Refusal(404, f"no S3 server {server} is configured")
        if not hmac.compare_digest(_given(authorization), token):
            raise Refusal(401, "wrong or missing bearer token", www_authenticate="Bearer")


def _reached(door: T | None) -> T:
    """What stands behind a path.

    Raises:
        Refusal: NATS was not reached yet.
    """
    if door is None:
        raise Refusal(503, "the event log was not reached yet", retry_after="3")
    return door


def _is_call(scope: dict[str, Any]) -> bool:
    """Whether the caller waits for a function's answer."""
    wanted = header(scope["headers"], calling.TYPE.encode())
    return wanted == calling.RESPONSE.encode() and _FUNCTION.fullmatch(scope["path"]) is not None


def _is_ceph(headers: Headers) -> bool:
    """Whether a request has a user and a password: only Ceph's gateway has its credentials in a URL, and before they are good no body is read."""
    return header(headers, b"authorization").partition(b" ")[0].lower() == b"basic"


def _given(authorization: bytes) -> bytes:
    """The bearer token of a request, or the password of one that has a user and a password: what a URL can hold (Ceph)."""
    scheme, _, given = authorization.partition(b" ")
    if scheme.lower() == b"bearer":
        return given.strip()
    if scheme.lower() != b"basic":
        return b""
    with contextlib.suppress(ValueError):
        return base64.b64decode(given.strip(), validate=True).partition(b":")[2]
    return b""


def _said(status: int, message: str, headers: dict[str, str]) -> Answer:
    """An answer in a sentence."""
    return Answer(status, f"{message}\n".encode(), {"content-type": "text/plain"} | headers)


async def _read(receive: Receive) -> tuple[bytes, int, bytes | None]:
    """A body's start, its size, and the body itself (None: longer than BODY_BYTES).

    Raises:
        Refusal: it stalled, was cut off, or does not end.
    """
    parts: list[bytes] = []
    start, size = b"", 0
    async with contextlib.aclosing(chunks(receive)) as coming:
        async for part in coming:
            size += len(part)
            if len(start) < START_BYTES:
                start += part[: START_BYTES - len(start)]
            if size > LONGEST_BODY:
                raise Refusal(413, f"a body of more than {LONGEST_BODY} bytes", connection="close")
            if size > BODY_BYTES:
                parts.clear()
            else:
                parts.append(part)
    return start, size, b"".join(parts) if size <= BODY_BYTES else None
