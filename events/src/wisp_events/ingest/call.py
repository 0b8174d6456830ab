"""Calls whose callers wait: `POST /v1/namespaces/NS/functions/NAME/invocations` with `X-Amz-Invocation-Type: RequestResponse`.

A call is one POST to `/` of a revision, by way of Knative's activator, which starts a pod where none runs. The ingest lends nobody a right: it
serves ServiceAccounts of the function's own namespace, holds no key, and a function that asks for a token judges the caller's own.

Invariant: what is called is a revision of the caller's namespace. The activator finds it there by its name; no address comes from a request or
from an object that a tenant may write. Of the caller's headers only `_PASSED` and its token for the function go on, and of the function's only
`_TOLD` come back. Nothing is sent twice.

A call ends, and its place is free, with the answer, at its deadline, when the caller leaves, or when it reads nothing for WRITE_SECONDS. So
calls could only keep others waiting while PLACES / SHARE namespaces have all of theirs taken; events and the other doors go on.
"""

import asyncio
import contextlib
import logging
import re
from collections import Counter
from collections.abc import Coroutine, Iterator
from typing import Any, Final, NamedTuple

import prometheus_client
from wisp_api import caller, calling

from wisp_events.ingest.door import Headers, Room, header, read
from wisp_events.ingest.reply import Broken, Reply, connect
from wisp_events.ingest.tokens import Tokens
from wisp_events.router.verdict import ERROR, MARK
from wisp_events.web import Receive, Refusal, Send

logger = logging.getLogger(__name__)

PLACES: Final = 256
SHARE: Final = 32
"""Of these, what the calls of one namespace may take."""
ROOM_BYTES: Final = 32 * 1024 * 1024
CALLER_BYTES: Final = 8 * 1024 * 1024
ROOM_SECONDS: Final = 10.0
WRITE_SECONDS: Final = 30.0
_REVISION: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_PASSED: Final = (b"content-type", b"traceparent", b"tracestate", b"x-amz-log-type")
_TOLD: Final = frozenset(
    (
        *(b"content-type", b"content-encoding", b"content-language", b"content-length", b"location"),
        *(b"retry-after", b"x-amz-log-result", MARK, ERROR),
    )
)

CALLS: Final = prometheus_client.Counter(
    "wisp_ingest_calls",
    "Calls whose callers wait, by what was answered: the function's status or the ingest's",
    ["status"],
)


class Wanted(NamedTuple):
    """What a caller asks for."""

    namespace: str
    name: str
    revision: str
    seconds: int
    """How long the call may take in all."""


class _LeftError(Exception):
    """Raised when the caller does not wait any more."""


class _Passing:
    """The way back to the caller; once it has begun there is no other answer."""

    def __init__(self, send: Send) -> None:
        """Nothing is sent yet."""
        self._send = send
        self.begun = False

    async def __call__(self, kind: str, **message: Any) -> None:
        """Send a message.

        Raises:
            Broken: the caller does not read.
        """
        self.begun = True
        try:
            async with asyncio.timeout(WRITE_SECONDS):
                await self._send({"type": f"http.response.{kind}", **message})
        except TimeoutError:
            raise Broken(f"its caller read nothing for {WRITE_SECONDS:g} s") from None


class Calls:
    """Calls functions."""

    def __init__(self, tokens: Tokens, activator: str) -> None:
        """`activator`: the host and port of Knative's."""
        self._tokens = tokens
        self._host, _, port = activator.rpartition(":")
        self._port = int(port)
        self._room = Room(ROOM_BYTES, CALLER_BYTES)
        self._under_way: Counter[str] = Counter()

    async def answer(self, namespace: str, name: str, headers: Headers, receive: Receive, send: Send) -> None:
        """Send the function's answer; one that does not come to its end is cut off, which its reader sees.

        Raises:
            Refusal: nothing is sent yet, and this is to be.
        """
        who = await self._tokens.caller(headers)
        if who.namespace != namespace:
            message = f"ServiceAccount {who.namespace}/{who.name} is not of namespace {namespace}: its functions' answers are for its own ServiceAccounts here"
            raise Refusal(403, f"{message}; others call the function's URL (status.url), as its auth says")
        wanted = read_wanted(namespace, name, headers)
        passing = _Passing(send)
        with self._place(namespace):
            try:
                async with asyncio.timeout(wanted.seconds):
                    await self._call(wanted, headers, receive, passing)
            except _LeftError:
                CALLS.labels("left").inc()
            except (Broken, TimeoutError) as error:
                failure = _explain(wanted, error)
                if not passing.begun:
                    raise failure from error
                logger.warning("an answer was cut off: %s", failure)

    async def _call(self, wanted: Wanted, headers: Headers, receive: Receive, passing: _Passing) -> None:
        async with contextlib.AsyncExitStack() as room:
            try:
                async with asyncio.timeout(ROOM_SECONDS):
                    hold = self._room.hold(wanted.namespace, headers, calling.LONGEST)
                    longest = await room.enter_async_context(hold)
            except TimeoutError:
                raise Refusal(
                    429, "too many large events are on their way to functions: come again", retry_after="5"
                ) from None
            body = await read(receive, longest)
            work = self._exchange(wanted, b"".join((_head(wanted, headers, len(body)), body)), room, passing)
            del body  # what is held is the request
            await _while_there(receive, work)

    async def _exchange(
        self, wanted: Wanted, request: bytes, room: contextlib.AsyncExitStack, passing: _Passing
    ) -> None:
        """Send a request and pass its answer on."""
        try:
            reply = await connect(self._host, self._port)
        except OSError as error:
            message = f"no connection to Knative's activator, {self._host}:{self._port}: {error.strerror or error}"
            raise Refusal(
                503, f"{message}. Function {wanted.name} was not called; does Knative run?", retry_after="3"
            ) from error
        try:
            await reply.send(request)
            del request
            await room.aclose()
            await reply.head()
            await _pass_on(wanted, reply, passing)
        finally:
            reply.close()

    @contextlib.contextmanager
    def _place(self, namespace: str) -> Iterator[None]:
        """One of the places, until the block ends.

        Raises:
            Refusal: none is free, or the namespace has its share.
        """
        if self._under_way[namespace] >= SHARE:
            raise Refusal(
                429, f"namespace {namespace} has {SHARE} calls under way here: wait for answers", retry_after="1"
            )
        if self._under_way.total() >= PLACES:
            raise Refusal(429, f"{PLACES} calls are under way here: come again", retry_after="1")
        self._under_way[namespace] += 1
        try:
            yield
        finally:
            self._under_way[namespace] -= 1
            if not self._under_way[namespace]:
                del self._under_way[namespace]


def read_wanted(namespace: str, name: str, headers: Headers) -> Wanted:
    """What a request asks for.

    Raises:
        Refusal: it is not said, or can't be.
    """
    revision = header(headers, calling.REVISION.encode()).decode("latin-1")
    if not _REVISION.fullmatch(revision) or not revision.startswith(f"{name}-"):
        raise Refusal(
            400, f"{calling.REVISION}: name a revision of function {name}, its status.revision has the newest"
        )
    seconds = header(headers, calling.TIMEOUT.encode()).decode("latin-1") or str(calling.DEFAULT_SECONDS)
    if not re.fullmatch("[0-9]{1,3}", seconds, re.ASCII) or not 1 <= int(seconds) <= calling.MOST_SECONDS:
        raise Refusal(400, f"{calling.TIMEOUT}: write the function's timeoutSeconds, 1 to {calling.MOST_SECONDS}")
    return Wanted(namespace, name, revision, int(seconds) + calling.START_SECONDS)


def _head(wanted: Wanted, headers: Headers, length: int) -> bytes:
    """The head of the request to the activator."""
    lines = {
        b"host": f"{wanted.name}.{wanted.namespace}.svc".encode(),
        b"user-agent": b"wisp-ingest",
        b"connection": b"close",
        b"knative-serving-namespace": wanted.namespace.encode(),
        b"knative-serving-revision": wanted.revision.encode(),
        b"content-length": b"%d" % length,
    }
    lines |= {name: value for name in _PASSED if (value := header(headers, name))}
    if token := header(headers, calling.TOKEN.encode()):
        lines[caller.HEADER.encode()] = token
    return b"POST / HTTP/1.1\r\n" + b"".join(b"%s: %s\r\n" % line for line in lines.items()) + b"\r\n"


async def _while_there(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Do the work, as long as the caller is there; its body is read already.

    Raises:
        _LeftError: the caller was gone first.
    """
    leaving, working = asyncio.create_task(_leave(receive)), asyncio.create_task(work)
    try:
        await asyncio.wait((leaving, working), return_when=asyncio.FIRST_COMPLETED)
        ended = working.done()
    finally:
        for task in (leaving, working):
            task.cancel()
        await asyncio.wait((leaving, working))
    if not ended:
        raise _LeftError
    working.result()


async def _leave(receive: Receive) -> None:
    """Return when the caller is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _pass_on(wanted: Wanted, reply: Reply, passing: _Passing) -> None:
    """Send an answer to the caller as it comes."""
    told = [line for line in reply.headers if line[0] in _TOLD or line[0].startswith(b"ce-")]
    told.append((calling.VERSION.encode(), wanted.revision.encode()))
    CALLS.labels(reply.status).inc()
    await passing("start", status=reply.status, headers=told)
    async with contextlib.aclosing(reply.parts()) as parts:
        async for part in parts:
            await passing("body", body=part, more_body=True)
    await passing("body", body=b"")


def _explain(wanted: Wanted, error: Broken | TimeoutError) -> Refusal:
    """What a caller is told in the answer's place."""
    look = f"it may have run: `wisp logs {wanted.name} -n {wanted.namespace}` says more"
    if isinstance(error, Broken):
        return Refusal(502, f"function {wanted.name} gave no answer that can be passed on: {error}; {look}")
    limit = wanted.seconds - calling.START_SECONDS
    return Refusal(
        504,
        f"function {wanted.name} gave no whole answer in {limit} s and {calling.START_SECONDS} s for a start; {look}",
    )
