"""Conditions: how a state is worked out of several aspects and written without needless change.

Invariant: `lastTransitionTime` moves only when `status` does, and a status that says the same as the live one causes no
write. One that the API would refuse for its length is never written: it would hold up all that comes after it. Ready is
never set by hand: it is False if one aspect is, else Unknown if one is, else True, with the first such aspect's reason and
message. DestinationReady alone has no part in it: events are delivered all the same (decision 0065).
"""

import logging
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

from wisp_api import conditions, names

from wisp_operator.api import EVENTS, Api, ApiError, Object, Resource
from wisp_operator.apply import covers

_log = logging.getLogger(__name__)
TRUE = "True"
FALSE = "False"
UNKNOWN = "Unknown"
AS_WANTED = "AsWanted"
RECOVERED = "Recovered"
"""Reason of the Event of a Ready that was False."""
EventType = Literal["Normal", "Warning"]
_STEPS = frozenset({conditions.ROLLING_OUT, conditions.PINNED})
"""Reasons of a condition that is True and threatens nothing: each step is told."""
_LOSSES = frozenset({conditions.READER_AWAY, conditions.ROUTER_AWAY})
"""Reasons of a condition that nobody can tell because who would tell it is gone."""
_RETRY_SECONDS = 15.0, 600.0
"""Until a Job that failed is made again: at first, at most; in between as long as it has failed already."""


class Aspect(NamedTuple):
    """One condition as it is now, without its history."""

    status: str
    reason: str
    message: str = ""


def mark_true(reason: str = AS_WANTED, message: str = "") -> Aspect:
    """All is well; another reason than AsWanted is a warning of what threatens, which the message tells."""
    return Aspect(TRUE, reason, message)


def mark_false(reason: str, message: str) -> Aspect:
    """Wrong until someone does something; the message says who and what."""
    return Aspect(FALSE, reason, message)


def mark_unknown(reason: str, message: str) -> Aspect:
    """At work on it, or not able to tell."""
    return Aspect(UNKNOWN, reason, message)


def summary(aspects: Iterable[Aspect]) -> Aspect:
    """Ready, from those that it depends on."""
    by_status: dict[str, Aspect] = {}
    for aspect in aspects:
        by_status.setdefault(aspect.status, aspect)
    return by_status.get(FALSE) or by_status.get(UNKNOWN) or mark_true()


def make_conditions(live: Object, aspects: dict[str, Aspect], now: datetime) -> list[Object]:
    """The object's conditions: Ready first, then `aspects`; times are taken over where the status stays the same."""
    before = {item["type"]: item for item in live.get("status", {}).get("conditions", [])}
    made = []
    ready = summary(aspect for kind, aspect in aspects.items() if kind != conditions.DESTINATION_READY)
    for kind, aspect in {conditions.READY: ready, **aspects}.items():
        same = before.get(kind, {}).get("status") == aspect.status
        made.append(
            {
                "type": kind,
                "status": aspect.status,
                "reason": aspect.reason[: conditions.REASON_CHARACTERS],
                "message": conditions.shortened(aspect.message),
                "lastTransitionTime": before[kind]["lastTransitionTime"] if same else timestamp(now),
                "observedGeneration": live["metadata"]["generation"],
            }
        )
    return made


def wrong_before(live: Object, field: str) -> Aspect | None:
    """What the last Job for the same spec found wrong with a field of it; it stands until another one has ended."""
    state = _code_problem(live)
    if state is None or not state["message"].startswith(field):
        return None
    return mark_false(state["reason"], state["message"])


def next_try(live: Object, ended: datetime) -> datetime:
    """When what a Job failed at is tried again: as long after its end as the same spec has failed, within bounds."""
    least, most = _RETRY_SECONDS
    state = _code_problem(live)
    failed = (ended - datetime.fromisoformat(state["lastTransitionTime"])).total_seconds() if state else 0.0
    return ended + timedelta(seconds=min(max(failed, least), most))


def _code_problem(live: Object) -> Object | None:
    """CodeReady, where it is False for the present spec."""
    for state in live.get("status", {}).get("conditions", []):
        now = state.get("observedGeneration") == live["metadata"]["generation"]
        if now and state["type"] == conditions.CODE_READY and state["status"] == FALSE:
            return dict(state)
    return None


async def write_status(api: Api, resource: Resource, live: Object, status: dict[str, Any], now: datetime) -> None:
    """Write the status where it differs from the live one, None taking a field away; Events tell the `news`.

    Raises:
        ApiError: refused.
    """
    status = {"observedGeneration": live["metadata"]["generation"], **status}
    before = live.get("status", {})
    status = {key: _whole(value, before.get(key)) for key, value in status.items()}
    gone = {key for key, value in status.items() if value is None and key not in before}
    status = {key: value for key, value in status.items() if key not in gone}
    if covers(before, status):
        return
    meta = live["metadata"]
    written = await api.merge(resource, meta["namespace"], meta["name"], {"status": status}, "status")
    if written and written["metadata"]["generation"] == meta["generation"]:  # no spec that was not looked at
        api.remember(written)
    for reason, message, kind in news(before.get("conditions", []), status["conditions"]):
        await write_event(api, live, reason, message, now, kind)


def news(before: Iterable[Object], now: Iterable[Object]) -> Iterator[tuple[str, str, EventType]]:
    """What people should hear of: a Ready or a destination that turned, and what a condition that is True says besides."""
    known = {item["type"]: item for item in before}
    for item in now:
        old, reason, message = known.get(item["type"], {}), item["reason"], item["message"]
        same = (old.get("status"), old.get("reason")) == (item["status"], reason)
        if item["type"] == conditions.READY:
            if item["status"] == FALSE and not same:
                yield reason, message, "Warning"
            elif item["status"] == TRUE and old.get("status") == FALSE:
                yield RECOVERED, f"Ready again after {old['reason']}", "Normal"
        elif item["status"] == TRUE and reason in _STEPS:
            # Knative takes each step up in its own time; any other doubt was about a step that is told of already.
            doubted = old.get("status") == UNKNOWN and old["reason"] != conditions.DEPLOYING
            if old.get("message") != message and not doubted:
                yield reason, message, "Normal"
        elif not same and (
            (item["status"] == TRUE and reason != AS_WANTED) or _is_loss(old, item) or _is_destination(item)
        ):
            yield reason, message, "Warning"


def _is_destination(now: Object) -> bool:
    """Whether a destination takes nothing, of which Ready does not tell."""
    return bool(now["type"] == conditions.DESTINATION_READY and now["status"] == FALSE)


def _is_loss(old: Object, now: Object) -> bool:
    """Whether who would tell is gone; while the log is away, and at once when it is back, nobody has told anything."""
    return now["status"] == UNKNOWN and now["reason"] in _LOSSES and old.get("reason") != conditions.LOG_UNAVAILABLE


def _whole(value: Any, before: Any) -> Any:
    """An object that takes away the fields that it does not have: a merge patch would leave them."""
    if not isinstance(value, dict) or not isinstance(before, dict):
        return value
    return {key: None for key in before if key not in value} | value


async def write_event(  # noqa: PLR0917 - one call
    api: Api, about: Object, reason: str, message: str, now: datetime, kind: EventType = "Warning"
) -> None:
    """An Event about an object, for `kubectl describe`; one that is refused (a quota, a webhook, a namespace that goes) holds nothing else up."""
    meta = about["metadata"]
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": f"{meta['name']}.", "namespace": meta["namespace"]},
        "involvedObject": {
            "apiVersion": about["apiVersion"],
            "kind": about["kind"],
            "name": meta["name"],
            "namespace": meta["namespace"],
            "uid": meta["uid"],
        },
        "type": kind,
        "reason": reason,
        "message": message[:1024],
        "source": {"component": names.FIELD_MANAGER},
        "firstTimestamp": timestamp(now),
        "lastTimestamp": timestamp(now),
        "count": 1,
    }
    try:
        await api.create(EVENTS, meta["namespace"], event)
    except ApiError as error:
        if not error.terminating:
            where = f"{about['kind']} {meta['namespace']}/{meta['name']}"
            _log.warning("%s: the Event %s (%s) was refused: %s", where, reason, message, error)


def timestamp(now: datetime) -> str:
    """RFC 3339, UTC, whole seconds, as Kubernetes writes times."""
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
