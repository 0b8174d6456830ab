"""The trace of an event: the one that it brings, or else one of its own.

Invariant: one of its own follows from the event's source and id alone, so that all that an upload, a row or a tick sets going
is one trace, whatever Subscription, attempt, router or redrive it comes through. One that an event brings is never touched.
Whether a trace is told (sampled) follows from its id, too, so that every router decides alike.
Specification: https://www.w3.org/TR/trace-context/, CloudEvents' distributed tracing extension.
"""

import random
import re
from hashlib import blake2b
from typing import Final, NamedTuple

from wisp_api.cloudevent import Event

ALL: Final = "g"
"""Above whatever an id has: each trace is told."""
_RANDOM = slice(18, 32)
"""The 56 bits of a trace's id that its ratio goes by, as OpenTelemetry has it."""
_FORM = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f][13579bdf])", re.ASCII)
_ODD: Final = frozenset("13579bdf")


class Place(NamedTuple):
    """A span in a trace."""

    trace: str
    span: str
    flags: str = "01"

    def child(self) -> "Place":
        """A new span of the same trace."""
        return self._replace(span=f"{random.getrandbits(64) or 1:016x}")

    def __str__(self) -> str:
        """As a `traceparent`."""
        return f"00-{self.trace}-{self.span}-{self.flags}"


def below(ratio: float) -> str:
    """What the digits of a trace's id stand below where it is one of this share of all."""
    return ALL if ratio >= 1 else f"{int(ratio * 2**56):014x}"


def begin_trace(event: Event, told: str = ALL) -> bool:
    """Give an event its `traceparent`, unless it has one; `told`: see `below`. Whether it was given."""
    if event.traceparent is not None:
        return False
    ids = blake2b(f"{event.source}\n{event.id}".encode(), digest_size=24).hexdigest()
    event.traceparent = f"00-{ids[:32]}-{ids[32:]}-0{1 if ids[_RANDOM] < told else 0}"
    event.tracestate = None  # it belongs to a trace that can't be told
    return True


def place(traceparent: str | None) -> Place | None:
    """The span that a sampled `traceparent` names; None: it is none, or its trace is not to be told."""
    if not traceparent or traceparent[-1] not in _ODD:
        return None
    found = _FORM.fullmatch(traceparent)
    if found is None or not found[1].strip("0") or not found[2].strip("0"):
        return None
    return Place(*found.groups())
