"""The ingest's HTTP interface, plain ASGI: `POST /v1/s3/<server>` with a bearer token.

200: everything is in the log, or a dead letter. 401: wrong token. 404: unknown server or path. 408: the body stalled.
413: more than any server sends. 503 with Retry-After: the log is away or full, send it again.

Invariant: memory is bounded. At most CONCURRENT bodies of at most BODY_BYTES are held; other requests wait with what
their socket buffers hold, and nothing of a body is read before its token is checked.
"""

import asyncio
import hmac
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import prometheus_client

from wisp_events.log import LogUnavailable
from wisp_events.web import Receive, Refusal, Send

if TYPE_CHECKING:
    from wisp_events.ingest.receive import Receiver

logger = logging.getLogger(__name__)

BODY_BYTES: Final = 4 * 1024 * 1024
"""A longer body becomes a dead letter."""
LONGEST_BODY: Final = 64 * 1024 * 1024
"""Of a longer one not even the end is awaited."""
BODY_SECONDS: Final = 20
CONCURRENT: Final = 32
START_BYTES: Final = 4096
_PATH = re.compile(r"/v1/s3/([A-Za-z0-9][A-Za-z0-9.-]{0,252})")

REQUESTS = prometheus_client.Counter("wisp_ingest_requests", "Webhook requests by answer", ["status"])
SECONDS = prometheus_client.Histogram(
    "wisp_ingest_request_seconds",
    "From the token's check to the log's acknowledgement",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5, 20),
)


class App:
    """The ASGI application."""

    def __init__(self, tokens: Path) -> None:
        """`tokens` is a directory with one file a server: its token."""
        self._tokens = tokens
        self._turn = asyncio.Semaphore(CONCURRENT)
        self.receiver: Receiver | None = None
        """None until NATS was reached for the first time."""

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        status, message, headers = 200, "ok", {}
        try:
            await self._answer(scope, receive)
        except Refusal as refusal:
            status, message, headers = refusal.status, str(refusal), refusal.headers
        except LogUnavailable as error:
            status, message, headers = 503, f"the event log: {error}", {"retry-after": "3"}
        except Exception:
            logger.exception("a request failed")
            status, message = 500, "an error in the ingest; its log says more"
        REQUESTS.labels(status).inc()
        body = f"{message}\n".encode()
        lines = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
        lines += [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": lines})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: dict[str, Any], receive: Receive) -> None:
        """Return once the notification is taken.

        Raises:
            Refusal: it is not.
            LogUnavailable: it could not be stored now.
        """
        match = _PATH.fullmatch(scope["path"])
        if match is None:
            raise Refusal(404, "post S3 event notifications to /v1/s3/<server>")
        server = match[1]
        self._authenticate(server, dict(scope["headers"]).get(b"authorization", b""))
        if scope["method"] in ("GET", "HEAD"):
            return  # probes of servers that look before they send
        if scope["method"] != "POST":
            raise Refusal(405, "send POST", allow="POST")
        if self.receiver is None:
            raise Refusal(503, "the event log was not reached yet", retry_after="3")
        async with self._turn:
            start, size, body = await _read(receive)
            with SECONDS.time():
                if body is None:
                    await self.receiver.refuse(server, start, size, BODY_BYTES)
                elif body:
                    await self.receiver.receive(server, body)

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
        scheme, _, given = authorization.partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(given.strip(), token):
            raise Refusal(401, "wrong or missing bearer token", www_authenticate="Bearer")


async def _read(receive: Receive) -> tuple[bytes, int, bytes | None]:
    """A body's start, its size, and the body itself (None: longer than BODY_BYTES).

    Raises:
        Refusal: it stalled, was cut off, or does not end.
    """
    chunks: list[bytes] = []
    start, size, more = b"", 0, True
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Refusal(400, "the body was cut off")
                chunk, more = message.get("body", b""), message.get("more_body", False)
                size += len(chunk)
                if len(start) < START_BYTES:
                    start += chunk[: START_BYTES - len(start)]
                if size > LONGEST_BODY:
                    raise Refusal(413, f"a body of more than {LONGEST_BODY} bytes", connection="close")
                if size > BODY_BYTES:
                    chunks.clear()
                else:
                    chunks.append(chunk)
    except TimeoutError:
        raise Refusal(408, f"the body did not arrive within {BODY_SECONDS} s") from None
    return start, size, b"".join(chunks) if size <= BODY_BYTES else None
