"""What AWS Lambda's and Debezium's handlers are given."""

import json
from decimal import Clamped, Context, Decimal, Inexact, Overflow, Rounded, Underflow
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wisp_api import cloudevent, route
from wisp_api.cloudevent import Event
from wisp_api.route import Route
from wisp_events.router.formats.form import Form, form
from wisp_events.router.plan import InvalidRoute, compile_route
from wisp_events.router.schedule import Item
from wisp_events.sources import s3_objects
from wisp_events.sources.s3_objects import Entry

ENCODER = msgspec.json.Encoder(decimal_format="number")
EXAMPLES = Path(__file__).parents[3] / "examples"
STORED = 1767268806.5
BOTO = Context(Emin=-128, Emax=126, prec=38, traps=[Clamped, Overflow, Inexact, Rounded, Underflow])
ROUTE = Route(namespace="shop", name="sub", uid="u", generation=1, stream="s", subjects=["a"])


def made(name: str) -> Form:
    """A format."""
    found = form(msgspec.structs.replace(ROUTE, format=name))
    assert found
    return found


def record(name: str, event: Event) -> Any:
    """An event in a format."""
    return json.loads(made(name).record(event, STORED))


def sample(path: str) -> Event:
    """An example's event."""
    return cloudevent.decode((EXAMPLES / path).read_bytes())


def row(data: dict[str, Any] | bytes, kind: str = "postgres", **attributes: Any) -> Event:
    """A row's event."""
    told = {"op": "update", "key": {"id": 1}, "old": None, "new": None}
    raw = data if isinstance(data, bytes) else json.dumps(told | data).encode()
    attributes = {"id": "69565280-0000000001952c10-00000002", "time": "2026-01-01T12:00:05.25Z"} | attributes
    return Event(
        source=f"urn:wisp:{kind}:shop:shop-db",
        type=f"dev.wisp.{kind}.{json.loads(raw)['op']}",
        subject="public.orders",
        sequence=attributes["id"],
        data=msgspec.Raw(raw),
        **attributes,
    )


def plain(value: dict[str, Any]) -> Any:
    """The value that DynamoDB's typed JSON stands for, as boto3 reads it."""
    [(kind, told)] = value.items()
    if kind == "N":
        return BOTO.create_decimal(told)
    if kind == "M":
        return {name: plain(one) for name, one in told.items()}
    if kind == "L":
        return [plain(one) for one in told]
    assert isinstance(told, {"S": str, "BOOL": bool, "NULL": bool}[kind])
    return None if kind == "NULL" else told


def test_object_is_a_record_of_s3() -> None:
    """A handler reads bucket, key and event name as on AWS; the key is encoded as AWS encodes it, whatever the server did."""
    event = sample("thumbnail/events/object-created.json")
    told = record(route.S3, event)
    assert (told["eventSource"], told["eventVersion"], told["eventName"]) == ("aws:s3", "2.1", "ObjectCreated:Put")
    assert (told["awsRegion"], told["eventTime"], told["eventID"]) == ("us-east-1", event.time, event.id)
    sent = json.loads(bytes(event.data or b""))["s3"]
    assert told["s3"]["bucket"] == sent["bucket"]
    assert {**told["s3"]["object"], "key": ""} == {**sent["object"], "key": ""}
    assert told["s3"]["configurationId"] == sent["configurationId"]


def test_listed_object_is_a_created_one() -> None:
    """An object that a listing tells of has S3's name for one that is there, and a sequencer like the server's own events."""
    [listed] = s3_objects.events(
        "minio", "photos", [Entry("in/a b.jpg", "e", 7, "2026-01-01T12:00:00.000Z")], ceph=False
    )
    told = record(route.S3, listed)
    assert told["eventName"] == "ObjectCreated:Put"
    wanted = {"key": "in/a+b.jpg", "size": 7, "eTag": "e", "sequencer": (listed.sequence or "").lstrip("0")}
    assert told["s3"]["object"] == wanted


@pytest.mark.parametrize(
    ("key", "encoded"),
    [
        ("in/red flower.jpg", "in/red+flower.jpg"),
        ("a+b%2Fc", "a%2Bb%252Fc"),
        ("bl\u00e5b\u00e6r", "bl%C3%A5b%C3%A6r"),
    ],
)
def test_keys_are_encoded_as_aws_does(key: str, encoded: str) -> None:
    """`unquote_plus`, which AWS' documentation tells to use, gives the key, and slashes stay."""
    data = msgspec.Raw(b'{"eventName":"ObjectRemoved:Delete","s3":{"bucket":{"name":"b"},"object":{"key":"?"}}}')
    told = record(route.S3, Event(id="1", source="s", type="t", subject=key, data=data))
    assert told["s3"]["object"]["key"] == encoded
    assert unquote_plus(encoded) == key
    assert told["s3"]["bucket"]["arn"] == "arn:aws:s3:::b"
    assert told["userIdentity"] == {"principalId": ""}


def test_row_is_a_record_of_dynamodb() -> None:
    """Operation, key and rows before and after, in DynamoDB's typed JSON; the event's id is the sequence number."""
    old = b'{"id":7,"total":129.90,"tags":["a",null],"more":{"ok":true}}'
    event = row(b'{"op":"update","key":{"id":7},"old":%b,"new":{"id":7,"total":1e2}}' % old)
    told = record(route.DYNAMODB, event)
    assert told == {
        "eventID": event.id,
        "eventName": "MODIFY",
        "eventVersion": "1.1",
        "eventSource": "aws:dynamodb",
        "awsRegion": "us-east-1",
        "dynamodb": {
            "ApproximateCreationDateTime": 1767268805,
            "Keys": {"id": {"N": "7"}},
            "NewImage": {"id": {"N": "7"}, "total": {"N": "1e2"}},
            "OldImage": {
                "id": {"N": "7"},
                "total": {"N": "129.90"},
                "tags": {"L": [{"S": "a"}, {"NULL": True}]},
                "more": {"M": {"ok": {"BOOL": True}}},
            },
            "SequenceNumber": event.id,
            "SizeBytes": len(event.data or b""),
            "StreamViewType": "NEW_AND_OLD_IMAGES",
        },
        "eventSourceARN": "arn:wisp:dynamodb:us-east-1:shop:table/public.orders/stream/shop-db",
    }


ONE, TWO = {"id": 1, "n": 0}, {"id": 2, "n": 0}


@pytest.mark.parametrize(
    ("data", "name", "images", "op"),
    [
        ({"op": "insert", "new": ONE}, "INSERT", {"NewImage"}, "c"),
        ({"op": "snapshot", "new": ONE}, "INSERT", {"NewImage"}, "r"),
        ({"op": "update", "new": ONE}, "MODIFY", {"NewImage"}, "u"),
        ({"op": "update", "old": ONE, "new": ONE}, "MODIFY", {"NewImage", "OldImage"}, "u"),
        ({"op": "update", "old": ONE, "new": TWO}, "REMOVE", {"OldImage"}, "d"),
        ({"op": "update", "old": ONE, "new": TWO, "key": {"id": 2}}, "INSERT", {"NewImage"}, "c"),
        ({"op": "update", "old": {"id": 1}, "new": TWO}, "REMOVE", {"OldImage"}, "d"),
        ({"op": "update", "old": ONE, "new": TWO, "key": {}}, "MODIFY", {"NewImage", "OldImage"}, "u"),
        ({"op": "delete", "old": ONE}, "REMOVE", {"OldImage"}, "d"),
        ({"op": "truncate", "key": {}}, "TRUNCATE", set(), "t"),
        ({"op": "gap", "key": {}, "message": "lost"}, "GAP", set(), "m"),
    ],
)
def test_operations(data: dict[str, Any], name: str, images: set[str], op: str) -> None:
    """Each operation has its name in each format; a change of key is the end of one row and the beginning of another."""
    told = record(route.DYNAMODB, row(data))
    assert told["eventName"] == name
    assert images == told["dynamodb"].keys() & {"NewImage", "OldImage"}
    assert told.get("message") == data.get("message")
    envelope = record(route.DEBEZIUM, row(data))
    assert envelope["op"] == op
    assert (envelope["after"] is not None, envelope["before"] is not None) == (
        "NewImage" in images,
        "OldImage" in images,
    )


values = st.recursive(
    st.none()
    | st.booleans()
    | st.text()
    | st.integers(-(2**63), 2**64 - 1)
    | st.integers(-(10**60), 10**60).map(Decimal)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.decimals(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def same(told: Any, meant: Any) -> bool:
    """Whether a value read back is the one that was in the row, a number that DynamoDB can't hold being text."""
    if isinstance(meant, dict):
        return told.keys() == meant.keys() and all(same(told[name], one) for name, one in meant.items())
    if isinstance(meant, list):
        return len(told) == len(meant) and all(same(*pair) for pair in zip(told, meant, strict=True))
    if isinstance(meant, int | Decimal) and not isinstance(meant, bool):
        return bool(Decimal(told) == meant)
    return bool(told == meant and type(told) is type(meant))


@given(st.dictionaries(st.text(), values, max_size=5))
def test_every_value_is_dynamodbs_typed_json(new: dict[str, Any]) -> None:
    """Whatever JSON a row holds, boto3 reads the record, and finds in it what the row held."""
    raw = ENCODER.encode(new)
    event = row(b'{"op":"insert","key":{},"old":null,"new":%b}' % raw)
    image = record(route.DYNAMODB, event)["dynamodb"]["NewImage"]
    meant = json.loads(raw, parse_float=Decimal)
    assert same({name: plain(one) for name, one in image.items()}, meant)


@pytest.mark.parametrize(
    ("digits", "kind"),
    [
        ("9" * 38, "N"),
        ("-" + "9" * 38, "N"),
        ("1" + "0" * 38, "S"),
        ("0." + "1" * 38, "N"),
        ("1." + "1" * 38, "S"),
        ("1e125", "N"),
        ("1e130", "S"),
        ("1E-200", "S"),
        ("1e99999999999999999999", "S"),
        ("-0.0", "N"),
    ],
)
def test_numbers_beyond_dynamodbs_are_text(digits: str, kind: str) -> None:
    """A number is `N` exactly where DynamoDB can hold all its digits."""
    event = row(b'{"op":"insert","key":{},"new":{"n":%b}}' % digits.encode())
    assert record(route.DYNAMODB, event)["dynamodb"]["NewImage"] == {"n": {kind: digits}}


def test_envelope_is_debeziums() -> None:
    """Rows as they stand in the log, and where the change comes from."""
    event = sample("orders/events/update.json")
    told = record(route.DEBEZIUM, event)
    data = json.loads(bytes(event.data or b""))
    assert told == {
        "before": data["old"],
        "after": data["new"],
        "source": {
            "version": "wisp",
            "connector": "postgresql",
            "name": "shop-db",
            "ts_ms": 1767268805250,
            "snapshot": "false",
            "db": "shop-db",
            "schema": "public",
            "table": "orders",
            "lsn": 0x1952C10,
            "eventId": event.id,
        },
        "op": "u",
        "ts_ms": 1767268806500,
        "transaction": None,
    }


def test_what_the_server_did_not_send_is_named_in_the_envelope() -> None:
    """Debezium's placeholder stands for a value stored out of line that did not change."""
    told = record(route.DEBEZIUM, row({"new": {"id": 1}, "unchanged": ["text"]}))
    assert told["after"] == {"id": 1, "text": "__debezium_unavailable_value"}


def test_envelopes_of_other_databases() -> None:
    """MySQL's names its database; MongoDB's has documents as text, and what an update changed."""
    mysql = record(route.DEBEZIUM, row({"op": "insert", "new": ONE}, "mysql"))["source"]
    assert (mysql["connector"], mysql["db"], mysql["table"]) == ("mysql", "public", "orders")
    assert "lsn" not in mysql
    changed = {"set": {"n": 1}, "unset": ["m"]}
    told = record(route.DEBEZIUM, row({"key": {"_id": 1}, "new": {"_id": 1}, "changed": changed}, "mongodb"))
    assert told["after"] == '{"_id":1}'
    assert told["updateDescription"] == {
        "updatedFields": '{"n": 1}',
        "removedFields": ["m"],
        "truncatedArrays": None,
    }
    assert (told["source"]["db"], told["source"]["collection"]) == ("public", "orders")
    snapshot = record(route.DEBEZIUM, row({"op": "snapshot", "new": ONE}))
    assert (snapshot["op"], snapshot["source"]["snapshot"]) == ("r", "true")


def test_tick_is_eventbridges_scheduled_event() -> None:
    """A tick is what EventBridge sends, or the data that the Subscription gives it."""
    tick = Event(
        id="1", source="urn:wisp:schedule:shop:report", type="t", subject="report", time="2026-01-01T12:00:00Z"
    )
    assert record(route.TICK, tick) == {
        "version": "0",
        "id": "1",
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": "shop",
        "time": "2026-01-01T12:00:00Z",
        "region": "us-east-1",
        "resources": ["arn:wisp:events:us-east-1:shop:rule/report"],
        "detail": {},
    }
    assert record(route.TICK, msgspec.structs.replace(tick, data=msgspec.Raw(b'{"report":7}'))) == {"report": 7}


@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        ({"data": msgspec.Raw(b'{"total": 1.50}')}, {"total": 1.5}),
        ({"data_base64": "AAE="}, "AAE="),
        ({}, {}),
    ],
)
def test_posted_event_is_eventbridges(fields: dict[str, Any], detail: Any) -> None:
    """Type, source and data of an event of a bus stand where EventBridge has them."""
    told = record(route.EVENTBRIDGE, Event(id="1", source="/checkout", type="order.placed", subject="7", **fields))
    assert (told["detail-type"], told["source"], told["resources"]) == ("order.placed", "/checkout", ["7"])
    assert (told["id"], told["time"], told["detail"]) == ("1", "2026-01-01T12:00:06.500Z", detail)


@pytest.mark.parametrize(
    "data", [None, b"[]", b'{"op":1}', b'{"op":"insert","key":{},"new":' + b"[" * 5000 + b"]" * 5000 + b"}"]
)
@pytest.mark.parametrize("name", [route.S3, route.DYNAMODB, route.DEBEZIUM])
def test_what_can_not_be_told_is_buried(name: str, data: bytes | None) -> None:
    """An event that no record can be made of weighs nothing and becomes a dead letter with the reason."""
    event = Event(id="1", source="s", type="t", data=None if data is None else msgspec.Raw(data))
    item = Item(1, 0, event, msgspec.Raw(b"{}"), STORED, "")
    assert made(name).length(item) == 0
    assert item.burial
    assert item.burial[0] == "Malformed"


def test_rows_of_too_many_values_are_refused() -> None:
    """Making a record never takes the router's time for more than half a million values."""
    data = b'{"op":"insert","key":{},"new":{"a":[%b]}}' % b",".join([b"1"] * 600_000)
    with pytest.raises(ValueError, match="more than 500,000 values"):
        made(route.DYNAMODB).record(row(data), STORED)


def test_bodies() -> None:
    """Records stand under `Records`, alone or together, where AWS has them there; else an event is the body, and a batch a list."""
    one, two = b'{"n":1}', b'{"n":2}'
    assert made(route.S3).alone(one) == b'{"Records":[{"n":1}]}'
    assert made(route.DYNAMODB).together([one, two]) == b'{"Records":[{"n":1},{"n":2}]}'
    assert made(route.TICK).alone(one) == one
    assert made(route.DEBEZIUM).together([one]) == b'[{"n":1}]'


def test_routes_of_before_are_cloudevents() -> None:
    """A route that names no format is CloudEvents'; one that names an unknown format is not executed."""
    old = msgspec.json.decode(msgspec.json.encode(ROUTE), type=dict[str, Any])
    old.pop("format")
    assert compile_route(msgspec.json.encode(old)).form is None
    with pytest.raises(InvalidRoute, match="format is 'avro'; write cloudevent, s3, dynamodb"):
        compile_route(msgspec.json.encode(old | {"format": "avro"}))
