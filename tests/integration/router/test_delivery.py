"""Delivery rules, on a real router process between a real nats-server and a real HTTP server."""

import asyncio
import json
import re
import time
import urllib.request
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from fixtures.function_server import MARKED, Answer, Request, function_server, ok
from fixtures.router_world import LETTERS, NAMESPACE, STREAM, SUBJECTS, World, event, eventually
from wisp_api import cloudevent, names
from wisp_api.route import Retry, Target

QUICK = Retry(max_attempts=3, initial_seconds=0.05, max_seconds=0.1)


def by_key(ids: list[str], keys: dict[str, str]) -> dict[str, list[int]]:
    """Delivered event numbers per key."""
    found: dict[str, list[int]] = {}
    for one in ids:
        found.setdefault(keys[one], []).append(int(one))
    return found


async def test_failing_key_blocks_only_itself_and_keeps_its_order(w: World) -> None:
    """While one key's first event fails, other keys flow; afterwards its events come in order, none attempted before its turn."""
    healed = False

    def answer(request: Request) -> Answer:
        return (500, MARKED, b"boom") if request.key == "bad" and not healed else ok(request)

    w.function.answer = answer
    await w.subscribe(retry=Retry(max_attempts=1000, initial_seconds=0.05, max_seconds=0.1))
    keys = {str(n): "bad" if n % 5 == 0 else f"k{n % 5}" for n in range(200)}
    await w.publish(*(event(int(n), key) for n, key in keys.items()))
    await w.delivered(160)
    assert {request.id for request in w.function.requests if request.key == "bad"} == {"0"}
    status = await w.status(lambda s: s.state == "Failing")
    assert "event 0 (key 'bad')" in status.message
    assert "HTTP 500: boom" in status.message
    healed = True
    ids = await w.delivered(200)
    for numbers in by_key(ids, keys).values():
        assert numbers == sorted(numbers)
    assert len(ids) == len(set(ids)) == 200
    await w.active()


async def test_dead_letter_after_max_attempts_tells_everything(w: World) -> None:
    """After maxAttempts answers of the function the event becomes a dead letter with its story, and its key goes on."""
    w.function.answer = lambda r: (500, MARKED, b"no " * 4000) if r.id == "1" else ok(r)
    await w.subscribe(retry=QUICK)
    await w.publish(event(1), event(2))
    assert await w.delivered(1) == ["2"]
    (letter,) = await w.dead_letters(1)
    assert (letter.reason, letter.attempts, letter.last_status) == ("MaxAttempts", 3, 500)
    assert letter.last_response == ("no " * 4000)[:4096]
    assert letter.event
    assert cloudevent.decode(letter.event) == event(1)
    assert (letter.namespace, letter.subscription, letter.stream, letter.sequence, letter.index) == (
        NAMESPACE,
        "sub",
        STREAM,
        1,
        0,
    )
    assert letter.first_attempt
    assert letter.message.startswith("3 attempts failed, the last with HTTP 500: no no")
    assert Counter(request.id for request in w.function.requests) == {"1": 3, "2": 1}


@pytest.mark.parametrize("marked", [True, False])
async def test_refusal_is_final(w: World, *, marked: bool) -> None:
    """A 4xx that says that the event is wrong goes to the dead letters at once."""
    w.function.answer = lambda r: (422, MARKED if marked else {}, b"bad total") if r.id == "1" else ok(r)
    await w.subscribe(retry=QUICK)
    await w.publish(event(1), event(2))
    await w.delivered(1)
    (letter,) = await w.dead_letters(1)
    assert (letter.reason, letter.attempts, letter.last_response) == ("Rejected", 1, "bad total")
    assert "HTTP 422" in letter.message


@pytest.mark.parametrize(("status", "headers"), [(429, {}), (429, MARKED), (503, {}), (404, {}), (502, {}), (409, {})])
async def test_what_is_not_the_functions_answer_does_not_count(w: World, status: int, headers: dict[str, str]) -> None:
    """Answers of the ingress or activator are retried beyond maxAttempts."""
    w.function.answer = lambda r: (status, headers, b"") if len(w.function.requests) <= 5 else ok(r)
    await w.subscribe(retry=Retry(max_attempts=1, initial_seconds=0.02, max_seconds=0.05))
    await w.publish(event(1))
    assert await w.delivered(1) == ["1"]
    assert len(w.function.requests) == 6
    assert (await w.client.jetstream(timeout=60).stream_info(LETTERS)).state.messages == 0


async def test_unreachable_target_does_not_count(w: World) -> None:
    """A target that refuses connections is retried beyond maxAttempts until it is there."""
    async with function_server() as gone:
        port = gone.port
    await w.subscribe(targets=[Target(url=f"http://127.0.0.1:{port}/")], retry=Retry(max_attempts=1, max_seconds=0.1))
    await w.publish(event(1))
    await w.status(lambda s: s.state == "Failing" and "no connection to 127.0.0.1" in s.message)
    async with function_server(port) as back:
        await eventually(lambda: back.ids() == ["1"], "delivery to the target that came back")


async def test_timeout_counts(w: World) -> None:
    """A function that does not answer in time has failed; its connection is not used again."""

    async def hang(request: Request) -> Answer:
        if request.id == "1":
            await asyncio.sleep(3600)
        return ok(request)

    w.function.answer = hang
    await w.subscribe(retry=Retry(max_attempts=1), timeout_seconds=5)  # with the grace: ten seconds
    await w.publish(event(1), event(2))
    await w.delivered(1)
    (letter,) = await w.dead_letters(1)
    assert letter.reason == "MaxAttempts"
    assert "no answer within" in letter.message
    assert w.function.connections == 2


async def test_max_age_while_unreachable(w: World) -> None:
    """What can't be delivered leaves as a dead letter at maxAge, and what is behind it follows."""
    w.function.answer = lambda _: (503, {}, b"")
    await w.subscribe(retry=Retry(max_age_seconds=1, initial_seconds=0.1, max_seconds=0.2))
    await w.publish(event(1), event(2))
    letters = await w.dead_letters(2)
    assert [letter.reason for letter in letters] == ["MaxAge", "MaxAge"]
    assert "not delivered within 1 s" in letters[0].message
    assert "HTTP 503" in letters[0].message


async def test_suspended_route_expires_too(w: World) -> None:
    """A suspended Subscription's events wait, and leave as dead letters at maxAge without any attempt."""
    await w.subscribe(suspend=True, retry=Retry(max_age_seconds=1))
    await w.status(lambda s: s.state == "Suspended")
    await w.publish(*(event(n) for n in range(5)))
    letters = await w.dead_letters(5)
    assert {letter.reason for letter in letters} == {"MaxAge"}
    assert w.function.requests == []


async def test_poison_wedges_nothing(w: World) -> None:
    """Records that are no frame, events that are none, loops: each is a dead letter; what stands around them is delivered."""
    await w.subscribe()
    subject = names.row_subject(NAMESPACE, "db", "public", "orders", 0)
    await w.publish(event(1))
    await w.publish_raw(subject, b"\xff not JSON")
    await w.publish_raw(subject, b"[]")
    frame = [cloudevent.encode(event(2)), b'{"specversion":"1.0","id":"","source":"s","type":"t"}', b"5"]
    frame += [cloudevent.encode(event(3, wisphops=17)), cloudevent.encode(event(4, wisphops=16))]
    await w.publish_raw(subject, cloudevent.encode_frame(frame))
    ids = await w.delivered(3)
    assert sorted(ids) == ["1", "2", "4"]
    letters = await w.dead_letters(4)
    assert Counter(letter.reason for letter in letters) == {"Malformed": 3, "RecursionLimit": 1}
    assert {letter.input for letter in letters} == {"\ufffd not JSON", frame[1].decode(), "5", None}
    hops = {request.id: request.headers["ce-wisphops"] for request in w.function.requests}
    assert hops == {"1": "1", "2": "1", "4": "17"}


async def test_deep_nesting_is_malformed(w: World) -> None:
    """JSON nested beyond what can be read is a dead letter, whether the record or the filter meets it first."""
    await w.subscribe(filters=[{"data": {"n": [1]}}])
    subject = names.row_subject(NAMESPACE, "db", "public", "orders", 0)
    deep = b'{"specversion":"1.0","id":"d","source":"s","type":"t","data":' + b"[" * 9000 + b"]" * 9000 + b"}"
    await w.publish_raw(subject, b"[" + deep + b"]")
    await w.publish(event(1))
    assert await w.delivered(1) == ["1"]
    (letter,) = await w.dead_letters(1)
    assert letter.reason in ("Malformed", "FilterError")


async def test_metrics_speak_of_live_routes_only(w: World) -> None:
    """A Subscription's figures are there while its route is, and gone with it."""
    w.function.answer = lambda r: (500, MARKED, b"") if r.id == "1" else ok(r)
    await w.subscribe(retry=QUICK)
    await w.publish(event(1), event(2))
    await w.delivered(1)

    def lines() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{w.routers[0].health_port}/metrics", timeout=60) as answer:
            return str(answer.read().decode())

    labels = 'namespace="shop",subscription="sub"'
    for wanted in (
        f'wisp_router_attempts_total{{{labels},verdict="function_failed"}} 3.0',
        f'wisp_router_attempts_total{{{labels},verdict="delivered"}} 1.0',
        'wisp_router_dead_letters_total{namespace="shop",reason="MaxAttempts",subscription="sub"} 1.0',
        "wisp_router_routes 1.0",
    ):
        await eventually(lambda wanted=wanted: wanted in lines(), wanted)  # type: ignore[misc]
    await w.client.jetstream(timeout=60).publish(
        f"$KV.{names.KV_ROUTES}.{NAMESPACE}.sub", headers={"KV-Operation": "DEL"}
    )
    await eventually(lambda: 'subscription="sub"' not in lines(), "series of a deleted route")


async def test_request_is_a_binary_cloudevent(w: World) -> None:
    """Attributes are headers, percent-encoded; data is the body, byte for byte; the trace goes on."""
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    sent = event(1, key='public.orders:["æ \n"]', traceparent=trace, extensions={"region": "eu", "urgent": True})
    sent.data = msgspec.Raw(b'{"n": 1.50,  "s": "\\u00e6"}')
    await w.subscribe()
    await w.publish(sent)
    await w.delivered(1)
    (request,) = w.function.requests
    assert request.body == b'{"n": 1.50,  "s": "\\u00e6"}'
    headers = request.headers
    assert headers["content-type"] == "application/json"
    assert headers["host"] == f"127.0.0.1:{w.function.port}"
    assert headers["ce-partitionkey"] == "public.orders:[%22%C3%A6%20%0A%22]"
    assert headers["traceparent"] == trace
    assert {name: headers[f"ce-{name}"] for name in ("specversion", "id", "type", "subject", "region", "urgent")} == {
        "specversion": "1.0",
        "id": "1",
        "type": "dev.wisp.postgres.insert",
        "subject": "public.orders",
        "region": "eu",
        "urgent": "true",
    }


async def test_what_waits_is_told(w: World) -> None:
    """While an event fails, metrics and status tell that it waits and since when; afterwards that nothing does."""
    healed = False
    w.function.answer = lambda request: ok(request) if healed else (500, MARKED, b"boom")
    await w.subscribe(retry=Retry(max_attempts=10000, initial_seconds=0.05, max_seconds=0.1))
    before = datetime.now(UTC) - timedelta(seconds=1)
    await w.publish(event(1))
    status = await w.status(lambda s: s.state == "Failing" and s.oldest_pending is not None)
    assert status.oldest_pending
    assert before <= datetime.fromisoformat(status.oldest_pending) <= datetime.now(UTC)
    assert status.pending == 1

    def level(name: str) -> float:
        with urllib.request.urlopen(f"http://127.0.0.1:{w.routers[0].health_port}/metrics", timeout=60) as answer:
            found = re.search(rf"^{name}{{[^}}]*}} (.*)$", answer.read().decode(), re.MULTILINE)
        return float(found[1]) if found else -1

    levels = "wisp_router_parked", "wisp_router_pending"
    await eventually(lambda: [level(name) for name in levels] == [1, 1], "one event waits")
    await eventually(lambda: level("wisp_router_oldest_seconds") > 1, "it has waited for a second")
    healed = True
    await w.delivered(1)
    await eventually(lambda: [level(name) for name in levels] == [0, 0], "nothing waits")
    await eventually(lambda: level("wisp_router_oldest_seconds") == 0, "nothing has waited")
    await w.status(lambda s: s.pending == 0 and s.oldest_pending is None)


async def test_an_event_without_a_trace_begins_one(w: World) -> None:
    """All attempts of all Subscriptions are in one trace, that of the event; another event has another."""
    w.function.answer = lambda request: ok(request) if len(w.function.requests) > 1 else (500, MARKED, b"boom")
    await w.subscribe(retry=QUICK)
    await w.subscribe("other")
    await w.publish(event(1), event(2))
    await w.delivered(4)
    traces = defaultdict[str, list[str]](list)
    for request in w.function.requests:
        assert request.headers["traceparent"] == request.headers["ce-traceparent"]
        traces[request.id].append(request.headers["traceparent"])
    assert len(w.function.requests) == 5  # one of them failed
    assert [len(set(found)) for found in traces.values()] == [1, 1]
    first, second = (found[0] for found in traces.values())
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-01", first)
    assert first[3:35] != second[3:35]


async def test_filters_and_subjects(w: World) -> None:
    """Only what the subjects select and all filters match is delivered."""
    filters = [{"type": ["dev.wisp.postgres.insert"]}, {"data": {"n": [{"numeric": [">=", 3]}]}}]
    await w.subscribe(filters=filters)
    await w.publish(event(9), table="customers")
    await w.publish(*(event(n, f"k{n}") for n in range(6)))
    assert sorted(await w.delivered(3)) == ["3", "4", "5"]


async def test_order_none_runs_in_parallel_up_to_the_limit(w: World) -> None:
    """Without order even one key runs in parallel, never beyond parallelism."""
    gate = asyncio.Event()

    async def slow(request: Request) -> Answer:
        await gate.wait()
        await asyncio.sleep(0.02)
        return ok(request)

    w.function.answer = slow
    await w.subscribe(order="none", parallelism=4, timeout_seconds=60)
    await w.publish(*(event(n) for n in range(60)))
    await eventually(lambda: w.function.active == 4, "as many run as may")
    gate.set()
    await w.delivered(60)
    assert w.function.peak == 4


async def test_event_without_key_is_a_barrier_in_its_lane(w: World) -> None:
    """A TRUNCATE waits for all rows before it in its lane, and all after it wait."""

    async def slow(request: Request) -> Answer:
        await asyncio.sleep(0.002 * (10 - int(request.id) % 10))
        return ok(request)

    w.function.answer = slow
    await w.subscribe(parallelism=20)
    subject = names.row_subject(NAMESPACE, "db", "public", "orders", 0)
    for n in range(30):
        one = event(n, None if n == 15 else f"k{n}")
        await w.publish_raw(subject, cloudevent.encode_frame([cloudevent.encode(one)]))
    ids = [int(one) for one in await w.delivered(30)]
    assert ids.index(15) == 15
    assert set(ids[:15]) == set(range(15))


async def test_start_positions(w: World) -> None:
    """Latest begins after what is there, a time at that time, earliest at the beginning; a route made anew begins anew."""
    await w.publish(event(1))
    await asyncio.sleep(0.01)
    between = datetime.fromtimestamp(time.time(), UTC).isoformat()
    await asyncio.sleep(0.01)
    await w.publish(event(2))
    seen: dict[str, list[str]] = {"late": [], "time": [], "early": []}

    def answer(request: Request) -> Answer:
        seen[request.path.strip("/")].append(request.id)
        return ok(request)

    w.function.answer = answer
    for name, start in (("late", "latest"), ("time", between), ("early", "earliest")):
        await w.subscribe(name, start=start, targets=[Target(url=w.function.url + name)])
        await w.active(name)
    await w.publish(event(3))
    await eventually(lambda: len(w.function.finished) == 6, "all starts")
    assert seen == {"late": ["3"], "time": ["2", "3"], "early": ["1", "2", "3"]}


async def test_suspend_resume_and_new_target(w: World) -> None:
    """Suspended or without a target, events wait; the status says so; with either put right they come, in order."""
    await w.subscribe(targets=[])
    await w.status(lambda s: s.state == "WaitingForTarget")
    await w.publish(*(event(n) for n in range(10)))
    await w.subscribe(generation=2, suspend=True)
    await w.status(lambda s: s.state == "Suspended" and s.generation == 2)
    assert w.function.requests == []
    await w.subscribe(generation=3)
    assert await w.delivered(10) == [str(n) for n in range(10)]
    await w.active(generation=3)


async def test_changed_route_goes_on_where_it_was(w: World) -> None:
    """A route whose subjects, order or target change loses and repeats nothing."""
    await w.subscribe()
    await w.publish(*(event(n) for n in range(5)))
    await w.delivered(5)
    await w.subscribe(generation=2, order="none")
    await w.active(generation=2)
    await w.publish(*(event(n) for n in range(5, 10)))
    await w.delivered(10)
    async with function_server() as other:
        await w.subscribe(generation=3, targets=[Target(url=other.url)])
        await w.active(generation=3)
        await w.publish(event(10))
        await eventually(lambda: other.ids() == ["10"], "delivery to the new target")
    assert sorted(map(int, w.function.ids())) == list(range(10))


async def test_targets_share_by_percent(w: World) -> None:
    """Each target gets its share, and an event's every attempt goes to the same one."""
    async with function_server() as other:
        w.function.answer = lambda r: (500, MARKED, b"") if len(w.function.requests) % 2 else ok(r)
        other.answer = lambda r: (500, MARKED, b"") if len(other.requests) % 2 else ok(r)
        targets = [Target(url=w.function.url, percent=75), Target(url=other.url, percent=25)]
        await w.subscribe(order="none", targets=targets, retry=Retry(max_attempts=100, initial_seconds=0.01))
        await w.publish(*(event(n) for n in range(200)))
        await eventually(lambda: len(w.function.finished) + len(other.finished) == 200, "all delivered")
        assert 120 < len(w.function.finished) < 180
        assert not {r.id for r in w.function.requests} & {r.id for r in other.requests}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"{", "does not decode"),
        (b'{"uid":"u","generation":7}', "does not decode"),
        ({"filters": [{"data": {"a": [{"prefx": "x"}]}}]}, "data.a[0].prefx: is no operator"),
        ({"start": "yesterday"}, "start is 'yesterday'"),
        ({"targets": [{"url": "ftp://x"}]}, "target 'ftp://x'"),
        ({"parallelism": 0}, "parallelism is 0"),
    ],
)
async def test_invalid_route_is_reported_and_harms_no_other(
    w: World, raw: bytes | dict[str, object], message: str
) -> None:
    """A route that can't be executed says why, others go on, and put right it heals."""
    base = {"namespace": NAMESPACE, "name": "odd", "uid": "u", "generation": 7, "stream": STREAM, "subjects": SUBJECTS}
    await w.put_route(f"{NAMESPACE}.odd", raw if isinstance(raw, bytes) else json.dumps(base | raw).encode())
    await w.subscribe()
    status = await w.status(lambda s: s.state == "InvalidRoute", "odd")
    assert message in status.message
    assert status.generation == (0 if raw == b"{" else 7)
    await w.publish(event(1))
    assert await w.delivered(1) == ["1"]
    await w.subscribe("odd", start="latest", generation=8)
    await w.active("odd", generation=8)


async def test_missing_stream_is_reported_and_heals(w: World) -> None:
    """A route whose stream does not exist yet says so and starts when it does."""
    stream = names.stream(NAMESPACE, "postgres", "late")
    subject = names.row_subject(NAMESPACE, "late", "public", "orders", 0)
    await w.subscribe(stream=stream, subjects=[subject])
    await w.status(lambda s: s.state == "Failing" and "does not exist yet" in s.message)
    await w.client.jetstream(timeout=60).add_stream(name=stream, subjects=[subject], allow_direct=True)
    await w.active()
    await w.publish_raw(subject, cloudevent.encode_frame([cloudevent.encode(event(1))]))
    assert await w.delivered(1) == ["1"]


async def test_backlogged_route_says_so_and_others_go_on(w: World) -> None:
    """When a failing key has filled the window, only this Subscription stops, names the event, and catches up when healed."""
    healed = False
    w.function.answer = lambda r: ok(r) if healed or r.path == "/other" else (500, MARKED, b"boom")
    await w.subscribe(retry=Retry(max_attempts=10_000, initial_seconds=0.05, max_seconds=0.2))
    subject = names.row_subject(NAMESPACE, "db", "public", "orders", names.lane("k"))
    for first in range(0, 12_800, 256):
        frame = [cloudevent.encode(event(n)) for n in range(first, first + 256)]
        await w.publish_raw(subject, cloudevent.encode_frame(frame))
    status = await w.status(lambda s: s.state == "Backlogged")
    assert "event 0 (key 'k')" in status.message
    assert "HTTP 500: boom" in status.message
    await w.subscribe("other", start="latest", targets=[Target(url=w.function.url + "other")])
    await w.active("other")
    await w.publish(event(20_000))
    await w.delivered(1)
    healed = True
    ids = [int(one) for one in await w.delivered(12_802, 120)]
    assert ids[1:] == [*range(12_800), 20_000]
    await w.active()


async def test_deleted_route_stops(w: World) -> None:
    """A route that is gone delivers nothing more, and made anew under another uid starts where it says."""
    await w.subscribe()
    await w.publish(event(1))
    await w.delivered(1)
    js = w.client.jetstream(timeout=60)
    await js.publish(f"$KV.{names.KV_ROUTES}.{NAMESPACE}.sub", headers={"KV-Operation": "DEL"})
    await w.subscribe("witness", start="latest", targets=[Target(url=w.function.url + "witness")])
    await w.active("witness")
    await w.publish(event(2))
    await w.delivered(2)
    await w.subscribe(uid="another", generation=1)
    await w.delivered(4)
    assert [r.id for r in w.function.requests if r.path == "/"] == ["1", "1", "2"]
