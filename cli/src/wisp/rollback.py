"""`wisp rollback`: all requests to an earlier revision, by `spec.pin`; the next `wisp deploy` takes the pin away.

`wisp restart`: a new revision of the same content.
"""

from datetime import UTC, datetime

from wisp_api import names

from wisp import output
from wisp.cluster import FUNCTION, Cluster, Object
from wisp.errors import CommandError


def rollback(cluster: Cluster, name: str, to: str | None) -> Object:
    """Pin a function to a revision, or to the one before the one that serves; the object as it is then.

    Raises:
        CommandError: there is no such function or revision, or nothing to go back to.
    """
    function = cluster.get(FUNCTION, name)
    if function is None:
        raise CommandError(f"there is no function {name} in namespace {cluster.namespace}")
    target = to or _previous(function)
    known = [past["revision"] for past in _history(function)]
    if target not in known:
        raise CommandError(f"function {name} has no revision {target}; it has {', '.join(known) or 'none'}")
    return cluster.patch(FUNCTION, name, {"spec": {"pin": target}})


def restart(cluster: Cluster, name: str) -> Object:
    """Have a function rolled out again as it is; the object as it is then.

    Raises:
        CommandError: there is no such function.
    """
    if cluster.get(FUNCTION, name) is None:
        raise CommandError(f"there is no function {name} in namespace {cluster.namespace}")
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return cluster.patch(FUNCTION, name, {"metadata": {"annotations": {names.RESTARTED_ANNOTATION: now}}})


def unpin(cluster: Cluster, item: Object) -> Object:
    """Take a function's pin away, if it has one; the object as it is then."""
    if item["kind"] != FUNCTION.kind or "pin" not in item["spec"]:
        return item
    output.tell(f"function/{item['metadata']['name']} was rolled back to {item['spec']['pin']}: not any more")
    return cluster.patch(FUNCTION, item["metadata"]["name"], {"spec": {"pin": None}})


def _previous(function: Object) -> str:
    """The newest revision that has started and is older than the one with most requests."""
    name = function["metadata"]["name"]
    shares = (function.get("status") or {}).get("traffic") or []
    if not shares:
        raise CommandError(f"function {name} serves no revision yet: there is nothing to go back from")
    serving = max(shares, key=lambda share: int(share["percent"]))["revision"]
    past = _history(function)
    place = next((place for place, item in enumerate(past) if item["revision"] == serving), len(past))
    for item in past[place + 1 :]:
        if item.get("started"):
            return str(item["revision"])
    raise CommandError(f"function {name} has no revision before {serving} that has started: --to names another")


def _history(function: Object) -> list[Object]:
    found: list[Object] = (function.get("status") or {}).get("history") or []
    return found
