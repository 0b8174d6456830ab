"""The spans of an event's way, as OpenTelemetry names and encodes them. Pure.

- `publish KIND` (producer): from the event's time to when the log had it. It is the span that the event's own `traceparent`
  names, so all else is below it. Who wrote the event tells nothing: a reader runs among the tenants, where no collector's
  credentials belong, and whoever delivers knows both times.
- `deliver SUBSCRIPTION` (client): one attempt, a child of the span that the event names.
- the Function's name (server): the invocation, whose id the runtime's answer names, and which the code's own spans have as their parent.
  Its times are those of the attempt, so a pod's start is part of it.

Invariant: nothing of an event's data is in them, nor of what a function answered beside its status: the collector is no place of the
tenants'. No text is longer than TEXT characters, whoever wrote the event.
Specification: https://opentelemetry.io/docs/specs/otlp/ (JSON), semantic conventions for messaging, CloudEvents, FaaS and HTTP.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from wisp_api.cloudevent import Event
from wisp_api.route import Route

from wisp_events.router import verdict
from wisp_events.router.request import Address
from wisp_events.router.schedule import Item
from wisp_events.router.trace import Place
from wisp_events.router.verdict import Answer, Outcome, Verdict

TEXT: Final = 256
SERVER, CLIENT, PRODUCER = 2, 3, 4
PLATFORM: Final = "wisp"
"""The services' namespace where they are no tenant's."""
SOURCE: Final = "wisp-events"
ROUTER: Final = "wisp-router"
WAIT_SECONDS: Final = 3600.0
"""What happened longer before it came into the log was no wait: a row's, an object's own age."""
_TRIGGERS: Final = {"bus": "pubsub", "schedule": "timer", "function": "other"}
_ERROR: Final = 2
Value = str | int | float | bool


class Span(msgspec.Struct, kw_only=True):
    """One span."""

    service: str
    namespace: str
    name: str
    kind: int
    place: Place
    parent: str = ""
    state: str = ""
    start: float
    end: float
    attributes: dict[str, Value]
    error: str | None = None
    links: list[Place] = []


def creation(event: Event, at: Place, stored: float, route: Route) -> Span:
    """The way of an event that began its trace into the log."""
    kind = _kind(route)
    attributes = _messaging(route, "publish", "send") | _event(event)
    return Span(
        service=SOURCE,
        namespace=PLATFORM,
        name=f"publish {kind}",
        kind=PRODUCER,
        place=at,
        start=_begun(event.time, stored),
        end=stored,
        attributes=attributes,
    )


def attempt(  # noqa: PLR0917 - one call
    route: Route, to: Address, items: Sequence[Item], item: Item, parent: Place, at: Place, now: float
) -> Span:
    """An attempt to deliver, in the trace of one of its events; `end` and `links` tell the rest."""
    attributes = _messaging(route, "deliver", "process") | {
        "messaging.destination.subscription.name": route.name,
        "http.request.method": "POST",
        "server.address": to.host[:TEXT],
        "server.port": to.port,
        "wisp.attempt": item.tries + 1,
        "wisp.log.wait_seconds": round(max(0.0, now - item.stored), 6),
    }
    if name := function(route, to):
        attributes |= {"faas.invoked_name": name, "faas.invoked_provider": "wisp", "faas.trigger": _trigger(route)}
    state = item.event.tracestate or ""
    attributes |= _event(item.event)
    if len(items) > 1 or route.batch:
        attributes["messaging.batch.message_count"] = len(items)
    return Span(
        service=ROUTER,
        namespace=PLATFORM,
        name=f"deliver {route.name}",
        kind=CLIENT,
        place=at,
        parent=parent.span,
        state=state if len(state) <= 2 * TEXT else "",  # half of one is none
        start=now,
        end=now,
        attributes=attributes,
    )


def end(span: Span, outcome: Outcome, now: float) -> None:
    """An attempt has come to its end."""
    judged = verdict.judge(outcome)
    span.end = max(now, span.start)
    span.attributes["wisp.verdict"] = judged.name.lower()
    if isinstance(outcome, Answer):
        span.attributes["http.response.status_code"] = outcome.status
    if judged is not Verdict.DELIVERED:
        if isinstance(outcome, Answer):
            span.error = f"HTTP {outcome.status}"  # its body may repeat the event's data
            span.attributes["error.type"] = str(outcome.status)
        else:
            span.error = outcome.message[:TEXT]
            span.attributes["error.type"] = "timeout" if outcome.timeout else "unreached"


def invocation(of: Span, at: Place, name: str, namespace: str, item: Item) -> Span:
    """What the function did in an attempt that has ended."""
    attributes: dict[str, Value] = {"faas.invocation_id": item.event.id[:TEXT], "k8s.namespace.name": namespace}
    attributes |= {key: value for key, value in of.attributes.items() if key in {"faas.trigger", "error.type"}}
    return Span(
        service=name,
        namespace=namespace,
        name=name,
        kind=SERVER,
        place=at,
        parent=of.place.span,
        state=of.state,
        start=of.start,
        end=of.end,
        attributes=attributes,
        error=of.error,
    )


def function(route: Route, to: Address) -> str:
    """The Function that a target is a revision of; empty where it is none."""
    return route.function or (to.service.partition(".")[0].rpartition("-")[0] if to.reach == "function" else "")


def encode(spans: Sequence[Span]) -> bytes:
    """OTLP's ExportTraceServiceRequest."""
    services: dict[tuple[str, str], list[Any]] = {}
    for span in spans:
        services.setdefault((span.service, span.namespace), []).append(_span(span))
    resources = [
        {
            "resource": {"attributes": _attributes({"service.name": service, "service.namespace": namespace})},
            "scopeSpans": [{"scope": {"name": "wisp"}, "spans": encoded}],
        }
        for (service, namespace), encoded in services.items()
    ]
    return msgspec.json.encode({"resourceSpans": resources})


def _span(span: Span) -> dict[str, Any]:
    encoded: dict[str, Any] = {
        "traceId": span.place.trace,
        "spanId": span.place.span,
        "flags": int(span.place.flags, 16),
        "name": span.name,
        "kind": span.kind,
        "startTimeUnixNano": str(int(span.start * 1e9)),
        "endTimeUnixNano": str(int(span.end * 1e9)),
        "attributes": _attributes(span.attributes),
    }
    if span.parent:
        encoded["parentSpanId"] = span.parent
    if span.state:
        encoded["traceState"] = span.state
    if span.error is not None:
        encoded["status"] = {"code": _ERROR, "message": span.error}
    if span.links:
        encoded["links"] = [{"traceId": link.trace, "spanId": link.span} for link in span.links]
    return encoded


def _attributes(attributes: dict[str, Value]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value(value)} for key, value in attributes.items()]


def _value(value: Value) -> dict[str, Any]:
    if isinstance(value, str):
        return {"stringValue": value}
    if isinstance(value, bool):
        return {"boolValue": value}
    return {"intValue": str(value)} if isinstance(value, int) else {"doubleValue": value}


def _messaging(route: Route, name: str, kind: str) -> dict[str, Value]:
    return {
        "messaging.system": "nats",
        "messaging.operation.name": name,
        "messaging.operation.type": kind,
        "messaging.destination.name": route.stream,
        "k8s.namespace.name": route.namespace,
    }


def _event(event: Event) -> dict[str, Value]:
    told: dict[str, Value] = {
        "messaging.message.id": event.id[:TEXT],
        "cloudevents.event_id": event.id[:TEXT],
        "cloudevents.event_source": event.source[:TEXT],
        "cloudevents.event_spec_version": "1.0",
        "cloudevents.event_type": event.type[:TEXT],
    }
    if event.subject is not None:
        told["cloudevents.event_subject"] = event.subject[:TEXT]
    return told


def _kind(route: Route) -> str:
    """What the source is, as the stream's name says: s3, postgres, ..., bus, schedule or function."""
    return route.stream.split("_", 3)[2] if route.stream.count("_") > 1 else "event"


def _trigger(route: Route) -> str:
    return _TRIGGERS.get(_kind(route), "datasource")


def _begun(time: str | None, stored: float) -> float:
    try:
        begun = datetime.fromisoformat(time or "").timestamp()
    except (ValueError, OverflowError, OSError):
        return stored
    return begun if stored - WAIT_SECONDS <= begun <= stored else stored
