"""Reads everything that a namespace's plan depends on, as it is now: from the event log, the Kubernetes API and the S3 servers."""

import time
from typing import Final, TypeVar

import msgspec
from wisp_api import names
from wisp_api.route import Route, RouteStatus
from wisp_api.source import BucketBinding, Inbox, ReaderConfig, ReaderStatus, ScheduleConfig, ScheduleStatus
from wisp_api.subscription import S3

from wisp_operator.api import DEPLOYMENTS, FUNCTIONS, Object
from wisp_operator.context import Context
from wisp_operator.decoding import decode
from wisp_operator.event_plane import View, server_name
from wisp_operator.log import Entry, EventLog
from wisp_operator.proof import Proof
from wisp_operator.reader import COMPONENT, KIND_LABEL
from wisp_operator.sinks import find_sinks
from wisp_operator.sources import ReaderKey, Wish

_READERS: Final = f"{names.COMPONENT_LABEL}={COMPONENT},app.kubernetes.io/part-of=wisp"

Value = TypeVar("Value", bound=msgspec.Struct)


async def read_view(context: Context, log: EventLog, namespace: str, wishes: list[Wish]) -> View:
    """Everything that the plan depends on, as it is now."""
    sources = await log.entries(names.KV_SOURCES, f"reader.{namespace}.>")
    reports = await log.entries(names.KV_STATUS, f"reader.{namespace}.>")
    routes = await log.entries(names.KV_ROUTES, f"{namespace}.*")
    route_reports = await log.entries(names.KV_STATUS, f"route.{namespace}.*")
    schedules = await log.entries(names.KV_SCHEDULES, f"{namespace}.*")
    schedule_reports = await log.entries(names.KV_STATUS, f"schedule.{namespace}.*")
    inboxes = await log.entries(names.KV_SOURCES, names.inbox_key("*", namespace, "*"))
    routers = await log.entries(names.KV_MEMBERS, "*")
    positions = await log.entries(names.KV_STATUS, names.position_key(namespace, "*", "*"))
    cursors = await log.entries(names.KV_CURSORS, f"{namespace}.*")
    functions = await context.api.list(FUNCTIONS, namespace)
    deployments = await context.api.list(DEPLOYMENTS, namespace, _READERS)
    view = View(
        namespace,
        wishes,
        functions={item["metadata"]["name"]: item for item in functions},
        tasks={_reader_key(key): _task(key, entry) for key, entry in sources.items()},
        reports={_reader_key(key): report for key, entry in reports.items() if (report := _value(entry, ReaderStatus))},
        routes={_last(key): _value(entry, Route) or _unreadable_route(key) for key, entry in routes.items()},
        route_reports={
            _last(key): _value(entry, RouteStatus) or RouteStatus(uid="", generation=0, state="")
            for key, entry in route_reports.items()
        },
        schedules={
            _last(key): _value(entry, ScheduleConfig) or _unreadable_schedule(key) for key, entry in schedules.items()
        },
        inboxes={key: _value(entry, Inbox) or Inbox(stream="") for key, entry in inboxes.items()},
        schedule_reports={
            _last(key): _value(entry, ScheduleStatus) or ScheduleStatus(uid="", generation=0, timing="", last="")
            for key, entry in schedule_reports.items()
        },
        routers=set(routers),
        positions={_reader_key(key) for key in positions},
        cursors={_last(key) for key in cursors},
        streams=await log.streams(namespace),
        bindings=await read_bindings(log),
        deployments={_deployed(item): item for item in deployments},
    )
    view.sinks = await find_sinks(context.api, context.config, wishes, functions)
    view.proofs = await _check_proofs(context, view)
    view.gave_up = {reader for reader in view.tasks if _overdue(context, view, reader)}
    return view


async def _check_proofs(context: Context, view: View) -> dict[tuple[str, str], Proof]:
    checked = {}
    for wish in view.wishes:
        report, server = view.reports.get(wish.reader) if wish.reader else None, server_name(view, wish)
        item = report.items.get(wish.items[0]) if report else None
        if wish.reader and wish.reader.kind == S3 and server and item and item.proof:
            checked[wish.reader.connection, wish.items[0]] = await context.proofs.check(
                server, wish.items[0], item.proof
            )
    return checked


def _overdue(context: Context, view: View, reader: ReaderKey) -> bool:
    """Whether a reader that nobody needs has had its time to drain, counted from when this process told it to: it may have been down."""
    users = [wish for wish in view.wishes if wish.reader == reader]
    key = (view.namespace, reader)
    if any(not wish.deleting for wish in users):
        context.draining_since.pop(key, None)
        return False
    since = context.draining_since.setdefault(key, time.monotonic())
    return time.monotonic() - since > context.config.drain_seconds


async def read_bindings(log: EventLog) -> dict[str, BucketBinding]:
    """Every bucket's binding, of all namespaces."""
    entries = await log.entries(names.KV_SOURCES, "bucket.>")
    return {key: binding for key, entry in entries.items() if (binding := _value(entry, BucketBinding))}


def _value(entry: Entry, kind: type[Value]) -> Value | None:
    """A stored value, None where it is none (any more)."""
    try:
        return decode(entry.value, kind)
    except msgspec.DecodeError:
        return None


def _task(key: str, entry: Entry) -> ReaderConfig:
    """A reader's task; one that can't be read still stands for its reader."""
    _, namespace, kind, connection = key.split(".", 3)
    return _value(entry, ReaderConfig) or ReaderConfig(
        namespace=namespace, kind=kind, connection=connection, version=""
    )


def _unreadable_schedule(key: str) -> ScheduleConfig:
    namespace, _, name = key.partition(".")
    return ScheduleConfig(namespace=namespace, name=name, uid="", generation=0, since="", stream="")


def _unreadable_route(key: str) -> Route:
    namespace, _, name = key.partition(".")
    return Route(namespace=namespace, name=name, uid="", generation=0, stream="", subjects=[])


def _reader_key(key: str) -> ReaderKey:
    _, _, kind, connection = key.split(".", 3)
    return ReaderKey(kind, connection)


def _deployed(deployment: Object) -> ReaderKey:
    labels = deployment["metadata"]["labels"]
    return ReaderKey(labels.get(KIND_LABEL, ""), labels.get(names.CONNECTION_LABEL, ""))


def _last(key: str) -> str:
    return key.rpartition(".")[2]
