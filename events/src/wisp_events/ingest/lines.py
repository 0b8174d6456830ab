"""The door of the log stream: `POST /v1/namespaces/NS/functions/NAME/logs/UID` takes a function's log lines, `GET` gives them back.

Pods write with a token that is made for nothing else (`names.LOG_AUDIENCE`), and read nothing with it; the namespace's ServiceAccounts
read, with the token that they post events with. `UID` is the Function's: who makes a namespace and a Function of the same names later does
not find the lines of the one before.

Invariant: a line is found under its namespace alone, whose name the cluster has signed in the writer's token; likewise the pod's. A batch
that is sent again is stored once, within the stream's duplicate window. A namespace writes RATE bytes a second in the long run;
beyond that it is told to wait, and its pods drop what they have no room for.
"""

import json
import time
from datetime import datetime
from typing import Any, Final
from urllib.parse import parse_qs

import msgspec
import nats.errors
import nats.js.errors
import prometheus_client
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import Header
from wisp_api import names

from wisp_events import log
from wisp_events.ingest.door import Answer, Headers, Room, header, read
from wisp_events.ingest.tokens import Tokens
from wisp_events.router import bucket
from wisp_events.web import Receive, Refusal

BODY_BYTES: Final = 1024 * 1024
"""More than a pod sends at once: some pieces, and a line that is very long."""
ROOM_BYTES: Final = 16 * 1024 * 1024
CALLER_BYTES: Final = 4 * 1024 * 1024
RATE: Final = 128 * 1024
"""Bytes a second that a namespace may write, at each replica of the ingest."""
BURST: Final = 16 * 1024 * 1024
_RATES: Final = 10_000
PAGE_BYTES: Final = 1024 * 1024
_PAGE_BATCHES: Final = 64
_READ_SECONDS: Final = 5.0
_POD: Final = "Wisp-Pod"
_BATCH: Final = 200
"""The longest id of a batch."""

LINES = prometheus_client.Counter(
    "wisp_ingest_log_lines", "Lines of functions' logs, by what became of them", ["result"]
)


class Line(msgspec.Struct):
    """A line of a function's log."""

    time: str
    """When the stream took it; a line of JSON says itself when it was written."""
    pod: str
    text: str


class Page(msgspec.Struct):
    """Some lines, in the order in which they were stored."""

    lines: list[Line]
    next: int
    """What to ask for as `after` next; 0: there are no more."""


class Lines:
    """Answers requests about log lines."""

    def __init__(self, client: Client, tokens: Tokens) -> None:
        """Of this log."""
        self._client = client
        self._js = client.jetstream()
        self._tokens = tokens
        self._room = Room(ROOM_BYTES, CALLER_BYTES)
        self._used: dict[str, tuple[float, float]] = {}

    async def answer(self, namespace: str, subject: str, scope: dict[str, Any], receive: Receive) -> Answer:
        """Answer one request about the lines under a subject.

        Raises:
            Refusal: it is not allowed, or wrong.
            log.LogUnavailable: the stream is away.
        """
        headers: Headers = scope["headers"]
        if scope["method"] not in {"POST", "GET"}:
            raise Refusal(405, "send GET or POST", allow="GET, POST")
        writes = scope["method"] == "POST"
        caller = await self._tokens.caller(headers, names.LOG_AUDIENCE if writes else names.AUDIENCE)
        if caller.namespace != namespace:
            raise Refusal(
                403, f"the log lines of {namespace} are for its own ServiceAccounts, not {caller.namespace}'s"
            )
        try:
            if not writes:
                return await self._page(subject, scope.get("query_string", b"").decode())
            async with self._room.hold(namespace, headers, BODY_BYTES):
                lines = await read(receive, BODY_BYTES)
                self._use(namespace, len(lines))
                await self._store(subject, caller.pod, header(headers, b"wisp-batch").decode("latin-1"), lines)
        except (nats.js.errors.NoStreamResponseError, nats.errors.NoRespondersError) as error:
            raise Refusal(404, "this installation keeps no log lines (chart value log.lines.maxBytes)") from error
        except bucket.LOG_ERRORS as error:
            raise log.describe(error) from error
        LINES.labels("stored").inc(lines.count(b"\n"))
        return Answer(204, b"", {})

    def _use(self, namespace: str, size: int) -> None:
        """Count bytes that a namespace writes.

        Raises:
            Refusal: they are too many for now.
        """
        now = time.monotonic()
        if len(self._used) >= _RATES:
            self._used.clear()
        used, since = self._used.get(namespace, (0.0, now))
        used = max(0.0, used - (now - since) * RATE)
        if used + size > BURST:
            self._used[namespace] = used, now
            LINES.labels("put_off").inc()
            raise Refusal(429, f"the functions of {namespace} log more than {RATE} bytes a second", retry_after="5")
        self._used[namespace] = used + size, now

    async def _store(self, subject: str, pod: str, batch: str, lines: bytes) -> None:
        headers = {_POD: pod}
        if batch:
            headers[Header.MSG_ID.value] = log.fingerprint(subject, pod, batch[:_BATCH])
        await self._js.publish(subject, lines, log.PUBLISH_SECONDS, names.LOG_STREAM, headers)

    async def _page(self, subject: str, query: str) -> Answer:
        """Lines `after` a place, or `since` a time; `request`: only those with this text in them."""
        given = {name: values[-1] for name, values in parse_qs(query).items()}
        after, since, request = given.get("after", "0"), given.get("since", ""), given.get("request", "")
        if not after.isdecimal() or (since and not _is_time(since)):
            raise Refusal(400, "after is a whole number, since a time as 2026-01-31T12:00:00Z")
        start = {"start_time": since} if since and after == "0" else {"seq": int(after) + 1}
        found = await self._read({"next_by_subj": subject, "batch": _PAGE_BATCHES, "max_bytes": PAGE_BYTES, **start})
        if "start_time" in start and found and _stored(found[0]) < datetime.fromisoformat(since):
            found = []  # asked for a time after its last message, the server begins anew
        lines = [line for message in found for line in _lines(message, request.encode())]
        last = int((found[-1].headers or {})["Nats-Sequence"]) if found else 0
        body = msgspec.json.encode(Page(lines, last))
        return Answer(200, body, {"content-type": "application/json"})

    async def _read(self, query: dict[str, Any]) -> list[Msg]:
        """The next messages, as far as a page goes."""
        inbox = self._client.new_inbox()
        answers = await self._client.subscribe(inbox)
        try:
            await self._client.publish(f"$JS.API.DIRECT.GET.{names.LOG_STREAM}", json.dumps(query).encode(), inbox)
            found: list[Msg] = []
            while True:
                message = await answers.next_msg(_READ_SECONDS)
                status = (message.headers or {}).get("Status")
                if status is None:
                    found.append(message)
                elif status == "503":
                    raise nats.js.errors.NoStreamResponseError
                else:
                    return found
        finally:
            await answers.unsubscribe()


def _lines(message: Msg, request: bytes) -> list[Line]:
    headers = message.headers or {}
    stamp, pod = headers["Nats-Time-Stamp"], headers.get(_POD, "")
    return [
        Line(stamp, pod, line.decode(errors="replace"))
        for line in message.data.split(b"\n")
        if line and request in line
    ]


def _stored(message: Msg) -> datetime:
    return datetime.fromisoformat((message.headers or {})["Nats-Time-Stamp"])


def _is_time(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False
