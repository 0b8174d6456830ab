"""Replay, and suspending: what was delivered comes again on order, once; what was not is never passed over."""

import asyncio
import json
from collections import Counter
from datetime import UTC, datetime, timedelta

from fixtures.function_server import MARKED, Request, ok
from fixtures.router_world import LETTERS, STREAM, World, event, eventually
from wisp_api import names
from wisp_api.route import Replay, ReplayReport, Retry


async def stored(w: World, sequence: int) -> datetime:
    """When a record of the log was stored, to the microsecond below."""
    query = json.dumps({"seq": sequence}).encode()
    answer = await w.client.request(f"$JS.API.DIRECT.GET.{STREAM}", query)
    return datetime.fromisoformat((answer.headers or {})["Nats-Time-Stamp"])


async def answered(w: World, request: str) -> ReplayReport:
    """Wait for what the router says of an order."""
    status = await w.status(lambda s: s.replay is not None and s.replay.request == request)
    assert status.replay
    return status.replay


async def publish_apart(w: World, count: int) -> list[datetime]:
    """Store events one after the other, each a round trip later; returns when."""
    for n in range(1, count + 1):
        await w.publish(event(n, f"k{n % 3}"))
    return [await stored(w, n) for n in range(1, count + 1)]


async def test_replay_delivers_again_from_that_time_on_and_once(w: World) -> None:
    """What was stored since that time comes again, in order per key; a restart of the router does not repeat the order, another order does it again."""
    await w.subscribe()
    times = await publish_apart(w, 9)
    await w.delivered(9)
    order = Replay(since=times[3].isoformat(), request="first")
    await w.subscribe(replay=order)
    report = await answered(w, "first")
    assert (report.moved, report.message) == (True, f"events since {order.since} come again")
    ids = await w.delivered(15)
    assert sorted(ids[9:]) == ["4", "5", "6", "7", "8", "9"]
    for key in range(3):
        numbers = [int(one) for one in ids[9:] if int(one) % 3 == key]
        assert numbers == sorted(numbers)
    await w.routers[0].stop()
    w.router()
    await w.publish(event(10))
    assert (await w.delivered(16))[15:] == ["10"]
    await w.subscribe(replay=Replay(since=times[8].isoformat(), request="second"))
    assert sorted((await w.delivered(18))[16:]) == ["10", "9"]


async def test_takeover_does_not_repeat_an_order(w: World) -> None:
    """A router that is killed after it has moved the cursor leaves an order that is done: its successor goes on, and loses nothing."""
    await w.subscribe()
    times = await publish_apart(w, 3)
    await w.delivered(3)
    w.function.answer = lambda _: (503, {}, b"")
    await w.subscribe(replay=Replay(since=times[0].isoformat(), request="first"), retry=Retry(max_seconds=0.1))
    await answered(w, "first")
    w.routers[0].kill()
    await eventually(lambda: not w.function.open, "what it had sent is answered")
    w.function.answer = ok
    w.router("router-1")
    assert Counter(await w.delivered(6)) == Counter({"1": 2, "2": 2, "3": 2})
    await w.publish(event(4))
    assert (await w.delivered(7))[6:] == ["4"]


async def test_replay_passes_over_nothing_that_waits(w: World) -> None:
    """An event that fails stays to be delivered, whether the time asked for is before or after it."""
    healed = False
    w.function.answer = lambda r: ok(r) if healed or r.id != "2" else (500, MARKED, b"")
    retry = Retry(max_attempts=100, initial_seconds=0.05, max_seconds=0.1)
    await w.subscribe(order="none", retry=retry)
    times = await publish_apart(w, 6)
    await w.delivered(5)
    await w.subscribe(order="none", retry=retry, replay=Replay(since=times[4].isoformat(), request="after"))
    assert (await answered(w, "after")).moved
    assert sorted((await w.delivered(7))[5:]) == ["5", "6"]
    await w.subscribe(order="none", retry=retry, replay=Replay(since=times[0].isoformat(), request="before"))
    assert sorted((await w.delivered(12))[7:]) == ["1", "3", "4", "5", "6"]
    healed = True
    assert (await w.delivered(13))[12:] == ["2"]


async def test_old_events_are_not_too_old_to_come_again(w: World) -> None:
    """Ages count from the replay on: events older than maxAgeSeconds are delivered, not dead-lettered."""
    await w.subscribe(retry=Retry(max_age_seconds=1))
    times = await publish_apart(w, 3)
    await w.delivered(3)
    await eventually(lambda: datetime.now(UTC) - times[-1] > timedelta(seconds=1.1), "the events are old")
    await w.subscribe(retry=Retry(max_age_seconds=1), replay=Replay(since=times[0].isoformat(), request="r"))
    await w.delivered(6)
    assert (await w.client.jetstream(timeout=60).stream_info(LETTERS)).state.messages == 0


async def test_what_is_refused_again_has_a_letter_again(w: World) -> None:
    """A letter that was dropped, or sent again, before a replay stands for nothing that fails after it, however soon."""
    w.function.answer = lambda _: (400, MARKED, b"no")
    await w.subscribe()
    times = await publish_apart(w, 1)
    await w.dead_letters(1)
    js = w.client.jetstream(prefix=names.LETTERS_API, timeout=60)
    await js.delete_msg(LETTERS, 1)
    await w.subscribe(replay=Replay(since=times[0].isoformat(), request="again"))
    assert (await answered(w, "again")).moved
    await w.status(lambda s: s.dead_lettered == 2 and not s.pending)
    assert (await js.stream_info(LETTERS)).state.messages == 1


async def test_orders_that_can_not_be_carried_out_say_why(w: World) -> None:
    """A time that the log no longer holds, one to come and one that is none are refused in a sentence; deliveries go on."""
    await w.subscribe()
    times = await publish_apart(w, 6)
    await w.delivered(6)
    await w.client.jetstream(timeout=60).purge_stream(STREAM, seq=4)
    for since, wanted in (
        (times[1].isoformat(), f"the log holds this source's events since {times[3].isoformat()} only"),
        ("2999-01-01T00:00:00Z", "is still to come"),
        ("yesterday", "since is 'yesterday'; write a time as"),
    ):
        await w.subscribe(replay=Replay(since=since, request=since))
        report = await answered(w, since)
        assert not report.moved
        assert wanted in report.message
    await w.subscribe(replay=Replay(since=times[3].isoformat(), request="held"))
    assert (await answered(w, "held")).moved
    assert sorted((await w.delivered(9))[6:]) == ["4", "5", "6"]


async def test_new_subscription_passes_an_old_order_over(w: World) -> None:
    """An order that a Subscription was made with, copied from another one say, moves nothing: `start` decides."""
    await w.publish(event(1))
    await w.subscribe(start="latest", replay=Replay(since="2026-01-01T00:00:00Z", request="copied"))
    assert not (await answered(w, "copied")).moved
    await w.publish(event(2))
    assert await w.delivered(1) == ["2"]


async def test_suspending_and_resuming_loses_nothing(w: World) -> None:
    """Events under way and new ones while suspended are all delivered after resuming, in order per key, across a restart of the router."""

    async def slow(request: Request) -> tuple[int, dict[str, str], bytes]:
        await asyncio.sleep(0.005)
        return ok(request)

    w.function.answer = slow
    await w.subscribe()
    await w.publish(*(event(n, f"k{n % 5}") for n in range(100)))
    await w.delivered(20)
    await w.subscribe(generation=2, suspend=True)
    await w.status(lambda s: s.state == "Suspended")
    await w.publish(*(event(n, f"k{n % 5}") for n in range(100, 150)))
    await w.routers[0].stop()
    w.router()
    await w.subscribe(generation=3)
    ids = await w.delivered(150)
    assert sorted(map(int, ids)) == list(range(150))
    for key in range(5):
        numbers = [int(one) for one in ids if int(one) % 5 == key]
        assert numbers == sorted(numbers)
