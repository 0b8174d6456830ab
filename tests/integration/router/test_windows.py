"""Tumbling windows, on a real router process between a real nats-server and a real HTTP server."""

import asyncio
import json
import random
from collections import Counter
from datetime import datetime
from typing import Any

from fixtures.function_server import MARKED, Answer, Request
from fixtures.router_world import STREAM, SUBJECTS, World, event, eventually
from wisp_api import cloudevent, names
from wisp_api.route import Batch, Replay, Retry

QUICK = Retry(max_attempts=3, initial_seconds=0.02, max_seconds=0.05)
WINDOW = Batch(size=20, tumbling_seconds=1)
LONG = 100 * 86400  # windows are parts of the calendar: one of a minute ends amid one test in twenty


class Aggregate:
    """A function that keeps the ids of its window in the state, and what last calls brought."""

    def __init__(self) -> None:
        """Nothing was called yet."""
        self.calls: list[dict[str, Any]] = []
        self.ended: dict[tuple[str, str], list[str]] = {}
        """Shard and window -> the ids in its last state: a function that writes a result per shard and window."""
        self.poison: set[str] = set()

    def __call__(self, request: Request) -> Answer:
        """One call."""
        assert request.headers["ce-type"] == "dev.wisp.window"
        call = request.json()
        self.calls.append(call)
        ids = [one["id"] for one in call["Records"]]
        if self.poison & set(ids):
            return 500, MARKED, b"poison"
        state = {"ids": [*call["state"].get("ids", []), *ids]}
        if call["isFinalInvokeForWindow"]:
            assert not ids
            self.ended[call["shardId"], call["window"]["start"]] = state["ids"]
            return 200, MARKED, b""
        return 200, MARKED, json.dumps({"state": state}).encode()

    @property
    def counted(self) -> Counter[str]:
        """How often each event is in a result."""
        return Counter(one for ids in self.ended.values() for one in ids)


def wanted(*numbers: int) -> Counter[str]:
    """Each of them once."""
    return Counter(str(number) for number in numbers)


def key_of(shard: int) -> str:
    """A key that belongs to a shard."""
    return next(f"k{n}" for n in range(100) if names.lane(f"k{n}") % 4 == shard)


async def stored(w: World, sequence: int) -> float:
    """When a record of the log was stored."""
    answer = await w.client.request(f"$JS.API.DIRECT.GET.{STREAM}", json.dumps({"seq": sequence}).encode())
    return datetime.fromisoformat((answer.headers or {})["Nats-Time-Stamp"]).timestamp()


async def test_each_event_is_in_one_window_whatever_dies(w: World) -> None:
    """Killed and replaced in the midst of windows, no event is missing in a result and none is in two; windows are those of the log's time."""
    function = Aggregate()

    async def slow(request: Request) -> Answer:
        await asyncio.sleep(0.01)
        return function(request)

    w.function.answer = slow
    await w.subscribe(batch=WINDOW)
    for number in range(300):
        await w.publish(event(number, f"k{number % 13}"))
        await asyncio.sleep(0.008)
        if number in (90, 200):
            w.routers[-1].kill()
            w.router()
    await eventually(lambda: len(function.counted) == 300, "all events in results")
    assert set(function.counted.values()) == {1}
    assert len({start for _, start in function.ended}) >= 3
    for (_, start), ids in function.ended.items():
        moments = [await stored(w, int(one) + 1) for one in ids]
        begin = datetime.fromisoformat(start).timestamp()
        assert all(begin <= moment < begin + 1 for moment in moments)
    for call in function.calls:
        order = [(one["partitionkey"], int(one["id"])) for one in call["Records"]]
        assert order == sorted(order, key=lambda place: place[1])


async def test_what_fails_comes_again_with_the_state_before_it(w: World) -> None:
    """Errors, partial failures, timeouts of the platform and answers without a state repeat a batch, and count nothing twice; poison is a dead letter."""
    function, chance = Aggregate(), random.Random(1)
    function.poison = {"37"}

    def answer(request: Request) -> Answer:
        call = request.json()
        records = call["Records"]
        fate = chance.random()
        if call["isFinalInvokeForWindow"] or fate > 0.5 or "37" in [one["id"] for one in records]:
            return function(request)
        if fate < 0.1:
            return 503, {}, b""
        if fate < 0.2:
            return 200, MARKED, b'{"state": null}'
        failed = records[chance.randrange(len(records))]["id"]
        report = {"batchItemFailures": [{"itemIdentifier": failed}]}
        before = [one["id"] for one in records][: [one["id"] for one in records].index(failed)]
        state = {"ids": [*call["state"].get("ids", []), *before]}
        return 200, MARKED, json.dumps(report | {"state": state}).encode()

    w.function.answer = answer
    retry = Retry(max_attempts=50, initial_seconds=0.01, max_seconds=0.02, bisect=True)
    await w.subscribe(batch=Batch(size=10, tumbling_seconds=1), retry=retry)
    await w.publish(*(event(number, f"k{number % 7}") for number in range(100)))
    (letter,) = await w.dead_letters(1)
    assert (letter.reason, cloudevent.decode(letter.event or b"").id) == ("MaxAttempts", "37")
    await eventually(lambda: len(function.counted) == 99, "all others in results")
    assert function.counted == wanted(*(number for number in range(100) if number != 37))


async def test_too_large_a_state_ends_the_window_early(w: World) -> None:
    """Where a state would exceed 1 MB, the window's last call comes before the batch, which begins anew with an empty state."""
    ends: list[tuple[bool, int]] = []

    def answer(request: Request) -> Answer:
        call = request.json()
        if call["isFinalInvokeForWindow"]:
            ends.append((call["isWindowTerminatedEarly"], call["state"]["n"]))
            return 200, MARKED, b""
        n = call["state"].get("n", 0) + len(call["Records"])
        return 200, MARKED, json.dumps({"state": {"n": n, "pad": "x" * (300_000 * n)}}).encode()

    w.function.answer = answer
    await w.subscribe(batch=Batch(size=2, tumbling_seconds=LONG))
    await w.publish(*(event(number, key_of(0)) for number in range(7)))
    await eventually(lambda: len(ends) == 2, "two early ends")
    assert all(early for early, _ in ends)
    assert all(0 < n <= 3 for _, n in ends)
    await w.subscribe(generation=2, batch=Batch(size=10, tumbling_seconds=LONG), retry=QUICK)
    await w.active(generation=2)
    w.function.answer = lambda _: (200, MARKED, json.dumps({"state": {"pad": "x" * 1_000_001}}).encode())
    await w.publish(event(100, key_of(1)))
    (letter,) = await w.dead_letters(1)
    assert letter.reason == "MaxAttempts"
    assert "at most 1000000 are passed on" in letter.message


async def test_last_call_that_fails_is_a_dead_letter_that_can_be_sent_again(w: World) -> None:
    """A window whose last call keeps failing is not lost: its state stands in the dead letters, and redriven it comes as it was."""
    function = Aggregate()
    last: list[dict[str, Any]] = []

    def answer(request: Request) -> Answer:
        if request.json()["isFinalInvokeForWindow"]:
            last.append(request.json())
            return 500, MARKED, b"no"
        return function(request)

    w.function.answer = answer
    again = names.redrive_subject(STREAM, "uid-sub")
    await w.subscribe(batch=WINDOW, retry=QUICK, subjects=[*SUBJECTS, again])
    await w.publish(event(1, key_of(2)))
    (letter,) = await w.dead_letters(1)
    assert (letter.reason, letter.attempts, len(last)) == ("MaxAttempts", 3, 3)
    assert letter.event
    w.function.answer = function
    await w.publish_raw(again, cloudevent.encode_frame([bytes(letter.event)]))
    await eventually(lambda: function.counted == wanted(1), "the last call again")
    assert function.calls[-1] == last[0]
    await w.publish(event(2, key_of(2)))
    await eventually(lambda: function.counted == wanted(1, 2), "the windows after it")


async def test_replay_builds_whole_windows_anew(w: World) -> None:
    """A replay goes back to the beginning of a window: its results come again, complete."""
    function = Aggregate()
    w.function.answer = function
    await w.subscribe(batch=Batch(size=3, tumbling_seconds=2))
    await w.publish(*(event(number, f"k{number}") for number in range(12)))
    await eventually(lambda: len(function.counted) == 12, "the results")
    first, function.ended = function.ended, {}
    since = datetime.fromtimestamp(await stored(w, 12)).astimezone().isoformat()
    await w.subscribe(batch=Batch(size=3, tumbling_seconds=2), replay=Replay(since=since, request="a"))
    newest = max(start for _, start in first)
    repeated = {place: ids for place, ids in first.items() if place[1] == newest}
    await eventually(lambda: function.ended == repeated, "the results of that window again")
