"""The ``asgi`` form: any ASGI 3 application, as FastAPI's and Starlette's, with its lifespan.

Invariant: what the app sends in one piece is one RESULT, anything else a stream; ``receive`` gives the request once and
``http.disconnect`` when the caller has left or has its answer. An app that answers nothing, or twice, is told so.
Spec: https://asgi.readthedocs.io/en/latest/specs/www.html.
"""

from __future__ import annotations

import asyncio
from urllib.parse import unquote

from wisp_runtime.errors import InitError, InvalidResultError, user_stack
from wisp_runtime.frames import CHUNK, END, RESULT, START

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from wisp_runtime.invocation import Invocation
    from wisp_runtime.shared import Session

    App = Callable[..., Awaitable[None]]

_VERSIONS = {"version": "3.0", "spec_version": "2.4"}
SHUTDOWN_SECONDS = 1.0


class AsgiApp:
    """An application, and what its lifespan has put into the state."""

    def __init__(self, app: App) -> None:
        """Wrap an application."""
        self._app = app
        self._state: dict[str, Any] = {}

    async def run(self, invocation: Invocation, session: Session) -> None:
        """Run the application for one request."""
        if invocation.head["form"] == "websocket":
            from wisp_runtime.asgi_websocket import run_websocket  # noqa: PLC0415 - for apps that are asked to

            await run_websocket(self._app, self._scope(invocation.head), session)
            return
        exchange = _Exchange(invocation.body, session)
        await self._app(self._scope(invocation.head), exchange.receive, exchange.send)
        if session.open:
            raise InvalidResultError("Runtime.InvalidResponse", "The app returned before its response was complete")

    def _scope(self, head: dict[str, Any]) -> dict[str, Any]:
        """Make a request's connection scope."""
        path, _, query = head["target"].partition("?")
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in head["headers"]]
        fields = dict(head["headers"])
        host, _, port = fields.get("host", "").rpartition(":")
        scheme = fields.get("x-forwarded-proto", "http")
        return {
            "type": "http",
            "asgi": _VERSIONS,
            "http_version": head["version"],
            "method": head["method"],
            "scheme": scheme,
            "path": unquote(path),
            "raw_path": path.encode("latin-1"),
            "query_string": query.encode("latin-1"),
            "root_path": "",
            "headers": headers,
            "client": (head["peer"], 0),
            "server": (host or port, int(port) if host and port.isdecimal() else 443 if scheme == "https" else 80),
            "state": dict(self._state),
            "extensions": {"wisp.jwt": head["jwt"]} if "jwt" in head else {},
        }

    async def lifespan(self, serve: Callable[[], Awaitable[None]]) -> None:
        """Start the application up, serve, and shut it down; one that knows no lifespan is served as it is.

        Raises:
            InitError: It says that its start-up has failed.
        """
        inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        outbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        scope = {"type": "lifespan", "asgi": _VERSIONS, "state": self._state}
        task = asyncio.ensure_future(self._app(scope, inbox.get, outbox.put))
        inbox.put_nowait({"type": "lifespan.startup"})
        answer = await _answer(task, outbox)
        if answer is not None and answer["type"] == "lifespan.startup.failed":
            await asyncio.wait([task], timeout=SHUTDOWN_SECONDS)
            error = task.exception() if task.done() else None
            stack = user_stack(error.__traceback__) if error else []
            raise InitError("Runtime.LifespanFailed", f"The app's start-up failed: {answer.get('message', '')}", stack)
        await serve()
        if answer is not None:
            inbox.put_nowait({"type": "lifespan.shutdown"})
            await asyncio.wait([asyncio.ensure_future(_answer(task, outbox))], timeout=SHUTDOWN_SECONDS)


async def _answer(task: asyncio.Future[None], outbox: asyncio.Queue[dict[str, Any]]) -> dict[str, Any] | None:
    """Wait for the app's next word on its lifespan; None if it has none to say."""
    word: asyncio.Future[Any] = asyncio.ensure_future(outbox.get())
    both: list[asyncio.Future[Any]] = [task, word]
    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    if word.done():
        answer: dict[str, Any] = word.result()
        return answer
    word.cancel()
    task.exception()  # an app without a lifespan raises, as the spec wants it
    return None


class _Exchange:
    """``receive`` and ``send`` of one request."""

    def __init__(self, body: bytes, session: Session) -> None:
        self._body: bytes | None = body
        self._session = session
        self._head: dict[str, Any] | None = None
        self._done = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        """Give the request, then wait for the end."""
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        waits = [asyncio.ensure_future(event.wait()) for event in (self._session.gone, self._done)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        """Take a part of the response."""
        kind = message["type"]
        if kind == "http.response.start" and self._head is None:
            headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in message.get("headers", ())]
            self._head = {"status": message["status"], "headers": headers}
        elif kind == "http.response.body" and self._head is not None:
            await self._send_body(self._head, bytes(message.get("body", b"")), more=message.get("more_body", False))
        else:
            raise InvalidResultError("Runtime.InvalidResponse", f"The app sent {kind!r} where it has no place")

    async def _send_body(self, head: dict[str, Any], body: bytes, *, more: bool) -> None:
        session = self._session
        if more:
            await session.send(*((CHUNK, {}) if session.started else (START, head)), body)
            return
        await session.send(*((END, {}) if session.started else (RESULT, head)), body)
        self._done.set()
