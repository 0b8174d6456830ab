"""Changes of documents -> events: values, ids, and where a reader begins."""

import contextlib
import datetime as dt
import json
from collections.abc import Callable
from typing import Any, cast
from uuid import UUID

import bson
import pytest
from bson import DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.binary import Binary, UuidRepresentation
from bson.code import Code
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.datetime_ms import DatetimeMS
from hypothesis import given
from hypothesis import strategies as st
from pymongo.errors import OperationFailure
from wisp_api import conditions
from wisp_events.sources.mongodb_events import Mapper, epoch_of
from wisp_events.sources.mongodb_position import TOKENS_BYTES, Book, Part, Position, Positions, after_gap, begin, go_on
from wisp_events.sources.mongodb_session import connect, connect_blocking, refusal
from wisp_events.sources.mongodb_values import decode, to_json
from wisp_events.sources.reader import Trouble
from wisp_events.sources.row_events import Table
from wisp_events.sources.row_given import Given
from wisp_events.sources.rows import Begin, Malformed

MAPPER = Mapper("shop", "shop-db", "test.names", 0x65000000)
TOKEN = "8262E2EA1F000000022B022C0100296E5A1004A8C1F5A7C9A84B0F8F4D2B6E2C3A8E1D46645F6964006462E2EA1F"
OID = "599af247bb69cd89961c986d"
CODEC: CodecOptions[dict[str, Any]] = CodecOptions(
    uuid_representation=UuidRepresentation.STANDARD, datetime_conversion=DatetimeConversion.DATETIME_AUTO
)


def recorded(operation: str, **members: Any) -> dict[str, Any]:
    """A change as MongoDB's manual shows it, through BSON and back."""
    event = {
        "_id": {"_data": TOKEN},
        "operationType": operation,
        "clusterTime": Timestamp(1_658_940_959, 2),
        "wallTime": dt.datetime(2022, 7, 27, 16, 55, 59, 123000, dt.UTC),
        "ns": {"db": "test", "coll": "names"},
    }
    return decode(bson.encode(event | members, codec_options=CODEC))


VALUES: list[tuple[object, str]] = [
    (ObjectId(OID), f'"{OID}"'),
    (Int64(2**63 - 1), "9223372036854775807"),
    (True, "true"),
    (None, "null"),
    (0.1, "0.1"),
    (float("nan"), '"NaN"'),
    (float("-inf"), '"-Infinity"'),
    (Decimal128("-12345678901234567890.0123456789"), "-12345678901234567890.0123456789"),
    (Decimal128("0E-10"), "0E-10"),
    (Decimal128("NaN"), '"NaN"'),
    (Decimal128("1E+6111"), '"1E+6111"'),
    (dt.datetime(2026, 11, 21, 20, 0, 0, 5000, dt.UTC), '"2026-11-21T20:00:00.005Z"'),
    (dt.datetime(1, 1, 1, tzinfo=dt.UTC), '"0001-01-01T00:00:00.000Z"'),
    (DatetimeMS(-(2**62)), str(-(2**62))),
    (b"\0\xff", '"AP8="'),
    (Binary(b"\1", 128), '"AQ=="'),
    (UUID(int=5), '"00000000-0000-0000-0000-000000000005"'),
    (Regex("^a/b", "ix"), '"/^a/b/ix"'),
    (Timestamp(5, 1), '{"t":5,"i":1}'),
    (Code("f()"), '"f()"'),
    (Code("f()", {"x": 1}), '{"code":"f()","scope":{"x":1}}'),
    (DBRef("names", ObjectId(OID)), f'{{"$ref":"names","$id":"{OID}"}}'),
    (MinKey(), '"MinKey"'),
    (MaxKey(), '"MaxKey"'),
    ({"a.b": [1, {"$c": "ü\u2028"}]}, '{"a.b":[1,{"$c":"ü\u2028"}]}'),
]


@pytest.mark.parametrize(("value", "expected"), VALUES, ids=[type(value).__name__ for value, _ in VALUES])
def test_each_type_has_its_json(value: object, expected: str) -> None:
    """Plain values as other databases', exact where JSON allows it."""
    document = decode(bson.encode({"v": value}, codec_options=CODEC))
    assert to_json(document["v"]).decode() == expected


@given(st.binary(max_size=200))
def test_whatever_comes_is_json_or_malformed(noise: bytes) -> None:
    """No bytes end the reader."""
    with contextlib.suppress(Malformed):
        json.loads(to_json(decode((len(noise) + 5).to_bytes(4, "little") + noise + b"\0")))


@pytest.mark.parametrize("levels", [100, 500, 1500, 100_000])
def test_a_document_that_nests_too_deeply_is_malformed(levels: int) -> None:
    """No server takes one, and what is sent nevertheless is a dead letter, not the end of the reader; what servers take is JSON."""
    document = b"\x05\0\0\0\0"
    for _ in range(levels):
        document = (len(document) + 8).to_bytes(4, "little") + b"\x03a\0" + document + b"\0"
    with contextlib.nullcontext() if levels == 100 else pytest.raises(Malformed):
        assert to_json(decode(document)) == b'{"a":' * levels + b"{}" + b"}" * levels


def test_an_update_has_old_new_and_what_was_changed() -> None:
    """The server's description, by paths; `new` looked up says so."""
    description = {
        "updatedFields": {"email": "alice@10gen.com", "address.city": "Oslo"},
        "removedFields": ["phoneNumber"],
        "truncatedArrays": [{"field": "vacation_time", "newSize": 36}],
    }
    key = {"_id": ObjectId(OID)}
    change = recorded("update", documentKey=key, updateDescription=description, fullDocument={"_id": ObjectId(OID)})
    subject, event = MAPPER.change(change, TOKEN, looked_up=True)
    assert json.loads(bytes(event.data or b"")) == {
        "op": "update",
        "key": {"_id": OID},
        "old": None,
        "new": {"_id": OID},
        "changed": {
            "set": {"email": "alice@10gen.com", "address.city": "Oslo"},
            "unset": ["phoneNumber"],
            "truncated": [{"field": "vacation_time", "size": 36}],
        },
        "lookedUp": True,
    }
    assert subject.startswith("wisp.events.shop.mongodb.shop-db.test.names.")
    assert (event.type, event.subject, event.time) == (
        "dev.wisp.mongodb.update",
        "test.names",
        "2022-07-27T16:55:59.123Z",
    )
    assert event.partitionkey == f'test.names:["{OID}"]'
    assert event.id == event.sequence == f"65000000-{TOKEN}"


def test_a_deleted_document_has_its_pre_image() -> None:
    """`old` is what the server kept; without, it is null."""
    key = {"_id": 1}
    kept = recorded("delete", documentKey=key, fullDocumentBeforeChange={"_id": 1, "a": 2})
    assert json.loads(bytes(MAPPER.change(kept, TOKEN, looked_up=False)[1].data or b""))["old"] == {"_id": 1, "a": 2}
    bare = recorded("delete", documentKey=key)
    assert json.loads(bytes(MAPPER.change(bare, TOKEN, looked_up=True)[1].data or b"")) == {
        "op": "delete",
        "key": {"_id": 1},
        "old": None,
        "new": None,
    }


def test_the_key_of_a_sharded_collection_is_the_id_alone() -> None:
    """So a document whose shard key changes keeps its lane."""
    event = MAPPER.change(recorded("delete", documentKey={"region": "n", "_id": 7}), TOKEN, looked_up=False)[1]
    assert event.partitionkey == "test.names:[7]"


def test_a_drop_and_a_rename_are_barriers() -> None:
    """The manual's examples; an invalidate says nothing of documents."""
    drop = MAPPER.barrier(recorded("drop"), TOKEN)
    renamed = MAPPER.barrier(recorded("rename", to={"db": "test", "coll": "old.names"}), TOKEN)
    assert drop
    assert renamed
    assert [event.type for _, event in (drop, renamed)] == ["dev.wisp.mongodb.truncate", "dev.wisp.mongodb.gap"]
    assert [event.partitionkey for _, event in (drop, renamed)] == [None, None]
    assert "renamed to test.old.names" in json.loads(bytes(renamed[1].data or b""))["message"]
    assert MAPPER.barrier(recorded("invalidate"), TOKEN) is None


def test_places_sort_as_they_were_made() -> None:
    """A gap stands before all of its epoch; an id is bounded, however long a document's _id is."""
    gap = MAPPER.gap("why")[1].sequence or ""
    event = MAPPER.change(recorded("insert", documentKey={"_id": 1}), TOKEN + "F" * 5000, looked_up=False)[1]
    assert gap < (event.sequence or "") < f"{MAPPER.epoch + 1:08x}-0"
    assert len(event.id) < 600
    assert epoch_of(gap) == MAPPER.epoch
    assert epoch_of("what") == 0


def test_a_document_of_a_snapshot_stands_between_changes() -> None:
    """Behind those of its moment and before the next one's, with the key of its changes; one that has no JSON is malformed."""
    place, table, begun = (
        "8262E2EA1F000000032B0229296E04",
        Table(frozenset(), ("_id",)),
        Begin(0, 1_709_209_815_123_456),
    )
    rows = [MAPPER.row(place, (bson.encode({"_id": 7, "a": 1}),), table, begun, number) for number in (1, 2)]
    later = MAPPER.change(
        recorded("insert", documentKey={"_id": 7}), TOKEN.replace("00000002", "00000003", 1), looked_up=False
    )[1]
    earlier = MAPPER.change(recorded("insert", documentKey={"_id": 7}), TOKEN, looked_up=False)[1]
    places = [event.sequence or "" for event in (earlier, *rows, later)]
    assert places == sorted(places)
    assert json.loads(bytes(rows[0].data or b"")) == {
        "op": "snapshot",
        "key": {"_id": 7},
        "old": None,
        "new": {"_id": 7, "a": 1},
    }
    assert (rows[0].type, rows[0].time) == ("dev.wisp.mongodb.snapshot", "2024-02-29T12:30:15.123Z")
    assert rows[0].partitionkey == earlier.partitionkey
    for poison in (bson.encode({"a": 1}), b"what"):
        with pytest.raises(Malformed):
            MAPPER.row(place, (poison,), table, begun, 1)


def test_a_later_time_numbers_no_giving_as_an_earlier_one() -> None:
    """Though a collection that was left out for a time has no position; behind a gap nobody has its documents, and the count goes on."""
    first, second = begin("82", [], lost=False), begin("82", [f"{2**31:08x}-{TOKEN}"], lost=False)
    assert second.given.round > first.given.round + 1_000_000
    known = Position(epoch=7, token="82", given=Given({"a": ["1"]}, {"b": {"2": 5}}, 9))
    assert after_gap(known, "83", "why").given == Given(round=9)


def test_a_lost_position_is_a_gap_where_the_log_holds_something() -> None:
    """A collection that is wanted anew begins without one; an epoch is above all that the log holds."""
    held = [f"{2**31:08x}-{TOKEN}"]
    assert begin("82", held, lost=True).pending
    assert begin("82", held, lost=True).epoch == 2**31 + 1
    assert not begin("82", held, lost=False).pending
    assert not begin("82", [], lost=True).pending
    again = after_gap(Position(epoch=2**31, token="82"), "83", "the oplog begins later")
    assert (again.epoch, again.token, again.pending) == (2**31 + 1, "83", True)


def test_a_position_whose_epoch_is_behind_the_log_goes_on_in_a_new_one() -> None:
    """Told in the kept epoch, each change would count as one that the log has; nothing is missing, so there is no gap."""
    kept = Position(epoch=7, token="82")
    found = go_on(kept, [f"{7:08x}-{TOKEN}", f"{2**31:08x}-{TOKEN}"])
    assert found == Position(epoch=2**31 + 1, token="82")
    assert go_on(kept, [f"{7:08x}-{TOKEN}"]) == kept
    assert go_on(kept, []) == kept


def test_a_part_is_kept_while_that_is_begun_which_it_is_a_part_of() -> None:
    """All collections' positions are one message: what is done, forgotten or begun for others takes no room in it, nor is gone on with."""
    begun = Given(begun={"shop.a": {"uid": 1}})
    book = Book(cast("Any", None), Positions(collections={"shop.a": Position(epoch=7, token="82", given=begun)}))
    for ending in (Given({"shop.a": ["uid"]}), Given(begun={"shop.a": {"uid": 1, "other": 2}}), Given()):
        book.note("shop.a", given=begun, part=Part("", {"uid": 1}))
        book.note("shop.a", token="83")
        assert book.collections["shop.a"].part
        book.note("shop.a", given=ending)
        assert not book.collections["shop.a"].part
        book.note("shop.a", part=Part("", {"uid": 1}))
        assert not book.collections["shop.a"].part, "a mark that comes late"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (18, conditions.AUTHENTICATION_FAILED),
        (13, conditions.PERMISSION_DENIED),
        (40573, conditions.CHANGE_STREAMS_OFF),
        (166, conditions.TABLE_NOT_FOUND),
        (91, conditions.SERVER_UNREACHABLE),
    ],
)
def test_a_refusal_has_its_reason(code: int, reason: str) -> None:
    """By the server's number, with its words."""
    trouble = refusal(OperationFailure("it says so", code, {"errmsg": "it says so."}))
    assert trouble.reason == reason
    assert trouble.message.startswith("it says so; ")


def test_a_huge_token_is_not_kept() -> None:
    """The one before is: all collections' tokens are one message of the log; what is read again, the log has."""
    known = {name: Position(epoch=7, token="82") for name in ("shop.a", "shop.b")}
    book = Book(cast("Any", None), Positions(collections=known))
    book.note("shop.a", token="83" * (TOKENS_BYTES // 4))
    assert len(book.collections["shop.a"].token) == TOKENS_BYTES // 2
    book.note("shop.a", token="84" + "0" * (TOKENS_BYTES // 2))
    assert book.collections["shop.a"].token.startswith("83")
    book.note("shop.a", token="85")
    assert book.collections["shop.a"].token == "85"


@pytest.mark.parametrize("kind", [connect, connect_blocking])
async def test_a_password_with_a_slash_is_told_nowhere(kind: Callable[[str], Any]) -> None:
    """The driver would take what stands before it for the server's port, and tell of it."""
    with pytest.raises(Trouble) as told:
        async with kind("mongodb://shop:4711/tword@127.0.0.1:1/"):
            raise AssertionError
    assert told.value.reason == conditions.INVALID_CONNECTION
    assert not {"4711", "tword"} & set(told.value.message.replace("/", " ").split())
