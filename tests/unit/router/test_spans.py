"""Which traces are told, and what of an event is told of them."""

import json
import math

import msgspec
import pytest
from wisp_api.cloudevent import Event
from wisp_api.route import Retry, Route, Target
from wisp_events.router import spans
from wisp_events.router.request import address
from wisp_events.router.schedule import Item
from wisp_events.router.trace import ALL, Place, begin_trace, below, place
from wisp_events.router.verdict import Answer, Failure

ROUTE = Route(
    namespace="shop", name="sub", uid="u", generation=1, stream="events_shop_s3_minio_photos", subjects=["x"],
    targets=[Target(url="http://a/")], retry=Retry(),
)  # fmt: skip
TO = address("http://thumb-0a1b2c.shop.svc/", "function", "thumb-0a1b2c.shop.svc.cluster.local")
PARENT = Place("a" * 32, "b" * 16)
STORED = 1_800_000_000.0


def item(**attributes: str) -> Item:
    """An event in the log."""
    event = Event(**{"id": "1", "source": "/s", "type": "t"} | attributes)  # type: ignore[arg-type]
    return Item(1, 0, event, msgspec.Raw(b"{}"), STORED, "")


@pytest.mark.parametrize("ratio", [0.0, 0.01, 0.5, 1.0])
def test_a_ratio_tells_that_share_of_the_traces_that_begin_here(ratio: float) -> None:
    """And always the same ones."""
    told = []
    for number in range(4000):
        event = Event(id=str(number), source="/s", type="t")
        assert begin_trace(event, below(ratio))
        told.append(place(event.traceparent) is not None)
        again = Event(id=str(number), source="/s", type="t")
        begin_trace(again, below(ratio))
        assert again.traceparent == event.traceparent
    assert math.isclose(sum(told) / len(told), ratio, abs_tol=0.05)
    assert not told.count(True) or ratio > 0
    assert not told.count(False) or ratio < 1


def test_without_a_ratio_each_trace_counts_as_sampled() -> None:
    """As nobody before has decided otherwise."""
    event = Event(id="1", source="/s", type="t")
    begin_trace(event)
    assert event.traceparent is not None
    assert event.traceparent.endswith("-01")
    assert below(1.0) == ALL


@pytest.mark.parametrize(
    "given",
    [
        None, "", "1", f"00-{'a' * 32}-{'b' * 16}-00", f"00-{'a' * 32}-{'b' * 16}-02", f"00-{'0' * 32}-{'b' * 16}-01",
        f"00-{'a' * 32}-{'0' * 16}-01", f"00-{'A' * 32}-{'b' * 16}-01", f"01-{'a' * 32}-{'b' * 16}-01", f"00-{'a' * 32}-{'b' * 16}-01\n",
        f"00-{'a' * 32}-{'b' * 16}-01-1",
    ],
)  # fmt: skip
def test_what_names_no_sampled_span_is_not_told(given: str | None) -> None:
    """Whatever an event brings as its trace."""
    assert place(given) is None


def test_a_child_is_another_span_of_its_trace() -> None:
    """With the flags that came."""
    parent = place(f"00-{'a' * 32}-{'b' * 16}-03")
    assert parent is not None
    child = parent.child()
    assert (child.trace, child.flags) == (parent.trace, "03")
    assert child.span != parent.span
    assert place(str(child)) == child


@pytest.mark.parametrize(
    ("time", "start"),
    [
        ("2027-01-15T07:59:58Z", STORED - 2),
        ("2027-01-15T08:59:59+01:00", STORED - 1),
        ("2027-01-15T08:00:01Z", STORED),
        ("2020-01-15T08:00:00Z", STORED),
        ("soon", STORED),
        (None, STORED),
    ],
)
def test_a_creation_lasts_from_the_events_time_to_the_log(time: str | None, start: float) -> None:
    """Unless that time is no wait: later than the log's, or an old row's own."""
    span = spans.creation(Event(id="1", source="/s", type="t", time=time), PARENT, STORED, ROUTE)
    assert (span.start, span.end) == (start, STORED)
    assert (span.name, span.place, span.parent) == ("publish s3", PARENT, "")


def test_texts_of_events_are_cut_and_neither_data_nor_answers_are_told() -> None:
    """Whoever wrote the event does not decide how much is sent."""
    given = item(id="i" * 9000, source="s" * 9000, type="t" * 9000, subject="j" * 9000, tracestate="k=v" * 9000)
    given.event.data = msgspec.Raw(b'"secret"')
    span, other = (spans.attempt(ROUTE, TO, [given], given, PARENT, PARENT.child(), STORED + 1) for _ in range(2))
    spans.end(span, Failure("x" * 9000, timeout=True), STORED + 2)
    spans.end(other, Answer(500, marked=True, body=b"secret"), STORED + 2)
    told = spans.encode([span, other, spans.creation(given.event, PARENT, STORED, ROUTE)])
    assert len(told) < 12_000
    assert b"secret" not in told


@pytest.mark.parametrize(
    ("outcome", "error", "kind"),
    [
        (Answer(200), None, None),
        (Answer(503, retry_after=1, body=b"no room for jane@example.org"), "HTTP 503", "503"),
        (Failure("no answer within 5 s", timeout=True), "no answer within 5 s", "timeout"),
        (Failure("refused"), "refused", "unreached"),
    ],
)
def test_an_attempts_outcome_is_its_status(outcome: Answer | Failure, error: str | None, kind: str | None) -> None:
    """With OpenTelemetry's error.type, and the verdict that the router goes by."""
    given = item()
    span = spans.attempt(ROUTE, TO, [given], given, PARENT, PARENT.child(), STORED + 1)
    spans.end(span, outcome, STORED + 3)
    assert (span.error, span.attributes.get("error.type")) == (error, kind)
    (resource,) = json.loads(spans.encode([span]))["resourceSpans"]
    (encoded,) = resource["scopeSpans"][0]["spans"]
    assert (encoded["startTimeUnixNano"], encoded["endTimeUnixNano"]) == ("1800000001000000000", "1800000003000000000")
    attributes = {one["key"]: one["value"] for one in encoded["attributes"]}
    assert attributes["faas.invoked_name"] == {"stringValue": "thumb"}
    assert attributes["faas.trigger"] == {"stringValue": "datasource"}
    assert attributes["wisp.log.wait_seconds"] == {"doubleValue": 1.0}
    assert attributes["wisp.attempt"] == {"intValue": "1"}


def test_spans_are_told_by_the_service_that_they_are_of() -> None:
    """A function's invocation is the function's, in its namespace."""
    given = item()
    span = spans.attempt(ROUTE, TO, [given], given, PARENT, PARENT.child(), STORED)
    at = span.place.child()
    found = spans.invocation(span, at, spans.function(ROUTE, TO), "shop", given)
    resources = json.loads(spans.encode([span, found]))["resourceSpans"]
    services = [
        {one["key"]: one["value"]["stringValue"] for one in each["resource"]["attributes"]} for each in resources
    ]
    assert services == [
        {"service.name": "wisp-router", "service.namespace": "wisp"},
        {"service.name": "thumb", "service.namespace": "shop"},
    ]
    assert (found.parent, found.place) == (span.place.span, at)


def test_a_sink_is_no_function() -> None:
    """Its answers name no invocation."""
    assert spans.function(ROUTE, address("http://a.b/", "public")) == ""
