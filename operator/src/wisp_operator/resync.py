"""Compares everything with the cluster from time to time, so that nothing depends on an event having arrived."""

import asyncio
import contextlib
import logging
from typing import Final

import aiohttp
import msgspec

from wisp_operator.api import FUNCTIONS, SUBSCRIPTIONS, ApiError
from wisp_operator.context import Context
from wisp_operator.keys import FunctionKey
from wisp_operator.metadata import pages
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
            keys = await _find(context)
        except (ApiError, OSError, TimeoutError, aiohttp.ClientError, msgspec.DecodeError) as error:
            _log.warning("not everything could be looked at: %s; tried again in %g s", error, _RETRY_SECONDS)
            wait = _RETRY_SECONDS
            continue
        wait = context.config.resync_seconds
        spread = context.config.resync_seconds / 10
        for index, key in enumerate(keys):
            functions.add(key, spread * index / len(keys))
        for namespace in context.namespaces:
            namespaces.add(namespace)
        for namespace in context.quotas:
            quotas.add(namespace)


async def _find(context: Context) -> list[FunctionKey]:
    """All Functions, after the namespaces that have Subscriptions, or Functions with `async`, were noted."""
    keys: list[FunctionKey] = []
    async with contextlib.aclosing(pages(context.api, FUNCTIONS, specs=True)) as found:
        async for _, items in found:
            places = [(item["metadata"]["namespace"], item) for item in items]
            keys += [FunctionKey(namespace, item["metadata"]["name"]) for namespace, item in places]
            context.namespaces |= {namespace for namespace, item in places if "async" in item["spec"]}
    async with contextlib.aclosing(pages(context.api, SUBSCRIPTIONS)) as found:
        async for _, items in found:
            context.namespaces |= {item["metadata"]["namespace"] for item in items}
    return keys
