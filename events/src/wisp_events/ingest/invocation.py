"""An asynchronous invocation as the event that the function gets. Pure.

A CloudEvent is passed on as it is; any other JSON is the data of one. So a handler reads both kinds in one way, and who gives an event an
id of its own may send it again.
"""

import time
import uuid

from wisp_api.cloudevent import NOT_READABLE, Event

from wisp_events import log
from wisp_events.ingest import posted
from wisp_events.ingest.door import Headers, header
from wisp_events.web import Refusal

TYPE = "dev.wisp.invocation"


def event(headers: Headers, body: bytes, source: str) -> Event:
    """The event; `source` says who invokes, for a payload that is none.

    Raises:
        Refusal: it is no JSON and no event.
    """
    kind = header(headers, b"content-type")
    if header(headers, b"ce-specversion") or kind.startswith(b"application/cloudevents"):
        found = posted.events(headers, body)
        if len(found) != 1:
            raise Refusal(400, "one request invokes the function once: send one event")
        if isinstance(found[0], str):
            raise Refusal(400, found[0])
        return found[0]
    try:
        data = posted.checked(body) if body else None
    except NOT_READABLE as error:
        raise Refusal(400, f"the payload is no JSON: {error}") from None
    return Event(
        id=str(uuid.uuid4()),
        source=source,
        type=TYPE,
        time=log.rfc3339(time.time()),
        datacontenttype="application/json" if body else None,
        traceparent=header(headers, b"traceparent").decode("latin-1") or None,
        data=data,
    )
