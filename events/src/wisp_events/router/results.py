"""What comes of a delivery besides that it is done: the function's replies, the records of what was invoked or given up. Pure, but for the clock.

A record is AWS Lambda's, as the data of a CloudEvent: what an event is to a handler, a record is, too. Its id and the fingerprints are made of
the event's place in the log, so that what is stored, and stored again after a crash, is stored once or recognized.

Invariant: everything here is one hop further than the event that it came of, so that loops end (`MAX_HOPS`); of an event that is beyond, nothing
comes at all.
"""

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from wisp_api import names
from wisp_api.cloudevent import EVENT_BYTES, NOT_READABLE, Event, OptionalRaw
from wisp_api.route import Outlet, Route
from wisp_api.subscription import BUS, DESTINATION, FUNCTION

from wisp_events import log
from wisp_events.gather import Entry
from wisp_events.ingest import invocation, posted
from wisp_events.router.request import MAX_HOPS
from wisp_events.router.schedule import Item
from wisp_events.router.verdict import ERROR, Answer, Failure
from wisp_events.web import Refusal

SUCCEEDED: Final = "dev.wisp.invocation.succeeded"
FAILED: Final = "dev.wisp.invocation.failed"
REPLY_BYTES: Final = EVENT_BYTES
"""Of an answer that is kept to be passed on."""
_CONDITIONS: Final = {"MaxAttempts": "RetriesExhausted", "MaxAge": "EventAgeExceeded"}
"""Lambda's words for the reasons of dead letters; others stand for themselves."""
_ADVICE: Final = {
    BUS: "it is there as soon as a Subscription names it in source.bus",
    FUNCTION: "a Function is one as soon as its spec has async: {}",
    DESTINATION: "the operator makes it",
}


class BadReply(ValueError):  # noqa: N818 - the reason that dead letters carry
    """Raised when a function's reply says that it is a CloudEvent and is none."""


@dataclass(slots=True, frozen=True)
class Parcel:
    """What goes to one destination."""

    to: Outlet
    entries: list[Entry]

    @property
    def advice(self) -> str:
        """What to do where the destination does not exist."""
        return _ADVICE[self.to.kind]


class _Request(msgspec.Struct, rename="camel"):
    request_id: str
    function_arn: str
    condition: str
    approximate_invoke_count: int


class _Response(msgspec.Struct, rename="camel", omit_defaults=True):
    status_code: int
    executed_version: str
    function_error: str | None = None


class _Record(msgspec.Struct, rename="camel", kw_only=True):
    """As AWS Lambda writes it."""

    version: str = "1.0"
    timestamp: str
    request_context: _Request
    request_payload: OptionalRaw = None
    response_context: _Response | None
    response_payload: OptionalRaw = None
    omitted: list[str] = []
    """What was left out because the event log takes no more, or nothing so deep."""


def of_success(route: Route, item: Item, answer: Answer) -> Parcel | None:
    """What goes on after an answer with success.

    Raises:
        BadReply: with the mistake.
    """
    if route.reply:
        return _parcel(route, route.reply, item, replies(item, answer))
    if route.on_success:
        return _parcel(route, route.on_success, item, [_record(route, item, "Success", answer)])
    return None


def of_failure(route: Route, item: Item, reason: str) -> Parcel | None:
    """What goes on after an event was given up."""
    if route.on_failure is None or item.event.wisphops > MAX_HOPS:
        return None
    return _parcel(route, route.on_failure, item, [_record(route, item, _CONDITIONS.get(reason, reason), item.last)])


def replies(item: Item, answer: Answer) -> list[Event]:
    """The CloudEvents that a function returned, none where it returned something else.

    Raises:
        BadReply: with the mistake.
    """
    names_given = {name for name, _ in answer.headers}
    kind = next((value for name, value in answer.headers if name == b"content-type"), b"")
    if b"ce-specversion" not in names_given and not kind.lower().startswith(b"application/cloudevents"):
        return []
    if len(answer.body) >= REPLY_BYTES:
        raise BadReply(f"the function's reply has {REPLY_BYTES} bytes or more; return less, or a reference to it")
    try:
        found = posted.events(answer.headers, answer.body)
    except Refusal as error:
        raise BadReply(f"the function's reply: {error}") from None
    events = []
    for index, event in enumerate(found):
        if isinstance(event, str):
            raise BadReply(f"event {index} of the function's reply: {event}")
        event.wisphops = max(event.wisphops, item.event.wisphops + 1)
        event.traceparent = event.traceparent or item.event.traceparent
        events.append(event)
    return events


def _parcel(route: Route, to: Outlet, item: Item, events: Sequence[Event]) -> Parcel | None:
    entries = []
    for number, event in enumerate(events):
        same = log.fingerprint(to.stream, route.uid, item.place, str(number), event.source, event.id)
        try:
            encoded = log.encode(event)
        except log.EventTooLarge as error:
            raise BadReply(f"the function's reply: {error}") from None
        if to.kind == BUS:
            lane = names.lane(event.partitionkey or event.type)
            subject = names.bus_subject(route.namespace, to.name, event.type, lane)
            entries.append(Entry(subject, lane, event.partitionkey, same, encoded))
        else:
            source = to.stream.removeprefix(names.stream(route.namespace, to.kind, ""))
            make = names.invocation_subject if to.kind == FUNCTION else names.record_subject
            entries.append(Entry(make(route.namespace, source), 0, None, same, encoded))
    return Parcel(to, entries) if entries else None


def _record(route: Route, item: Item, condition: str, outcome: Answer | Failure | None) -> Event:
    """The record of an invocation; what does not fit is left out, the answer first."""
    answer = outcome if isinstance(outcome, Answer) else None
    request = item.event.data if item.event.type == invocation.TYPE else item.raw
    record = _Record(
        timestamp=log.rfc3339(time.time()),
        request_context=_Request(
            request_id=item.event.id,
            function_arn=_arn(route),
            condition=condition,
            approximate_invoke_count=item.attempts + (condition in ("Success", "Rejected")),
        ),
        request_payload=request,
        response_context=_response(item, answer) if answer else None,
        response_payload=_payload(answer.body) if answer else None,
    )
    if answer and len(answer.body) >= REPLY_BYTES:
        record.response_payload, record.omitted = None, ["responsePayload"]
    event = Event(
        id=log.fingerprint(route.uid, item.place, item.event.id, condition)[:32],
        source=":".join(("urn:wisp", *_whose(route))),
        type=SUCCEEDED if condition == "Success" else FAILED,
        subject=item.event.id,
        time=record.timestamp,
        datacontenttype="application/json",
        partitionkey=item.event.partitionkey,
        traceparent=item.event.traceparent,
        tracestate=item.event.tracestate,
        wisphops=item.event.wisphops + 1,
    )
    for left_out in ([], ["responsePayload"], ["requestPayload"], ["responsePayload", "requestPayload"]):
        event.data = msgspec.Raw(msgspec.json.encode(_without(record, left_out)))
        with contextlib.suppress(log.EventTooLarge):
            log.encode(event)
            break
    return event


def _without(record: _Record, names_left_out: list[str]) -> _Record:
    left_out = [*record.omitted, *(name for name in names_left_out if name not in record.omitted)]
    gone: dict[str, Any] = {"response_payload": None} if "responsePayload" in left_out else {}
    gone |= {"request_payload": None} if "requestPayload" in left_out else {}
    return msgspec.structs.replace(record, **gone, omitted=left_out)


def _whose(route: Route) -> tuple[str, str, str]:
    """Of what a record tells."""
    return (
        ("function", route.namespace, route.function)
        if route.function
        else ("subscription", route.namespace, route.name)
    )


def _arn(route: Route) -> str:
    """The Function that the event was for, or the Subscription that has a sink."""
    function = route.receiver or route.function
    if function:
        return f"arn:wisp:lambda:::function:{route.namespace}:{function}"
    return f"arn:wisp:events:::subscription:{route.namespace}:{route.name}"


def _response(item: Item, answer: Answer) -> _Response:
    """As Lambda has it: 200 also where the function's code failed, which `functionError` says."""
    error = next((value.decode("latin-1") for name, value in answer.headers if name == ERROR), None)
    return _Response(200 if error else answer.status, item.revision, error)


def _payload(body: bytes) -> msgspec.Raw | None:
    """A body as JSON: itself, or as a string."""
    if not body:
        return None
    try:
        return posted.checked(body)
    except NOT_READABLE:
        return msgspec.Raw(msgspec.json.encode(body.decode(errors="replace")))
