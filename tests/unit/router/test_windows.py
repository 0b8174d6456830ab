"""Windows: which one an event belongs to, what a call says and an answer means."""

import json

import msgspec
import pytest
from wisp_api.cloudevent import Event
from wisp_api.route import Route
from wisp_events.router import windows
from wisp_events.router.cursor import Cursor, Tumbling
from wisp_events.router.plan import InvalidRoute, compile_route
from wisp_events.router.schedule import Item

ROUTE = Route(namespace="shop", name="totals", uid="u", generation=1, stream="s", subjects=["a"])
PLAN = compile_route(msgspec.json.encode(ROUTE))
OPEN = Tumbling(start=60, end=120, state=msgspec.Raw(b'{"n":1}'))
OVER = Tumbling(start=60, end=120)


def item(sequence: int) -> Item:
    """An event at this place of the log."""
    given = Event(id=str(sequence), source="s", type="t")
    raw = msgspec.Raw(b'{"id":"%d","source":"s","type":"t"}' % sequence)
    return Item(sequence, 0, given, raw, 0.0, "")


@pytest.mark.parametrize(
    ("last", "stored", "wanted"),
    [
        (None, 119.9, (60, 120)),
        (None, 120.0, (120, 180)),
        (OPEN, 119.9, (60, 120)),
        (OPEN, 59.0, (60, 120)),
        (OVER, 60.5, (120, 180)),
        (OVER, 500.0, (480, 540)),
        (Tumbling(start=60, end=60), 61.0, (60, 120)),
    ],
)
def test_events_belong_to_windows_by_the_time_of_storing(
    last: Tumbling | None, stored: float, wanted: tuple[int, int]
) -> None:
    """A window begins at a multiple of its length; where the clock went back the event is in the open window or in the next one."""
    found = windows.window(last, stored, 60)
    assert (found.start, found.end) == wanted


def test_call_is_lambdas_event() -> None:
    """The data of a call is what a handler on AWS Lambda gets; its last call has the same id whenever it is made."""
    call = windows.call(PLAN, "3", OPEN, [item(1), item(2)])
    assert json.loads(bytes(call.data or b"")) == {
        "Records": [{"id": "1", "source": "s", "type": "t"}, {"id": "2", "source": "s", "type": "t"}],
        "window": {"start": "1970-01-01T00:01:00Z", "end": "1970-01-01T00:02:00Z"},
        "state": {"n": 1},
        "shardId": "shardId-000000000003",
        "isFinalInvokeForWindow": False,
        "isWindowTerminatedEarly": False,
    }
    last = windows.call(PLAN, "3", OPEN, (), early=True)
    told = json.loads(bytes(last.data or b""))
    assert (told["Records"], told["isFinalInvokeForWindow"], told["isWindowTerminatedEarly"]) == ([], True, True)
    assert last.id == windows.call(PLAN, "3", OPEN, (), early=True).id != call.id
    assert windows.is_call(ROUTE, last)
    assert not windows.is_call(ROUTE, Event(id="1", source="elsewhere", type=windows.TYPE))


@pytest.mark.parametrize("body", [b"", b"null", b"{}", b'{"state":null}', b'{"state":[1]}', b'{"state":{', b"[1]"])
def test_answer_without_a_state_is_a_failure(body: bytes) -> None:
    """What is no object with an object `state` is refused, with what to return."""
    with pytest.raises(ValueError, match="the function returned no state"):
        windows.Check(OVER)(body)


def test_states_survive_in_the_cursor() -> None:
    """A state is stored and read back as the function wrote it, with what is done."""
    check = windows.Check(OPEN)
    check(b'{"state": {"a": [1, 2.50], "b": {}}, "batchItemFailures": []}')
    cursor = Cursor(floor=1, started=0, windows={"0": Tumbling(start=0, end=60, state=check.state), "1": OVER})
    again = msgspec.json.decode(msgspec.json.encode(cursor), type=Cursor)
    assert again.windows == cursor.windows
    assert bytes(again.windows["0"].state or b"") == b'{"a": [1, 2.50], "b": {}}'


def test_shards_fit_lanes_and_a_message() -> None:
    """A key's shard is made of its lane, and the states of all shards leave room in a record of 8 MB for the rest of a cursor."""
    assert {windows.shard(Event(id="1", source="s", type="t", partitionkey=f"k{n}")) for n in range(99)} == set("0123")
    assert windows.SHARDS * windows.STATE_BYTES < 5_000_000


def test_windows_need_order() -> None:
    """A route with windows and no order is not executed."""
    route = msgspec.structs.replace(ROUTE, order="none")
    raw = msgspec.json.encode(route)[:-1] + b',"batch":{"tumblingSeconds":60}}'
    with pytest.raises(InvalidRoute, match="write key: windows pass a state on in order"):
        compile_route(raw.replace(b'"batch":null,', b""))
