"""Before an uninstall: delete every Subscription while there still is an operator that takes away what it made."""

import asyncio
import logging
import time
from typing import Final

from wisp_operator.api import SUBSCRIPTIONS, connect

_WAIT_SECONDS: Final = 330.0
"""Longer than a finalizer waits for its reader, within the Helm hook's own limit."""
_log = logging.getLogger(__name__)


async def drain() -> int:
    """Delete all Subscriptions of the cluster and wait until they are gone; the exit code."""
    api = await connect()
    try:
        for item in await api.list(SUBSCRIPTIONS, None):
            await api.delete(SUBSCRIPTIONS, item["metadata"]["namespace"], item["metadata"]["name"])
        deadline = time.monotonic() + _WAIT_SECONDS
        while left := await api.list(SUBSCRIPTIONS, None):
            if time.monotonic() > deadline:
                _log.error(
                    "still there: %s",
                    ", ".join(f"{item['metadata']['namespace']}/{item['metadata']['name']}" for item in left),
                )
                return 1
            await asyncio.sleep(1)
    finally:
        await api.close()
    _log.info("all Subscriptions are gone")
    return 0
