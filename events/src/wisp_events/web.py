"""What the parts that serve HTTP share: ASGI's types, an answer that refuses, and the server."""

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Final

import uvicorn

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

DRAIN_SECONDS: Final = 20
"""What is under way at SIGTERM has this long."""


class Refusal(Exception):  # noqa: N818 - an answer, not an error here
    """Raised to answer a request with a status and a sentence."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        """`headers` with `_` for `-`."""
        super().__init__(message)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Server(uvicorn.Server):
    """Uvicorn without signal handlers of its own: `process.run` has them."""

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]  # noqa: ANN201 - as uvicorn declares it
        """Leave signals alone."""
        yield
