"""The decoder of pgoutput, on bytes."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wisp_events.sources.pgoutput import Commit, Decoder
from wisp_events.sources.rows import Begin, Change, Malformed, Missing, Relation, Truncate

ORDERS = (
    b"R\x00\x00\x40\x01public\0orders\0d\x00\x02"
    b"\x01id\0\x00\x00\x00\x17\xff\xff\xff\xff"
    b"\x00note\0\x00\x00\x00\x19\xff\xff\xff\xff"
)  # fmt: skip


def decoder() -> Decoder:
    """One that knows the table."""
    made = Decoder()
    assert isinstance(made.decode(ORDERS), Relation)
    return made


def row(*values: bytes | Missing | None) -> bytes:
    """A row image."""
    return struct.pack(">H", len(values)) + b"".join(map(column, values))


def column(value: bytes | Missing | None) -> bytes:
    """One value of it."""
    if isinstance(value, bytes):
        return b"t" + struct.pack(">I", len(value)) + value
    return b"n" if value is None else b"u"


def test_a_transactions_frame() -> None:
    """Begin and Commit carry the positions, and the time as Unix microseconds."""
    made = decoder()
    assert made.decode(b"B" + struct.pack(">QqI", 5, 1, 7)) == Begin(5, 946_684_800_000_001)
    assert made.decode(b"C\0" + struct.pack(">QQq", 5, 6, 1)) == Commit(5, 6)
    assert made.decode(b"O\0\0\0\0\0\0\0\x01origin\0") is None


def test_a_relation() -> None:
    """Name, replica identity and columns, with those of the identity marked."""
    found = Decoder().decode(ORDERS)
    assert isinstance(found, Relation)
    assert (found.oid, found.name, found.replica_identity) == (0x4001, "public.orders", "d")
    assert [(column.name, column.identity, column.label) for column in found.columns] == [
        ("id", True, b'"id":'),
        ("note", False, b'"note":'),
    ]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (b"IN" + row(b"1", None), ("insert", None, False, (b"1", None))),
        (b"UN" + row(b"1", Missing.UNCHANGED), ("update", None, False, (b"1", Missing.UNCHANGED))),
        (b"UK" + row(b"1", None) + b"N" + row(b"2", b""), ("update", (b"1", None), True, (b"2", b""))),
        (b"UO" + row(b"1", b"a") + b"N" + row(b"1", b"b"), ("update", (b"1", b"a"), False, (b"1", b"b"))),
        (b"DK" + row(b"1", None), ("delete", (b"1", None), True, None)),
        (b"DO" + row(b"1", b"a"), ("delete", (b"1", b"a"), False, None)),
    ],
)
def test_row_changes(
    message: bytes,
    expected: tuple[object, ...],
) -> None:
    """Each kind of change, with what the server sent of the old row."""
    found = decoder().decode(message[:1] + b"\x00\x00\x40\x01" + message[1:])
    assert isinstance(found, Change)
    assert (found.operation, found.old, found.old_is_key, found.new) == expected


def test_truncate_names_every_table() -> None:
    """One message may empty several."""
    found = decoder().decode(b"T" + struct.pack(">IBII", 2, 0, 0x4001, 0x4001))
    assert isinstance(found, Truncate)
    assert [relation.name for relation in found.relations] == ["public.orders"] * 2


def test_what_is_cut_off_anywhere_is_malformed() -> None:
    """No prefix of a message decodes, or leaves the decoder worse than before."""
    whole = b"U\x00\x00\x40\x01O" + row(b"1", b"a") + b"N" + row(b"1", b"bc")
    made = decoder()
    for message in (whole, ORDERS, b"B" + bytes(20), b"C" + bytes(25), b"T\0\0\0\x01\0\x00\x00\x40\x01"):
        for length in range(1, len(message)):
            with pytest.raises(Malformed):
                made.decode(message[:length])
    assert isinstance(made.decode(whole), Change)


@given(st.binary())
def test_any_bytes_decode_or_are_malformed(message: bytes) -> None:
    """Nothing but Malformed is ever raised."""
    made = decoder()
    for one in (message, message[:1] + b"\x00\x00\x40\x01" + message[1:]):
        try:
            made.decode(one)
        except Malformed:
            continue


@given(st.lists(st.one_of(st.binary(), st.none(), st.just(Missing.UNCHANGED)), min_size=2, max_size=2))
def test_rows_round_trip(values: list[bytes | Missing | None]) -> None:
    """Whatever bytes the columns hold, they come out as they went in."""
    found = decoder().decode(b"I\x00\x00\x40\x01N" + row(*values))
    assert isinstance(found, Change)
    assert found.new == tuple(values)
