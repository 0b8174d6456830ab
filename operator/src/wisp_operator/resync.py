"""Compares everything with the cluster from time to time, so that nothing depends on an event having arrived."""

import asyncio

from wisp_operator.api import FUNCTIONS, SUBSCRIPTIONS
from wisp_operator.context import Context, FunctionKey
from wisp_operator.workqueue import WorkQueue


async def resync(context: Context, functions: WorkQueue[FunctionKey], namespaces: WorkQueue[str]) -> None:
    """Queue every Function and every namespace, spread over the interval's first tenth, for ever."""
    while True:
        await asyncio.sleep(context.config.resync_seconds)
        context.api.forget()  # of objects that went while no watch was there to tell
        found = await context.api.list(FUNCTIONS, None)
        keys = [FunctionKey(item["metadata"]["namespace"], item["metadata"]["name"]) for item in found]
        context.namespaces |= {item["metadata"]["namespace"] for item in found if "async" in item["spec"]}
        context.namespaces |= {item["metadata"]["namespace"] for item in await context.api.list(SUBSCRIPTIONS, None)}
        spread = context.config.resync_seconds / 10
        for index, key in enumerate(keys):
            functions.add(key, spread * index / len(keys))
        for namespace in context.namespaces:
            namespaces.add(namespace)
