"""What the parts that serve HTTP share: ASGI's types, an answer that refuses, a body that is read to its end before it, and the server."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Final

import uvicorn

from wisp_events.connections import CONNECTIONS, Connection

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[dict[str, Any], Receive, Send], Awaitable[None]]

DRAIN_SECONDS: Final = 20
"""What is under way at SIGTERM has this long."""
DROPPED_BYTES: Final = 16 * 1024 * 1024
DROP_SECONDS: Final = 5


class Refusal(Exception):  # noqa: N818 - an answer, not an error here
    """Raised to answer a request with a status and a sentence."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        """`headers` with `_` for `-`."""
        super().__init__(message)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Body:
    """A request's body, as `receive`, which can be read to its end after a refusal: who still writes would not see the answer."""

    def __init__(self, receive: Receive) -> None:
        """Nothing is read yet."""
        self._receive = receive
        self._ended = False

    async def __call__(self) -> dict[str, Any]:
        """The next message."""
        message = await self._receive()
        self._ended = message["type"] == "http.disconnect" or not message.get("more_body", False)
        return message

    async def drop(self) -> None:
        """Read what is left and keep nothing, within DROPPED_BYTES and DROP_SECONDS."""
        size = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DROP_SECONDS):
                while not self._ended and size < DROPPED_BYTES:
                    size += len((await self()).get("body", b""))


class Server(uvicorn.Server):
    """Uvicorn without signal handlers of its own, since `process.run` has them, and with bounds on what a stranger's connection costs."""

    def __init__(self, app: App, port: int, *, keep_seconds: int) -> None:
        """Serve on all of the pod's addresses; `keep_seconds`: how long a connection is kept between two requests."""
        super().__init__(
            uvicorn.Config(
                app,
                host="0.0.0.0",  # noqa: S104 - a pod serves on its own address
                port=port,
                http=Connection,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                limit_concurrency=CONNECTIONS,
                timeout_keep_alive=keep_seconds,
                timeout_graceful_shutdown=DRAIN_SECONDS,
            )
        )

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]  # noqa: ANN201 - as uvicorn declares it
        """Leave signals alone."""
        yield
