"""A worker that runs several asynchronous invocations at once, on one event loop: ASGI apps, and handlers that may share.

Invariant: each invocation is a task of its own, whose log lines carry its request id; a frame is written whole; who is
told to pause writes nothing until told to go on; the front's STOP lets the app's lifespan end.
"""

from __future__ import annotations

import asyncio
import os
import socket

from wisp_runtime import logs
from wisp_runtime.errors import BadRequestError, function_error
from wisp_runtime.frames import (
    CANCEL,
    CHUNK,
    END,
    ERROR,
    INPUT_END,
    INVOKE,
    MESSAGE,
    PAUSE,
    READ_SIZE,
    READY,
    RESULT,
    RESUME,
    START,
    STOP,
    FrameReader,
    pack,
)
from wisp_runtime.invocation import Invocation, bad_request, content_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import Any

    from wisp_runtime.frames import Channel
    from wisp_runtime.invocation import Handler

LEAVE_SECONDS = 0.5  # for a WebSocket's function to end by itself when its time is over


class CallerGoneError(OSError):
    """Raised when something is sent to a caller that has left; an ``OSError``, as the ASGI spec wants it."""


class Session:
    """One invocation's way to the front.

    Attributes:
        gone: Set when its caller has left.
        open: Whether its answer is still to be completed.
        started: Whether its answer has begun.
    """

    def __init__(self, worker: SharedWorker, number: int, *, listens: bool) -> None:
        """Answer as a number; ``listens``: its caller goes on speaking."""
        self._worker = worker
        self._number = number
        self.go = asyncio.Event()
        self.go.set()
        self.gone = asyncio.Event()
        self.open = True
        self.started = False
        self.inbox: asyncio.Queue[tuple[int, dict[str, Any], bytes]] | None = asyncio.Queue() if listens else None

    async def send(self, kind: int, head: dict[str, Any], body: bytes = b"") -> None:
        """Send a frame of the answer, when the caller is ready for it.

        Raises:
            CallerGoneError: There would be more to come, and the caller has left.
        """
        if not self.open:
            return
        if kind in (CHUNK, MESSAGE):
            await self.go.wait()
            if self.gone.is_set():
                raise CallerGoneError("The caller has left")
        self.started = True
        self.open = kind not in (RESULT, END, ERROR)
        await self._worker.write(pack(kind, self._number, head, body))

    async def fail(self, error: BaseException) -> None:
        """Answer with an error, or break off what has begun."""
        if isinstance(error, BadRequestError):
            await self.send(ERROR, bad_request(error))
        elif self.gone.is_set() and _is_of_the_end(error):
            await self.send(END, {})
        elif self.open:
            await self.send(END if self.started else ERROR, function_error(error))
        elif not isinstance(error, asyncio.CancelledError):
            document = function_error(error)
            message = f"{document['errorType']}: {document['errorMessage']}"
            logs.emit("ERROR", message, errorType=document["errorType"], stackTrace=document["stackTrace"])


def _is_of_the_end(error: BaseException | None) -> bool:
    """Whether an error comes of the caller's leaving, whatever a framework has made of it."""
    while error is not None and not isinstance(error, CallerGoneError):
        error = error.__cause__ or error.__context__
    return error is not None


class SharedWorker:
    """The event loop's side of the socket to the front."""

    def __init__(self, sock: socket.socket, handler: Handler) -> None:
        """Take the socket and what is to be run."""
        sock.setblocking(False)  # noqa: FBT003 - socket's own signature
        self._sock = sock
        self._handler = handler
        self._reader = FrameReader()
        self._writing = asyncio.Lock()
        self._sessions: dict[int, tuple[Session, asyncio.Task[None]]] = {}

    async def write(self, data: bytes) -> None:
        """Write a frame; waits while the front reads slowly."""
        async with self._writing:
            await asyncio.get_running_loop().sock_sendall(self._sock, data)

    async def serve(self) -> None:
        """Serve until the front stops us or has gone."""
        handler = self._handler
        head = {"signature": handler.signature, "concurrency": handler.concurrency, "pid": os.getpid()}
        await self.write(pack(READY, 0, head))
        loop = asyncio.get_running_loop()
        while True:
            data = await loop.sock_recv(self._sock, READ_SIZE)
            if not data:
                return
            for kind, number, head, body in self._reader.feed(data):
                if kind == STOP:
                    return
                self._take(kind, number, head, body)

    def _take(self, kind: int, number: int, head: dict[str, Any], body: bytes) -> None:
        if kind == INVOKE:
            session = Session(self, number, listens=head.get("form") == "websocket")
            task = asyncio.get_running_loop().create_task(self._run(session, number, head, body))
            self._sessions[number] = session, task
            return
        session, task = self._sessions.get(number, (None, None))  # type: ignore[assignment]
        if session is None:
            return
        if kind == PAUSE:
            session.go.clear()
        elif kind == RESUME:
            session.go.set()
        elif session.inbox is not None:
            self._take_input(session, task, kind, head, body)
        elif kind == CANCEL:
            session.gone.set()
            session.go.set()
            if head.get("reason") == "timeout" or self._handler.run_app is None:
                task.cancel()

    def _take_input(
        self, session: Session, task: asyncio.Task[None], kind: int, head: dict[str, Any], body: bytes
    ) -> None:
        """Take what the caller says, or that it says no more; whose time is over may end by itself, if it does so soon."""
        if session.inbox is not None:
            session.inbox.put_nowait((kind, head, body))
        if kind in (CANCEL, INPUT_END):
            session.gone.set()
            session.go.set()
        if head.get("reason") == "timeout" and kind == CANCEL:
            asyncio.get_running_loop().call_later(LEAVE_SECONDS, task.cancel)

    async def _run(self, session: Session, number: int, head: dict[str, Any], body: bytes) -> None:
        logs.begin_invocation(head["id"], head.get("trace", ""))
        invocation = Invocation(head, body, self._handler.settings)
        try:
            if self._handler.run_app is not None:
                await self._handler.run_app(invocation, session)
            else:
                await self._call(invocation, session)
        except BaseException as error:  # noqa: BLE001 - SystemExit and all: the other events go on
            await session.fail(error)
        finally:
            del self._sessions[number]

    async def _call(self, invocation: Invocation, session: Session) -> None:
        """Run a handler of one of the other forms."""
        arguments, encode = self._handler.decode(invocation)
        head, body, chunks = encode(await self._handler.call(*arguments))
        if chunks is None:
            await session.send(RESULT, head, body)
            return
        items = _items(chunks)
        await session.send(START, head, body + content_bytes(await anext(items, None)))
        async for item in items:
            await session.send(CHUNK, {}, content_bytes(item))
        await session.send(END, {})


async def _items(chunks: Any) -> AsyncIterator[Any]:
    """Iterate over either kind of generator."""
    if hasattr(chunks, "__aiter__"):
        async for item in chunks:
            yield item
    else:
        for item in chunks:
            yield item


def serve_shared(channel: Channel, handler: Handler) -> None:
    """Serve until the front stops us; an app's lifespan is around all of it."""
    channel.sock = sock = socket.socket(fileno=channel.sock.detach())  # the event loop takes no other class
    process = os.getpid()
    logs.use_tasks()
    loop = handler.prepare_loop()
    try:
        if handler.lifespan is None:
            loop.run_until_complete(SharedWorker(sock, handler).serve())
        else:
            loop.run_until_complete(handler.lifespan(SharedWorker(sock, handler).serve))
    except OSError:
        pass  # the front has gone
    if os.getpid() != process:
        os._exit(0)
