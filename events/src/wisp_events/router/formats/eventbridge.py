"""An event as AWS' EventBridge hands it to a Lambda function: a tick of a schedule, or an event of a bus.

Specification: EventBridge User Guide, "Events in Amazon EventBridge" and "Scheduled Event". A schedule's own `data` takes the place of the
event, as a target's constant input does.
"""

from typing import Any, Final

import msgspec
from wisp_api.cloudevent import Event

from wisp_events import log
from wisp_events.router.formats import REGION

TICK: Final = "Scheduled Event"
_encode = msgspec.json.Encoder().encode
_EMPTY: Final = msgspec.Raw(b"{}")


def tick(namespace: str, event: Event, stored: float) -> bytes:
    """A schedule's event, or the input that the Subscription gives it."""
    if event.data is not None:
        return bytes(event.data)
    rule = f"arn:wisp:events:{REGION}:{namespace}:rule/{event.subject}"
    return _event(namespace, event, stored, {"detail-type": TICK, "source": "aws.events", "resources": [rule]}, _EMPTY)


def posted(namespace: str, event: Event, stored: float) -> bytes:
    """An event that was posted to a bus; data that is no JSON is a string."""
    told = {"detail-type": event.type, "source": event.source, "resources": [event.subject] if event.subject else []}
    detail: Any = event.data_base64 if event.data_base64 is not None else event.data
    return _event(namespace, event, stored, told, _EMPTY if detail is None else detail)


def _event(namespace: str, event: Event, stored: float, told: dict[str, Any], detail: Any) -> bytes:
    common = {"version": "0", "id": event.id, "account": namespace, "region": REGION}
    return _encode(common | told | {"time": event.time or log.rfc3339(stored), "detail": detail})
