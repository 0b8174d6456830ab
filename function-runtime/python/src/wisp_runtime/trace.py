"""W3C trace context: which trace an invocation belongs to, and its own span in it.

Invariant: ``traceparent`` is always valid, in version 00, with a span of its own: in the caller's trace where the caller
named one in the right form, else in a new one, which counts as sampled because nobody before us has decided otherwise.
Then the caller's ``tracestate`` is dropped too: it belongs to a trace that can't be told.
Specs: https://www.w3.org/TR/trace-context/, CloudEvents' distributed tracing extension.
"""

from __future__ import annotations

import os
from _random import Random

from wisp_runtime.cloudevent import percent_decode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wisp_runtime.http1 import HttpRequest

HEADERS = ("traceparent", "tracestate")
_HEX = frozenset("0123456789abcdef")
_LENGTH = 55
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16
_DIGITS, _AT_ONCE = 48, 64  # of a span and a trace's id; how many of both are drawn together, at a fifth of the cost
# A bit of each, not among those that must be random.
_NOT_NOUGHT = int(f"{1 << 191 | 1 << 127:x}" * _AT_ONCE, 16)
_SAMPLED, _KNOWN_FLAGS = 1, 3  # bit 0: sampled; bit 1: the trace's id is random
_MOST_MEMBERS, _MOST_STATE = 32, 2048
_random = Random(int.from_bytes(os.urandom(16), "big"))  # without ``random``'s 5 ms


_drawn: list[str] = []


def renew() -> None:
    """Draw other numbers than the process that this one was forked from."""
    _random.seed(int.from_bytes(os.urandom(16), "big"))
    _drawn.clear()


def _draw() -> None:
    """Draw spans and traces' ids to come."""
    text = f"{_random.getrandbits(4 * _DIGITS * _AT_ONCE) | _NOT_NOUGHT:x}"
    _drawn.extend(text[at : at + _DIGITS] for at in range(0, len(text), _DIGITS))


class Trace:
    """One invocation's place in a trace.

    Attributes:
        parent: Its ``traceparent``, which names its own span.
        state: The ``tracestate`` that came with it, or empty.
        xray: The same for AWS's X-Ray: as the caller gave it, or else made of ``parent``.
    """

    __slots__ = ("parent", "state", "xray")

    def __init__(self, given: str, state: str, xray: str) -> None:
        """Go on with the caller's trace, if it gives one."""
        if not _drawn:
            _draw()
        drawn = _drawn.pop()
        span = drawn[:16]
        known = _read(given) if given else None
        trace_id, flags = known or (drawn[16:], _KNOWN_FLAGS)
        self.parent = f"00-{trace_id}-{span}-0{flags}"
        self.state = state if known and _is_state(state) else ""
        self.xray = xray or f"Root=1-{trace_id[:8]}-{trace_id[8:]};Parent={span};Sampled={flags & _SAMPLED}"


def begin_trace(request: HttpRequest, xray: str) -> Trace:
    """Find a request's trace: in its headers, or in those of the event that it carries."""
    fields = request.fields
    if "traceparent" in fields:
        given, state = fields["traceparent"], fields.get("tracestate", "")
        if len(fields) != len(request.headers):  # some header is there more than once
            names = [name for name, _ in request.headers]
            given = given if names.count("traceparent") == 1 else ""
            state = ",".join(value for name, value in request.headers if name == "tracestate")
        return Trace(given, state, xray)
    if "ce-traceparent" not in fields:
        return Trace("", "", xray)
    return Trace(fields["ce-traceparent"], percent_decode(fields.get("ce-tracestate", "")) or "", xray)


def _read(text: str) -> tuple[str, int] | None:
    """Return a ``traceparent``'s trace and flags; None if it is none. Versions to come are read as far as they are known."""
    if len(text) < _LENGTH or not text[2] == text[35] == text[52] == "-":
        return None
    version, trace_id, span, flags = text[:2], text[3:35], text[36:52], text[53:55]
    if not _HEX.issuperset(version + trace_id + span + flags) or version == "ff":
        return None
    if len(text) > _LENGTH and (version == "00" or text[_LENGTH] != "-"):
        return None
    if trace_id == _NO_TRACE or span == _NO_SPAN:
        return None
    return trace_id, int(flags, 16) & _KNOWN_FLAGS


def _is_state(text: str) -> bool:
    """Whether a ``tracestate`` can be handed on: a short list of members in printable ASCII."""
    if not text or len(text) > _MOST_STATE or not (text.isascii() and text.isprintable()):
        return False
    members = [member for member in text.split(",") if member.strip()]
    return len(members) <= _MOST_MEMBERS and all("=" in member for member in members)
