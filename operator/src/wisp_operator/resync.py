"""Compares everything with the cluster from time to time, so that nothing depends on an event having arrived."""

import asyncio
import logging
from typing import Final

import aiohttp

from wisp_operator.api import FUNCTIONS, SUBSCRIPTIONS, ApiError
from wisp_operator.context import Context
from wisp_operator.keys import FunctionKey
from wisp_operator.workqueue import WorkQueue

_RETRY_SECONDS: Final = 10.0
_log = logging.getLogger(__name__)


async def resync(
    context: Context, functions: WorkQueue[FunctionKey], namespaces: WorkQueue[str], quotas: WorkQueue[str]
) -> None:
    """Queue every Function and every namespace, spread over the interval's first tenth, for ever."""
    wait = context.config.resync_seconds
    while True:
        await asyncio.sleep(wait)
        context.api.forget()  # of objects that went while no watch was there to tell
        try:
            found = await context.api.list(FUNCTIONS, None)
            subscriptions = await context.api.list(SUBSCRIPTIONS, None)
        except (ApiError, OSError, TimeoutError, aiohttp.ClientError) as error:
            _log.warning("not everything could be looked at: %s; tried again in %g s", error, _RETRY_SECONDS)
            wait = _RETRY_SECONDS
            continue
        wait = context.config.resync_seconds
        keys = [FunctionKey(item["metadata"]["namespace"], item["metadata"]["name"]) for item in found]
        context.namespaces |= {item["metadata"]["namespace"] for item in found if "async" in item["spec"]}
        context.namespaces |= {item["metadata"]["namespace"] for item in subscriptions}
        spread = context.config.resync_seconds / 10
        for index, key in enumerate(keys):
            functions.add(key, spread * index / len(keys))
        for namespace in context.namespaces:
            namespaces.add(namespace)
        for namespace in context.quotas:
            quotas.add(namespace)
