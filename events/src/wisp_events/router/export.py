"""Spans to a collector, by OTLP over HTTP in JSON.

Invariant: who adds a span never waits and nothing ever fails for them: the queue holds QUEUE spans, and what finds it full is
dropped and counted. A turn sends no more than one queue, and `grant` lets no more than that be made in it, before anything is: so
telling costs at most QUEUE spans each FLUSH_SECONDS, whatever tenants ask for, and a namespace leaves others as much as it takes.
A collector that is away costs a queue's memory; what it did not take in time is dropped and counted.
Specification: https://opentelemetry.io/docs/specs/otlp/#otlphttp
"""

import asyncio
import contextlib
import logging
import re
from collections import Counter, deque
from pathlib import Path
from typing import Final

import msgspec

from wisp_events.router import metrics, spans, verdict
from wisp_events.router.client import Client
from wisp_events.router.request import Address, address
from wisp_events.router.spans import Span
from wisp_events.router.verdict import Answer, Outcome

QUEUE: Final = 2048
FLUSH_SECONDS: Final = 1.0
AT_ONCE: Final = 128
"""Spans in a request: making one takes a few milliseconds, in which nothing else runs."""
ANSWER_SECONDS: Final = 10.0
PAUSES: Final = (1.0, 2.0, 4.0, 0.0)
"""After each attempt to send; the last one has no other after it."""
LAST_SECONDS: Final = 5.0
_PATH: Final = "/v1/traces"
_AGAIN: Final = (429, 502, 503, 504)
_NAME = re.compile(r"[A-Za-z0-9-]+")
logger = logging.getLogger(__name__)


class _Partial(msgspec.Struct, rename="camel"):
    rejected_spans: int = 0
    error_message: str = ""


class _Response(msgspec.Struct, rename="camel"):
    partial_success: _Partial = msgspec.field(default_factory=_Partial)


class Exporter:
    """The queue and who empties it."""

    def __init__(self, http: Client, endpoint: str, headers: Path | None = None) -> None:
        """`endpoint`: the collector's URL, to which OTLP's path is added; `headers`: a folder with a file for each header.

        Raises:
            ValueError: it is no URL.
        """
        self._http = http
        self._to: Address = address(endpoint if endpoint.endswith(_PATH) else endpoint.rstrip("/") + _PATH)
        self._headers = headers
        self._queue: deque[Span] = deque()
        self._granted: Counter[str] = Counter()
        self._left = QUEUE
        self._trouble = ""

    def grant(self, namespace: str, wanted: int) -> int:
        """How many of the spans wanted may be made for a namespace in this turn, no more than are left for others; the rest is dropped."""
        left = min(self._left, QUEUE - len(self._queue))
        granted = max(0, min(wanted, (left - self._granted[namespace] + 1) // 2))
        self._granted[namespace] += granted
        self._left -= granted
        if granted < wanted:
            metrics.SPANS_DROPPED.inc(wanted - granted)
        return granted

    def add(self, span: Span) -> None:
        """Take a span, or drop it: of an earlier turn's there may be too many."""
        if len(self._queue) < QUEUE:
            self._queue.append(span)
        else:
            metrics.SPANS_DROPPED.inc()

    async def run(self) -> None:
        """Send what comes, for ever."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await self.flush()

    async def close(self, running: asyncio.Task[None]) -> None:
        """End `run`, and send what is there if the collector takes it at once."""
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_SECONDS):
                await self.flush()

    async def flush(self) -> None:
        """Send what is in the queue now; another turn begins."""
        self._granted.clear()
        self._left = QUEUE
        for _ in range(0, len(self._queue), AT_ONCE):
            taken = [self._queue.popleft() for _ in range(min(AT_ONCE, len(self._queue)))]
            left = len(taken)
            try:
                left = await self._send(taken)
            except (OSError, ValueError) as error:  # of the headers' folder, or of a text that no JSON can have
                self._tell(str(error))
            except Exception as error:
                logger.exception("spans were not told: a defect of the router")
                self._trouble = str(error)
            finally:
                metrics.SPANS_EXPORTED.inc(len(taken) - left)
                metrics.SPANS_DROPPED.inc(left)

    async def _send(self, taken: list[Span]) -> int:
        """Send spans; how many were not taken."""
        body = spans.encode(taken)
        lines = f"content-type: application/json\r\n{self._extra()}content-length: {len(body)}\r\n\r\n"
        request = self._to.head + lines.encode("latin-1") + body
        for pause in PAUSES:
            outcome = await self._post(request)
            if isinstance(outcome, Answer) and outcome.status not in _AGAIN:
                break
            if pause:
                await asyncio.sleep(pause)
        if not isinstance(outcome, Answer) or not 200 <= outcome.status < 300:  # noqa: PLR2004
            self._tell(verdict.describe(outcome))
            return len(taken)
        told = _partial(outcome.body)
        self._tell(told.error_message or f"{told.rejected_spans} spans" if told.rejected_spans else "")
        return min(len(taken), told.rejected_spans)

    async def _post(self, request: bytes) -> Outcome:
        answered: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def done(outcome: Outcome) -> None:
            if not answered.done():
                answered.set_result(outcome)

        self._http.send(self._to, request, ANSWER_SECONDS, done)
        return await answered

    def _extra(self) -> str:
        """The header lines of the folder, read anew each time: the kubelet refreshes it."""
        lines = []
        for file in sorted(self._headers.iterdir()) if self._headers else ():
            if file.name.startswith(".."):
                continue  # the kubelet's own
            value = file.read_text().strip()
            if not _NAME.fullmatch(file.name) or not (value.isascii() and value.isprintable()):
                raise ValueError(f"{file}: write a header's name as key and its value in one line of ASCII")
            lines.append(f"{file.name}: {value}\r\n")
        return "".join(lines)

    def _tell(self, trouble: str) -> None:
        """Log what changed."""
        if trouble and not self._trouble:
            logger.warning("the collector at %s:%d does not take spans: %s", self._to.host, self._to.port, trouble)
        elif self._trouble and not trouble:
            logger.info("the collector takes spans again")
        self._trouble = trouble


def _partial(body: bytes) -> _Partial:
    try:
        return msgspec.json.decode(body, type=_Response, strict=False).partial_success
    except ValueError:
        return _Partial()
