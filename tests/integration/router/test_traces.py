"""A real router tells traces to a collector: what OTLP's own schema reads, as one tree, and never at a delivery's cost."""

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fixtures.function_server import MARKED, Answer, FunctionServer, Request, function_server, ok
from fixtures.router_world import LETTERS, NAMESPACE, SUBJECTS, World, event, eventually, world
from google.protobuf.json_format import Parse  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from wisp_api import cloudevent, names
from wisp_api.route import Batch, Retry

TOLD = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
QUICK = Retry(max_attempts=5, initial_seconds=0.01, max_seconds=0.05)


@dataclass
class Traced:
    """A world whose router tells traces, and who hears them."""

    w: World
    collector: FunctionServer

    def spans(self) -> list[dict[str, Any]]:
        """What was told so far, each with its service and its attributes by name."""
        found = []
        for request in self.collector.finished:
            Parse(request.body, ExportTraceServiceRequest())  # refuses what the schema doesn't have
            for resource in json.loads(request.body)["resourceSpans"]:
                service = plain(resource["resource"]["attributes"])["service.name"]
                spans = resource["scopeSpans"][0]["spans"]
                found += [span | {"service": service, "attributes": plain(span["attributes"])} for span in spans]
        return found

    async def told(self, count: int) -> list[dict[str, Any]]:
        """Wait for this many spans."""
        await eventually(lambda: len(self.spans()) >= count, f"{count} spans")
        return self.spans()

    def start(self, **env: str) -> None:
        """Start the router."""
        self.w.env |= {"WISP_TRACES_ENDPOINT": f"http://127.0.0.1:{self.collector.port}"} | env
        self.w.router()


def plain(attributes: list[dict[str, Any]]) -> dict[str, Any]:
    """Attributes by name."""
    return {one["key"]: next(iter(one["value"].values())) for one in attributes}


@pytest.fixture
async def traced(tmp_path: Path) -> AsyncIterator[Traced]:
    """A world with a collector, its router not started."""
    async with function_server() as collector, world(tmp_path) as made:
        yield Traced(made, collector)


async def test_an_event_its_attempts_and_the_invocations_are_one_tree(traced: Traced, tmp_path: Path) -> None:
    """The event's traceparent names the span of its creation; below it is each attempt, below that what the runtime's answer names."""
    w, folder = traced.w, tmp_path / "headers"
    folder.mkdir()
    (folder / "authorization").write_text("Basic abc\n")

    def answer(request: Request) -> Answer:
        own = request.headers["traceparent"][:36] + f"{len(w.function.requests):016x}-01"
        status = 200 if len(w.function.requests) > 1 else 500
        return status, MARKED | {"traceparent": own}, b"" if status == 200 else b"boom"

    w.function.answer = answer
    traced.start(WISP_TRACES_HEADERS=str(folder))
    await w.subscribe(function="thumb", retry=QUICK)
    await w.publish(event(1))
    await w.delivered(1)
    spans = await traced.told(5)
    assert len(spans) == 5
    (created,) = (span for span in spans if span["name"] == "publish postgres")
    attempts = sorted(
        (span for span in spans if span["name"] == "deliver sub"), key=lambda span: span["attributes"]["wisp.attempt"]
    )
    invoked = {span["parentSpanId"]: span for span in spans if span["service"] == "thumb"}
    first, second = w.function.requests
    assert first.headers["ce-traceparent"] == f"00-{created['traceId']}-{created['spanId']}-01"
    assert [request.headers["traceparent"] for request in (first, second)] == [
        f"00-{span['traceId']}-{span['spanId']}-01" for span in attempts
    ]
    assert {span["traceId"] for span in spans} == {created["traceId"]}
    assert {span["parentSpanId"] for span in attempts} == {created["spanId"]}
    assert [invoked[span["spanId"]]["spanId"] for span in attempts] == [f"{n:016x}" for n in (1, 2)]
    assert [span["kind"] for span in (created, *attempts, *invoked.values())] == [4, 3, 3, 2, 2]
    assert [span["attributes"]["wisp.attempt"] for span in attempts] == ["1", "2"]
    failed, done = attempts
    assert failed["status"] == {"code": 2, "message": "HTTP 500"}
    assert failed["attributes"]["wisp.verdict"] == "function_failed"
    assert "status" not in done
    told = done["attributes"]
    assert told["cloudevents.event_id"] == "1"
    assert told["messaging.destination.subscription.name"] == "sub"
    assert told["faas.invoked_name"] == "thumb"
    assert told["http.response.status_code"] == "200"
    assert told["wisp.log.wait_seconds"] >= 0
    (request, *_) = traced.collector.requests
    assert request.path == "/v1/traces"
    assert request.headers["authorization"] == "Basic abc"
    assert request.headers["content-type"] == "application/json"


async def test_the_sampled_flag_decides_and_the_ratio_where_nobody_has(traced: Traced) -> None:
    """Of events without a trace the ratio tells none here, and the function learns it; of those with one only the sampled one is told, by each Subscription."""
    w = traced.w
    traced.start(WISP_TRACES_RATIO="0")
    await w.subscribe()
    await w.subscribe("other")
    unsampled = TOLD.replace("0af", "1af").replace("-01", "-00")
    await w.publish(event(1, "a"), event(2, "b", traceparent=unsampled), event(3, "c", traceparent="no trace: 1"))
    await w.delivered(6)
    await w.publish(event(4, "d", traceparent=TOLD))
    await w.delivered(8)
    spans = await traced.told(2)
    assert sorted((span["name"], span["traceId"], span["parentSpanId"]) for span in spans) == [
        ("deliver other", TOLD[3:35], TOLD[36:52]),
        ("deliver sub", TOLD[3:35], TOLD[36:52]),
    ]
    by_id = {request.id: request.headers for request in w.function.requests}
    assert by_id["1"]["traceparent"] == by_id["1"]["ce-traceparent"]
    assert by_id["1"]["traceparent"].endswith("-00")
    assert by_id["2"]["traceparent"] == unsampled
    assert by_id["4"]["ce-traceparent"] == TOLD


async def test_a_creation_is_told_once_and_not_again_when_it_comes_again(traced: Traced) -> None:
    """Two Subscriptions and a redrive give one event one creation, and each attempt its span."""
    w = traced.w
    traced.start()
    again = names.redrive_subject("events_shop_postgres_db", "uid-sub")
    await w.subscribe(subjects=[*SUBJECTS, again])
    await w.subscribe("other")
    await w.publish(event(1))
    await w.delivered(2)
    await w.publish_raw(again, cloudevent.encode_frame([cloudevent.encode(event(2))]))
    await w.delivered(3)
    spans = await traced.told(4)
    names_told = sorted((span["name"], span["attributes"]["cloudevents.event_id"]) for span in spans)
    assert names_told == [("deliver other", "1"), ("deliver sub", "1"), ("deliver sub", "2"), ("publish postgres", "1")]


async def test_a_batch_is_told_in_the_trace_of_each_of_its_events(traced: Traced) -> None:
    """The function goes on with the first told one's; the others' spans and it name each other. An event that is not told has none."""
    w = traced.w
    traced.start(WISP_TRACES_RATIO="0")
    given = [TOLD.replace("0af", f"{n}af") for n in range(3)]
    events = [event(9, "k9"), *(event(n, f"k{n}", traceparent=one) for n, one in enumerate(given))]
    frame = cloudevent.encode_frame([cloudevent.encode(one) for one in events])
    await w.publish_raw(names.row_subject(NAMESPACE, "db", "public", "orders", 0), frame)
    await w.subscribe(batch=Batch(size=4, window_seconds=5))
    await w.delivered(1)
    spans = {span["traceId"]: span for span in await traced.told(3)}
    first, *others = (spans[one[3:35]] for one in given)
    assert len(spans) == 3
    assert w.function.requests[0].headers["traceparent"] == f"00-{first['traceId']}-{first['spanId']}-01"
    assert first["links"] == [{"traceId": one[3:35], "spanId": one[36:52]} for one in given[1:]]
    named = [{"traceId": first["traceId"], "spanId": first["spanId"]}]
    assert [span["links"] for span in others] == [named, named]
    assert [span["parentSpanId"] for span in (first, *others)] == [one[36:52] for one in given]
    assert first["attributes"]["messaging.batch.message_count"] == "4"


async def test_what_is_told_when_the_router_ends_still_goes_out(traced: Traced) -> None:
    """An orderly end sends what waits."""
    w = traced.w
    traced.start()
    await w.subscribe()
    await w.publish(event(1))
    await w.delivered(1)
    await w.routers[0].stop()
    assert sorted(span["name"] for span in traced.spans()) == ["deliver sub", "publish postgres"]


async def test_a_collector_that_is_away_costs_no_delivery(traced: Traced) -> None:
    """One that never answers: all is delivered, and what the queue can't hold is counted. One that refuses: counted, too, and told again when it takes."""
    w = traced.w
    stuck = asyncio.Event()

    async def never(request: Request) -> Answer:
        await stuck.wait()
        return ok(request)

    traced.collector.answer = never
    traced.start()
    await w.subscribe()
    for first in range(0, 2048, 256):
        frame = [cloudevent.encode(event(n, f"k{n}")) for n in range(first, first + 256)]
        subject = names.row_subject(NAMESPACE, "db", "public", "orders", 0)
        await w.publish_raw(subject, cloudevent.encode_frame(frame))
    await w.delivered(2048)

    def dropped() -> float:
        with urllib.request.urlopen(f"http://127.0.0.1:{w.routers[0].health_port}/metrics", timeout=60) as answer:
            lines = answer.read().decode().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith("wisp_router_spans_dropped_total "))

    await eventually(lambda: dropped() > 0, "spans are dropped")
    traced.collector.answer = lambda _: (400, {}, b"no")
    stuck.set()
    before = dropped()
    await w.publish(event(5000, "k"))
    await w.delivered(2049)
    await eventually(lambda: dropped() > before, "refused spans are counted")
    traced.collector.answer = ok
    sent = 2049

    def told_again() -> bool:
        return any(span["traceId"] == TOLD[3:35] for span in traced.spans())

    async with asyncio.timeout(240):
        while not told_again():  # the queue may still be full when one comes
            sent += 1
            await w.publish(event(3000 + sent, "k", traceparent=TOLD))
            await w.delivered(sent)
            await asyncio.sleep(0.5)
    assert (await w.client.jetstream(prefix=names.LETTERS_API, timeout=60).stream_info(LETTERS)).state.messages == 0
