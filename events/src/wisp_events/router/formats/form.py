"""The formats that a route may have beside CloudEvents, and how records of one make a request's body. Pure.

Invariant: a record depends on nothing but the route and the event, so that what comes again comes as it was.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from wisp_api import route
from wisp_api.cloudevent import NOT_READABLE, Event
from wisp_api.route import Route

from wisp_events.router.formats import debezium, dynamodb, eventbridge, s3
from wisp_events.router.schedule import Item


class Form(NamedTuple):
    """What a route's function is given."""

    record: Callable[[Event, float], bytes]
    """An event, stored at this Unix time, as a record; raises ValueError or RecursionError where none can be made of it."""
    named: bool
    """Whether records stand in `Records`, one alone, too."""

    def alone(self, record: bytes) -> bytes:
        """The body of a delivery of one event."""
        return self.together([record]) if self.named else record

    def length(self, item: Item) -> int:
        """Bytes of an event's record; an event that none can be made of becomes one to bury."""
        if item.burial:
            return 0
        try:
            return len(self.record(item.event, item.stored))
        except NOT_READABLE as error:
            item.burial = ("Malformed", f"the event can't be told in the Subscription's format: {error}")
            return 0

    def together(self, records: Sequence[bytes]) -> bytes:
        """The body of a delivery of a batch."""
        listed = b"[" + b",".join(records) + b"]"
        return b'{"Records":' + listed + b"}" if self.named else listed


_FORMS = {
    route.S3: (s3.record, True),
    route.DYNAMODB: (dynamodb.record, True),
    route.TICK: (eventbridge.tick, False),
    route.EVENTBRIDGE: (eventbridge.posted, False),
    route.DEBEZIUM: (debezium.record, False),
}


def form(of: Route) -> Form | None:
    """The format of a route; None: CloudEvents.

    Raises:
        ValueError: there is no such format.
    """
    if of.format == route.CLOUDEVENT:
        return None
    if of.format not in _FORMS:
        raise ValueError(f"format is {of.format!r}; write {', '.join((route.CLOUDEVENT, *_FORMS))}")
    record, named = _FORMS[of.format]
    return Form(partial(record, of.namespace), named)
