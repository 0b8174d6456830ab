"""What a Subscription's status says: worked out of its reader's report, the bucket's proof, the Function and the router's report. Pure."""

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
from wisp_api import conditions
from wisp_api.route import RouteStatus
from wisp_api.source import ItemStatus, ReaderStatus
from wisp_api.subscription import S3, FunctionReference

from wisp_operator.api import Object
from wisp_operator.proof import Proof
from wisp_operator.reader import reader_name
from wisp_operator.sinks import FoundSink
from wisp_operator.sources import Wish
from wisp_operator.status import AS_WANTED, TRUE, Aspect, mark_false, mark_true, mark_unknown

STALE: Final = timedelta(minutes=2)
"""A reader reports every 30 s; one that did not for this long is away."""
TOLD: Final = timedelta(days=1)
"""How long the condition tells of what was missed; the status keeps it."""
MISSED: Final = (
    "what changed in bucket {bucket} between {since} and {until} was not told, as the key's right or the notification rules had been taken "
    "away: who was made with start: earliest is given the objects of that time that are there still, others list the bucket; removals are missing"
)
LOG_AWAY: Final = "the event log (NATS) does not answer: {}; nothing is lost, and this is tried again"
LOG_REFUSED: Final = (
    "the event log refused this {} stream: {}. "
    "An administrator has to make room (chart values log.streamMaxBytes and nats.maxFileStore)"
)
_ROUTER_STATES: Final = {
    "Backlogged": conditions.BACKLOGGED,
    "Failing": conditions.FAILING,
    "InvalidRoute": conditions.INVALID_ROUTE,
}


def source_aspect(  # noqa: PLR0917 - one call
    wish: Wish, version: str, report: ReaderStatus | None, proof: Proof, now: datetime, unseen: Object | None = None
) -> Aspect:
    """SourceReady; `version` is that of the reader's present task, `unseen` when a bucket's changes were not seen."""
    assert wish.reader  # noqa: S101 - a schedule's aspect is made in `schedule`
    reader = reader_name(wish.reader)
    if report is None:
        return mark_unknown(
            conditions.READER_STARTING, f"the reader has not reported yet: kubectl get deployment {reader}"
        )
    if is_stale(report, now):
        return mark_unknown(
            conditions.READER_AWAY,
            f"the reader has not reported since {report.time}: kubectl describe deployment {reader}",
        )
    if trouble := _trouble(wish, report):
        return trouble
    behind = report.version != version or any(name not in report.items for name in wish.items)
    if behind and not _was_ready(wish):
        return mark_unknown(conditions.READER_UPDATING, "the reader is taking the change up")
    if wish.reader.kind == S3:
        return _proof_aspect(wish, wish.reader.connection, proof, _bucket_aspect(wish, report, unseen, now))
    return mark_true(report.reason or AS_WANTED, report.message)


def _trouble(wish: Wish, report: ReaderStatus) -> Aspect | None:
    if not report.ready:
        return mark_false(report.reason or conditions.READER_AWAY, report.message)
    for name in wish.items:
        item = report.items.get(name)
        if item is not None and not item.ready and not _served(wish, item):
            return mark_false(item.reason, item.message)
    return None


def _bucket_aspect(wish: Wish, report: ReaderStatus, unseen: Object | None, now: datetime) -> Aspect:
    """Of a bucket that is followed: what is under way, and for a day what nobody could see."""
    item = report.items.get(wish.items[0])
    message, until = item.message if item else "", (unseen or {}).get("until")
    if unseen is None or until is None or now - datetime.fromisoformat(until) > TOLD:
        return mark_true(report.reason or AS_WANTED, message)
    missed = MISSED.format(bucket=wish.items[0], since=unseen["since"], until=until)
    return mark_true(conditions.CHANGES_MISSED, "; ".join(filter(None, (missed, message))))


def _served(wish: Wish, item: ItemStatus) -> bool:
    """Whether a table that is not ready for all Subscriptions gives this one all that it wants."""
    source = wish.spec.source.database
    return source is not None and set(source.operations) <= set(item.operations)


def function_aspect(
    wish: Wish,
    function: Object | None,
    report: RouteStatus | None,
    routers: Collection[str],
    sink: FoundSink | None = None,
) -> Aspect:
    """FunctionReady; `routers` are the router's live replicas."""
    trouble = _function_trouble(wish.spec.function, function) if wish.spec.function else sink and sink.trouble
    if trouble:
        return trouble
    if wish.spec.suspend:
        return mark_false(
            conditions.SUSPENDED,
            "spec.suspend is true: the events wait until it is false, at most spec.retry.maxAgeSeconds",
        )
    return _route_aspect(wish, report, routers)


def _function_trouble(wanted: FunctionReference, function: Object | None) -> Aspect | None:
    name, tag = wanted.name, wanted.tag
    if function is None:
        return mark_false(
            conditions.FUNCTION_NOT_FOUND,
            f"spec.function.name: there is no Function {name} in this namespace; the events wait for it",
        )
    if tag is not None and tag not in function["spec"].get("tags", {}):
        return mark_false(
            conditions.TAG_NOT_FOUND,
            f"spec.function.tag: Function {name} has no tag {tag}; the events wait for it (spec.tags of the Function)",
        )
    ready: Object = next(
        (item for item in function.get("status", {}).get("conditions", []) if item["type"] == conditions.READY), {}
    )
    if ready.get("status") != TRUE:
        text = f"Function {name} is not ready: {ready.get('reason', 'Deploying')}: {ready.get('message', '')}"
        mark = mark_false if ready.get("status") == "False" else mark_unknown
        return mark(conditions.FUNCTION_NOT_READY, text)
    return None


def _route_aspect(wish: Wish, report: RouteStatus | None, routers: Collection[str]) -> Aspect:
    if report is None or (report.uid, report.generation) != (wish.uid, wish.live["metadata"]["generation"]):
        return mark_unknown(conditions.ROUTE_PENDING, "the router has not taken the route up yet")
    if not routers:
        return mark_unknown(
            conditions.ROUTER_AWAY,
            "no router runs, events wait: kubectl get pods -A -l app.kubernetes.io/part-of=wisp,app.kubernetes.io/component=router",
        )
    if report.state in _ROUTER_STATES:
        return mark_false(_ROUTER_STATES[report.state], report.message)
    return (
        mark_true()
        if report.state == "Active"
        else mark_unknown(conditions.ROUTE_PENDING, report.message or report.state)
    )


def destination_aspect(found: FoundSink | None, report: RouteStatus | None, refused: str | None) -> Aspect:
    """Whether records reach a destination that is posted to; `refused` is why its stream could not be made."""
    if refused:
        return mark_false(conditions.LOG_REFUSED, LOG_REFUSED.format("destination's", refused))
    if found and found.trouble:
        return found.trouble
    if report and report.state in _ROUTER_STATES:
        return mark_false(_ROUTER_STATES[report.state], report.message)
    return mark_true()


def log_unavailable(error: str) -> dict[str, Aspect]:
    """The aspects while the event log is away."""
    away = mark_unknown(conditions.LOG_UNAVAILABLE, LOG_AWAY.format(error))
    return {conditions.SOURCE_READY: away, conditions.FUNCTION_READY: away}


def figures(wish: Wish, report: RouteStatus | None) -> dict[str, Any]:
    """The numbers of the status; the present ones stay while the router has none."""
    if report is None or report.uid != wish.uid:
        return {}
    return {
        "delivered": report.delivered,
        "failed": report.failed,
        "deadLettered": report.dead_lettered,
        "pending": report.pending,
        "oldestPending": report.oldest_pending,
        "lastDelivery": report.last_delivery,
    }


def replayed(wish: Wish, report: RouteStatus | None) -> dict[str, Any]:
    """What became of the last order to replay events, if there was one."""
    if report is None or report.uid != wish.uid or report.replay is None:
        return {}
    return {"replay": msgspec.to_builtins(report.replay)}


def is_stale(report: ReaderStatus, now: datetime) -> bool:
    """Whether a report is too old to be believed."""
    try:
        written = datetime.fromisoformat(report.time)
    except ValueError:
        return True
    return now - (written if written.tzinfo else written.replace(tzinfo=UTC)) > STALE


def _proof_aspect(wish: Wish, connection: str, proof: Proof, well: Aspect) -> Aspect:
    bucket = wish.items[0]
    if proof is Proof.GRANTED:
        return well
    if proof is Proof.REFUSED:
        return mark_false(
            conditions.PERMISSION_DENIED,
            f"the key in Secret {connection} may not read bucket {bucket}: grant it s3:ListBucket there; what is uploaded until then is not delivered",
        )
    if _was_ready(wish):
        return well
    return mark_unknown(conditions.PROOF_PENDING, f"the right to read bucket {bucket} is being checked with the server")


def _was_ready(wish: Wish) -> bool:
    """Whether the source was ready at this very spec: what others change must not make it flicker."""
    for item in wish.live.get("status", {}).get("conditions", []):
        if item["type"] == conditions.SOURCE_READY:
            return bool(item["status"] == TRUE and item["observedGeneration"] == wish.live["metadata"]["generation"])
    return False
