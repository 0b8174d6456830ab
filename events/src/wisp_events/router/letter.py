"""Dead letters of a Subscription."""

import time

from wisp_api.route import DeadLetter, Route

from wisp_events.log import rfc3339


def compose(route: Route, reason: str, message: str, sequence: int, index: int) -> DeadLetter:
    """A dead letter for what stands at (sequence, index) of the route's stream; the caller adds event or input."""
    return DeadLetter(
        reason=reason,
        message=message,
        time=rfc3339(time.time()),
        namespace=route.namespace,
        subscription=route.name,
        stream=route.stream,
        sequence=sequence,
        index=index,
    )
