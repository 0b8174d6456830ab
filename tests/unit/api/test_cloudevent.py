"""The CloudEvents codec: what goes into a frame comes out of it, and is a valid CloudEvent in between."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wisp_api import cloudevent
from wisp_api.cloudevent import Event

text = st.text(min_size=1, max_size=20)
optional = st.none() | text
data = st.none() | st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(), st.lists, max_leaves=5
).map(lambda value: msgspec.Raw(json.dumps(value).encode()))
extensions = st.dictionaries(
    st.from_regex(r"x[a-z0-9]{1,8}", fullmatch=True),
    st.text() | st.integers(-(2**31), 2**31 - 1) | st.booleans(),
    max_size=3,
)
events = st.builds(
    Event,
    id=text,
    source=text,
    type=text,
    subject=optional,
    time=optional,
    partitionkey=optional,
    sequence=optional,
    wisphops=st.integers(0, 20),
    data=data,
    extensions=extensions,
)


@given(st.lists(events, min_size=1, max_size=5))
def test_frame_gives_back_its_events(sent: list[Event]) -> None:
    """A frame's events come out as they went in, extensions included."""
    frame = cloudevent.encode_frame([cloudevent.encode(event) for event in sent])
    assert [cloudevent.decode(raw) for raw in cloudevent.decode_frame(frame)] == sent


@given(events)
def test_encoded_event_is_a_structured_cloudevent(event: Event) -> None:
    """What is written says its specversion and holds each extension as an attribute of its own."""
    members = json.loads(cloudevent.encode(event))
    assert members["specversion"] == "1.0"
    assert "extensions" not in members
    assert event.extensions.items() <= members.items()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('{"specversion":"0.3","id":"1","source":"s","type":"t"}', "specversion|0.3"),
        ('{"specversion":"1.0","id":"","source":"s","type":"t"}', "id is empty"),
        ('{"specversion":"1.0","id":"1","type":"t"}', "source"),
        ('{"specversion":"1.0","id":"1","source":"s","type":"t","x":{}}', "object"),
        ("5", "object"),
    ],
)
def test_what_is_no_event_is_refused(text: str, named: str) -> None:
    """A wrong version, an empty or missing attribute and a structured extension are refused with a sentence that names it."""
    with pytest.raises(ValueError, match=named):
        cloudevent.decode(text.encode())
