"""`wisp replay`: orders that a subscription is moved back in the log, and waits until the router says what became of it.

The order is an annotation. It names itself, so that it is carried out once, and may be written again at any time.
"""

import secrets
import time
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from wisp_api import names

from wisp import logs
from wisp.cluster import SUBSCRIPTION, Cluster
from wisp.errors import CommandError, UsageError

_SECONDS: Final = 120
_POLL_SECONDS: Final = 0.5


def replay(cluster: Cluster, name: str, since: str, *, wait: bool) -> dict[str, Any]:
    """Order it; what became of it, or with `wait` false that it is ordered.

    Raises:
        CommandError: there is no such subscription, the log does not hold that time, or nobody answered.
    """
    start = moment(since)
    if cluster.get(SUBSCRIPTION, name) is None:
        raise CommandError(f"there is no subscription {name} in namespace {cluster.namespace}")
    request = secrets.token_hex(6)
    cluster.annotate(SUBSCRIPTION, name, names.REPLAY_ANNOTATION, f"{start} {request}")
    if not wait:
        return {"request": request, "message": f"ordered to replay since {start}"}
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        found: dict[str, Any] = ((cluster.get(SUBSCRIPTION, name) or {}).get("status") or {}).get("replay") or {}
        if found.get("request") == request:
            if not found["moved"]:
                raise CommandError(f"subscription/{name} is not moved back: {found['message']}")
            return found
        time.sleep(_POLL_SECONDS)
    raise CommandError(
        f"ordered, but after {_SECONDS} s nobody has said what became of it; `wisp describe sub/{name}` tells why, and then .status.replay"
    )


def moment(since: str) -> str:
    """A time, or how long ago, as RFC 3339 in UTC.

    Raises:
        UsageError: it is neither.
    """
    try:
        time = datetime.fromisoformat(since)
    except ValueError:
        time = datetime.now(UTC) - timedelta(seconds=logs.seconds(since))
    if time.tzinfo is None:
        raise UsageError(f"--since {since}: say in which zone, as {since}Z or {since}+02:00")
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")
