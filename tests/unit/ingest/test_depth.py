"""Events that nest more deeply than the log's readers follow."""

from collections.abc import Callable

import msgspec
import pytest
from wisp_api import cloudevent
from wisp_api.cloudevent import Event
from wisp_api.route import DeadLetter
from wisp_events import log
from wisp_events.ingest import doors, letters, posted


def deepest(takes: Callable[[int], object]) -> int:
    """The greatest depth at which this raises nothing."""
    taken, refused = 1, 100_000
    while refused - taken > 1:
        depth = (taken + refused) // 2
        try:
            takes(depth)
        except (ValueError, RecursionError):
            refused = depth
        else:
            taken = depth
    return taken


def nested(depth: int) -> Event:
    """An event as deep."""
    return Event(id="deep", source="s", type="t", data=msgspec.Raw(b"[" * depth + b"]" * depth))


def test_the_log_takes_nothing_that_it_could_not_be_read_out_of() -> None:
    """What is taken is read in a frame with others, in a letter, and on a deeper stack; else all of the frame would be lost with it."""
    depth = deepest(lambda depth: log.encode(nested(depth)))
    frame = cloudevent.encode_frame([log.encode(nested(depth)), log.encode(nested(1))])
    assert len(cloudevent.decode_frame(b"[" * 40 + frame + b"]" * 40)) == 1
    alone = deepest(lambda depth: cloudevent.decode(cloudevent.encode(nested(depth))))
    with pytest.raises(log.EventTooLarge, match="event deep nests too deeply for the log"):
        log.encode(nested(alone))


def test_a_door_refuses_an_event_that_only_it_could_read() -> None:
    """The sender is told, in the event's place."""

    def post(depth: int) -> list[Event | str]:
        body = b'{"specversion":"1.0","id":"deep","source":"s","type":"t","data":' + b"[" * depth + b"]" * depth + b"}"
        found = posted.events([(b"content-type", b"application/cloudevents+json")], body)
        if isinstance(found[0], str):
            raise ValueError(found[0])  # noqa: TRY004 - it is a sentence about the value
        return found

    [event] = post(deepest(post))
    assert isinstance(event, Event)
    with pytest.raises(ValueError, match="nests too deeply for the log"):
        doors.entry("shop", "orders", 1, event)


def test_a_letter_that_nests_too_deeply_hides_no_other() -> None:
    """It is shown as what it is, and can be dropped."""
    letter = DeadLetter(reason="Rejected", message="no", time="t", namespace="shop", event=msgspec.Raw(b"[" * 100_000))
    shown = letters._decode("shop", msgspec.json.encode(letter))  # noqa: SLF001 - as what the streams hold is read
    assert (shown.reason, shown.event) == ("Malformed", None)
