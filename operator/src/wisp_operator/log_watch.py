"""Follows what the data plane reports and tells the namespace queue; keeps the connection to the event log.

It asks twice a second what was written since the last answer, which costs one request, needs no consumer, and finds out within
seconds that the log is away. A report that says nothing new (the time of a reader's heartbeat, a router's figures) does not
hurry anyone: state changes are reconciled at once, figures at most every 30 s.
"""

import asyncio
import hashlib
import logging
from typing import Final

import msgspec
from wisp_api import names
from wisp_api.route import RouteStatus
from wisp_api.source import ReaderStatus, ScheduleStatus

from wisp_operator import accounts
from wisp_operator.context import Context
from wisp_operator.decoding import decode
from wisp_operator.handlers.subscription import LOG_ERRORS
from wisp_operator.log import Change, EventLog, connect
from wisp_operator.nats_auth import ACCOUNT, make_credentials, operator_user
from wisp_operator.workqueue import WorkQueue

_POLL_SECONDS: Final = 0.5
_RETRY_SECONDS: Final = 2.0
_FIGURES_SECONDS: Final = 30.0
_NAMESPACED: Final = ((names.KV_ROUTES, 0), (names.KV_SCHEDULES, 0), (names.KV_STATUS, 1), (names.KV_CURSORS, 0))
"""Buckets whose keys hold a namespace, and in which place."""
_log = logging.getLogger(__name__)


async def follow(context: Context, namespaces: WorkQueue[str]) -> None:
    """Connect, then follow for ever; every namespace is looked at when the log goes away and when it comes back."""
    context.accounts = await accounts.connect(context.seeds)
    await _make_account(context.accounts)
    user = operator_user()
    context.log = await connect(context.config, user, make_credentials(context.seeds[ACCOUNT], user))
    away = False
    while True:
        try:
            await context.log.ensure_base()
            if away:
                _log.info("the event log answers again")
            away = False
            await _add_all(context, context.log, namespaces)
            await _poll(context.log, namespaces)
        except LOG_ERRORS as error:
            if not away:
                _log.warning("the event log is away: %s", error or type(error).__name__)
                for namespace in context.namespaces:
                    namespaces.add(namespace)
            away = True
            await asyncio.sleep(_RETRY_SECONDS)


async def _make_account(server: accounts.Accounts) -> None:
    """See to it that the server knows the account that has the log: nobody can connect before."""
    while True:
        try:
            return await server.ensure_platform()
        except LOG_ERRORS as error:
            _log.warning("the event log's account can't be made: %s", error or type(error).__name__)
            await asyncio.sleep(_RETRY_SECONDS)


async def _add_all(context: Context, log: EventLog, namespaces: WorkQueue[str]) -> None:
    """Queue every namespace that has a Subscription or left something in the log."""
    found = set(context.namespaces)
    for bucket, place in _NAMESPACED:
        found |= await _places(log, bucket, ">", place)
    found |= await _places(log, names.KV_SOURCES, "reader.>", 1)
    found |= await _places(log, names.KV_SOURCES, "inbox.>", 2)
    context.namespaces |= await log.lettered()  # looked at again until they have aged out
    found |= context.namespaces
    for namespace in found:
        namespaces.add(namespace)


async def _places(log: EventLog, bucket: str, keys: str, place: int) -> set[str]:
    """What stands in one place of a bucket's keys; no value is kept, as tenants' readers write some, of up to 8 MiB."""
    return {change.key.split(".")[place] async for change in log.changes(bucket, keys, 0) if change.value is not None}


async def _poll(log: EventLog, namespaces: WorkQueue[str]) -> None:
    said: dict[str, bytes] = {}
    after = await log.last_revision(names.KV_STATUS)
    while True:
        async for change in log.changes(names.KV_STATUS, ">", after):
            after = change.revision
            if change.key.startswith("position."):
                continue  # a reader's own memory
            essence = _essence(change)
            hurry = said.get(change.key) != essence
            if change.value is None:
                said.pop(change.key, None)
            else:
                said[change.key] = essence
            if hurry or change.key.startswith("route."):
                namespaces.add(change.key.split(".")[1], 0 if hurry else _FIGURES_SECONDS)
        await asyncio.sleep(_POLL_SECONDS)


def _essence(change: Change) -> bytes:
    """A hash of what of a report makes a difference to conditions."""
    return hashlib.sha256(_telling(change.key, change.value)).digest() if change.value is not None else b""


def _telling(key: str, value: bytes) -> bytes:
    try:
        if key.startswith("route."):
            route = decode(value, RouteStatus)
            return msgspec.json.encode((route.uid, route.generation, route.state, route.message, route.replay))
        if key.startswith("schedule."):
            schedule = decode(value, ScheduleStatus)
            return msgspec.json.encode((schedule.uid, schedule.generation, schedule.reason, not schedule.next))
        reader = decode(value, ReaderStatus)
        items = {name: (item.ready, item.reason, item.message, bool(item.proof)) for name, item in reader.items.items()}
        return msgspec.json.encode(
            (reader.version, reader.ready, reader.reason, reader.message, reader.server, reader.drained, items)
        )
    except msgspec.DecodeError:
        return value
