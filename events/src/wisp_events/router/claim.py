"""Taking a route's cursor, where it stands now or, the first time, where the Subscription starts.

Invariant: the start position is fixed once, by the first write of the cursor; only then is a route reported Active, so
whatever is published after a Subscription with `start: latest` became ready is delivered. A cursor beyond the end of its
stream belongs to one that was lost: the new one is delivered from its beginning. An order to replay is carried out here,
by the same write that takes the cursor: exactly once, whoever crashes or takes over.
"""

import logging
import time
from collections.abc import Callable

import msgspec
from nats.aio.client import Client
from wisp_api import names
from wisp_api.route import Route

from wisp_events.router import bucket, replay
from wisp_events.router.cursor import Cursor
from wisp_events.router.plan import Plan, start_time

logger = logging.getLogger(__name__)

_decoder = msgspec.json.Decoder(Cursor)


async def claim(
    client: Client, plan: Plan, me: str, session: str, may_take: Callable[[str], bool]
) -> tuple[Cursor, int] | None:
    """Make this session the owner; returns the cursor and its revision, or None while another owner may hold it.

    Raises:
        nats.errors.Error, OSError: NATS is away, or the stream does not exist yet (NotFoundError).
        bucket.Changed: another replica was faster.
        ValueError: the stored cursor does not decode.
    """
    js, route = client.jetstream(), plan.route
    entry = await bucket.read(js, names.KV_CURSORS, plan.cursor_key)
    if entry is None or entry.value is None:
        cursor = Cursor(floor=await start_position(client, route), started=time.time())
        cursor.replay = replay.passed_over(route)
    else:
        cursor = _decoder.decode(entry.value)
        if cursor.session != session and not may_take(cursor.owner):
            return None
        last = (await js.stream_info(route.stream)).state.last_seq
        if max(cursor.floor, cursor.head) > last:
            logger.warning("stream %s was made anew: its cursor stood at %d of %d", route.stream, cursor.floor, last)
            cursor.floor, cursor.head, cursor.parked, cursor.partial, cursor.troubles = 0, 0, [], {}, {}
        await replay.carry_out(client, route, cursor)
    cursor.owner, cursor.session = me, session
    value = msgspec.json.encode(cursor)
    return cursor, await bucket.write(js, names.KV_CURSORS, plan.cursor_key, value, entry.revision if entry else 0)


async def start_position(client: Client, route: Route) -> int:
    """The stream sequence after which a new route begins.

    Raises:
        nats.js.errors.NotFoundError: the stream does not exist.
        nats.errors.Error, OSError: NATS is away.
    """
    state = (await client.jetstream().stream_info(route.stream)).state
    if route.start == "latest":
        return state.last_seq
    if route.start == "earliest":
        return 0
    first = await replay.first_since(client, route.stream, start_time(route.start))
    return state.last_seq if first is None else first - 1
