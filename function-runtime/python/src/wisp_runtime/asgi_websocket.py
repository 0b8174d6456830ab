"""A WebSocket of an ASGI app: its events on one side, the invocation's frames on the other.

Invariant: a message counts as taken when the app has received it, so what the app leaves lying holds its caller up and
fills nothing; after ``websocket.disconnect`` the app hears nothing else, and what it still sends raises ``OSError``.
Spec: https://asgi.readthedocs.io/en/latest/specs/www.html#websocket.
"""

from __future__ import annotations

from wisp_runtime.errors import InvalidResultError
from wisp_runtime.frames import CANCEL, CHUNK, CLOSE, END, INPUT, MESSAGE, RESULT, START, TAKEN
from wisp_runtime.shared import CallerGoneError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from wisp_runtime.shared import Session

_CONNECTING, _OPEN, _CLOSED, _DENYING = range(4)
_NORMAL, _GOING_AWAY, _ABNORMAL = 1000, 1001, 1006
_FORBIDDEN = 403


async def run_websocket(app: Callable[..., Awaitable[None]], request: dict[str, Any], session: Session) -> None:
    """Run the application for one connection; ``request``: the scope that an HTTP request would have."""
    fields = dict(request["headers"])
    offered = fields.get(b"sec-websocket-protocol", b"").decode("latin-1").split(",")
    scope = {
        **request,
        "type": "websocket",
        "scheme": {"https": "wss", "http": "ws"}.get(request["scheme"], request["scheme"]),
        "subprotocols": [name.strip() for name in offered if name.strip()],
        "extensions": {**request["extensions"], "websocket.http.response": {}},
    }
    del scope["method"]
    speech = _Speech(session)
    await app(scope, speech.receive, speech.send)
    if session.open:
        if not session.started:
            text = "The app returned before it accepted the WebSocket or closed it"
            raise InvalidResultError("Runtime.InvalidResponse", text)
        await session.send(END, {})


class _Speech:
    """``receive`` and ``send`` of one connection."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._state = _CONNECTING
        self._told = False  # whether the app knows of the connection
        self._disconnect: dict[str, Any] | None = None
        self._denial: dict[str, Any] | None = None

    async def receive(self) -> dict[str, Any]:
        """Say that there is a caller, then give its messages, then the end."""
        if not self._told:
            self._told = True
            return {"type": "websocket.connect"}
        if self._disconnect is None:
            kind, head, body = await self._session.inbox.get()  # type: ignore[union-attr] # who listens has one
            if kind == INPUT:
                await self._session.send(TAKEN, {})
                content = (
                    {"bytes": body, "text": None} if head.get("binary") else {"text": body.decode(), "bytes": None}
                )
                return {"type": "websocket.receive", **content}
            default = _GOING_AWAY if kind == CANCEL and head.get("reason") == "timeout" else _ABNORMAL
            self._state = _CLOSED
            said = "" if kind == CANCEL else head.get("reason", "")
            self._disconnect = {"type": "websocket.disconnect", "code": head.get("code", default), "reason": said}
        return self._disconnect

    async def send(self, message: dict[str, Any]) -> None:
        """Take what the app says."""
        kind = message["type"]
        if self._state == _CONNECTING and kind == "websocket.accept":
            await self._accept(message)
        elif self._state == _CONNECTING and kind == "websocket.close":
            self._state = _CLOSED
            await self._session.send(RESULT, {"status": _FORBIDDEN, "headers": []})
        elif self._state == _CONNECTING and kind == "websocket.http.response.start":
            self._state = _DENYING
            self._denial = {"status": message["status"], "headers": _texts(message.get("headers"))}
        elif self._state == _DENYING and kind == "websocket.http.response.body":
            await self._deny(bytes(message.get("body", b"")), more=message.get("more_body", False))
        elif self._state == _OPEN and kind in ("websocket.send", "websocket.close"):
            await self._speak(message)
        elif self._session.gone.is_set():
            raise CallerGoneError("The caller has left")
        else:
            raise InvalidResultError("Runtime.InvalidResponse", f"The app sent {kind!r} where it has no place")

    async def _accept(self, message: dict[str, Any]) -> None:
        self._state = _OPEN
        head = {"status": 101, "headers": _texts(message.get("headers")), "subprotocol": message.get("subprotocol")}
        await self._session.send(START, head)

    async def _deny(self, body: bytes, *, more: bool) -> None:
        """Answer the handshake with a response in HTTP."""
        session, head = self._session, self._denial or {}
        if more:
            await session.send(*((CHUNK, {}) if session.started else (START, head)), body)
            return
        self._state = _CLOSED
        await session.send(*((END, {}) if session.started else (RESULT, head)), body)

    async def _speak(self, message: dict[str, Any]) -> None:
        """Send a message to the caller, or close."""
        if message["type"] == "websocket.close":
            self._state = _CLOSED
            head = {"code": message.get("code") or _NORMAL, "reason": message.get("reason") or ""}
            await self._session.send(CLOSE, head)
            return
        data = message.get("bytes")
        if data is not None:
            await self._session.send(MESSAGE, {"binary": True}, bytes(data))
        else:
            await self._session.send(MESSAGE, {}, str(message["text"]).encode("utf-8", "replace"))


def _texts(headers: Any) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers or ()]
