"""The router's metrics, one series per Subscription."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from wisp_events.router.verdict import Verdict

_LABELS: Final = ("namespace", "subscription")

ATTEMPTS = Counter("wisp_router_attempts", "Attempts to deliver, by verdict.", (*_LABELS, "verdict"))
DEAD_LETTERS = Counter("wisp_router_dead_letters", "Events written to the dead-letter stream.", (*_LABELS, "reason"))
PASSED_ON = Counter("wisp_router_passed_on", "Replies and records of invocations that went to a destination.", _LABELS)
FILTERED = Counter("wisp_router_filtered", "Events that the filter left out.", _LABELS)
SECONDS = Histogram(
    "wisp_router_attempt_seconds",
    "Time from sending a request to its outcome.",
    _LABELS,
    buckets=(0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10, 60, 300, 900),
)
IN_FLIGHT = Gauge("wisp_router_in_flight", "Attempts and dead letters under way.", _LABELS)
LARGE = Gauge("wisp_router_large_waiting", "Events over 1 MiB that wait for their turn to be in memory.", _LABELS)
PENDING = Gauge("wisp_router_pending", "Events read and not done, and records not read yet.", _LABELS)
PARKED = Gauge("wisp_router_parked", "Events that have failed and wait for another attempt.", _LABELS)
OLDEST = Gauge("wisp_router_oldest_seconds", "Age of the oldest event that was read and is not done.", _LABELS)
ROUTES = Gauge("wisp_router_routes", "Routes that this replica serves.")
PURGED = Counter("wisp_router_purged_records", "Records removed from streams after delivery.")
SPANS_EXPORTED = Counter("wisp_router_spans_exported", "Spans of traces that the collector took.")
SPANS_DROPPED = Counter(
    "wisp_router_spans_dropped", "Spans of traces that found the queue full or that the collector did not take."
)

_PER_ROUTE: Final = (ATTEMPTS, DEAD_LETTERS, PASSED_ON, FILTERED, SECONDS, IN_FLIGHT, LARGE, PENDING, PARKED, OLDEST)


class RouteMetrics:
    """The series of one route, looked up once."""

    def __init__(self, namespace: str, subscription: str) -> None:
        """Make them."""
        self._labels = namespace, subscription
        self.attempts = {one: ATTEMPTS.labels(*self._labels, one.name.lower()) for one in Verdict}
        self.passed_on = PASSED_ON.labels(*self._labels)
        self.filtered = FILTERED.labels(*self._labels)
        self.seconds = SECONDS.labels(*self._labels)
        self.in_flight = IN_FLIGHT.labels(*self._labels)
        self.large = LARGE.labels(*self._labels)
        self.pending = PENDING.labels(*self._labels)
        self.parked = PARKED.labels(*self._labels)
        self.oldest = OLDEST.labels(*self._labels)

    def dead_letter(self, reason: str) -> None:
        """Count a dead letter."""
        DEAD_LETTERS.labels(*self._labels, reason).inc()

    def forget(self) -> None:
        """Drop the series: this replica no longer serves the route."""
        labels = dict(zip(_LABELS, self._labels, strict=True))
        for metric in _PER_ROUTE:
            metric.remove_by_labels(labels)
