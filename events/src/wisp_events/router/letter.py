"""What the dead letters of a route say. Pure, but for the clock."""

import time
from typing import Final

import msgspec
from wisp_api.route import DeadLetter, Outlet, Route
from wisp_api.subscription import DESTINATION, FUNCTION

from wisp_events import log
from wisp_events.router.client import BODY_BYTES
from wisp_events.router.schedule import Item
from wisp_events.router.verdict import Answer

INPUT_BYTES: Final = 4096


def of_event(route: Route, reason: str, message: str, item: Item) -> DeadLetter:
    """An event that was not delivered, with the story of its attempts."""
    letter = _letter(route, reason, message, item.sequence, item.index)
    letter.event = item.raw
    letter.revision = item.revision or None
    letter.attempts = item.tries
    letter.first_attempt = log.rfc3339(item.first) if item.first else None
    if isinstance(item.last, Answer):
        letter.last_status = item.last.status
        letter.last_response = item.last.body[:BODY_BYTES].decode(errors="replace")
    return letter


def of_input(route: Route, message: str, sequence: int, index: int, content: bytes) -> DeadLetter:
    """What stands in the log and is no event."""
    letter = _letter(route, "Malformed", message, sequence, index)
    letter.input = content[:INPUT_BYTES].decode(errors="replace")
    return letter


def of_parcel(route: Route, to: Outlet, encoded: bytes, trouble: str, item: Item) -> DeadLetter:
    """An event on its way to a destination that does not take it; the letter is that destination's."""
    whose = f"invocation of function {route.function}" if route.function else f"event of Subscription {route.name}"
    what = f"a reply to {route.name}" if to == route.reply else f"the record of an {whose}"
    letter = _letter(
        route, "DestinationFailed", f"{to.kind} {to.name} did not take {what}: {trouble}", item.sequence, item.index
    )
    letter.subscription, letter.source, letter.function = None, f"{to.kind}/{to.name}", None
    letter.event = msgspec.Raw(encoded)
    return letter


def _origin(route: Route) -> tuple[str | None, str | None]:
    """The Subscription, or whose else the letter is."""
    if route.records:
        return None, f"{DESTINATION}/{route.name}"
    return (None, f"{FUNCTION}/{route.function}") if route.function else (route.name, None)


def _letter(route: Route, reason: str, message: str, sequence: int, index: int) -> DeadLetter:
    subscription, source = _origin(route)
    return DeadLetter(
        reason=reason,
        message=message,
        time=log.rfc3339(time.time()),
        namespace=route.namespace,
        subscription=subscription,
        source=source,
        function=route.receiver or route.function or None,
        stream=route.stream,
        sequence=sequence,
        index=index,
    )
