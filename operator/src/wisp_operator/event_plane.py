"""What a namespace's event plane should be, from what is wanted and what the log holds: the heart of the control plane.

Pure: `plan` compares, the Subscription handler reads and carries out. Everything of a namespace is planned at once, from scratch, every time: what
is not wanted any more is whatever the log holds beyond the plan, so that deleting is no case of its own and an
interrupted clean-up is continued by the next run. What it takes grows with the namespace, not with its square. Readers that nobody needs are
told to drain first (slots and bucket rules
are theirs to take away) and go when they report it, or when `gave_up` says that they had long enough.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from wisp_api import conditions, names
from wisp_api.route import Route, RouteStatus
from wisp_api.source import BucketBinding, Inbox, ReaderConfig, ReaderStatus, ScheduleConfig, ScheduleStatus
from wisp_api.subscription import BUS, FUNCTION, S3

from wisp_operator.api import Object
from wisp_operator.config import OperatorConfig
from wisp_operator.destinations import Posting, decode_async, invocable, own_streams, postings
from wisp_operator.outlets import Outlets, invocation_stream
from wisp_operator.proof import Proof
from wisp_operator.reader import CONNECTED
from wisp_operator.route import filter_mistake, is_listed, make_invocation_route, make_route
from wisp_operator.schedule import make_schedule, schedule_mistake, schedule_stream
from wisp_operator.sinks import FoundSink
from wisp_operator.sources import (
    ReaderKey,
    Wish,
    binding_key,
    bucket_stream,
    bus_stream,
    compile_bus,
    compile_reader,
    server_of,
    stream_name,
    stream_subjects,
)
from wisp_operator.streams import Config

_WITHDRAWING = {
    conditions.SECRET_NOT_FOUND,
    conditions.INVALID_CONNECTION,
    conditions.AUTHENTICATION_FAILED,
    conditions.PERMISSION_DENIED,
    conditions.BUCKET_NOT_FOUND,
    conditions.UNKNOWN_SERVER,
}
"""What a reader itself says of its right to a bucket; being away is none of these."""


@dataclass
class View:
    """What is there."""

    namespace: str
    wishes: list[Wish]
    """Every Subscription, those being deleted included."""
    functions: dict[str, Object] = field(default_factory=dict)
    sinks: dict[str, FoundSink] = field(default_factory=dict)
    """By Subscription, and of what is posted to by its route."""
    tasks: dict[ReaderKey, ReaderConfig] = field(default_factory=dict)
    """As the log holds them."""
    reports: dict[ReaderKey, ReaderStatus] = field(default_factory=dict)
    schedules: dict[str, ScheduleConfig] = field(default_factory=dict)
    inboxes: dict[str, Inbox] = field(default_factory=dict)
    """By key."""
    schedule_reports: dict[str, ScheduleStatus] = field(default_factory=dict)
    routes: dict[str, Route] = field(default_factory=dict)
    route_reports: dict[str, RouteStatus] = field(default_factory=dict)
    routers: set[str] = field(default_factory=set)
    """Names of the router's live replicas."""
    positions: set[ReaderKey] = field(default_factory=set)
    """Readers that keep how far they are in the log."""
    cursors: set[str] = field(default_factory=set)
    """Uids of the Subscriptions that the router keeps a cursor for."""
    streams: dict[str, Config] = field(default_factory=dict)
    bindings: dict[str, BucketBinding] = field(default_factory=dict)
    """Of all namespaces, because they share them."""
    proofs: dict[tuple[str, str], Proof] = field(default_factory=dict)
    """By connection and bucket."""
    deployments: dict[ReaderKey, Object] = field(default_factory=dict)
    """The readers that run."""
    gave_up: set[ReaderKey] = field(default_factory=set)
    """Readers that were told to drain and did not in time."""


@dataclass
class Plan:
    """What should be there; whatever `View` holds beyond it goes."""

    readers: dict[ReaderKey, ReaderConfig] = field(default_factory=dict)
    """Those that run, the draining ones included."""
    streams: dict[str, str] = field(default_factory=dict)
    """Name to subjects."""
    schedules: dict[str, ScheduleConfig] = field(default_factory=dict)
    inboxes: dict[str, Inbox] = field(default_factory=dict)
    """By key."""
    routes: dict[str, Route] = field(default_factory=dict)
    bindings: dict[str, BucketBinding] = field(default_factory=dict)
    """Buckets whose events this namespace may have; the namespaces are filled in by `rebind`."""
    stream_of: dict[str, str] = field(default_factory=dict)
    """Each Subscription's stream."""
    mistakes: dict[str, str] = field(default_factory=dict)
    """What is wrong with a Subscription's pattern; here because to find it takes as long as the rest."""
    released: set[str] = field(default_factory=set)
    """Subscriptions being deleted that nothing is left of."""

    def without_streams(self, refused: Iterable[str]) -> None:
        """Leave out the routes, schedules, inboxes and bindings of streams that could not be made: nothing may send to them."""
        for stream in refused:
            self.schedules = {name: one for name, one in self.schedules.items() if one.stream != stream}
            self.inboxes = {key: inbox for key, inbox in self.inboxes.items() if inbox.stream != stream}
            self.routes = {name: route for name, route in self.routes.items() if route.stream != stream}
            self.bindings = {
                key: binding
                for key, binding in self.bindings.items()
                if not stream.endswith(f"_{S3}_{names.bucket_source(binding.server, binding.bucket)}")
            }


def plan(view: View, config: OperatorConfig, cluster: str) -> Plan:
    """Compile a namespace; `cluster` is the cluster's uid."""
    live = [wish for wish in view.wishes if not wish.deleting]
    made = Plan(readers=_readers(view, live, config, cluster))
    made.mistakes = {wish.name: mistake for wish in live if (mistake := filter_mistake(wish))}
    outlets = Outlets(view.namespace, _plan_buses(made, view.namespace, live), view.functions)
    for wish in live:
        server = server_name(view, wish)
        stream = _stream(view, wish, server)
        if not stream:  # only the reader knows which server it is; what such a stream holds already stays
            held = (name for name in view.streams if server_of(view.namespace, name, wish.items[0]))
            made.streams |= {name: _subjects(view, name) for name in held}
            continue
        _plan_source(made, view, wish, server)
        made.streams[stream] = _subjects(view, stream)
        made.stream_of[wish.name] = stream
        receiver = view.functions.get(wish.spec.function.name) if wish.spec.function else view.sinks.get(wish.name)
        kept = isinstance(receiver, FoundSink) and receiver.unsure and _own_route(view, wish)
        if not kept and wish.name not in made.mistakes:
            own = view.routes[wish.name] if _own_route(view, wish) else None
            made.routes[wish.name] = make_route(wish, stream, server, receiver, config.cluster_domain, outlets, own)
        elif _own_route(view, wish):
            made.routes[wish.name] = view.routes[wish.name]  # the last good one
    for function in filter(invocable, view.functions.values()):
        _plan_invocations(made, view, function, config.cluster_domain, outlets)
    for posting in postings(live, view.functions.values()):
        _plan_posting(made, view, posting)
    for task in made.readers.values():
        if task.draining and (database := task.database):
            made.streams[database.stream] = _subjects(view, database.stream)
    draining = {reader for reader, task in made.readers.items() if task.draining}
    made.released = {wish.name for wish in view.wishes if wish.deleting and wish.reader not in draining}
    return made


def _plan_buses(made: Plan, namespace: str, live: list[Wish]) -> Collection[str]:
    """What the ingest is told of buses; their names."""
    users: defaultdict[str, list[Wish]] = defaultdict(list)
    for wish in live:
        if bus := wish.spec.source.bus:
            users[bus.name].append(wish)
    for name, wishes in users.items():
        made.inboxes[names.inbox_key(BUS, namespace, name)] = compile_bus(namespace, name, wishes)
    return users.keys()


def _plan_posting(made: Plan, view: View, posting: Posting) -> None:
    """What a destination needs that is posted to; its route stays where nobody can say now where the destination is."""
    found, held = view.sinks.get(posting.route, FoundSink()), view.routes.get(posting.route)
    made.streams[posting.stream] = _subjects(view, posting.stream)
    wanted = posting.make_route(found.target)
    # Of this generation: a spec that changed may name another, and records must not go on to the first.
    kept = found.unsure and held and (held.uid, held.generation) == (wanted.uid, wanted.generation)
    made.routes[posting.route] = held if kept and held else wanted


def _keep_invocations(made: Plan, view: View, function: Object) -> None:
    """What there is stays as it is where nobody can read what a Function wants: it holds what was accepted."""
    own = own_streams(function) & view.streams.keys()
    made.streams |= {name: _subjects(view, name) for name in own}
    made.inboxes |= {key: inbox for key, inbox in view.inboxes.items() if inbox.stream in own}
    made.routes |= {name: route for name, route in view.routes.items() if route.stream in own}


def _plan_invocations(made: Plan, view: View, function: Object, cluster_domain: str, outlets: Outlets) -> None:
    """What a Function with `async` needs to be invoked by callers that don't wait."""
    if (wanted := decode_async(function)) is None:
        _keep_invocations(made, view, function)
        return
    name, namespace, stream = function["metadata"]["name"], outlets.namespace, invocation_stream(function)
    made.streams[stream] = stream_subjects(namespace, stream)
    made.inboxes[names.inbox_key(FUNCTION, namespace, name)] = Inbox(stream=stream, allow_from=wanted.allow_from)
    source = names.owned_source(name, function["metadata"]["uid"])
    made.routes[names.invocation_route(name)] = make_invocation_route(function, wanted, source, cluster_domain, outlets)


def _stream(view: View, wish: Wish, server: str) -> str:
    """A Subscription's stream, empty while its bucket's server is unknown."""
    if bus := wish.spec.source.bus:
        return bus_stream(view.namespace, bus.name)
    if wish.reader is None:
        return schedule_stream(wish)
    if not wish.spec.source.bucket:
        return stream_name(view.namespace, wish.reader)
    return bucket_stream(view.namespace, server, wish.spec.source.bucket.name) if server else ""


def _plan_source(made: Plan, view: View, wish: Wish, server: str) -> None:
    """What the ingest is told: a bucket's binding, or a schedule; after a mistake the last good one."""
    bucket = wish.spec.source.bucket
    if bucket and _bound(view, wish, server):
        made.bindings[binding_key(server, bucket.name)] = BucketBinding(
            server=server, bucket=bucket.name, namespaces=[]
        )
    if wish.spec.source.schedule:
        held = view.schedules.get(wish.name)
        if not schedule_mistake(wish):
            made.schedules[wish.name] = make_schedule(wish)
        elif held and held.uid == wish.uid:
            made.schedules[wish.name] = held


def server_name(view: View, wish: Wish) -> str:
    """The S3 server of a bucket's Subscription: where its route was made for, else what its reader says; empty for a database, and until it is known.

    A Secret that is pointed at another server later changes nothing: events that wait in the first server's stream stay safe.
    """
    if not wish.spec.source.bucket or wish.reader is None:
        return ""
    if _own_route(view, wish):
        return server_of(view.namespace, view.routes[wish.name].stream, wish.spec.source.bucket.name)
    report = view.reports.get(wish.reader)
    return report.server if report else ""


def _own_route(view: View, wish: Wish) -> bool:
    """Whether the log holds this very Subscription's route, not that of an earlier one of the same name."""
    return wish.name in view.routes and view.routes[wish.name].uid == wish.uid


def _subjects(view: View, stream: str) -> str:
    return stream_subjects(view.namespace, stream)


def _readers(view: View, live: list[Wish], config: OperatorConfig, cluster: str) -> dict[ReaderKey, ReaderConfig]:
    users: dict[ReaderKey, list[Wish]] = {reader: [] for reader in view.tasks}
    for wish in live:
        if reader := wish.reader:
            users.setdefault(reader, []).append(wish)
    made = {}
    for reader in sorted(users):
        wishes = users[reader]
        task = compile_reader(view.namespace, reader, wishes, config.s3_servers, cluster, _begun(view, reader, wishes))
        if task.draining and (reader in view.gave_up or _drained(view, reader, task.version)):
            continue
        made[reader] = task
    return made


def _begun(view: View, reader: ReaderKey, wishes: list[Wish]) -> set[tuple[str, str]]:
    """(uid, table or bucket) where what was there may be written: the router reads with the Subscription's newest route, or did so when the reader was told.

    What a reader was told stays while it is asked for: rows that have a time out of its task would come twice.
    """
    told = view.tasks[reader].given if reader in view.tasks else set()
    return told | {(wish.uid, item) for wish in wishes if _is_read(view, wish) for item in wish.items}


def _is_read(view: View, wish: Wish) -> bool:
    """Whether the router has taken the Subscription's newest route, and keeps its place in the log; of a bucket also whether the ingest stores its events."""
    report = view.route_reports.get(wish.name)
    if report is None or report.uid != wish.uid or wish.uid not in view.cursors:
        return False
    if bucket := wish.spec.source.bucket:
        bound = is_bound(view, server_name(view, wish), bucket.name)
        if not bound or not is_listed(wish, view.routes.get(wish.name)):
            return False
    generation: int = wish.live["metadata"]["generation"]
    return report.generation >= generation


def _drained(view: View, reader: ReaderKey, version: str) -> bool:
    """Whether a reader has answered the draining task: it is done, or it can't connect and never could, so it has nothing to do."""
    report = view.reports.get(reader)
    if report is None or report.version != version:
        return False
    return report.drained or (not report.ready and not _has_connected(view, reader))


def _has_connected(view: View, reader: ReaderKey) -> bool:
    """Whether a reader has been ready at some time; so it seems too where its Deployment was deleted."""
    deployment = view.deployments.get(reader)
    return deployment is None or CONNECTED in deployment["metadata"].get("annotations", {})


def is_bound(view: View, server: str, bucket: str) -> bool:
    """Whether the ingest stores the bucket's events for this namespace."""
    held = view.bindings.get(binding_key(server, bucket))
    return held is not None and view.namespace in held.namespaces


def _bound(view: View, wish: Wish, server: str) -> bool:
    """Whether the bucket's events are for this namespace: proven, or proven before and not refused since."""
    assert wish.reader  # noqa: S101 - a bucket's wish
    bucket = wish.items[0]
    proof = view.proofs.get((wish.reader.connection, bucket), Proof.UNKNOWN)
    before = is_bound(view, server, bucket)
    return proof is Proof.GRANTED or (proof is Proof.UNKNOWN and before and not _withdrawn(view, wish))


def _withdrawn(view: View, wish: Wish) -> bool:
    """Whether the reader itself says that its key has no right to the bucket (any more)."""
    report = view.reports.get(wish.reader) if wish.reader else None
    if report is None:
        return False
    item = report.items.get(wish.items[0])
    return report.reason in _WITHDRAWING or (item is not None and item.reason in _WITHDRAWING)


def leftovers(view: View, made: Plan) -> list[tuple[str, str]]:
    """(bucket, key) of everything in the log that belongs to no Subscription any more, but routes, schedules and readers' tasks."""
    namespace = view.namespace
    kept = {wish.name for wish in view.wishes if not wish.deleting} | made.routes.keys()
    uids = {wish.uid for wish in view.wishes if not wish.deleting} | {route.uid for route in made.routes.values()}
    found = [(names.KV_STATUS, f"route.{namespace}.{name}") for name in sorted(view.route_reports) if name not in kept]
    found += [(names.KV_STATUS, f"schedule.{namespace}.{name}") for name in sorted(view.schedule_reports.keys() - kept)]
    found += [(names.KV_STATUS, reader.key(namespace)) for reader in sorted(view.reports) if reader not in made.readers]
    gone = sorted(view.positions - made.readers.keys())
    found += [(names.KV_STATUS, names.position_key(namespace, reader.kind, reader.connection)) for reader in gone]
    return found + [(names.KV_CURSORS, f"{namespace}.{uid}") for uid in sorted(view.cursors) if uid not in uids]
