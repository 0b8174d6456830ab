"""Tumbling windows: which window an event belongs to, what a call says, what its answer means. Pure: the clock is the caller's.

A window has a shard's events that the log stored between its start and its end, both multiples of its length. By that time and
not by an event's own: it never goes back in the log, so that no event comes too late for its window. Where it does go back (the
server's clock was set), the event belongs to the window that is open, or to the next one.

Invariant: the same window called again for its end says the same under the same id.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec
from wisp_api import cloudevent, names
from wisp_api.cloudevent import NOT_READABLE, Event
from wisp_api.route import Retry, Route

from wisp_events import log
from wisp_events.router.cursor import Trouble, Tumbling
from wisp_events.router.plan import Plan
from wisp_events.router.schedule import Item
from wisp_events.router.verdict import Verdict

TYPE: Final = "dev.wisp.window"
SHARDS: Final = 4
"""Divides the number of lanes. The states of all shards fit into one message with the rest of the cursor."""
STATE_BYTES: Final = 1_000_000
EMPTY: Final = msgspec.Raw(b"{}")


class _Times(msgspec.Struct):
    start: str
    end: str


class _Call(msgspec.Struct, rename="camel"):
    """As AWS Lambda writes it."""

    records: list[msgspec.Raw] = msgspec.field(name="Records")
    window: _Times
    state: msgspec.Raw
    shard_id: str
    is_final_invoke_for_window: bool
    is_window_terminated_early: bool


class _Answer(msgspec.Struct):
    state: dict[str, msgspec.Raw]


class _State(msgspec.Struct):
    state: msgspec.Raw


_answer = msgspec.json.Decoder(_Answer)
_state = msgspec.json.Decoder(_State)


def shard(event: Event) -> str:
    """The shard that an event belongs to: by its key, or without one by its type."""
    return str(names.lane(event.partitionkey or event.type) % SHARDS)


def window(last: Tumbling | None, stored: float, seconds: int) -> Tumbling:
    """The window of a shard's next event, which was stored at this time."""
    if last and last.state is not None and stored < last.end:
        return last
    moment = max(int(stored), last.end) if last else int(stored)
    start = moment - moment % seconds
    return Tumbling(start=start, end=start + seconds)


def _source(route: Route) -> str:
    return f"urn:wisp:subscription:{route.namespace}:{route.name}"


def is_call(route: Route, event: Event) -> bool:
    """Whether an event is one of the route's own calls: a last one that was a dead letter."""
    return event.type == TYPE and event.source == _source(route)


def call(plan: Plan, name: str, of: Tumbling, items: Sequence[Item], *, early: bool = False) -> Event:
    """What the function gets: a shard's events with the state so far, or without events the end of its window."""
    route, form = plan.route, plan.form
    shard_id = f"shardId-{int(name):012}"
    told = _Call(
        records=[msgspec.Raw(form.record(item.event, item.stored)) if form else item.raw for item in items],
        window=_Times(_second(of.start), _second(of.end)),
        state=EMPTY if of.state is None else of.state,
        shard_id=shard_id,
        is_final_invoke_for_window=not items,
        is_window_terminated_early=early,
    )
    return Event(
        id=log.fingerprint(route.uid, name, str(of.start), *_what(of, items))[:32],
        source=_source(route),
        type=TYPE,
        subject=shard_id,
        time=_second(of.end),
        datacontenttype="application/json",
        partitionkey=shard_id,
        traceparent=items[0].event.traceparent if items else None,
        tracestate=items[0].event.tracestate if items else None,
        wisphops=max((item.event.wisphops for item in items), default=0),
        data=msgspec.Raw(msgspec.json.encode(told)),
    )


def _what(of: Tumbling, items: Sequence[Item]) -> tuple[str, ...]:
    """What tells a call from others of its window; of a window that ends early, and goes on, each end has a state of its own."""
    return (items[0].place, items[-1].place) if items else ("end", bytes(of.state or b"").decode())


class Check:
    """Looks for the state in an answer; one that is too large ends the window early where there is a state to end it with."""

    def __init__(self, of: Tumbling | None) -> None:
        """`of` is the window of the batch; the answer to a last call needs no state."""
        self._of = of
        self.state = EMPTY
        self.early = False

    def __call__(self, body: bytes) -> None:
        """Take the state out of the body of a success.

        Raises:
            ValueError: it has none, or one that is too large.
        """
        if self._of is None:
            return
        try:
            _answer.decode(body)
            self.state = msgspec.Raw(bytes(_state.decode(body).state))
        except NOT_READABLE as error:
            raise ValueError(f'the function returned no state ({error}); return {{"state": {{...}}}}') from None
        if len(self.state) > STATE_BYTES:
            self.early = self._of.state is not None
            raise ValueError(f"the state has {len(self.state)} bytes; at most {STATE_BYTES} are passed on")


def given_up(judged: Verdict, ending: Trouble, retry: Retry, now: float) -> str:
    """Why a last call that failed is not made again; empty where it is."""
    if judged is Verdict.REJECTED:
        return "Rejected"
    if ending.attempts >= retry.max_attempts:
        return "MaxAttempts"
    return "MaxAge" if now >= ending.first + retry.max_age_seconds else ""


def as_item(event: Event, name: str, ending: Trouble) -> Item:
    """A last call as what dead letters are made of; its place is no event's."""
    item = Item(0, int(name), event, msgspec.Raw(cloudevent.encode(event)), 0.0, "")
    item.tries, item.attempts, item.first = ending.tries, ending.attempts, ending.first
    return item


def _second(moment: int) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat().replace("+00:00", "Z")
