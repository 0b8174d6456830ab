"""`wisp list`, `describe` and `delete`: functions and subscriptions as they stand on the cluster."""

import time
from typing import Final

from wisp_api import conditions

from wisp import facts, output
from wisp.cluster import EVENT, FUNCTION, OURS, REVISION, SUBSCRIPTION, Cluster, Kind, Object
from wisp.errors import CommandError, RefusedError, UsageError

_KINDS: Final = {
    "function": FUNCTION,
    "functions": FUNCTION,
    "fn": FUNCTION,
    "subscription": SUBSCRIPTION,
    "subscriptions": SUBSCRIPTION,
    "sub": SUBSCRIPTION,
}
_EVENTS: Final = 10
_GONE_SECONDS: Final = 60


def list_all(cluster: Cluster, *, everywhere: bool = False) -> list[Object]:
    """The functions, then the subscriptions, of the namespace or of all."""
    return [item for kind in (FUNCTION, SUBSCRIPTION) for item in cluster.list(kind, everywhere=everywhere)]


def as_tables(objects: list[Object], *, everywhere: bool = False) -> str:
    """The lists for people, by kind; with the namespace where they are of several."""
    functions = [item for item in objects if item["kind"] == FUNCTION.kind]
    subscriptions = [item for item in objects if item["kind"] == SUBSCRIPTION.kind]
    tables = []
    space = ["NAMESPACE"] if everywhere else []
    if functions:
        rows = [
            [*_start(item, space), _status(item).get("url"), item["spec"]["runtime"], _age(item)] for item in functions
        ]
        tables.append(output.table([*space, "FUNCTION", "READY", "URL", "RUNTIME", "AGE"], rows))
    if subscriptions:
        rows = [
            [*_start(item, space), _status(item).get("source"), facts.receiver(item["spec"]), _age(item)]
            for item in subscriptions
        ]
        tables.append(output.table([*space, "SUBSCRIPTION", "READY", "SOURCE", "FUNCTION", "AGE"], rows))
    return "\n\n".join(tables)


def _start(item: Object, space: list[str]) -> list[str]:
    """A row's first cells."""
    return [*(item["metadata"]["namespace"] for _ in space), _name(item), _ready(item)]


def find(cluster: Cluster, name: str) -> list[Object]:
    """The function and the subscription of this name, or the one that `fn/NAME` or `sub/NAME` names.

    Raises:
        CommandError: there is neither.
        UsageError: the kind is none of ours.
    """
    prefix, _, rest = name.rpartition("/")
    if prefix and prefix not in _KINDS:
        raise UsageError(f"{prefix} is no kind: write function/{rest} or subscription/{rest}")
    kinds = [_KINDS[prefix]] if prefix else list(OURS.values())
    found = [item for kind in kinds if (item := cluster.get(kind, rest))]
    if not found:
        told = " or ".join(kind.kind.lower() for kind in kinds)
        raise CommandError(
            f"there is no {told} {rest} in namespace {cluster.namespace}: `wisp list` shows what there is"
        )
    return found


def describe(cluster: Cluster, item: Object) -> str:
    """One object for people: what it is, its conditions with what to do, revisions, last events."""
    parts = [f"{item['kind']} {_name(item)}, namespace {cluster.namespace}, {_age(item)} old"]
    told = facts.of_function(item) if item["kind"] == FUNCTION.kind else facts.of_subscription(item)
    parts.append(output.table(["", ""], [[f"{label}:", value] for label, value in told.items()]).lstrip())
    parts.append(_conditions(item))
    if item["kind"] == FUNCTION.kind:
        parts.append(_revisions(cluster, item))
    parts.append(_events(cluster, item))
    return "\n\n".join(part for part in parts if part)


def delete(cluster: Cluster, name: str, *, wait: bool) -> list[str]:
    """Delete an object, and wait until it is gone; returns what to tell.

    Raises:
        UsageError: a function and a subscription have this name.
        CommandError: there is none, or it is still there after a minute.
    """
    found = find(cluster, name)
    if len(found) > 1:
        raise UsageError(
            f"a function and a subscription are called {name}: write function/{name} or subscription/{name}"
        )
    item = found[0]
    kind = OURS[item["kind"]]
    cluster.delete(kind, _name(item))
    if wait:
        _wait_gone(cluster, kind, item)
    told = [f"{item['kind'].lower()}/{_name(item)} deleted"]
    if kind is FUNCTION:
        left = [
            each for each in cluster.list(SUBSCRIPTION) if each["spec"].get("function", {}).get("name") == _name(item)
        ]
        told += [
            f"subscription/{_name(each)} still names it: its events wait, and age out as dead letters" for each in left
        ]
    return told


def _wait_gone(cluster: Cluster, kind: Kind, item: Object) -> None:
    deadline = time.monotonic() + _GONE_SECONDS
    while True:
        found = cluster.get(kind, _name(item))
        if found is None or found["metadata"]["uid"] != item["metadata"]["uid"]:
            return
        if time.monotonic() > deadline:
            raise CommandError(
                f"{_name(item)} is marked for deletion and still cleans up; `wisp describe {_name(item)}` tells"
            )
        time.sleep(0.5)


def _conditions(item: Object) -> str:
    found = _status(item).get("conditions") or []
    if not found:
        return "Conditions: none yet; is Wisp's operator running?"
    rows = [
        [each["type"], each["status"], each["reason"], output.age(each.get("lastTransitionTime"))] for each in found
    ]
    lines = [output.table(["CONDITION", "STATUS", "REASON", "SINCE"], rows)]
    lines += [
        f"\n{each['type']}: {each['message']}"
        for each in found
        if each["message"] and each["status"] != "True" and (each["type"] != conditions.READY or len(found) == 1)
    ]
    return "\n".join(lines)


def _revisions(cluster: Cluster, item: Object) -> str:
    try:
        found = cluster.list(REVISION, f"serving.knative.dev/service={_name(item)}")
    except RefusedError as error:
        return f"Revisions: not to be seen ({error})"
    shares = {share["revision"]: f"{share['percent']} %" for share in _status(item).get("traffic") or []}
    found.sort(key=lambda each: each["metadata"]["creationTimestamp"], reverse=True)
    rows = [[_name(each), _ready(each), shares.get(_name(each)), _age(each)] for each in found]
    return output.table(["REVISION", "READY", "TRAFFIC", "AGE"], rows) if rows else ""


def _events(cluster: Cluster, item: Object) -> str:
    try:
        found = cluster.list(EVENT, fields=f"involvedObject.uid={item['metadata']['uid']}")
    except RefusedError as error:
        return f"Events: not to be seen ({error})"
    found.sort(key=_seen)
    rows = [
        [output.age(_seen(each)), each.get("type"), each.get("reason"), _first_line(each)] for each in found[-_EVENTS:]
    ]
    return output.table(["EVENT", "TYPE", "REASON", "MESSAGE"], rows) if rows else ""


def _seen(event: Object) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"]["creationTimestamp"])


def _first_line(event: Object) -> str:
    """What an event says, without a traceback: the condition has that."""
    return next(iter((event.get("message") or "").splitlines()), "")


def _name(item: Object) -> str:
    name: str = item["metadata"]["name"]
    return name


def _status(item: Object) -> Object:
    return item.get("status") or {}


def _ready(item: Object) -> str:
    return output.condition(item).get("status", "Unknown")


def _age(item: Object) -> str:
    return output.age(item["metadata"].get("creationTimestamp"))
