"""The schedule against a model: any order of admitting, failing and finishing keeps each key's and each lane's order."""

import random

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from wisp_api.cloudevent import Event
from wisp_events.router.schedule import Item, Schedule


def item(sequence: int, key: str | None, lane: str = "a") -> Item:
    """An event at this place of the log."""
    event = Event(id=str(sequence), source="s", type="t", partitionkey=key)
    return Item(sequence, 0, event, msgspec.Raw(b"{}"), 0.0, lane)


keys = st.sampled_from(["x", "y", "z", None])


@given(st.lists(st.tuples(keys, st.sampled_from("ab")), max_size=40), st.randoms(use_true_random=False))
def test_ordered(events: list[tuple[str | None, str]], chance: random.Random) -> None:
    """Of a key at most the earliest undone event is out for an attempt; a barrier runs alone in its lane; all come out.

    So, too, where events without content are passed over now and then.
    """
    schedule = Schedule(ordered=True)
    coming = [item(n + 1, key and f"{lane}{key}", lane) for n, (key, lane) in enumerate(events)]
    for one in coming:
        one.absent = chance.random() < 0.5
    undone: list[Item] = []
    taken: list[Item] = []
    finished = 0
    now = 0.0
    while coming or undone:
        step = chance.choice(["admit", "take", "out", "again", "wake"])
        if step == "admit" and coming:
            undone.append(coming.pop(0))
            schedule.admit(undone[-1])
        elif step == "take" and (got := schedule.take(large=(large := chance.random() < 0.5))):
            assert large or not got.absent
            earlier = [other for other in undone if other.lane == got.lane and other.sequence < got.sequence]
            assert not [other for other in earlier if other.key in (got.key, None)]
            assert got.key is not None or not earlier
            assert got not in taken
            taken.append(got)
        elif step == "out" and taken:
            done = taken.pop(chance.randrange(len(taken)))
            undone.remove(done)
            schedule.out(done)
            finished += 1
        elif step == "again" and taken:
            schedule.again(taken.pop(chance.randrange(len(taken))), now + chance.random())
        elif step == "wake":
            now += chance.random()
            schedule.wake(now)
        assert schedule.size == len(undone)
    assert finished == len(events)
    assert not schedule._keys  # noqa: SLF001 - nothing may be left behind for keys that were seen once
    assert not schedule._lanes  # noqa: SLF001


def test_what_was_passed_over_comes_first() -> None:
    """Events without content come in their order as soon as they may, before what is ready after them."""
    schedule = Schedule(ordered=False)
    for n in range(6):
        one = item(n + 1, "x")
        one.absent = n % 2 == 0
        schedule.admit(one)
    taken = [schedule.take(large=large) for large in (False, False, True, True, False, True)]
    assert [one.sequence if one else 0 for one in taken] == [2, 4, 1, 3, 6, 5]
    assert (schedule.ready, schedule.passed) == (0, 0)


def test_unordered_starts_everything() -> None:
    """Without order nothing stands behind anything."""
    schedule = Schedule(ordered=False)
    for n in range(5):
        schedule.admit(item(n, "same"))
    assert [got.sequence for got in iter(schedule.take, None) if got] == list(range(5))


def test_due_time_of_an_earlier_session_is_kept() -> None:
    """An event that failed before a restart waits for its time when its turn comes."""
    schedule = Schedule(ordered=True)
    late = item(1, "x")
    late.due = 10.0
    schedule.admit(late)
    schedule.admit(item(2, "x"))
    schedule.wake(9.0)
    assert schedule.take() is None
    assert schedule.next_due == 10.0
    schedule.wake(10.0)
    assert schedule.take() is late
