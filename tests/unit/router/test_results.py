"""What comes of a delivery: Lambda's record of an invocation, and the events that a function returns."""

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from wisp_api import cloudevent
from wisp_api.cloudevent import EVENT_BYTES, Event
from wisp_api.route import Outlet, Route, Target
from wisp_events import log
from wisp_events.router import letter, results
from wisp_events.router.request import address
from wisp_events.router.results import BadReply
from wisp_events.router.schedule import Item
from wisp_events.router.verdict import Answer, Failure, Outcome

BUS = Outlet(kind="bus", name="done", stream="events_shop_bus_done")
OTHER = Outlet(kind="function", name="other", stream="events_shop_function_other_uid")
CE = (b"content-type", b"application/cloudevents+json")


def route(**fields: Any) -> Route:
    """The route of `pay`'s invocations."""
    target = Target(url="http://pay-1.shop.svc.cluster.local/")
    names: dict[str, Any] = {"namespace": "shop", "name": "function_pay", "uid": "u", "stream": "s", "function": "pay"}
    return Route(generation=1, subjects=["x"], targets=[target], **names, **fields)


def item(data: Any = None, **attributes: Any) -> Item:
    """An invocation on its way."""
    given = {"id": "1", "source": "/a", "type": "dev.wisp.invocation", "traceparent": "t"} | attributes
    event = Event(data=msgspec.Raw(json.dumps(data or {"n": 1}).encode()), **given)
    made = Item(7, 3, event, msgspec.Raw(cloudevent.encode(event)), 0, "")
    made.attempts = 2
    made.to = address("http://pay-1.shop.svc.cluster.local/", "function")
    return made


def sent(parcel: results.Parcel | None) -> tuple[Event, Any]:
    """The one event of a parcel, and its data."""
    assert parcel
    [entry] = parcel.entries
    event = cloudevent.decode(entry.encoded)
    return event, json.loads(bytes(event.data or b"null"))


def test_the_record_of_a_success_is_lambdas() -> None:
    """Request, answer and circumstances under Lambda's names; the event that carries it is one hop further in the same trace."""
    parcel = results.of_success(route(on_success=BUS), item(wisphops=2), Answer(200, marked=True, body=b'{"ok": true}'))
    event, record = sent(parcel)
    assert record.pop("timestamp") == event.time
    assert record == {
        "version": "1.0",
        "requestContext": {
            "requestId": "1",
            "functionArn": "arn:wisp:lambda:::function:shop:pay",
            "condition": "Success",
            "approximateInvokeCount": 3,
        },
        "requestPayload": {"n": 1},
        "responseContext": {"statusCode": 200, "executedVersion": "pay-1"},
        "responsePayload": {"ok": True},
        "omitted": [],
    }
    assert (event.type, event.source) == ("dev.wisp.invocation.succeeded", "urn:wisp:function:shop:pay")
    assert (event.subject, event.wisphops, event.traceparent) == ("1", 3, "t")
    assert parcel
    assert parcel.entries[0].subject.startswith("wisp.events.shop.bus.done.dev%2Ewisp%2Einvocation%2Esucceeded.")


@pytest.mark.parametrize(
    ("reason", "last", "condition", "count", "context", "payload"),
    [
        (
            "MaxAttempts",
            Answer(500, marked=True, body=b'{"errorMessage": "no"}', headers=((b"wisp-function-error", b"Unhandled"),)),
            "RetriesExhausted",
            2,
            {"statusCode": 200, "executedVersion": "pay-1", "functionError": "Unhandled"},
            {"errorMessage": "no"},
        ),
        ("MaxAge", None, "EventAgeExceeded", 2, None, None),
        ("MaxAge", Failure("away"), "EventAgeExceeded", 2, None, None),
        (
            "Rejected",
            Answer(422, marked=True, body=b"no JSON"),
            "Rejected",
            3,
            {"statusCode": 422, "executedVersion": "pay-1"},
            "no JSON",
        ),
    ],
)
def test_the_record_of_a_failure(
    reason: str, last: Outcome | None, condition: str, count: int, context: Any, payload: Any
) -> None:
    """It says in Lambda's words why the invocation was given up, and holds the last answer if there was one."""
    failed = item()
    failed.last = last
    event, record = sent(results.of_failure(route(on_failure=OTHER), failed, reason))
    assert event.type == "dev.wisp.invocation.failed"
    told = record["requestContext"]
    assert (told["condition"], told["approximateInvokeCount"]) == (condition, count)
    assert (record["responseContext"], record["responsePayload"]) == (context, payload)


@pytest.mark.parametrize(
    ("receiver", "target", "arn", "revision"),
    [
        ("pay", ("http://pay-1.shop.svc.cluster.local/", "function"), "arn:wisp:lambda:::function:shop:pay", "pay-1"),
        ("", ("https://hooks.example.com/", "public"), "arn:wisp:events:::subscription:shop:on-order", ""),
    ],
)
def test_of_a_subscriptions_event(receiver: str, target: tuple[str, str], arn: str, revision: str) -> None:
    """Record and letter name the Function and the revision that failed, of a sink the Subscription alone; the event is the request."""
    row = item(type="dev.wisp.postgres.insert")
    row.last, row.to = Answer(500, marked=True, body=b"no"), address(*target)
    of = route(on_failure=BUS)
    of.name, of.function, of.receiver = "on-order", "", receiver
    event, record = sent(results.of_failure(of, row, "MaxAttempts"))
    assert (event.type, event.source) == ("dev.wisp.invocation.failed", "urn:wisp:subscription:shop:on-order")
    assert (record["requestContext"]["functionArn"], record["responseContext"]["executedVersion"]) == (arn, revision)
    assert record["requestPayload"] == json.loads(bytes(row.raw))
    told = letter.of_event(of, "MaxAttempts", "no", row)
    assert (told.subscription, told.function, told.revision) == ("on-order", receiver or None, revision or None)


def test_an_event_that_was_posted_is_the_requests_payload() -> None:
    """Whole, as the function got it."""
    _, record = sent(results.of_success(route(on_success=BUS), item(type="order.new"), Answer(200)))
    assert record["requestPayload"] == {
        "specversion": "1.0", "id": "1", "source": "/a", "type": "order.new", "traceparent": "t", "data": {"n": 1},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("request_size", "answer_size", "omitted"),
    [
        (10, EVENT_BYTES, ["responsePayload"]),
        (3_100_000, 3_100_000, ["responsePayload"]),
        (EVENT_BYTES - 300, 10, ["requestPayload"]),
        (EVENT_BYTES - 300, EVENT_BYTES, ["responsePayload", "requestPayload"]),
    ],
)
def test_a_record_fits_the_log(request_size: int, answer_size: int, omitted: list[str]) -> None:
    """What is too large is left out, and named."""
    body = json.dumps("y" * (answer_size - 2)).encode()
    _, record = sent(results.of_success(route(on_success=BUS), item("x" * request_size), Answer(200, body=body)))
    assert record["omitted"] == omitted
    for name in ("requestPayload", "responsePayload"):
        assert (record[name] is None) == (name in omitted)


def test_the_same_outcome_again_is_recognized() -> None:
    """After a crash: the same id, and the same fingerprint for the log; another outcome has others."""
    again = [results.of_success(route(on_success=OTHER), item(), Answer(200)) for _ in range(2)]
    [first], [second] = [parcel.entries for parcel in again if parcel]
    assert (first.same, sent(again[0])[0].id) == (second.same, sent(again[1])[0].id)
    failed = results.of_failure(route(on_failure=OTHER), item(), "MaxAge")
    assert failed
    assert failed.entries[0].same != first.same
    assert sent(failed)[0].id != sent(again[0])[0].id
    assert first.subject == "wisp.events.shop.function.other_uid.invocation"


def test_no_record_of_what_has_gone_too_far() -> None:
    """Else two functions that are each other's destination would hand the record to and fro for ever."""
    assert results.of_failure(route(on_failure=OTHER), item(wisphops=16), "MaxAge") is not None
    assert results.of_failure(route(on_failure=OTHER), item(wisphops=17), "RecursionLimit") is None


STRUCTURED = b'{"specversion":"1.0","id":"r","source":"/f","type":"t","wisphops":9,"data":1}'


@pytest.mark.parametrize(
    ("headers", "body", "ids"),
    [
        ((), b'{"specversion": "1.0"}', []),
        (((b"content-type", b"application/json"),), b"{}", []),
        ((CE,), STRUCTURED, ["r"]),
        (((b"content-type", b"application/cloudevents-batch+json"),), b"[" + STRUCTURED + b"," + STRUCTURED + b"]", ["r", "r"]),
        (((b"content-type", b"application/cloudevents-batch+json"),), b"[]", []),
        (((b"ce-specversion", b"1.0"), (b"ce-id", b"b"), (b"ce-source", b"/f"), (b"ce-type", b"t")), b"", ["b"]),
    ],
)  # fmt: skip
def test_replies(headers: Any, body: bytes, ids: list[str]) -> None:
    """CloudEvents in each of the three forms, each with a fingerprint of its own; what is none is no reply."""
    replied = item(wisphops=4)
    parcel = results.of_success(route(reply=BUS), replied, Answer(200, body=body, headers=headers))
    found = [cloudevent.decode(entry.encoded) for entry in parcel.entries] if parcel else []
    assert [event.id for event in found] == ids
    assert all(event.wisphops >= 5 and event.traceparent == "t" for event in found)
    assert len({entry.same for entry in parcel.entries} if parcel else ()) == len(ids)


@pytest.mark.parametrize(
    ("headers", "body", "told"),
    [
        ((CE,), b"{", "event 0 of the function's reply"),
        ((CE,), b'{"specversion":"1.0","id":"r","source":"/f"}', "type"),
        (((b"content-type", b"application/cloudevents+avro"),), b"", "is not taken"),
        (((b"ce-specversion", b"1.0"), (b"ce-id", b"b")), b"", "ce-source is missing"),
        ((CE,), STRUCTURED[:-2] + b'"' + b"x" * EVENT_BYTES + b'"}', "bytes or more"),
    ],
)
def test_bad_replies(headers: Any, body: bytes, told: str) -> None:
    """What says that it is a CloudEvent and is none is told with the mistake."""
    with pytest.raises(BadReply, match=told):
        results.of_success(route(reply=BUS), item(), Answer(200, body=body, headers=headers))


def deepest(reads: Callable[[bytes], object]) -> bytes:
    """JSON as deep as this takes it."""
    taken, refused = 1, 100_000
    while refused - taken > 1:
        depth = (taken + refused) // 2
        try:
            reads(b"[" * depth + b"]" * depth)
        except (ValueError, RecursionError):
            refused = depth
        else:
            taken = depth
    return b"[" * taken + b"]" * taken


def test_what_nests_too_deeply_for_the_log_is_left_out_of_a_record() -> None:
    """An answer or request that the log could hold only by itself doesn't keep an event from being done."""
    deep = deepest(lambda body: log.encode(Event(id="1", source="s", type="t", data=msgspec.Raw(body))))
    _, record = sent(results.of_success(route(on_success=BUS), item(), Answer(200, marked=True, body=deep)))
    assert (record["omitted"], record["responsePayload"]) == (["responsePayload"], None)
    one = item()
    one.event.data = msgspec.Raw(deep)
    _, record = sent(results.of_failure(route(on_failure=BUS), one, "MaxAge"))
    assert (record["omitted"], record["requestPayload"]) == (["requestPayload"], None)
