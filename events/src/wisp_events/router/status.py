"""What the router says of a route, from what its delivery does now. Pure."""

from wisp_api.route import RouteStatus

from wisp_events.log import rfc3339
from wisp_events.router.delivery import WINDOW_EVENTS, Delivery
from wisp_events.router.plan import InvalidRoute
from wisp_events.router.verdict import describe

FAILING_TRIES = 2
"""One failed attempt is no news; an event that failed twice is."""


def report(delivery: Delivery, me: str) -> RouteStatus:
    """The status of a route that this replica serves."""
    route, cursor = delivery.plan.route, delivery.cursor
    state, message = judge(delivery)
    return RouteStatus(
        uid=route.uid,
        generation=route.generation,
        state=state,
        message=message,
        delivered=cursor.delivered,
        failed=cursor.failed,
        dead_lettered=cursor.dead_lettered,
        pending=delivery.pending,
        oldest_pending=rfc3339(delivery.oldest) if delivery.oldest else None,
        last_delivery=rfc3339(cursor.last_delivery) if cursor.last_delivery else None,
        owner=me,
        replay=cursor.replay,
    )


def judge(delivery: Delivery) -> tuple[str, str]:
    """State and message."""
    route = delivery.plan.route
    if delivery.intake.trouble:
        return "Failing", delivery.intake.trouble
    if route.suspend:
        return "Suspended", "spec.suspend is true: events wait, and are dead-lettered at the age of retry.maxAgeSeconds"
    if not delivery.plan.addresses:
        return "WaitingForTarget", "there is no revision of the function, or address of the sink, yet: events wait"
    stuck = [item for item in delivery.failing.values() if item.tries >= FAILING_TRIES]
    if not stuck:
        return _endings(delivery)
    oldest = min(stuck, key=lambda item: (item.sequence, item.index))
    name = f"event {oldest.event.id} (key {oldest.key!r}), tried {oldest.tries} times"
    error = describe(oldest.last) if oldest.last else delivery.last_error or "failed before a restart"
    if delivery.stalled:
        return "Backlogged", (
            f"reading has stopped: {delivery.schedule.size} events (at most {WINDOW_EVENTS}) stand behind failing ones, the oldest "
            f"{name}: {error}. Fix the function; or lower retry.maxAttempts or retry.maxAgeSeconds to dead-letter them sooner"
        )
    return "Failing", f"{len(stuck)} events wait for another attempt, the oldest {name}: {error}"


def _endings(delivery: Delivery) -> tuple[str, str]:
    """Whether the last calls of windows go well."""
    tries = [one.ending.tries for one in delivery.cursor.windows.values() if one.ending.tries >= FAILING_TRIES]
    if not tries:
        return "Active", ""
    return "Failing", f"the last call of {len(tries)} windows fails, up to {max(tries)} times: {delivery.last_error}"


def invalid(error: InvalidRoute, me: str) -> RouteStatus:
    """The status of a route that can't be executed."""
    return RouteStatus(
        uid=error.uid, generation=error.generation, state="InvalidRoute", message=f"{error}; events wait", owner=me
    )


def unclaimed(uid: str, generation: int, message: str, me: str) -> RouteStatus:
    """The status of a route whose cursor could not be taken yet."""
    return RouteStatus(uid=uid, generation=generation, state="Failing", message=message, owner=me)
