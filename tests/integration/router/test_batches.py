"""Batches, on a real router process between a real nats-server and a real HTTP server."""

import asyncio
import json
from collections import Counter

import pytest
from fixtures.function_server import MARKED, Answer, Request, ok
from fixtures.router_world import NAMESPACE, World, event, eventually
from wisp_api import cloudevent, names
from wisp_api.cloudevent import Event
from wisp_api.route import Batch, Retry

QUICK = Retry(max_attempts=3, initial_seconds=0.02, max_seconds=0.05)
BISECT = Retry(max_attempts=3, initial_seconds=0.02, max_seconds=0.05, bisect=True)


def ids(request: Request) -> list[str]:
    """The events of a batch."""
    return [one["id"] for one in request.json()]


def failing(*failed: str) -> Answer:
    """A success that names failures."""
    report = {"batchItemFailures": [{"itemIdentifier": one} for one in failed]}
    return 200, MARKED, json.dumps(report).encode()


async def publish_frame(w: World, *events: Event) -> None:
    """Store events in one frame."""
    subject = names.row_subject(NAMESPACE, "db", "public", "orders", 0)
    await w.publish_raw(subject, cloudevent.encode_frame([cloudevent.encode(one) for one in events]))


def delivered(w: World) -> list[str]:
    """The ids in successful batches, in the order of the answers."""
    return [one for request in w.function.finished for one in ids(request)]


async def test_batch_is_a_list_of_cloudevents_up_to_its_size(w: World) -> None:
    """A function gets a JSON list of the events as the log has them, each with one hop more, at most `size` of them."""
    await w.subscribe(batch=Batch(size=100))
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    sent = [event(n, f"k{n}", traceparent=trace, wisphops=n % 3, extensions={"region": "eu"}) for n in range(250)]
    await publish_frame(w, *sent)
    await eventually(lambda: len(delivered(w)) == 250, "all events")
    assert sorted(len(request.json()) for request in w.function.requests) == [50, 100, 100]
    for request in w.function.requests:
        assert request.headers["content-type"] == "application/cloudevents-batch+json"
        assert request.headers["traceparent"] == trace
    got = {one["id"]: one for request in w.function.requests for one in request.json()}
    for one in sent:
        one.wisphops += 1
        assert got[one.id] == json.loads(cloudevent.encode(one))


async def test_single_event_is_a_list_too(w: World) -> None:
    """With `batch` also one event comes as a list, so that a handler has one form to read."""
    await w.subscribe(batch=Batch(size=1))
    await w.publish(event(1), event(2))
    await eventually(lambda: delivered(w) == ["1", "2"], "two batches of one")
    assert [len(request.json()) for request in w.function.requests] == [1, 1]


async def test_window_gathers_until_it_is_over_or_the_batch_full(w: World) -> None:
    """The first event waits for others: a full batch goes at once, the rest when the window is over."""
    await w.subscribe(batch=Batch(size=10, window_seconds=2))
    await w.active()
    await publish_frame(w, *(event(n, f"k{n % 4}") for n in range(14)))
    await eventually(lambda: len(w.function.requests) >= 1, "the full batch")
    assert ids(w.function.requests[0]) == [str(n) for n in range(10)]
    await eventually(lambda: len(w.function.requests) == 2, "what the window gathered")
    assert ids(w.function.requests[1]) == [str(n) for n in range(10, 14)]


async def test_six_megabytes_end_a_batch(w: World) -> None:
    """Large events make small batches: none is above 6 MiB, and none of the events is left behind."""
    await w.subscribe(batch=Batch(size=10_000, window_seconds=300), order="none", parallelism=1)
    for n in range(14):
        await publish_frame(w, event(n, data="x" * 900_000))
    await eventually(lambda: len(delivered(w)) == 12, "what is full doesn't wait for its window")
    assert [len(ids(request)) for request in w.function.requests] == [6, 6]
    assert max(len(request.body) for request in w.function.requests) <= 6 * 1024 * 1024
    await w.subscribe(generation=2, batch=Batch(size=10_000), order="none", parallelism=1)
    await eventually(lambda: sorted(map(int, delivered(w))) == list(range(14)), "those that waited")


async def test_only_the_failed_are_sent_again(w: World) -> None:
    """Without order, exactly the events that the function names come again, until their attempts are used up."""
    w.function.answer = lambda r: failing(*(set(ids(r)) & {"3", "7"}))
    await w.subscribe(batch=Batch(size=100), order="none", retry=QUICK)
    await publish_frame(w, *(event(n) for n in range(10)))
    letters = await w.dead_letters(2)
    assert {(letter.reason, letter.attempts, letter.last_status) for letter in letters} == {("MaxAttempts", 3, 200)}
    assert sorted(cloudevent.decode(letter.event or b"").id for letter in letters) == ["3", "7"]
    times = Counter(one for request in w.function.requests for one in ids(request))
    assert times == {str(n): 3 if n in (3, 7) else 1 for n in range(10)}


async def test_in_order_a_key_goes_on_from_its_lowest_failed_event(w: World) -> None:
    """With order: key the events of a key behind a failed one come again with it; other keys are not repeated."""
    first = True

    def answer(request: Request) -> Answer:
        nonlocal first
        if first:
            first = False
            return failing("4")
        return ok(request)

    w.function.answer = answer
    await w.subscribe(batch=Batch(size=100), retry=QUICK)
    await publish_frame(w, *(event(n, "even" if n % 2 == 0 else "odd") for n in range(10)))
    await eventually(lambda: len(w.function.requests) == 2, "the repetition")
    assert ids(w.function.requests[0]) == [str(n) for n in range(10)]
    assert ids(w.function.requests[1]) == ["4", "6", "8"]


async def test_batches_share_no_key_and_keep_its_order(w: World) -> None:
    """Two batches with events of one key never run at once, and within and across batches its events come in order."""
    running: Counter[str] = Counter()
    order: dict[str, list[int]] = {}

    async def answer(request: Request) -> Answer:
        events = request.json()
        keys = {one["partitionkey"] for one in events}
        running.update(keys)
        assert max(running.values()) == 1
        for one in events:
            order.setdefault(one["partitionkey"], []).append(int(one["id"]))
        await asyncio.sleep(0.002 * (int(events[0]["id"]) % 5))
        running.subtract(keys)
        return ok(request)

    w.function.answer = answer
    await w.subscribe(batch=Batch(size=7), parallelism=8)
    await publish_frame(w, *(event(n, f"k{n % 9}") for n in range(250)))
    await w.publish(*(event(n, f"k{n % 9}") for n in range(250, 400)))
    await eventually(lambda: len(delivered(w)) == 400, "all events")
    assert sum(map(len, order.values())) == 400
    assert all(numbers == sorted(numbers) for numbers in order.values())


@pytest.mark.parametrize("ordered", [True, False])
async def test_bisecting_leaves_a_poison_event_alone_in_the_dead_letters(w: World, *, ordered: bool) -> None:
    """With bisect a batch that one event fails is halved until that event is alone; only it uses up its attempts."""
    w.function.answer = lambda r: (500, MARKED, b"poison") if "37" in ids(r) else ok(r)
    await w.subscribe(batch=Batch(size=100), order="key" if ordered else "none", retry=BISECT)
    await publish_frame(w, *(event(n, f"k{n % 3}") for n in range(100)))
    await eventually(lambda: len(set(delivered(w))) == 99, "all others")
    (letter,) = await w.dead_letters(1)
    assert cloudevent.decode(letter.event or b"").id == "37"
    assert (letter.reason, letter.last_response) == ("MaxAttempts", "poison")
    alone = [request for request in w.function.requests if ids(request) == ["37"]]
    assert len(alone) == 3
    got = delivered(w)
    assert len(got) == len(set(got)) == 99
    if ordered:
        for key in range(3):
            numbers = [int(one) for one in got if int(one) % 3 == key]
            assert numbers == sorted(numbers)


async def test_whole_failure_repeats_the_same_batch(w: World) -> None:
    """Without bisect a failed batch comes again as it was, not mixed with new events, and ends in the dead letters as a whole."""
    w.function.answer = lambda r: (500, MARKED, b"") if "1" in ids(r) else ok(r)
    await w.subscribe(batch=Batch(size=100), order="none", retry=QUICK)
    await publish_frame(w, event(0), event(1), event(2))
    await eventually(lambda: len(w.function.requests) >= 1, "the first attempt")
    await publish_frame(w, event(3), event(4))
    letters = await w.dead_letters(3)
    assert {letter.attempts for letter in letters} == {3}
    await eventually(lambda: delivered(w) == ["3", "4"], "the events after it")
    assert [ids(request) for request in w.function.requests if "1" in ids(request)] == [["0", "1", "2"]] * 3


async def test_unreadable_failures_fail_the_whole_batch(w: World) -> None:
    """What can't be read of batchItemFailures is a failure of the whole batch, by Lambda's rule; nothing counts as done."""
    w.function.answer = lambda r: failing("unknown") if len(w.function.requests) == 1 else ok(r)
    await w.subscribe(batch=Batch(size=10), retry=QUICK)
    await publish_frame(w, event(1), event(2))
    await eventually(lambda: delivered(w)[2:] == ["1", "2"], "the whole batch again")


async def test_too_large_a_batch_is_split_without_being_asked(w: World) -> None:
    """A function that answers 413 gets halves, at no cost in attempts; an event that is too large alone is refused."""
    w.function.answer = lambda r: (413, MARKED, b"too much") if len(ids(r)) > 2 or "5" in ids(r) else ok(r)
    await w.subscribe(batch=Batch(size=100), order="none", retry=Retry(max_attempts=1, initial_seconds=0.02))
    await publish_frame(w, *(event(n) for n in range(10)))
    await eventually(lambda: len(set(delivered(w))) == 9, "what fits")
    (letter,) = await w.dead_letters(1)
    assert (letter.reason, cloudevent.decode(letter.event or b"").id) == ("Rejected", "5")


async def test_old_events_of_a_waiting_batch_leave_it(w: World) -> None:
    """What exceeds maxAge while its batch waits is a dead letter, suspended or not, and in its key nothing overtakes it."""
    w.function.answer = lambda _: (503, {}, b"")
    await w.subscribe(batch=Batch(size=10), retry=Retry(max_age_seconds=1, initial_seconds=0.1, max_seconds=0.2))
    await publish_frame(w, *(event(n, f"k{n % 2}") for n in range(6)))
    letters = await w.dead_letters(6)
    assert {letter.reason for letter in letters} == {"MaxAge"}
    order = [int(cloudevent.decode(letter.event or b"").id) for letter in letters]
    assert [n for n in order if n % 2] == [1, 3, 5]
    assert [n for n in order if n % 2 == 0] == [0, 2, 4]
    await w.subscribe(
        generation=2, batch=Batch(size=10, window_seconds=300), suspend=True, retry=Retry(max_age_seconds=1)
    )
    await publish_frame(w, *(event(n, "k") for n in range(6, 9)))
    assert {letter.reason for letter in await w.dead_letters(9)} == {"MaxAge"}


async def test_changed_batch_settings_lose_nothing(w: World) -> None:
    """Events that wait for a window are delivered under the new size and window, also where batches are switched off."""
    await w.subscribe(batch=Batch(size=100, window_seconds=300))
    await w.active()
    await publish_frame(w, *(event(n, f"k{n % 3}") for n in range(10)))
    await w.subscribe(generation=2, batch=Batch(size=4))
    await eventually(lambda: len(delivered(w)) == 10, "all under the new size")
    assert max(len(ids(request)) for request in w.function.requests) == 4
    await w.subscribe(generation=3, batch=Batch(size=100, window_seconds=300))
    await w.active(generation=3)
    await publish_frame(w, *(event(n, "k") for n in range(10, 14)))
    await w.subscribe(generation=4)
    await eventually(lambda: w.function.ids()[-4:] == [str(n) for n in range(10, 14)], "one by one")


async def test_barrier_ends_a_window(w: World) -> None:
    """An event without a key does not wait for the window of the batch that it stands behind."""
    await w.subscribe(batch=Batch(size=100, window_seconds=300))
    await w.active()
    await publish_frame(w, event(1, "a"), event(2, None), event(3, "a"))
    await eventually(lambda: delivered(w)[:2] == ["1", "2"], "what stands before it, and itself")


@pytest.mark.parametrize("bisect", [True, False])
async def test_killed_router_loses_nothing_of_its_batches(w: World, *, bisect: bool) -> None:
    """After a crash in the middle every event is delivered or a dead letter, and each key's first deliveries are in order."""
    bad = {str(n) for n in range(0, 600, 50)}

    async def answer(request: Request) -> Answer:
        await asyncio.sleep(0.002)
        return failing(*(bad & set(ids(request))))

    w.function.answer = answer
    await w.subscribe(batch=Batch(size=20), retry=BISECT if bisect else QUICK)
    for first in range(0, 600, 60):
        await publish_frame(w, *(event(n, f"k{n % 11}") for n in range(first, first + 60)))
    await eventually(lambda: len(delivered(w)) > 200, "a third")
    w.routers[0].kill()
    w.router()
    wanted = {str(n) for n in range(600)}
    await w.dead_letters(len(bad))
    await eventually(lambda: wanted - bad <= set(delivered(w)), "the rest")
    letters = {cloudevent.decode(letter.event or b"").id for letter in await w.dead_letters(len(bad))}
    assert letters == bad


async def test_answer_that_nests_too_deeply_fails_its_batch(w: World) -> None:
    """What a function writes beside `batchItemFailures` keeps no event from its next attempt and its letter."""
    deep = b'{"batchItemFailures":[],"more":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    w.function.answer = lambda r: (200, MARKED, deep) if "1" in ids(r) else ok(r)
    await w.subscribe(batch=Batch(size=1), retry=QUICK)
    await w.publish(event(1), event(2))
    [letter] = await w.dead_letters(1)
    assert (letter.reason, letter.attempts) == ("MaxAttempts", 3)
    assert "batchItemFailures can't be read" in letter.message
    assert delivered(w) == ["1", "1", "1", "2"]
