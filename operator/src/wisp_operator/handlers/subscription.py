"""A namespace's Subscriptions: read all that is there, plan, carry the plan out, write each status. May run at any time.

Order matters where a crash between two steps must not lose anything: a stream exists before its writer and its route, a binding
and a route are gone before their stream, everything is gone before a finalizer is.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import nats.errors
from wisp_api import conditions, names
from wisp_api.subscription import BUS, FORGETFUL, S3

from wisp_operator import subscription_status
from wisp_operator.accounts import Accounts
from wisp_operator.api import DEPLOYMENTS, NAMESPACES, SECRETS, SUBSCRIPTIONS, Api, ApiError, Object
from wisp_operator.apply import covers, stamped
from wisp_operator.context import Context
from wisp_operator.destinations import postings
from wisp_operator.event_plane import Plan, View, leftovers, plan, server_name
from wisp_operator.event_view import read_bindings, read_view
from wisp_operator.handlers.destinations import posted_aspect, tell_of_destinations
from wisp_operator.handlers.finalizers import add_finalizers, remove_finalizer
from wisp_operator.handlers.unseen import tell_unseen, unseen_times
from wisp_operator.log import EventLog
from wisp_operator.nats_auth import make_credentials, reader_user
from wisp_operator.proof import Proof
from wisp_operator.reader import CONNECTED, make_deployment, make_secret, reader_name
from wisp_operator.schedule import schedule_aspect, schedule_in_short
from wisp_operator.sources import ReaderKey, Wish, decode, rebind, stream_name, table_mistake
from wisp_operator.status import (
    TRUE,
    Aspect,
    make_conditions,
    mark_false,
    mark_true,
    timestamp,
    write_event,
    write_status,
)

LOG_ERRORS: Final = (nats.errors.Error, OSError, TimeoutError)
_LOG_RETRY_SECONDS: Final = 5.0
_DRAIN_POLL_SECONDS: Final = 2.0
_FIGURES_SECONDS: Final = 30.0
_PENDING_SECONDS: Final = 5.0
"""How soon to look again at what is not ready: proofs are renewed, and silence makes no event."""
_SETTLED_SECONDS: Final = 60.0
_SILENCE_SECONDS: Final = 120.0
_FIGURES: Final = ("delivered", "failed", "deadLettered", "pending", "oldestPending", "lastDelivery")

_log = logging.getLogger(__name__)


@dataclass
class Problems:
    """What was refused while a plan was carried out."""

    streams: dict[str, str] = field(default_factory=dict)
    """By the event log, for each stream."""
    readers: dict[ReaderKey, str] = field(default_factory=dict)
    """By the Kubernetes API, for each reader."""


async def reconcile(context: Context, namespace: str) -> float | None:
    """Bring a namespace's event plane to what its Subscriptions say; in how many seconds to look again.

    Raises:
        ApiError: the Kubernetes API refused something that should work; tried again later.
    """
    items = await context.api.list(SUBSCRIPTIONS, namespace)
    wishes = [wish for item in items if (wish := await _decode(context.api, item))]
    if len(wishes) < len(items):
        return _FIGURES_SECONDS  # what an unreadable one needs must not be taken away
    try:
        if context.log is None or context.accounts is None or not context.log.connected:
            raise nats.errors.ConnectionClosedError
        view = await read_view(context, context.log, namespace, wishes)
        await add_finalizers(context.api, view)
        # Beside the event loop, which has the Lease and the other namespaces: this one may hold as much as it likes.
        made = await asyncio.to_thread(plan, view, context.config, context.cluster)
        view.wishes = [await tell_unseen(context.api, view, made, wish) for wish in view.wishes]
        problems = await _carry_out(context, context.log, context.accounts, view, made)
    except LOG_ERRORS as error:
        await _log_away(context, namespace, wishes, str(error) or type(error).__name__)
        return _LOG_RETRY_SECONDS if wishes or namespace in context.namespaces else None
    context.log_away_since.pop(namespace, None)
    waits = [await _write_status(context, view, made, wish, problems) for wish in view.wishes if not wish.deleting]
    await _release(context, view, made)
    waits += await tell_of_destinations(context, view, problems.streams)
    if any(task.draining for task in made.readers.values()):
        waits.append(_DRAIN_POLL_SECONDS)
    return min((wait for wait in waits if wait is not None), default=None)


async def _decode(api: Api, item: Object) -> Wish | None:
    await asyncio.sleep(0)
    try:
        return decode(item)
    except msgspec.ValidationError as error:
        aspects = {conditions.SOURCE_READY: mark_false(conditions.INVALID_SPEC, f"spec: {error}")}
        now = datetime.now(UTC)
        await write_status(api, SUBSCRIPTIONS, item, {"conditions": make_conditions(item, aspects, now)}, now)
        return None


async def _carry_out(context: Context, log: EventLog, accounts: Accounts, view: View, made: Plan) -> Problems:
    """Make the log and the readers what the plan says, as far as they let us."""
    problems = Problems()
    seed = await accounts.ensure(view.namespace) if made.readers else ""
    problems.streams = await log.ensure_streams(view.namespace, made.streams, view.streams)
    # A stream that exists and refuses a new setting works as before: its routes and bindings stay.
    made.without_streams(name for name in problems.streams if name not in view.streams)
    for reader, task in made.readers.items():
        if view.tasks.get(reader) != task:
            await log.put(names.KV_SOURCES, reader.key(view.namespace), msgspec.json.encode(task))
        try:
            await _ensure_reader(context, view, reader, seed)
        except ApiError as error:
            problems.readers[reader] = str(error)
    await _bind(context, log, view, made)
    await _put(log, names.KV_SCHEDULES, f"{view.namespace}.", made.schedules, view.schedules)
    await _put(log, names.KV_SOURCES, "", made.inboxes, view.inboxes)
    await _put(log, names.KV_ROUTES, f"{view.namespace}.", made.routes, view.routes)
    if not made.readers and (view.tasks or view.deployments):
        await accounts.remove(view.namespace)  # before what shows that it is there
    await _take_away(context, log, view, made)
    return problems


async def _put(
    log: EventLog, bucket: str, prefix: str, wanted: Mapping[str, msgspec.Struct], held: Mapping[str, msgspec.Struct]
) -> None:
    for name, value in wanted.items():
        if held.get(name) != value:
            await log.put(bucket, f"{prefix}{name}", msgspec.json.encode(value))


async def _take_away(context: Context, log: EventLog, view: View, made: Plan) -> None:
    """Remove what the plan doesn't hold: routes first, streams after their writers."""
    for name in view.schedules.keys() - made.schedules.keys():
        await log.delete(names.KV_SCHEDULES, f"{view.namespace}.{name}")
    for key in view.inboxes.keys() - made.inboxes.keys():
        await log.delete(names.KV_SOURCES, key)
    for name in view.routes.keys() - made.routes.keys():
        await log.delete(names.KV_ROUTES, f"{view.namespace}.{name}")
    for reader in (view.tasks.keys() | view.deployments.keys()) - made.readers.keys():
        await context.api.delete(DEPLOYMENTS, view.namespace, reader_name(reader))
        await context.api.delete(SECRETS, view.namespace, reader_name(reader))
        if reader in view.tasks:
            await log.delete(names.KV_SOURCES, reader.key(view.namespace))
    for stream in view.streams.keys() - made.streams.keys():
        await log.delete_stream(stream)
    for bucket, key in leftovers(view, made):
        await log.delete(bucket, key)
    if not made.streams and not view.streams:  # so the router has long forgotten its routes
        gone = await context.api.get(NAMESPACES, None, view.namespace) is None
        await log.drop_letters(view.namespace, held=gone)


async def _bind(context: Context, log: EventLog, view: View, made: Plan) -> None:
    if rebind(view.namespace, made.bindings, view.bindings):
        async with context.bindings_lock:
            for key, binding in rebind(view.namespace, made.bindings, await read_bindings(log)).items():
                if binding.namespaces:
                    await log.put(names.KV_SOURCES, key, msgspec.json.encode(binding))
                else:
                    await log.delete(names.KV_SOURCES, key)


async def _ensure_reader(context: Context, view: View, reader: ReaderKey, seed: str) -> None:
    """Write the reader's Secret and Deployment where they are missing or drifted; a silent reader's Secret anew, since it can't be looked at.

    `seed` is that of the namespace's account.
    """
    stream = None if reader.kind == S3 else stream_name(view.namespace, reader)
    user = reader_user(view.namespace, reader.kind, reader.connection, stream)
    credentials = make_credentials(seed, user)
    live = view.deployments.get(reader)
    report = view.reports.get(reader)
    connected = report is not None and report.ready
    if live is not None:
        connected |= CONNECTED in live["metadata"].get("annotations", {})
    deployment = make_deployment(view.namespace, reader, user, credentials, context.config, connected=connected)
    wanted = stamped(deployment)
    same = live is not None and covers(live, wanted)
    if not same or _silent(context, view, reader):
        await context.api.put(SECRETS, make_secret(view.namespace, reader, credentials))
        context.secret_written[view.namespace, reader] = time.monotonic()
    if not same:
        await context.api.apply(DEPLOYMENTS, wanted)


def _silent(context: Context, view: View, reader: ReaderKey) -> bool:
    """Whether a reader has long had its credentials and does not report."""
    report = view.reports.get(reader)
    written = context.secret_written.setdefault((view.namespace, reader), time.monotonic())
    silent = report is None or subscription_status.is_stale(report, datetime.now(UTC))
    return silent and time.monotonic() - written > _SILENCE_SECONDS


async def _write_status(context: Context, view: View, made: Plan, wish: Wish, problems: Problems) -> float | None:
    """Write one Subscription's status; figures alone at most every 30 s. In how many seconds something of it grows stale."""
    await asyncio.sleep(0)  # most have nothing to write, and the loop is everybody's
    now = datetime.now(UTC)
    report = view.route_reports.get(wish.name)
    status: dict[str, Any] = {
        "conditions": make_conditions(wish.live, _aspects(view, made, wish, problems, now), now),
        "source": _in_short(wish),
        "unseen": unseen_times(view, made, wish, timestamp(now)),
        **subscription_status.replayed(wish, report),
    }
    before = wish.live.get("status", {})
    figures = subscription_status.figures(wish, report)
    since = time.monotonic() - context.figures_written.get(wish.uid, -_FIGURES_SECONDS)
    same = all(before.get(key) == value for key, value in figures.items())
    if covers(before, status) and not same and since < _FIGURES_SECONDS:
        return _FIGURES_SECONDS - since
    if not same:
        context.figures_written[wish.uid] = time.monotonic()
    await write_status(context.api, SUBSCRIPTIONS, wish.live, status | figures, now)
    settled = all(condition["status"] == TRUE for condition in status["conditions"])
    return _SETTLED_SECONDS if settled else _PENDING_SECONDS


def _in_short(wish: Wish) -> str:
    if bus := wish.spec.source.bus:
        return f"{BUS}/{bus.name}"
    if wish.reader is None:
        return schedule_in_short(wish)
    return "/".join((wish.reader.kind, wish.items[0] if wish.reader.kind == S3 else wish.reader.connection))


def _aspects(view: View, made: Plan, wish: Wish, problems: Problems, now: datetime) -> dict[str, Aspect]:
    function = view.functions.get(wish.spec.function.name) if wish.spec.function else None
    sink, report = view.sinks.get(wish.name), view.route_reports.get(wish.name)
    aspects = {
        conditions.SOURCE_READY: _source_aspect(view, made, wish, problems, now),
        conditions.FUNCTION_READY: subscription_status.function_aspect(wish, function, report, view.routers, sink),
    }
    for one in postings([wish], ()):
        aspects[conditions.DESTINATION_READY] = posted_aspect(view, one, problems.streams)
    return aspects


def _source_aspect(view: View, made: Plan, wish: Wish, problems: Problems, now: datetime) -> Aspect:
    if mistake := made.mistakes.get(wish.name):
        return mark_false(conditions.INVALID_FILTER, mistake)
    if mistake := table_mistake(wish):
        return mark_false(conditions.TABLE_NOT_FOUND, mistake)
    if problem := problems.streams.get(made.stream_of.get(wish.name, "")):
        return mark_false(conditions.LOG_REFUSED, subscription_status.LOG_REFUSED.format("source's", problem))
    if wish.spec.source.bus:
        return mark_true()  # its stream is there, and the ingest finds it by the entry that was written before
    if wish.reader is None:
        return schedule_aspect(wish, view.schedule_reports.get(wish.name), now)
    return _read_aspect(view, made, wish, wish.reader, problems, now=now)


def _read_aspect(view: View, made: Plan, wish: Wish, reader: ReaderKey, problems: Problems, *, now: datetime) -> Aspect:
    report, server = view.reports.get(reader), server_name(view, wish)
    if problem := problems.readers.get(reader):
        return mark_false(conditions.READER_AWAY, f"the reader can't be made in this namespace: {problem}")
    if report and report.server and server and report.server != server:
        return mark_false(
            conditions.INVALID_CONNECTION,
            f"Secret {reader.connection} now points at server {report.server}; this Subscription was made for {server}: "
            "point it back, or make another Subscription",
        )
    proof = view.proofs.get((reader.connection, wish.items[0]), Proof.UNKNOWN)
    unseen = unseen_times(view, made, wish, timestamp(now))
    return subscription_status.source_aspect(wish, made.readers[reader].version, report, proof, now, unseen)


async def _release(context: Context, view: View, made: Plan) -> None:
    """Let Subscriptions go that nothing is left of, telling of what a reader left behind."""
    for wish in view.wishes:
        if wish.name in made.released:
            if wish.reader in view.gave_up and wish.reader not in made.readers:
                await _tell_left(context, wish)
            await remove_finalizer(context.api, wish)


async def _tell_left(context: Context, wish: Wish) -> None:
    """Tell what a reader did not take away; a schedule, a bus, MySQL and MongoDB leave nothing outside the log."""
    if wish.reader is None or wish.reader.kind in FORGETFUL:
        return
    what = (
        "its rules in the buckets' notifications"
        if wish.reader.kind == S3
        else "its replication slot and publication (their names begin with wisp_)"
    )
    message = f"given up after {context.config.drain_seconds:g} s: the reader of connection {wish.reader.connection} did not take away {what}; do it by hand"
    _log.warning("Subscription %s/%s: %s", wish.live["metadata"]["namespace"], wish.name, message)
    await write_event(context.api, wish.live, "CleanupIncomplete", message, datetime.now(UTC))


async def _log_away(context: Context, namespace: str, wishes: list[Wish], error: str) -> None:
    """Say that the log is away; after some minutes Subscriptions that are to go are let go, what it leaves is found when the log is back."""
    now = datetime.now(UTC)
    if namespace not in context.log_away_since:
        _log.warning("namespace %s: the event log: %s; tried again", namespace, error)
    since = context.log_away_since.setdefault(namespace, time.monotonic())
    for wish in wishes:
        if not wish.deleting:
            status = {"conditions": make_conditions(wish.live, subscription_status.log_unavailable(error), now)}
            await write_status(context.api, SUBSCRIPTIONS, wish.live, status, now)
        elif time.monotonic() - since > context.config.drain_seconds:
            await _tell_left(context, wish)
            await remove_finalizer(context.api, wish)
