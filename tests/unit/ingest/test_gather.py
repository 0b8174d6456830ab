"""What a frame of concurrent callers' events holds."""

import asyncio
from collections import deque

from hypothesis import given
from hypothesis import strategies as st
from wisp_api.cloudevent import FRAME_BYTES, FRAME_EVENTS
from wisp_events.gather import Entry, take

EVENTS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from([None, "k", "l", "m"]), st.sampled_from([10, FRAME_BYTES // 3])),
    max_size=40,
)


@given(EVENTS)
def test_frames_keep_each_keys_order_and_lose_nothing(events: list[tuple[str, str | None, int]]) -> None:
    """Every event is in one frame, of its subject and within the bounds; of a key none is before an earlier one."""
    future: asyncio.Future[None] = asyncio.Future(loop=asyncio.new_event_loop())
    future.get_loop().close()
    entries = [Entry(subject, 0, key, str(place), b"x" * size) for place, (subject, key, size) in enumerate(events)]
    queue = deque((entry, future) for entry in entries)
    frames = []
    while queue:
        frames.append([entry for entry, _ in take(queue)])
    out = [entry for frame in frames for entry in frame]
    assert sorted(out, key=lambda entry: int(entry.same)) == entries
    for frame in frames:
        assert len({entry.subject for entry in frame}) == 1
        assert len(frame) <= FRAME_EVENTS
        assert len(frame) == 1 or sum(len(entry.encoded) + 1 for entry in frame) <= FRAME_BYTES + 1
    for key in "klm":
        places = [int(entry.same) for entry in out if entry.key == key]
        assert places == sorted(places)
