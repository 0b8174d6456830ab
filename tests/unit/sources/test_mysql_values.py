"""What only MySQL's binary log holds, by its specification's bytes: JSON, GTID sets, events; MariaDB's is shown by a real server."""

import contextlib
import json
import struct
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wisp_api import conditions
from wisp_events.sources.binlog import Decoder, End, Hidden, Rows, Start, Truncated
from wisp_events.sources.mysql_ddl import Redefined
from wisp_events.sources.mysql_gtid import Gtid, MariadbSet, MysqlSet
from wisp_events.sources.mysql_json import document
from wisp_events.sources.mysql_session import Packets, Purged, event, parse
from wisp_events.sources.reader import Trouble
from wisp_events.sources.rows import Malformed

ORIGIN = "19d69c1e-ae97-4b8c-a1ef-9e12ba966457"


def encode(value: Any, *, large: bool = False) -> bytes:
    """A document as json_binary.h describes it."""
    kind, body = _encode(value, large=large)
    return bytes([kind]) + body


def _length(number: int) -> bytes:
    found = b""
    while number > 0x7F:
        found += bytes([number & 0x7F | 0x80])
        number >>= 7
    return found + bytes([number])


def _encode(value: Any, *, large: bool) -> tuple[int, bytes]:
    if value is None or isinstance(value, bool):
        return 4, bytes([0 if value is None else 1 if value else 2])
    if isinstance(value, int):
        return (5, struct.pack("<h", value)) if -(2**15) <= value < 2**15 else (9, struct.pack("<q", value))
    if isinstance(value, float):
        return 11, struct.pack("<d", value)
    if isinstance(value, str):
        return 12, _length(len(value.encode())) + value.encode()
    number = "<I" if large else "<H"
    width = struct.calcsize(number)
    keys = [key.encode() for key in value] if isinstance(value, dict) else []
    values = list(value.values()) if isinstance(value, dict) else value
    at = 2 * width + len(keys) * (width + 2) + len(values) * (width + 1)
    head, tail = b"", b""
    for key in keys:
        head += struct.pack(number, at + len(tail)) + struct.pack("<H", len(key))
        tail += key
    for one in values:
        kind, body = _encode(one, large=large)
        if kind in (4, 5):
            head += bytes([kind]) + body.ljust(width, b"\0")
        else:
            head += bytes([kind]) + struct.pack(number, at + len(tail))
            tail += body
    whole = struct.pack(number, len(values)) + struct.pack(number, at + len(tail)) + head + tail
    return (0 if keys or isinstance(value, dict) else 2) + large, whole


documents = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)


@given(documents, st.booleans())
def test_json_documents_are_what_was_stored(value: Any, large: bool) -> None:  # noqa: FBT001
    """In the small and in the large form."""
    assert json.loads(document(encode(value, large=large))) == value


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (246, b"\x04\x02\x8c\x22", b"12.34"),
        (
            12,
            struct.pack("<q", ((((2026 * 13 + 1) << 5 | 31) << 17 | 23 << 12 | 59 << 6 | 58) << 24) + 500),
            b'"2026-01-31T23:59:58.000500"',
        ),
        (10, struct.pack("<q", ((2026 * 13 + 1) << 5 | 31) << 41), b'"2026-01-31"'),
        (11, struct.pack("<q", -((10 << 12 | 5 << 6) << 24)), b'"-10:05:00"'),
        (252, b"\0\xff", b'"AP8="'),
    ],
)
def test_values_that_json_has_no_type_for(kind: int, value: bytes, expected: bytes) -> None:
    """Decimals are numbers, times are text, bytes base64."""
    assert document(b"\x0f" + bytes([kind]) + _length(len(value)) + value) == expected


@given(st.binary(max_size=60))
def test_broken_documents_are_refused(value: bytes) -> None:
    """Whatever the bytes are, it is a document or one of the errors that a row's decoder expects."""
    with contextlib.suppress(ValueError, IndexError, struct.error):
        json.loads(document(value))


def test_values_that_share_a_place_are_refused() -> None:
    """165 kB of a hostile server's would be more than a gigabyte of JSON, and a minute in which nothing else goes on."""
    text = b"\xff\xff\x03" + b"x" * 0xFFFF
    entries = 20_000
    head = struct.pack("<II", entries, 0)
    entry = b"\x0c" + struct.pack("<I", len(head) + 5 * entries)
    with pytest.raises(ValueError, match="share a place"):
        document(b"\x03" + head + entry * entries + text)
    again = b"\x02\0\0"  # an array in itself, many times over
    with pytest.raises(ValueError, match=r"share a place|levels"):
        document(b"\x02" + struct.pack("<HH", 5, 0) + again * 5)


def test_documents_nest_as_deeply_as_the_server_lets_them() -> None:
    """And no deeper."""
    value: Any = 1
    for _ in range(100):
        value = [value]
    assert json.loads(document(encode(value, large=True))) == value
    for _ in range(400):
        value = [value]
    with pytest.raises(ValueError, match="levels"):
        document(encode(value, large=True))


def test_sets_grow_by_transactions() -> None:
    """MySQL's set merges neighbours, in whatever order they come; MariaDB's keeps the last of each domain."""
    mysql = MysqlSet(f"{ORIGIN}:1-3:8-10")
    for number in (5, 4, 11, 20):
        mysql.add(Gtid(ORIGIN, 0, number))
    assert str(mysql) == f"{ORIGIN}:1-5:8-11:20"
    assert mysql.encoded() == struct.pack("<Q", 1) + uuid.UUID(ORIGIN).bytes + struct.pack(
        "<QQQQQQQ", 3, 1, 6, 8, 12, 20, 21
    )
    mariadb = MariadbSet("0-1-5,2-7-1")
    mariadb.add(Gtid("0", 3, 6))
    assert str(mariadb) == "0-3-6,2-7-1"
    for wrong in ("0-1", f"{ORIGIN}:1-", ORIGIN + ":"):
        with pytest.raises(ValueError, match=r"GTID"):
            MysqlSet(wrong) if ":" in wrong else MariadbSet(wrong)


def test_tags_have_intervals_of_their_own() -> None:
    """As MySQL 8.3 writes them and takes them, of a tag in capitals too; a set without any is sent as older servers want it."""
    mysql = MysqlSet(f"{ORIGIN}:1-5:Mine:1-2:other:7, {uuid.UUID(int=1)}:3")
    for number in (3, 4):
        mysql.add(Gtid(f"{ORIGIN}:mine", 0, number))
    assert str(MysqlSet(str(mysql))) == str(mysql)
    assert mysql.covers(MysqlSet(f"{ORIGIN}:2:mine:1-4"))
    assert not mysql.covers(MysqlSet(f"{ORIGIN}:other:1"))
    one = MysqlSet(f"{ORIGIN}:1-3:mine:2")
    source = uuid.UUID(ORIGIN).bytes
    assert one.encoded() == (
        b"\1\2\0\0\0\0\0\1"
        + source
        + b"\0"
        + struct.pack("<QQQ", 1, 1, 4)
        + source
        + b"\x08mine"
        + struct.pack("<QQQ", 1, 2, 3)
    )


def test_sets_cover_what_they_have_all_of() -> None:
    """A reader has come to a position when it has read all transactions of it, in whatever order."""
    have = MysqlSet(f"{ORIGIN}:1-5:8-10")
    have.add(Gtid(ORIGIN, 0, 6))
    assert have.covers(MysqlSet(f"{ORIGIN}:2-6:9"))
    assert not have.covers(MysqlSet(f"{ORIGIN}:5-8"))
    assert not have.covers(MysqlSet(f"{uuid.UUID(int=1)}:1"))
    have.add(Gtid(ORIGIN, 0, 7))
    assert have.covers(MysqlSet(f"{ORIGIN}:1-10"))
    mariadb = MariadbSet("0-1-5,2-7-1")
    assert mariadb.covers(MariadbSet("0-3-5"))
    assert not mariadb.covers(MariadbSet("0-1-6"))
    assert not mariadb.covers(MariadbSet("1-1-1"))


def an_event(kind: int, body: bytes, seconds: int = 7) -> bytes:
    """An event with its header, without a checksum."""
    return struct.pack("<IBIIIH", seconds, kind, 1, 19 + len(body), 0, 0) + body


def statement(text: str, schema: str = "shop") -> bytes:
    """A query event."""
    head = struct.pack("<IIBHH", 1, 0, len(schema), 0, 2)
    return an_event(2, head + b"xx" + schema.encode() + b"\0" + text.encode())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("BEGIN", None),
        ("COMMIT", End()),
        ("SAVEPOINT a", None),
        ("ROLLBACK TO a", None),
        ("CREATE TABLE truncated (id int)", None),
        ("/* a */ alter table t add b int", None),
        ("DROP TABLE t", Redefined((("shop", "t"),), "table {} was dropped with its rows")),
        ("TRUNCATE t", Truncated("shop", "t")),
        ("truncate table `o``d`.`a b`", Truncated("o`d", "a b")),
        (
            "INSERT INTO t VALUES (1)",
            Hidden("a statement was logged as text: set binlog_format to ROW for every session"),
        ),
    ],
)
def test_statements_are_boundaries_definitions_or_hidden_changes(text: str, expected: Any) -> None:
    """Only what changes rows without saying which is a gap."""
    assert Decoder({}).decode(statement(text)) == expected


def test_mysqls_transactions_and_rows() -> None:
    """A GTID begins one; version 2 rows with extra data are read; a table that was not announced is refused."""
    decoder = Decoder({45: "utf8mb4"})
    gtid = an_event(33, b"\1" + uuid.UUID(ORIGIN).bytes + struct.pack("<q", 42) + b"\2" + bytes(16))
    assert decoder.decode(gtid) == Start(Gtid(ORIGIN, 0, 42), 7)
    rows = struct.pack("<IHHH", 9, 0, 0, 5) + b"abc" + b"\2\xff" + b"\0" + struct.pack("<I", 2**32 - 1) + b"\2\0\0\0hi"
    with pytest.raises(Malformed, match="not announced"):
        decoder.decode(an_event(30, rows))
    names = b"\4\5\2id\1b"
    fields = b"\1\1\x80" + names + b"\3\1\x2d" + b"\x08\1\0"
    table = struct.pack("<IHH", 9, 0, 0) + b"\4shop\0\1t\0" + b"\2\3\xfc" + b"\1\4" + b"\2" + fields
    assert decoder.decode(an_event(19, table)) is None
    found = decoder.decode(an_event(30, rows))
    assert isinstance(found, Rows)
    [(_, change)] = found.changes()
    assert (change.operation, change.old, change.new) == ("insert", None, (b"4294967295", b'"hi"'))
    assert [column.identity for column in change.relation.columns] == [True, False]
    assert isinstance(decoder.decode(an_event(34, b"")), Hidden)


def test_a_transactions_tag_belongs_to_its_origin() -> None:
    """Bytes of MySQL 9.7.4's; numbers have one to nine bytes; what has another form is refused."""
    said = "027800000002847ca5027a99033822c5037102e50204f1030000000204080610736f6d655f74616708140a240c7f09fcd23ad4600610a5041283120b"
    body = bytes.fromhex(said)
    begins = Start(Gtid("423ea93d-e61c-11f1-9cb9-02fc00000001:some_tag", 0, 2), 7)
    assert Decoder({}).decode(an_event(42, body)) == begins
    head, tail = body[:29], body[30:]
    for number in (1, 2**20, 2**48, 2**62):
        more = next(n for n in range(9) if n == 8 or number << 1 < 1 << 7 * (n + 1))
        encoded = (number << 1 << min(more + 1, 8) | (1 << more) - 1).to_bytes(more + 1, "little")
        found = Decoder({}).decode(an_event(42, head + encoded + tail))
        assert found == Start(begins.gtid._replace(number=number), 7)
    for wrong in (body[:20], body[:33], body.replace(b"\x06\x10some", b"\x0e\x10some")):
        with pytest.raises(Malformed, match="binary log event 42"):
            Decoder({}).decode(an_event(42, wrong))


def test_packets_are_put_together() -> None:
    """Whatever the pieces are that they come in; one of the greatest size is continued by the next."""
    long = b"x" * 0xFFFFFF
    stream = b"\3\0\0\0abc" + b"\xff\xff\xff\1" + long + b"\1\0\0\2y" + b"\0\0\0\3"
    packets = Packets()
    assert [one for at in range(0, len(stream), 100_000) for one in packets.feed(stream[at : at + 100_000])] == [
        b"abc",
        long + b"y",
        b"",
    ]


def test_the_end_of_a_stream_has_a_reason() -> None:
    """What was purged is told from what can be tried again."""
    assert event(b"\0abc") == b"abc"
    with pytest.raises(Purged, match="purged required"):
        event(b"\xff\xd4\x04#HY000Cannot replicate because the source purged required binary logs.")
    for packet in (b"\xfe\0\0\0\0", b"\xff\xd4\x04#HY000log event entry exceeded max_allowed_packet"):
        with pytest.raises(Trouble) as caught:
            event(packet)
        assert caught.value.reason == conditions.SERVER_UNREACHABLE


@pytest.mark.parametrize(
    "dsn",
    [
        "",
        "postgres://a:b@c",
        "mysql://host",
        "mysql://a:b@c..d",
        f"mysql://a:b@{'c' * 64}",
        "mysql://a:b@c:port",
        "mysql://a:b@c?x=1",
        "mysql://a:b@c?ssl-mode=maybe",
    ],
)
def test_a_wrong_dsn_is_refused_without_being_quoted(dsn: str) -> None:
    """The message shows the form, never what was written."""
    with pytest.raises(Trouble) as caught:
        parse(dsn)
    assert caught.value.reason == conditions.INVALID_CONNECTION
    assert not dsn or dsn not in caught.value.message


def test_a_dsn_is_taken_apart() -> None:
    """Escapes in user and password are undone; without a port it is 3306."""
    found = parse("mysql://us%40er:p%2Fw@db.shop")
    assert found == {"host": "db.shop", "port": 3306, "user": "us@er", "password": "p/w", "ssl_disabled": True}
    assert parse("mysql://a:b@[::1]:33?ssl-mode=verify")["ssl"].check_hostname
