"""A Subscription compiled to a route: all that the router needs to deliver its events, and nothing that it has to look up."""

from collections.abc import Collection
from typing import Any, Final

import msgspec
from wisp_api import caller, cloudevent, names, pattern, route
from wisp_api.function import Async, Scale
from wisp_api.subscription import Batch, SubscriptionSpec

from wisp_operator.api import Object
from wisp_operator.destinations import FAILURE, SUCCESS
from wisp_operator.outlets import Outlets, invocation_stream
from wisp_operator.sinks import FoundSink
from wisp_operator.sources import Wish, asks_for_objects, asks_for_rows

_ALL_OPERATIONS: Final = {"insert", "update", "delete"}
_SUBJECTS: Final = 32
"""Types of a bus that the server tells apart for one Subscription, at most."""
_PARALLELISM: Final = 1000
_DEFAULT_TIMEOUT: Final = 30
"""As in FunctionSpec; of no effect while there is no Function."""


def filter_mistake(wish: Wish) -> str:
    """What is wrong with the Subscription's own pattern, empty if nothing."""
    if wish.spec.filter is None:
        return ""
    try:
        pattern.compile(wish.spec.filter)
    except pattern.PatternError as error:
        return f"spec.filter: {error}"
    return ""


def make_route(  # noqa: PLR0917 - one call
    wish: Wish,
    stream: str,
    server: str,
    receiver: Object | FoundSink | None,
    cluster_domain: str,
    outlets: Outlets,
    held: route.Route | None = None,
) -> route.Route:
    """The route, in place of the one `held`; without a Function or sink it has no target, and the events wait. `server` is a bucket's S3 server."""
    meta, spec = wish.live["metadata"], wish.spec
    if isinstance(receiver, FoundSink):
        timeout, targets = _DEFAULT_TIMEOUT, [receiver.target] if receiver.target else []
        room = _PARALLELISM
    else:
        room = _room(receiver) if receiver and not (spec.function and spec.function.tag) else _PARALLELISM
        timeout = (receiver or {}).get("spec", {}).get("timeoutSeconds", _DEFAULT_TIMEOUT)
        targets = _targets(receiver, spec.function.tag if spec.function else None, cluster_domain)
    return route.Route(
        namespace=meta["namespace"],
        name=wish.name,
        uid=wish.uid,
        generation=meta["generation"],
        stream=stream,
        subjects=[*_subjects(wish, server), *_listing(wish, server, held), names.redrive_subject(stream, wish.uid)],
        filters=_filters(wish),
        start="earliest" if spec.source.schedule else spec.start,  # a schedule's stream holds nothing but its own ticks
        targets=targets,
        order=spec.order or ("key" if spec.source.database else "none"),
        barriers=spec.source.bus is None,
        parallelism=min(spec.parallelism, room),
        batch=_batch(spec.batch),
        format=_format(spec),
        timeout_seconds=timeout,
        retry=route.Retry(
            max_attempts=spec.retry.max_attempts,
            max_age_seconds=spec.retry.max_age_seconds,
            initial_seconds=spec.retry.initial_seconds,
            max_seconds=spec.retry.max_seconds,
            bisect=spec.retry.bisect,
        ),
        suspend=spec.suspend,
        replay=_replay(meta.get("annotations", {}).get(names.REPLAY_ANNOTATION, "")),
        receiver=spec.function.name if spec.function else "",
        reply=outlets.bus(spec.reply.bus.name) if spec.reply else None,
        on_failure=outlets.destination(wish.live, FAILURE, spec.dead_letter),
    )


def _batch(batch: Batch | None) -> route.Batch | None:
    if batch is None:
        return None
    return route.Batch(
        size=batch.size, window_seconds=batch.window_seconds, tumbling_seconds=batch.tumbling_window_seconds
    )


def _format(spec: SubscriptionSpec) -> str:
    """What the function gets, by what the source is on AWS."""
    if spec.format == "debezium":
        return route.DEBEZIUM
    if spec.format != "aws":
        return route.CLOUDEVENT
    if spec.source.bucket:
        return route.S3
    if spec.source.database:
        return route.DYNAMODB
    return route.TICK if spec.source.schedule else route.EVENTBRIDGE


def _replay(order: str) -> route.Replay | None:
    """The order to move back; whether its time can be read the router tells."""
    since, _, request = order.strip().partition(" ")
    return route.Replay(since=since, request=request.strip() or since) if since else None


def make_invocation_route(
    function: Object, wanted: Async, source: str, cluster_domain: str, outlets: Outlets
) -> route.Route:
    """The route of a Function's asynchronous invocations: Lambda's model, in no order, as many at once as the Function scales to."""
    meta, spec = function["metadata"], function["spec"]
    stream = invocation_stream(function)
    return route.Route(
        namespace=meta["namespace"],
        name=names.invocation_route(meta["name"]),
        uid=meta["uid"],
        generation=meta["generation"],
        stream=stream,
        subjects=[names.invocation_subject(meta["namespace"], source), names.redrive_subject(stream, meta["uid"])],
        start="earliest",  # the stream holds nothing but its own invocations
        targets=_targets(function, None, cluster_domain),
        order="none",
        parallelism=_room(function),
        timeout_seconds=spec.get("timeoutSeconds", _DEFAULT_TIMEOUT),
        retry=route.Retry(
            max_attempts=wanted.max_attempts,
            max_age_seconds=wanted.max_age_seconds,
            initial_seconds=60,
            max_seconds=300,
        ),
        function=meta["name"],
        on_success=outlets.destination(function, SUCCESS, wanted.on_success),
        on_failure=outlets.destination(function, FAILURE, wanted.on_failure),
    )


def _room(function: Object) -> int:
    """How many events the Function's pods run at once: one more would wait in front of a pod while its time runs, until it counts as failed.

    A scale that was stored before a rule and can't be read, as the Function's own status says, counts as none.
    """
    scaling = function["spec"].get("scale") or {}
    try:
        scale = msgspec.convert(scaling, Scale)
    except msgspec.ValidationError:
        scaling, scale = {}, Scale()
    instances: int = function.get("status", {}).get("reserved", {}).get("instances", scale.max)
    if "max" in scaling:  # what is reserved counts tagged revisions too, which take none of these
        instances = min(instances, scale.max)
    return min(_PARALLELISM, instances * scale.per_instance)


def _targets(function: Object | None, tag: str | None, cluster_domain: str) -> list[route.Target]:
    """The revisions with a share, or the one that the tag names once Knative has taken it up."""
    if function is None:
        return []
    namespace, status = function["metadata"]["namespace"], function.get("status", {})
    shares = {share["revision"]: share["percent"] for share in status.get("traffic", [])}
    if tag is not None:
        tags = function["spec"].get("tags", {})
        shares = {tags[tag]["revision"]: 100} if tag in tags and tag in status.get("tags", {}) else {}
    guarded = (function["spec"].get("auth") or {}).get("type", "none") != "none"
    audience = caller.audience(namespace, function["metadata"]["name"]) if guarded else ""
    services = {f"{revision}.{namespace}.svc.{cluster_domain}": percent for revision, percent in shares.items()}
    return [
        route.Target(url=f"http://{name}/", percent=percent, audience=audience, reach="function", service=name)
        for name, percent in services.items()
    ]


def _families(events: Collection[str]) -> set[str]:
    """Event types without those that another one covers: a consumer's subjects must not overlap."""
    return {event for event in events if event.endswith(":*") or f"{event.partition(':')[0]}:*" not in events}


def _subjects(wish: Wish, server: str) -> list[str]:
    namespace = wish.live["metadata"]["namespace"]
    source = wish.spec.source
    if source.bucket:
        return [
            names.object_subject(namespace, server, source.bucket.name, event, "*")
            for event in sorted(_families(source.bucket.events))
        ]
    if source.bus:
        return [names.bus_subject(namespace, source.bus.name, kind, "*") for kind in _types(wish)]
    if source.schedule:
        return [names.schedule_subject(namespace, wish.name, wish.uid)]
    assert source.database  # noqa: S101 - the CRD admits exactly one
    assert wish.reader  # noqa: S101 - a database has one
    tables = [table.split(".", 1) for table in sorted(source.database.tables)]
    connection, kind = source.database.connection.name, wish.reader.kind
    rows = [names.row_subject(namespace, connection, schema, table, "*", kind=kind) for schema, table in tables]
    if asks_for_rows(wish):
        rows += [
            names.snapshot_subject(namespace, connection, schema, table, wish.uid, kind=kind)
            for schema, table in tables
        ]
    return rows


def _listing(wish: Wish, server: str, held: route.Route | None) -> list[str]:
    """The subject of the objects that the bucket held: a Subscription has it from its first route on, or never gets it."""
    if not asks_for_objects(wish) or (held is not None and not is_listed(wish, held)):
        return []
    return [names.listing_subject(wish.live["metadata"]["namespace"], server, wish.items[0], wish.uid)]


def is_listed(wish: Wish, held: route.Route | None) -> bool:
    """Whether a route reads the listing of the Subscription's bucket."""
    return held is not None and any(names.is_listing_of(subject, wish.uid) for subject in held.subjects)


def _types(wish: Wish) -> list[str]:
    """The event types that a bus' Subscription can take: what the server does not send costs the router nothing."""
    wanted = (wish.spec.filter or {}).get("type")
    if not isinstance(wanted, list) or not 0 < len(wanted) <= _SUBJECTS:
        return ["*"]
    exact = all(isinstance(kind, str) and 0 < len(kind) <= cloudevent.TYPE_LENGTH and kind != "*" for kind in wanted)
    return sorted(set(wanted)) if exact else ["*"]


def _filters(wish: Wish) -> list[dict[str, Any]]:
    """All of them must match: what the source can't tell apart by subject, then the Subscription's own pattern."""
    source = wish.spec.source
    made: list[dict[str, Any]] = []
    if source.bucket and source.bucket.prefix:
        made.append({"subject": [{"prefix": source.bucket.prefix}]})
    if source.bucket and source.bucket.suffix:
        made.append({"subject": [{"suffix": source.bucket.suffix}]})
    if source.database and wish.reader and set(source.database.operations) != _ALL_OPERATIONS:
        operations: list[str] = sorted(source.database.operations)
        if "delete" in operations:
            operations.append("truncate")  # deletes every row
        operations += ["snapshot"] if asks_for_rows(wish) else []
        operations.append("gap")  # what was missed may have been any of them
        made.append({"type": [f"dev.wisp.{wish.reader.kind}.{operation}" for operation in operations]})
    if wish.spec.filter is not None:
        made.append(wish.spec.filter)
    return made
