"""Batches against a model: what goes together, and what becomes of it, keeps each key's order and drops nothing."""

import json
import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wisp_api.cloudevent import Event
from wisp_api.route import Batch
from wisp_events.router import batch
from wisp_events.router.forming import BATCH_BYTES, Forming
from wisp_events.router.schedule import Item, Schedule
from wisp_events.router.verdict import Answer, Failure, Outcome, Verdict


def item(sequence: int, key: str | None = "k", size: int = 2) -> Item:
    """An event at this place of the log, of this many bytes."""
    event = Event(id=str(sequence), source="s", type="t", partitionkey=key)
    return Item(sequence, 0, event, msgspec.Raw(b"x" * size), 0.0, "lane")


def numbers(items: list[Item]) -> list[int]:
    """Their places."""
    return [one.sequence for one in items]


def report(*failed: object) -> Answer:
    """A success that names failures."""
    return Answer(200, body=json.dumps({"batchItemFailures": [{"itemIdentifier": one} for one in failed]}).encode())


FIVE = [item(n, "a" if n % 2 else "b") for n in range(5)]


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b'"ok"', b"not JSON", b"{}", b'{"batchItemFailures":[]}', b'{"batchItemFailures":null}', b"[1]"],
)
def test_success_without_failures(body: bytes) -> None:
    """An answer that names no failures is a success of all, whatever it says."""
    settled = batch.settle(FIVE, Answer(200, body=body), ordered=True, bisect=True)
    assert settled.verdict is Verdict.DELIVERED
    assert settled.done == FIVE
    assert not settled.again


@pytest.mark.parametrize(
    "body",
    [
        report("").body,
        report(None).body,
        report(1).body,
        report("0", "unknown").body,
        b'{"batchItemFailures":[{"wrong":"1"}]}',
        b'{"batchItemFailures":"1"}',
        b'{"batchItemFailures":[{"itemIdentifier":"1"}',
        b'{"batchItemFailures":[],"more":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b"x" * batch.ANSWER_BYTES,
    ],
)
def test_unreadable_failures(body: bytes) -> None:
    """What can't be read of batchItemFailures, an unknown id included, fails the whole batch."""
    settled = batch.settle(FIVE, Answer(200, body=body), ordered=False, bisect=False)
    assert settled.verdict is Verdict.FUNCTION_FAILED
    assert settled.counted == settled.again == FIVE
    assert settled.message.startswith("the whole batch counts as failed: ")


def test_partial_failure() -> None:
    """In order a key goes on from its lowest failed event, and only that one's attempt counts; else the named ones only."""
    ordered = batch.settle(FIVE, report("1", "3"), ordered=True, bisect=True)
    assert (numbers(ordered.done), numbers(ordered.again), numbers(ordered.counted)) == ([0, 2, 4], [1, 3], [1])
    free = batch.settle(FIVE, report("1", "2"), ordered=False, bisect=True)
    assert (numbers(free.done), numbers(free.again), numbers(free.counted)) == ([0, 3, 4], [1, 2], [1, 2])


@pytest.mark.parametrize(
    ("outcome", "bisect", "split", "counted", "dead"),
    [
        (Answer(500), False, False, 5, 0),
        (Answer(500), True, True, 0, 0),
        (Failure("late", timeout=True), True, True, 0, 0),
        (Failure("refused"), True, False, 0, 0),
        (Answer(429), True, False, 0, 0),
        (Answer(413), False, True, 0, 0),
        (Answer(422), False, False, 0, 5),
        (Answer(422), True, True, 0, 0),
    ],
)
def test_whole_failure(outcome: Outcome, *, bisect: bool, split: bool, counted: int, dead: int) -> None:
    """Splitting costs no attempt; the network's trouble splits nothing; what is too large is split unasked."""
    settled = batch.settle(FIVE, outcome, ordered=True, bisect=bisect)
    assert (settled.split, len(settled.counted), len(settled.dead)) == (split, counted, dead)
    assert len(settled.again) == 5 - dead


def test_one_event_is_not_split() -> None:
    """An event alone uses up attempts, and is refused for good."""
    assert not batch.settle(FIVE[:1], Answer(500), ordered=True, bisect=True).split
    assert batch.settle(FIVE[:1], Answer(413), ordered=True, bisect=True).dead


def test_bytes_end_a_batch() -> None:
    """A batch stays below its bytes; what did not fit is the first of the next one, in its key's order."""
    schedule = Schedule(ordered=True)
    forming = Forming(schedule, Batch(size=100, window_seconds=9))
    for n in range(8):
        schedule.admit(item(n, size=BATCH_BYTES // 4))
    first = forming.take(0, hurry=False) or []
    assert numbers(first) == [0, 1, 2]
    assert forming.take(0, hurry=True) is None
    for one in first:
        schedule.out(one)
    assert numbers(forming.take(0, hurry=False) or []) == [3, 4, 5]


def test_window() -> None:
    """The first event waits as long as the window; a hurry or a full batch ends it."""
    schedule = Schedule(ordered=False)
    forming = Forming(schedule, Batch(size=3, window_seconds=10))
    schedule.admit(item(1))
    assert forming.take(5, hurry=False) is None
    assert forming.next_due(5) == 15
    schedule.admit(item(2))
    assert forming.take(14.9, hurry=False) is None
    assert numbers(forming.take(15, hurry=False) or []) == [1, 2]
    for n in range(3, 7):
        schedule.admit(item(n))
    assert numbers(forming.take(16, hurry=False) or []) == [3, 4, 5]
    assert numbers(forming.take(16, hurry=True) or []) == [6]
    assert forming.next_due(16) is None


@given(
    st.lists(st.sampled_from(["x", "y", "z", None]), max_size=60),
    st.integers(1, 9),
    st.sampled_from(["key", "none"]),
    st.randoms(use_true_random=False),
)
def test_any_course_keeps_the_order(
    keys: list[str | None],
    size: int,
    order: str,
    chance: random.Random,
) -> None:
    """Whatever forms, fails, is halved or given back: no key is in two batches, its events come in order, all come out."""
    ordered = order == "key"
    schedule = Schedule(ordered=ordered)
    forming = Forming(schedule, Batch(size=size, window_seconds=3))
    coming = [item(n, key) for n, key in enumerate(keys)]
    running: list[list[Item]] = []
    out: list[Item] = []
    now = 0.0
    while len(out) < len(keys):
        step = chance.choice(["admit", "take", "answer", "answer", "dissolve", "wake"])
        if step == "admit" and coming:
            schedule.admit(coming.pop(0))
        elif step == "take" and (items := forming.take(now, hurry=chance.random() < 0.3)):
            assert 0 < len(items) <= size
            check(items, running, out, keys, ordered=ordered)
            running.append(items)
        elif step == "answer" and running:
            out += answer(running.pop(chance.randrange(len(running))), schedule, forming, chance, now, ordered=ordered)
        elif step == "dissolve":
            forming.dissolve(ordered=ordered)
        elif step == "wake":
            now += chance.random() * 4
            schedule.wake(now)
            forming.wake(now)
    assert schedule.size == 0
    assert not schedule._keys  # noqa: SLF001 - nothing may be left behind for keys that were seen once
    assert not schedule._lanes  # noqa: SLF001
    assert sorted(numbers(out)) == list(range(len(keys)))


def check(  # what may start together
    items: list[Item], running: list[list[Item]], out: list[Item], keys: list[str | None], *, ordered: bool
) -> None:
    """A batch may start: in order, and nothing of its keys before it is undone elsewhere."""
    assert numbers(items) == sorted(numbers(items))
    under_way = [one for other in running for one in other]
    assert not {id(one) for one in items} & {id(one) for one in under_way + out}
    if not ordered:
        return
    here, done = set(numbers(items)), set(numbers(out))
    for one in items:
        before = {n for n in range(one.sequence) if keys[n] in (one.key, None) or one.key is None}
        assert before <= (here if one.key is not None else set()) | done
        if one.key is not None:
            assert not [n for n in before & here if keys[n] is None]


def answer(
    items: list[Item], schedule: Schedule, forming: Forming, chance: random.Random, now: float, *, ordered: bool
) -> list[Item]:
    """Answer a batch at random and do what follows; returns what is out."""
    outcome: Outcome = chance.choice(
        [Answer(200), Answer(500), report(*{chance.choice(items).event.id for _ in range(2)}), Answer(422)]
    )
    settled = batch.settle(items, outcome, ordered=ordered, bisect=chance.random() < 0.5)
    assert sorted(numbers(settled.done + settled.dead + settled.again)) == numbers(items)
    gone = settled.done + settled.dead
    for one in gone:
        schedule.out(one)
    parts = [settled.again]
    if settled.split:
        first, free, bound = batch.halves(settled.again, ordered=ordered)
        for last, *later in bound:
            schedule.part(last, later)
        parts = [first, free]
    for part in parts:
        if part:
            forming.again(part, now + chance.random())
    return gone
