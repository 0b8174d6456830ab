"""Which traces are told, and the spans of each delivery in them (see `spans`).

Invariant: a delivery is never later, nor other, because of its trace: what is told is handed to `export`, which takes it or drops it,
and a span is told after the outcome was acted on. Without exporter nothing is made at all, and no span that it does not grant. What is
told depends on the sampled flag alone: of a trace that an event brought it is whoever began it that decides, of all others the ratio.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import Final

from wisp_api.cloudevent import Event
from wisp_api.route import Route

from wisp_events.router import spans
from wisp_events.router.export import Exporter
from wisp_events.router.request import Address, trace_lines
from wisp_events.router.schedule import Item
from wisp_events.router.spans import Span
from wisp_events.router.trace import ALL, Place, begin_trace, below, place
from wisp_events.router.verdict import Answer, Outcome

Done = Callable[[Outcome], None]
LINKS: Final = 32
"""Of a batch's events so many are told: each is a span."""
KNOWN: Final = 4096
"""Creations that were told lately: of an event that several Subscriptions read it is told once."""


class Tracer:
    """Tells what its exporter takes."""

    def __init__(self, exporter: Exporter | None = None, ratio: float = 1.0) -> None:
        """Without exporter traces are handed on and not told."""
        self._exporter = exporter
        self._below = below(ratio) if exporter else ALL
        self._known: dict[str, None] = {}

    def begin(self, event: Event, stored: float, route: Route, *, again: bool) -> None:
        """Give an event that was read its trace, and tell how it began; not where it comes `again`, from the dead letters."""
        begun = begin_trace(event, self._below)
        if not begun or self._exporter is None or again:
            return
        at = place(event.traceparent)
        if at is None or at.span in self._known:
            return
        self._known[at.span] = None
        if len(self._known) > KNOWN:
            del self._known[next(iter(self._known))]
        if self._exporter.grant(route.namespace, 1):
            self._exporter.add(spans.creation(event, at, stored, route))

    def follow(self, route: Route, to: Address, items: Sequence[Item], done: Done) -> tuple[str, Done]:
        """The header lines of the attempt that begins now, and `done` so that it tells its span; "" and `done` itself where nothing is told."""
        if self._exporter is None:
            return "", done
        traced = list(islice(((item, at) for item in items if (at := place(item.event.traceparent))), LINKS))
        if not traced or not (granted := self._exporter.grant(route.namespace, len(traced))):
            return "", done
        told = _attempts(route, to, items, traced[:granted])
        first = traced[0][0]
        whose = spans.function(route, to), route.namespace
        return trace_lines(str(told[0].place), first.event.tracestate), partial(self._ended, told, whose, first, done)

    def _ended(self, told: list[Span], whose: tuple[str, str], first: Item, done: Done, outcome: Outcome) -> None:
        now = time.time()
        done(outcome)
        if self._exporter is None:
            return
        for span in told:
            spans.end(span, outcome, now)
            self._exporter.add(span)
        if whose[0] and (at := _answered(told[0].place, outcome)) and self._exporter.grant(whose[1], 1):
            self._exporter.add(spans.invocation(told[0], at, *whose, first))


def _attempts(route: Route, to: Address, items: Sequence[Item], traced: Sequence[tuple[Item, Place]]) -> list[Span]:
    """A span of each trace; the function knows the first one, to which the others are linked, and it to them."""
    now = time.time()
    told = [spans.attempt(route, to, items, item, at, at.child(), now) for item, at in traced]
    told[0].links = [at for _, at in traced[1:]]
    for span in told[1:]:
        span.links = [told[0].place]
    return told


def _answered(at: Place, outcome: Outcome) -> Place | None:
    """The span that the runtime's answer names, where it is one of the trace."""
    if not isinstance(outcome, Answer) or not outcome.marked:
        return None
    given = next((value for key, value in outcome.headers if key == b"traceparent"), b"")
    found = place(given.decode("latin-1"))
    return found if found and found.trace == at.trace and found.span != at.span else None
