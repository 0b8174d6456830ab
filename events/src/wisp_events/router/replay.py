"""Moving a Subscription back in the log, on an order that its route carries.

Invariant: an order is carried out or refused once, by the write of the cursor that remembers it (`claim`). A cursor never
goes forward by one: events that wait stay to be delivered, whatever time is asked for.
"""

import json
import time
from datetime import UTC, datetime

import nats.errors
from nats.aio.client import Client
from wisp_api.route import ReplayReport, Route

from wisp_events.router.cursor import Cursor
from wisp_events.router.plan import parse_time


async def carry_out(client: Client, route: Route, cursor: Cursor) -> None:
    """Move a cursor back as its route orders, or say why not, if that was not done before.

    Raises:
        nats.errors.Error, OSError: NATS is away.
    """
    order = route.replay
    if order is None or (cursor.replay and cursor.replay.request == order.request):
        return
    try:
        since = _window_start(parse_time("since", order.since), route, cursor)
        position = await _position(client, route.stream, since)
    except ValueError as error:
        cursor.replay = ReplayReport(request=order.request, moved=False, message=str(error))
        return
    moved = cursor.rewind(position, time.time())
    if moved:  # what comes again is not in a state yet
        start = since.timestamp()
        cursor.windows = {shard: window for shard, window in cursor.windows.items() if window.end <= start}
    message = f"events since {order.since} come again" if moved else f"no event since {order.since} was delivered yet"
    cursor.replay = ReplayReport(request=order.request, moved=moved, message=message)


def _window_start(since: datetime, route: Route, cursor: Cursor) -> datetime:
    """Where the Subscription has windows, the beginning of the one that a time is in: half a window would have half a state."""
    seconds = route.batch.tumbling_seconds if route.batch else 0
    if not seconds:
        return since
    start = int(since.timestamp()) // seconds * seconds
    return datetime.fromtimestamp(min([start, *(one.start for one in cursor.windows.values() if one.end > start)]), UTC)


def passed_over(route: Route) -> ReplayReport | None:
    """What is said of an order that a Subscription had when it was made: there is nothing to move back."""
    if route.replay is None:
        return None
    return ReplayReport(request=route.replay.request, moved=False, message="the Subscription was made after the order")


async def _position(client: Client, stream: str, since: datetime) -> int:
    """The stream sequence after which a replay begins.

    Raises:
        ValueError: the log does not hold that time any more, or it is still to come.
        nats.errors.Error, OSError: NATS is away.
    """
    if since > datetime.now(UTC):
        raise ValueError(f"{since.isoformat()} is still to come: write a time in the past")
    state = (await client.jetstream().stream_info(stream)).state
    if state.last_seq and not state.messages:
        raise ValueError("the log holds none of this source's events any more: there is nothing to deliver again")
    first = await first_since(client, stream, since)
    if first is None:
        return state.last_seq
    if first <= state.first_seq > 1 and (oldest := await _stored(client, stream, state.first_seq)) > since:
        raise ValueError(f"the log holds this source's events since {oldest.isoformat()} only: write a time after that")
    return first - 1


async def first_since(client: Client, stream: str, since: datetime) -> int | None:
    """Sequence of the first record stored at or after a time; None without any.

    Raises:
        nats.errors.Error, OSError: unknown now.
    """
    request = json.dumps({"batch": 1, "start_time": since.isoformat()}).encode()
    headers = (await client.request(f"$JS.API.DIRECT.GET.{stream}", request, timeout=5)).headers or {}
    if sequence := headers.get("Nats-Sequence"):
        return int(sequence)
    if headers.get("Status") == "404":
        return None
    raise nats.errors.Error(f"reading {stream} since {since.isoformat()}: {headers}")


async def _stored(client: Client, stream: str, sequence: int) -> datetime:
    """When a record was stored."""
    request = json.dumps({"seq": sequence}).encode()
    headers = (await client.request(f"$JS.API.DIRECT.GET.{stream}", request, timeout=5)).headers or {}
    try:
        return datetime.fromisoformat(headers["Nats-Time-Stamp"])
    except (KeyError, ValueError):
        raise nats.errors.Error(f"reading record {sequence} of {stream}: {headers}") from None
