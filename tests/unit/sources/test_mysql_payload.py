"""Transactions that MySQL compressed: what they hold is read one event at a time, what can't be read is said."""

import struct
import sys
import tracemalloc
from typing import Final

import pytest
from wisp_events.sources import binlog_payload, mysql_session
from wisp_events.sources.binlog import Decoder, End
from wisp_events.sources.mysql_session import Packets
from wisp_events.sources.rows import Malformed

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

XID: Final = 16


def an_event(kind: int, body: bytes, length: int = 0) -> bytes:
    """An event with its header, which tells this length or its own."""
    return struct.pack("<IBIIIH", 7, kind, 1, length or 19 + len(body), 0, 0) + body


def payload(held: bytes, compression: int = 0) -> bytes:
    """An event that holds others: numbered fields (size, way, size before), their end, and what they speak of."""
    fields = b"\2" + (b"\1\0" if compression == 0 else b"\3\xfc" + struct.pack("<H", compression))
    return an_event(40, b"\1\5\xfd\1\2\3\4" + fields + b"\3\1\x09\0" + held)


EVENTS: Final = [an_event(2, b"a" * 3000), an_event(XID, bytes(8))]


@pytest.mark.parametrize(
    "event",
    [
        payload(zstd.compress(b"".join(EVENTS))),
        payload(zstd.compress(EVENTS[0]) + zstd.compress(EVENTS[1])),
        payload(b"".join(EVENTS), compression=255),
    ],
    ids=["one frame", "two frames", "not compressed"],
)
def test_the_events_within_are_those_that_were_put_in(event: bytes) -> None:
    """In their order and to the byte, however they are packed."""
    decoder = Decoder({})
    assert list(decoder.unpack(event)) == EVENTS
    assert decoder.decode(EVENTS[1]) == End()


def test_checksums_end_the_outer_events_alone() -> None:
    """Where the server adds them."""
    decoder = Decoder({})
    form = an_event(15, bytes(60) + b"\1" + b"sums")
    assert list(decoder.unpack(form)) == [form]
    decoder.decode(form)
    assert list(decoder.unpack(EVENTS[1] + b"sums")) == [EVENTS[1]]
    assert list(decoder.unpack(payload(zstd.compress(b"".join(EVENTS))) + b"sums")) == EVENTS


@pytest.mark.parametrize(
    ("event", "read", "why"),
    [
        (payload(zstd.compress(b"".join(EVENTS))[:-9]), 0, "ended before"),
        (payload(zstd.compress(b"".join(EVENTS)[:-1])), 1, "cut off"),
        (payload(zstd.compress(EVENTS[0] + b"rest")), 1, "no header"),
        (payload(zstd.compress(EVENTS[0] + an_event(2, b"", 5))), 1, "no header"),
        (payload(b"no frame of zstd, whatever it is"), 0, "Zstandard"),
        (payload(EVENTS[0], compression=300), 0, "a way"),
        (an_event(40, b""), 0, "compressed transaction can't be read"),
        (an_event(40, b"\1", length=1000), 0, "it has"),
    ],
    ids=[
        "a frame's end",
        "an event's end",
        "its header",
        "its length",
        "another format",
        "another way",
        "fields",
        "itself",
    ],
)
def test_what_cant_be_read_is_refused_behind_what_can(event: bytes, read: int, why: str) -> None:
    """With its reason; the events before it are told."""
    found: list[bytes] = []
    with pytest.raises(Malformed, match=why):
        found.extend(Decoder({}).unpack(event))
    assert len(found) <= read


def test_memory_is_bounded_whatever_is_within(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an event that is too large the header is told, so that it is refused by itself; those behind it are read."""
    monkeypatch.setattr(binlog_payload, "LARGEST_BYTES", 2**20)
    large = an_event(30, bytes(2**25))
    event = payload(zstd.compress(large + EVENTS[1]))
    tracemalloc.start()
    decoder = Decoder({})
    head, last = decoder.unpack(event)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**23
    assert (head, last) == (large[:19], EVENTS[1])
    with pytest.raises(Malformed, match="it has"):
        decoder.decode(head)


def test_of_packets_that_are_too_large_the_beginning_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """What follows them is whole."""
    monkeypatch.setattr(mysql_session, "LARGEST_BYTES", 0xFFFFFF)
    packets, most = Packets(), b"\xff\xff\xff\0" + bytes(0xFFFFFF)
    kept = [len(one) for part in [most] * 2 + [b"\1\0\0\0y\1\0\0\0z"] for one in packets.feed(part)]
    assert kept == [0xFFFFFF, 1]
