"""The connection to the event log's NATS server, the same way in every part.

Environment: WISP_NATS_URL, or several separated by commas; WISP_NATS_CREDS, the path of a credentials file (absent: no credentials, tests only);
WISP_NATS_INBOX, the inbox prefix that the credentials allow.
"""

import logging
import os
from typing import Any

import nats
from nats.aio.client import Client

logger = logging.getLogger(__name__)


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
        "connect_timeout": 5,
        "ping_interval": 10,
        "max_outstanding_pings": 2,
        "error_cb": _note,
    }
    if creds := os.environ.get("WISP_NATS_CREDS"):
        settings["user_credentials"] = creds
    if inbox := os.environ.get("WISP_NATS_INBOX"):
        settings["inbox_prefix"] = inbox.encode()
    return await nats.connect(**(settings | options))


async def _note(error: Exception) -> None:
    """One line for each error: while the server is away there is one a second."""
    logger.warning("NATS: %s", error or type(error).__name__)
