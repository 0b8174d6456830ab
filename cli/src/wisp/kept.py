"""Log lines that outlive their pods, as the platform's log stream has them; the ingest keeps its door.

The door is reached through the API server's proxy, with a short token of the namespace's ServiceAccount `default`: whoever may make that may read.
"""

import json
import urllib.request
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

from wisp_api import caller, names

from wisp.cluster import Cluster, Object
from wisp.errors import CommandError

_INGEST: Final = "wisp-ingest:8080"
_ACCOUNT: Final = "default"
_SECONDS: Final = 30
_OK: Final = 200
_DAY: Final = 24 * 3600
"""How far is looked back where nobody says how far, nor for what."""


class Line(NamedTuple):
    """A line of a pod that may be gone."""

    time: str
    pod: str
    text: str


def read(cluster: Cluster, function: Object, system: str, seconds: int | None, request: str | None) -> list[Line]:
    """A function's lines: of the last `seconds`, or of a day, or those of one `request`; `system` is the platform's namespace.

    Raises:
        CommandError: they can't be had.
    """
    meta = function["metadata"]
    seconds = seconds or (0 if request else _DAY)
    since = _stamp(datetime.now(UTC) - timedelta(seconds=seconds)) if seconds else ""
    asked = {"since": since} if since else {}
    asked |= {"request": request} if request else {}
    token = cluster.token(_ACCOUNT, names.AUDIENCE)
    path = names.log_path(cluster.namespace, meta["name"], meta["uid"])
    found: list[Line] = []
    latest: dict[str, str] = {}
    after = 0
    while True:
        page = _ask(cluster, system, f"{path}?{urlencode(asked | {'after': str(after)})}", token)
        for line in page["lines"]:
            pod = line["pod"]
            latest[pod] = max(latest.get(pod, ""), _time(line))  # so that each pod's lines keep their order
            found.append(Line(latest[pod], pod, line["text"]))
        if not (after := page["next"]):
            return [line for line in found if line.time >= since]


def _ask(cluster: Cluster, system: str, path: str, token: str) -> dict[str, Any]:
    headers = {caller.HEADER: f"Bearer {token}"}
    request = urllib.request.Request("http://ingest", headers=headers)
    with cluster.proxy(system, _INGEST, request, path, _SECONDS) as answer:
        status, body = answer.status, answer.read()
    try:
        told = json.loads(body)
    except ValueError:
        told = {"message": body.decode(errors="replace").strip()}
    if status != _OK:
        raise CommandError(f"{told.get('message')} (status {status})")
    page: dict[str, Any] = told
    return page


def _stamp(time: datetime) -> str:
    """A time as the runtime's lines have it."""
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _time(line: dict[str, Any]) -> str:
    """When a line was written, as it says itself; else when the stream took it."""
    try:
        told = json.loads(line["text"])["time"]
    except (ValueError, TypeError, KeyError):
        told = None
    return told if isinstance(told, str) else str(line["time"])
