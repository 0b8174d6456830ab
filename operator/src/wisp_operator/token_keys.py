"""Hands the keys of the cluster's ServiceAccount tokens to the ingest, which never calls the Kubernetes API.

They are public. Looked at every minute, so a rotated key is known long before the first token that only it signed is old enough to
matter; written only when they changed. While the log or the API is away the ingest goes on with those that it has.
"""

import asyncio
import logging
from typing import Final

import msgspec
from wisp_api import names
from wisp_api.source import TokenKeys

from wisp_operator.api import ApiError
from wisp_operator.context import Context
from wisp_operator.handlers.subscription import LOG_ERRORS
from wisp_operator.log import EventLog

_POLL_SECONDS: Final = 60.0
_RETRY_SECONDS: Final = 2.0
_log = logging.getLogger(__name__)


async def follow_token_keys(context: Context) -> None:
    """Keep the log's copy current, for ever."""
    trouble = ""
    while True:
        pause, before, trouble = _RETRY_SECONDS, trouble, ""
        try:
            if context.log and context.log.connected:
                await _copy(context, context.log)
                pause = _POLL_SECONDS
        except (*LOG_ERRORS, ApiError, KeyError) as error:
            trouble = (
                f"the keys of ServiceAccount tokens can't be copied to the ingest: {error or type(error).__name__}"
            )
            if trouble != before:
                _log.warning("%s", trouble)
        await asyncio.sleep(pause)


async def _copy(context: Context, log: EventLog) -> None:
    discovery = await context.api.read("/.well-known/openid-configuration")
    keys = await context.api.read("/openid/v1/jwks")
    found = TokenKeys(issuer=discovery["issuer"], jwks=msgspec.Raw(msgspec.json.encode(keys, order="deterministic")))
    value = msgspec.json.encode(found)
    held = (await log.entries(names.KV_SOURCES, names.TOKEN_KEYS)).get(names.TOKEN_KEYS)
    if held is None or held.value != value:
        await log.put(names.KV_SOURCES, names.TOKEN_KEYS, value)
