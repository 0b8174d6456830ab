"""W3C trace context as the front reads and hands it on."""

from __future__ import annotations

import re

import pytest
from wisp_runtime.http1 import HttpRequest
from wisp_runtime.trace import Trace, begin_trace

ID, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
VALID = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-0[0-3]")


@pytest.mark.parametrize(
    ("given", "flags"),
    [
        (f"00-{ID}-{SPAN}-01", "01"),
        (f"00-{ID}-{SPAN}-00", "00"),
        (f"00-{ID}-{SPAN}-ff", "03"),  # unknown flags are not passed on
        (f"01-{ID}-{SPAN}-01", "01"),
        (f"cc-{ID}-{SPAN}-01-what-the-future-brings", "01"),
    ],
)
def test_a_callers_trace_goes_on(given: str, flags: str) -> None:
    """A valid traceparent, of a later version too, gives the same trace with a span of the invocation's own."""
    trace = Trace(given, "a=1,b=2", "")
    assert VALID.fullmatch(trace.parent)
    _, trace_id, span, kept = trace.parent.split("-")
    assert (trace_id, kept) == (ID, flags)
    assert span != SPAN
    assert trace.state == "a=1,b=2"
    assert trace.xray == f"Root=1-{ID[:8]}-{ID[8:]};Parent={span};Sampled={int(flags) & 1}"


@pytest.mark.parametrize(
    "given",
    [
        "", "x", f"00-{ID}-{SPAN}", f"00-{ID}-{SPAN}-01-more", f"ff-{ID}-{SPAN}-01", f"00-{ID.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01", f"00-{ID}-{'0' * 16}-01", f"00-{ID}-{SPAN}-0g", f"0g-{ID}-{SPAN}-01",
        f"01-{ID}-{SPAN}-01.more", f"00_{ID}_{SPAN}_01", f"00-{ID}-{SPAN}-01 ", f"00-{ID[:-1]}é-{SPAN}-01",
    ],
)  # fmt: skip
def test_another_trace_begins(given: str) -> None:
    """Anything else is not gone on with: a new, sampled trace begins, and the state is dropped."""
    one, other = Trace(given, "a=1", ""), Trace(given, "a=1", "")
    assert VALID.fullmatch(one.parent)
    assert one.parent.endswith("-03")
    assert ID not in one.parent
    assert one.parent != other.parent
    assert one.state == ""


@pytest.mark.parametrize(
    ("state", "kept"),
    [
        ("a=1", True),
        ("a=1, b=2,", True),
        ("a", False),
        ("a=1\n", False),
        ("a=é", False),
        ("a=1," * 33, False),
        ("a=" + "x" * 2048, False),
    ],
)
def test_a_state_is_handed_on_if_it_can_be(state: str, kept: bool) -> None:  # noqa: FBT001 - a column of the table
    """A tracestate of at most 32 members in printable ASCII goes on; another is dropped, and the trace goes on."""
    trace = Trace(f"00-{ID}-{SPAN}-01", state, "")
    assert trace.state == (state if kept else "")
    assert ID in trace.parent


def request(*headers: tuple[str, str]) -> HttpRequest:
    """Make a request with these headers."""
    return HttpRequest("GET", "/", list(headers), "peer")


def test_headers_come_before_the_events_own() -> None:
    """The request's trace counts before its event's; two of them are none; a state in several headers is one."""
    parent, other = f"00-{ID}-{SPAN}-01", f"00-{ID[::-1]}-{SPAN}-01"
    event = (("ce-traceparent", other), ("ce-tracestate", "e=%201"))
    assert ID in begin_trace(request(("traceparent", parent), *event), "").parent
    assert begin_trace(request(*event), "").state == "e= 1"
    assert ID[::-1] in begin_trace(request(*event), "").parent
    twice = begin_trace(request(("traceparent", parent), ("traceparent", other)), "").parent
    assert ID not in twice
    assert ID[::-1] not in twice
    states = (("tracestate", "a=1"), ("tracestate", "b=2"))
    assert begin_trace(request(("traceparent", parent), *states), "").state == "a=1,b=2"
    assert begin_trace(request(*states), "Root=1-2-3").state == ""
    assert begin_trace(request(*states), "Root=1-2-3").xray == "Root=1-2-3"
