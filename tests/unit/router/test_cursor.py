"""The cursor against a model: over any restarts nothing undone counts as done, and nothing done is forgotten."""

import random

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from wisp_events.router.cursor import Cursor, Trouble, Window


def restart(cursor: Cursor) -> tuple[Cursor, Window]:
    """What a new session starts from: the stored form."""
    stored = msgspec.json.decode(msgspec.json.encode(cursor), type=Cursor)
    return stored, Window(msgspec.json.decode(msgspec.json.encode(cursor), type=Cursor))


@given(
    st.lists(st.tuples(st.integers(1, 3), st.integers(1, 4)), min_size=1, max_size=30),
    st.randoms(use_true_random=False),
)
def test_over_restarts(frames: list[tuple[int, int]], chance: random.Random) -> None:
    """Frames with gaps between them, events done in any order, stored and restarted at any time."""
    log: list[tuple[int, int]] = []
    sequence = 0
    for gap, size in frames:
        sequence += gap
        log.append((sequence, size))
    cursor, window = restart(Cursor(floor=0, started=0))
    done: set[tuple[int, int]] = set()
    stored_done: set[tuple[int, int]] = set()
    position = 0

    for _ in range(100):
        step = chance.choice(["read", "mark", "mark", "store", "restart"])
        if step == "read" and position < len(log):
            sequence, size = log[position]
            position += 1
            bits = window.open(sequence, size, 0.0)
            claimed = {(sequence, index) for index in range(size) if bits >> index & 1}
            assert claimed == {place for place in stored_done if place[0] == sequence}
        elif step == "mark":
            undone = [
                (s, i) for s, size in log[:position] if s > window.floor for i in range(size) if (s, i) not in done
            ]
            if undone:
                place = chance.choice(undone)
                window.mark(*place)
                done.add(place)
        elif step == "store":
            window.store(cursor, {})
            stored_done = set(done)
            assert all((s, i) in done for s, size in log if s <= cursor.floor for i in range(size))
        elif step == "restart":
            done = set(stored_done)
            cursor, window = restart(cursor)
            position = next((n for n, (s, _) in enumerate(log) if s > cursor.floor), len(log))


def test_size_of_a_failing_key_at_the_floor() -> None:
    """One failing event with 10,000 done behind it costs some bytes, not one entry for each."""
    window = Window(Cursor(floor=0, started=0))
    for sequence in range(1, 10_001):
        window.open(sequence, 1, 0.0)
        if sequence > 1:
            window.mark(sequence, 0)
    cursor = Cursor(floor=0, started=0)
    window.store(cursor, {"1.0": Trouble(tries=3, attempts=2)})
    assert (cursor.floor, cursor.head, cursor.parked, cursor.partial) == (0, 10_000, [(1, 1)], {})
    assert len(msgspec.json.encode(cursor)) < 150


def test_records_for_others_are_passed() -> None:
    """At the end of the stream the floor follows records that are not for this route."""
    window = Window(Cursor(floor=3, started=0))
    window.open(5, 1, 0.0)
    window.skip_to(9)
    assert window.floor == 4
    window.mark(5, 0)
    assert window.floor == 9


def test_troubles_of_events_not_read_again_yet_are_kept() -> None:
    """A second crash before the old head is reached forgets no attempts."""
    old = Cursor(floor=0, started=0, head=9, parked=[(2, 2), (7, 8)], troubles={"2.0": Trouble(3), "7.0": Trouble(5)})
    window = Window(old)
    assert window.open(1, 1, 0.0) == 1
    assert window.open(2, 1, 0.0) == 0
    assert window.trouble(2, 0) == Trouble(3)
    cursor = Cursor(floor=0, started=0)
    window.store(cursor, {})
    assert cursor.troubles == {"7.0": Trouble(5)}
    assert (cursor.floor, cursor.head, cursor.parked) == (1, 9, [(2, 2), (7, 8)])
