"""The router's metrics, one series per Subscription."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

_LABELS: Final = ("namespace", "subscription")

ATTEMPTS = Counter("wisp_router_attempts", "Attempts to deliver, by verdict.", (*_LABELS, "verdict"))
DEAD_LETTERS = Counter("wisp_router_dead_letters", "Events written to the dead-letter stream.", (*_LABELS, "reason"))
FILTERED = Counter("wisp_router_filtered", "Events that the filter left out.", _LABELS)
SECONDS = Histogram(
    "wisp_router_attempt_seconds",
    "Time from sending a request to its outcome.",
    _LABELS,
    buckets=(0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10, 60, 300, 900),
)
IN_FLIGHT = Gauge("wisp_router_in_flight", "Attempts and dead letters under way.", _LABELS)
PENDING = Gauge("wisp_router_pending", "Events read and not done, and records not read yet.", _LABELS)
OLDEST = Gauge("wisp_router_oldest_seconds", "Age of the oldest event that was read and is not done.", _LABELS)
ROUTES = Gauge("wisp_router_routes", "Routes that this replica serves.")
PURGED = Counter("wisp_router_purged_records", "Records removed from streams after delivery.")

_PER_ROUTE: Final = (ATTEMPTS, DEAD_LETTERS, FILTERED, SECONDS, IN_FLIGHT, PENDING, OLDEST)


def forget(namespace: str, subscription: str) -> None:
    """Drop the series of a route that this replica no longer serves."""
    for metric in _PER_ROUTE:
        metric.remove_by_labels({"namespace": namespace, "subscription": subscription})
