"""WebSocket's frames without sockets: what one side writes the other reads, however it is cut, and nonsense never passes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wisp_runtime.websocket import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    TEXT,
    WebSocketError,
    WebSocketReader,
    decode_close,
    encode,
    encode_close,
    unmask,
)

MOST = 300
MASK = b"\x11\x80\xff\x07"


def client_frame(opcode: int, payload: bytes, *, last: bool = True) -> bytes:
    """Make what a client sends of what a server would: the same, masked."""
    made = bytearray(encode(opcode, payload))
    head = len(made) - len(payload)
    if not last:
        made[0] &= 0x7F
    made[1] |= 0x80
    return bytes(made[:head]) + MASK + unmask(payload, MASK)


def read(data: bytes, cuts: list[int]) -> list[tuple[int, bytes]]:
    """Read bytes that arrive in pieces."""
    reader = WebSocketReader(MOST)
    messages = []
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for begin, end in pairwise(places):
        reader.feed(data[begin:end])
        while (message := reader.take()) is not None:
            messages.append(message)
    assert reader.held <= MOST + 14
    return messages


texts = st.text(max_size=70).map(str.encode).map(lambda data: (TEXT, data))
binaries = st.binary(max_size=MOST).map(lambda data: (BINARY, data))
pings = st.binary(max_size=125).map(lambda data: (PING, data))


@given(
    st.lists(st.one_of(texts, binaries, pings), max_size=6),
    st.lists(st.integers(0, 2000), max_size=8),
    st.integers(1, 200),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_messages_come_out_as_they_went_in(messages: list[tuple[int, bytes]], cuts: list[int], step: int) -> None:
    """Whatever the messages, their fragments and the pieces they arrive in: the same messages, in their order."""
    data = b""
    for kind, payload in messages:
        if kind == PING:
            data += client_frame(kind, payload)
            continue
        parts = [payload[at : at + step] for at in range(0, len(payload), step)] or [b""]
        for number, part in enumerate(parts):
            data += client_frame(CONTINUATION if number else kind, part, last=number == len(parts) - 1)
    assert read(data, cuts) == messages


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=4))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_nonsense_is_refused_or_read(data: bytes, cuts: list[int]) -> None:
    """Any bytes are messages within the limits or a ``WebSocketError``, wherever they are cut: nothing else."""
    try:
        whole: object = read(data, [])
    except WebSocketError as error:
        whole = error.code
    try:
        cut: object = read(data, cuts)
    except WebSocketError as error:
        cut = error.code
    assert whole == cut


@given(st.integers(1000, 4999), st.text(max_size=200))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_close_frame_is_one_that_may_be_sent(code: int, reason: str) -> None:
    """Whatever code and reason a function gives, the frame is short enough, in UTF-8, with a code that may be sent."""
    made = encode_close(code, reason)
    assert made[0] == 0x80 | CLOSE
    assert made[1] == len(made) - 2 <= 125
    read_code, text = decode_close(made[2:])
    assert read_code in (code, 1005)
    assert reason.encode("utf-8", "replace").decode().startswith(text)


@given(st.binary(max_size=70), st.binary(min_size=4, max_size=4))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_unmasking_is_exclusive_or(data: bytes, mask: bytes) -> None:
    """Each byte is exclusive-or the mask's in turn."""
    assert unmask(data, mask) == bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))


def test_a_long_message_is_refused_by_its_head() -> None:
    """A message that says it is too long is refused before it has come."""
    reader = WebSocketReader(MOST)
    reader.feed(client_frame(BINARY, bytes(MOST + 1))[:8])
    with pytest.raises(WebSocketError, match="more than 300 bytes") as caught:
        reader.take()
    assert caught.value.code == 1009
