"""The connection to the event log's NATS server, the same way in every part.

Environment: WISP_NATS_URL, or several separated by commas; WISP_NATS_CREDS, the path of a credentials file (absent: no credentials, tests only);
WISP_NATS_INBOX, the inbox prefix that the credentials allow.

Invariants:
- The connection's rights are those of the credentials file, at most LOOK_SECONDS + SPREAD_SECONDS after it changed: an upgrade that
  changes a part's rights changes a mounted Secret, and the server knows a connection's rights from its beginning.
- A server that vanished without a word is left after SILENT_SECONDS and a ping's interval, whatever waits to be sent to it.

What is under way when a connection is left has no answer: whoever sent it sends it again, under the same `Nats-Msg-Id`.
"""

import asyncio
import logging
import os
import random
import socket
from pathlib import Path
from typing import Any, Final

from nats.aio.client import Client, Srv
from nats.aio.transport import TcpTransport

import wisp_api.waiting  # noqa: F401 - nats-py waits by it

logger = logging.getLogger(__name__)

CONNECT_SECONDS: Final = 5
"""For each address that is tried, and for each of the server's first answers."""
PING_SECONDS: Final = 5
PINGS: Final = 2
"""Unanswered ones; with the next the connection is given up."""
SILENT_SECONDS: Final = PING_SECONDS * (PINGS + 1)
LOOK_SECONDS: Final = 5.0
SPREAD_SECONDS: Final = 30.0
"""Within these all parts connect anew, not all at once."""


async def connect(name: str, **options: Any) -> Client:
    """Connect and keep reconnecting for ever, a second apart; `name` shows in the server's connection list.

    Raises:
        OSError or nats.errors.Error: the first connection fails only where `allow_reconnect` is switched off.
    """
    settings: dict[str, Any] = {
        "servers": os.environ["WISP_NATS_URL"].split(","),
        "name": name,
        "max_reconnect_attempts": -1,
        "reconnect_time_wait": 1,
        "connect_timeout": CONNECT_SECONDS,
        "ping_interval": PING_SECONDS,
        "max_outstanding_pings": PINGS,
        "error_cb": _note,
    }
    if creds := os.environ.get("WISP_NATS_CREDS"):
        settings["user_credentials"] = creds
    if inbox := os.environ.get("WISP_NATS_INBOX"):
        settings["inbox_prefix"] = inbox.encode()
    settings |= options
    given = settings.get("user_credentials")
    client = _Connection(Path(given) if isinstance(given, str) else None)
    await client.connect(**settings)
    return client


class _Connection(Client):
    """A connection that follows its credentials file, if it has one, and leaves a server that is silent."""

    def __init__(self, credentials: Path | None) -> None:
        super().__init__()
        self._file = credentials
        self._following: asyncio.Task[None] | None = None

    async def connect(self, *servers: Any, **options: Any) -> None:
        known = _content(self._file) if self._file else b""
        await super().connect(*servers, **options)
        if self._file:
            self._following = asyncio.get_running_loop().create_task(self._follow(self._file, known))

    async def close(self) -> None:
        if self._following:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        await super().close()

    async def _follow(self, file: Path, known: bytes) -> None:
        """Connect anew whenever the file has another content: a mounted Secret's times say nothing of it."""
        while not self.is_closed:
            await asyncio.sleep(LOOK_SECONDS)
            if _content(file) in {known, b""}:
                continue
            await asyncio.sleep(random.uniform(0, SPREAD_SECONDS))  # noqa: S311 - spreads load, guards nothing
            while not self.is_connected and not self.is_closed:  # noqa: ASYNC110 - what ends it is no event
                await asyncio.sleep(1)  # what is being made may be made with the old content
            known = _content(file) or known
            logger.info("the credentials for NATS have changed: connecting anew")
            await self.force_reconnect()

    async def _connect_to_server(self, s: Srv) -> None:
        """Connect, and have the kernel end the connection when what was sent is not confirmed.

        Without it a vanished server holds whoever sends much for the kernel's own quarter of an hour: nats-py's pings wait behind
        what can't be written, and so does its way out of the connection.
        """
        await super()._connect_to_server(s)
        if isinstance(self._transport, TcpTransport) and self._transport._bare_io_writer:  # noqa: SLF001 - it offers no option
            connected: socket.socket = self._transport._bare_io_writer.get_extra_info("socket")  # noqa: SLF001
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENT_SECONDS * 1000)


def _content(file: Path) -> bytes:
    """The credentials; empty while there are none, or not all."""
    try:
        content = file.read_bytes()
    except OSError:
        return b""
    return content if b"END USER NKEY SEED" in content else b""


async def _note(error: Exception) -> None:
    """One line for each error: while the server is away there is one a second."""
    logger.warning("NATS: %s", error or type(error).__name__)
