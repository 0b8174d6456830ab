"""Watches the cluster's ConfigMaps for those that Functions take variables from, and queues these Functions.

It asks for metadata only: what stands in the others is none of its business, and memory. Each watch begins with what is there, so one that
broke off needs no memory of where it was; it runs only while a Function names a ConfigMap.
"""

import asyncio
import logging
from typing import Final

import aiohttp
import msgspec

from wisp_operator.api import CONFIG_MAPS, ApiError
from wisp_operator.context import Context
from wisp_operator.env import GONE
from wisp_operator.keys import FunctionKey
from wisp_operator.metadata import watch
from wisp_operator.workqueue import WorkQueue

_NOT_OURS: Final = "app.kubernetes.io/part-of!=wisp"
_NOT_KUBERNETES_OWN: Final = "metadata.name!=kube-root-ca.crt"
_SETTLE_SECONDS: Final = 3.0
"""How long changes are gathered before they make a revision."""
_RETRY_SECONDS: Final = 2.0
_log = logging.getLogger(__name__)


async def follow_config_maps(context: Context, functions: WorkQueue[FunctionKey]) -> None:
    """Watch for ever."""
    while True:
        await context.env.some.wait()
        try:
            async for kind, item in watch(context.api, CONFIG_MAPS, _NOT_OURS, fields=_NOT_KUBERNETES_OWN):
                meta = item["metadata"]
                version = GONE if kind == "DELETED" else meta["resourceVersion"]
                for key in context.env.behind(meta["namespace"], meta["name"], version):
                    functions.add(key, _SETTLE_SECONDS)
        except (ApiError, OSError, TimeoutError, aiohttp.ClientError, msgspec.DecodeError) as error:
            _log.info("the watch of ConfigMaps ended: %s; begun anew", error or type(error).__name__)
        await asyncio.sleep(_RETRY_SECONDS)
