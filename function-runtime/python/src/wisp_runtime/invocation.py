"""One run of the handler in a worker: from the front's frame to the frames of its answer, and every way it can fail.

Invariant: ``Handler.run`` sends exactly one answer (RESULT, ERROR, or START to END) whatever the handler does, with the
user's own stack and not ours. Nothing here knows of HTTP.
"""

from __future__ import annotations

from types import CoroutineType

from wisp_runtime import logs
from wisp_runtime.errors import BadRequestError, function_error
from wisp_runtime.frames import CHUNK, END, ERROR, RESULT, START
from wisp_runtime.trace_variable import TraceVariable

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Iterator
    from typing import Any

    from wisp_runtime.board import Board
    from wisp_runtime.settings import Settings
    from wisp_runtime.shared import Session

    Answer = tuple[dict[str, Any], bytes, Any]  # head, body, and what yields the rest of a streamed body
    Encode = Callable[[Any], Answer]
    Decode = Callable[["Invocation"], tuple[tuple[Any, ...], Encode]]
    Send = Callable[[int, dict[str, Any], bytes], None]


class Invocation:
    """One event on its way through the handler.

    Attributes:
        head: The frame's head (docs/decisions/0021).
        body: The event's bytes.
        settings: The process's configuration.
    """

    __slots__ = ("body", "head", "settings")

    def __init__(self, head: dict[str, Any], body: bytes, settings: Settings) -> None:
        """Take what the front sent."""
        self.head = head
        self.body = body
        self.settings = settings

    @property
    def request_id(self) -> str:
        """The id under which all of it is logged."""
        return self.head["id"]  # type: ignore[no-any-return] # the protocol says so


class Handler:
    """The user's handler with its form."""

    def __init__(self, call: Callable[..., Any], signature: str, decode: Decode, settings: Settings) -> None:
        """Take the callable and its form's ``decode``: invocation to arguments and the result's encoder."""
        self.call = call
        self.signature = signature
        self.decode = decode
        self.settings = settings
        self.concurrency = 1
        self.run_app: Callable[[Invocation, Session], Awaitable[None]] | None = None  # of an ASGI app
        self.lifespan: Callable[[Callable[[], Awaitable[None]]], Awaitable[None]] | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.board: Board | None = None  # of a handler in the serving process
        self._trace = TraceVariable()

    def run(self, head: dict[str, Any], body: bytes, send: Send) -> None:
        """Run the handler once and send what it answers."""
        logs.begin_invocation(head["id"], head.get("trace", ""))
        self._trace.set(head.get("xray", ""))
        kind, content = RESULT, b""
        answer: dict[str, Any] = {}
        try:
            arguments, encode = self.decode(Invocation(head, body, self.settings))
            result = self.call(*arguments)
            if type(result) is CoroutineType:
                result = self.complete(result)
            answer, content, chunks = encode(result)
            if chunks is not None:
                kind, answer, content = self._stream(answer, content, chunks, send)
        except BadRequestError as error:
            kind, answer = ERROR, bad_request(error)
        except BaseException as error:  # noqa: BLE001 - SystemExit and all: the next event must find the process alive
            kind, answer = ERROR, function_error(error)
        logs.end_invocation()
        send(kind, answer, content)

    def complete(self, awaitable: Any) -> Any:
        """Run a coroutine to its end in the event loop that outlives it; between events it stands still."""
        return self.prepare_loop().run_until_complete(awaitable)

    def prepare_loop(self) -> asyncio.AbstractEventLoop:
        """Return the event loop of the handler's coroutines."""
        if self.loop is None:
            import asyncio  # noqa: PLC0415 - 40 ms and 10 MiB that a synchronous handler doesn't pay

            self.loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self.loop)
        return self.loop

    def _stream(self, head: dict[str, Any], body: bytes, chunks: Any, send: Send) -> tuple[int, dict[str, Any], bytes]:
        """Send a body as it is made; return the frame that ends it. An error after the start breaks it off."""
        items = iter(chunks) if hasattr(chunks, "__next__") else self._drive(chunks)
        first = next(items, None)  # what fails before the first byte is an ordinary error
        send(START, head, body + content_bytes(first))
        try:
            for item in items:
                send(CHUNK, {}, content_bytes(item))
        except OSError:
            raise
        except BaseException as error:  # noqa: BLE001 - as in run
            return END, function_error(error), b""
        return END, {}, b""

    def _drive(self, chunks: Any) -> Iterator[Any]:
        """Step through an asynchronous iterator from synchronous code."""
        source = chunks.__aiter__()
        while True:
            try:
                yield self.complete(source.__anext__())
            except StopAsyncIteration:
                return


def bad_request(error: BadRequestError) -> dict[str, Any]:
    """Say that the caller sent what the handler can't take."""
    return {"errorType": error.error_type, "errorMessage": error.message, "fault": "request", "stackTrace": []}


def content_bytes(item: Any) -> bytes:
    """Return a streamed item's bytes; a text is UTF-8, the end of an empty stream nothing."""
    if item is None:
        return b""
    return item.encode("utf-8", "replace") if isinstance(item, str) else bytes(item)
