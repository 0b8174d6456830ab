"""How many spans are made, and for whom, and that telling goes on."""

from collections.abc import AsyncIterator

import msgspec
import pytest
from wisp_api.cloudevent import Event
from wisp_api.route import Retry, Route, Target
from wisp_events.router import spans
from wisp_events.router.client import Client
from wisp_events.router.export import QUEUE, Exporter
from wisp_events.router.request import address
from wisp_events.router.schedule import Item
from wisp_events.router.trace import Place
from wisp_events.router.tracer import LINKS, Tracer
from wisp_events.router.verdict import Outcome

TO = address("http://a/")
ROUTE = Route(
    namespace="shop", name="sub", uid="u", generation=1, stream="events_shop_s3_minio_photos", subjects=["x"],
    targets=[Target(url="http://a/")], retry=Retry(),
)  # fmt: skip
EVENT = Event(id="1", source="/s", type="t", traceparent=f"00-{'a' * 32}-{'b' * 16}-01")
ITEM = Item(1, 0, EVENT, msgspec.Raw(b"{}"), 1_800_000_000.0, "")


@pytest.fixture
async def exporter() -> AsyncIterator[Exporter]:
    """One whose turns are the test's own."""
    http = Client()
    yield Exporter(http, "http://127.0.0.1:9")
    await http.close()


async def test_a_namespace_leaves_others_as_many_spans_as_it_takes(exporter: Exporter) -> None:
    """Alone half of a turn's; who comes next always finds some, and all together get no more than the queue holds."""
    assert exporter.grant("shop", 10 * QUEUE) == QUEUE // 2
    assert exporter.grant("shop", 1) == 0
    assert exporter.grant("bank", 10 * QUEUE) == QUEUE // 4
    assert exporter.grant("zoo", 3) == 3
    given = sum(exporter.grant(f"tenant-{number}", QUEUE) for number in range(QUEUE))
    assert QUEUE // 2 + QUEUE // 4 + 3 + given <= QUEUE


async def test_nothing_of_a_span_that_finds_no_room_is_made(
    exporter: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attempt goes on with the event's own trace, and its outcome to who waits for it."""
    exporter.grant("shop", QUEUE)
    monkeypatch.setattr(spans, "attempt", None)
    monkeypatch.setattr(spans, "creation", None)

    def done(_: Outcome) -> None: ...

    tracer = Tracer(exporter)
    assert tracer.follow(ROUTE, TO, [ITEM], done) == ("", done)
    tracer.begin(Event(id="2", source="/s", type="t"), 1_800_000_000.0, ROUTE, again=False)


async def test_of_a_batch_no_more_spans_are_made_than_are_told(
    exporter: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many of its events bring a trace."""
    made = []
    attempt = spans.attempt

    def counted(*given: object) -> spans.Span:
        made.append(1)
        return attempt(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(spans, "attempt", counted)
    trace, _ = Tracer(exporter).follow(ROUTE, TO, [ITEM] * 1000, lambda _: None)
    assert trace.startswith("traceparent: 00-aaa")
    assert len(made) == LINKS


async def test_a_defect_costs_the_spans_that_met_it_and_ends_no_telling(
    exporter: Exporter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is in the log, and the queue is free again."""

    def broken(_: object) -> bytes:
        raise RuntimeError("boom")

    monkeypatch.setattr(spans, "encode", broken)
    exporter.grant("shop", QUEUE)
    exporter.add(spans.creation(EVENT, Place("a" * 32, "b" * 16), 1_800_000_000.0, ROUTE))
    await exporter.flush()
    assert "boom" in caplog.text
    assert exporter.grant("shop", QUEUE) == QUEUE // 2
