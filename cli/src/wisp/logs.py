"""`wisp logs`: what a function's pods say and have said, merged by time and readable.

Pods that are there are asked themselves, through the Kubernetes API; lines of those that are gone come from the platform's log stream (`kept`).

The runtime writes a JSON object a line; here it becomes `time level message`, with the request's id and a traceback below. A line that is
no JSON object is shown as it came.
"""

import json
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

from wisp_api import names

from wisp.cluster import FUNCTION, POD, Cluster, Object
from wisp.errors import CommandError, UsageError
from wisp.kept import Line

_CONTAINERS: Final = ("front", "function")
"""The second runs the code; the first is there where its image brings a client of the Runtime API, and writes what is logged of invocations."""
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LOOK_SECONDS: Final = 1
"""How often new pods are looked for while following."""
_ID_LENGTH: Final = 8


def read(cluster: Cluster, name: str, since: str | None, kept: Sequence[Line] = ()) -> list[str]:
    """The lines of the pods that there are, and those of `kept` that these don't say themselves; oldest first.

    Raises:
        CommandError: no such function, or not allowed.
    """
    require(cluster, name)
    stamped = [
        (stamp, place[0], text)
        for place in _containers(cluster, name)
        for stamp, text in _stream(cluster, place, _query(since))
    ]
    said = {(pod, text) for _, pod, text in stamped}
    stamped += [line for line in kept if (line.pod, line.text) not in said]
    return [text for _, _, text in sorted(stamped, key=lambda line: line[0])]


def follow(cluster: Cluster, name: str, since: str | None, kept: Sequence[Line] = ()) -> Iterator[str]:
    """Those of `kept` whose pods are gone, then the lines as they come, those of pods that start later too; without end.

    Raises:
        CommandError: no such function, or not allowed.
    """
    require(cluster, name)
    there = {pod for pod, _ in _containers(cluster, name)}
    yield from (line.text for line in sorted(kept) if line.pod not in there)
    came: queue.Queue[str] = queue.Queue()
    followed: set[tuple[str, str]] = set()
    query = _query(since) | {"follow": "true"}

    def pump(place: tuple[str, str]) -> None:
        try:
            for _, text in _stream(cluster, place, query):
                came.put(text)
        except CommandError:
            followed.discard(place)  # its container has not started, or the connection broke: looked for again

    while True:
        for place in _containers(cluster, name):
            if place not in followed:
                followed.add(place)
                threading.Thread(target=pump, args=(place,), daemon=True).start()
        yield from _drain(came, time.monotonic() + _LOOK_SECONDS)


def find_report(cluster: Cluster, name: str, request_id: str) -> tuple[list[str], bool]:
    """The lines of one invocation, and whether its last one, the runtime's report, is among them."""
    lines = [line for line in read(cluster, name, "1h") if belongs(line, request_id)]
    return lines, any((_parse(line) or {}).get("type") == "platform.report" for line in lines)


def belongs(line: str, request_id: str) -> bool:
    """Whether a line was logged by this invocation."""
    return (_parse(line) or {}).get("requestId") == request_id


def render(line: str) -> str:
    """A line for people; what a line's own text has of further ones is set in, so that nobody takes it for lines of the log."""
    fields = _parse(line)
    if fields is None or "message" not in fields:
        return line
    request = " ".join(str(fields.get("requestId", "")).splitlines())[:_ID_LENGTH].ljust(_ID_LENGTH)
    clock = str(fields.get("time", "")).partition("T")[2].removesuffix("Z") or "-"
    head = f"{clock} {str(fields.get('level', '')).upper():<7} {request}"
    message = str(fields["message"]).replace("\t", "  ")
    stack = "".join(f"{str(frame).rstrip()}\n" for frame in fields.get("stackTrace") or []).rstrip("\n")
    error = f"{fields['errorType']}: {fields.get('errorMessage', '')}" if "errorType" in fields else ""
    below = [part for part in (stack, error) if part and part not in message]
    first, *more = message.splitlines() or [""]
    return "\n".join(
        [f"{head} {first}", *("    " + row for part in ("\n".join(more), *below) for row in part.splitlines())]
    )


def _parse(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line) if line.startswith("{") else None
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def require(cluster: Cluster, name: str) -> Object:
    """The function.

    Raises:
        CommandError: there is none.
    """
    function = cluster.get(FUNCTION, name)
    if function is None:
        raise CommandError(f"there is no function {name} in namespace {cluster.namespace}: `wisp list` shows them")
    return function


def _containers(cluster: Cluster, name: str) -> list[tuple[str, str]]:
    """(pod, container) of those that have run."""
    return [
        (pod["metadata"]["name"], state["name"])
        for pod in cluster.list(POD, f"{names.FUNCTION_LABEL}={name}")
        for state in (pod.get("status") or {}).get("containerStatuses") or []
        if state["name"] in _CONTAINERS and "waiting" not in state.get("state", {})
    ]


def _query(since: str | None) -> dict[str, str]:
    query = {"timestamps": "true"}
    return query | {"sinceSeconds": str(seconds(since))} if since else query


def seconds(text: str) -> int:
    """`90s`, `10m`, `2h` or `1d` in seconds.

    Raises:
        UsageError: it is none of them.
    """
    number, unit = text[:-1], text[-1:]
    if unit not in _UNITS or not number.isdecimal() or not int(number):
        raise UsageError(f"--since {text}: write a number and a unit, as 90s, 10m, 2h or 1d")
    return int(number) * _UNITS[unit]


def _stream(cluster: Cluster, place: tuple[str, str], query: dict[str, str]) -> Iterator[tuple[str, str]]:
    """(time, text) of each line of one container's log."""
    pod, container = place
    with cluster.lines(f"{POD.path(cluster.namespace, pod)}/log", query | {"container": container}) as lines:
        for raw in lines:
            stamp, _, text = raw.decode(errors="replace").rstrip("\n").partition(" ")
            yield stamp, text


def _drain(came: "queue.Queue[str]", deadline: float) -> Iterator[str]:
    """What comes until the deadline."""
    while (left := deadline - time.monotonic()) > 0:
        try:
            yield came.get(timeout=left)
        except queue.Empty:
            return
