"""What can be counted of a function, in Prometheus' text format, served on a port of its own.

Invariant: counting an invocation costs a microsecond; everything else is done when somebody asks.
"""

from __future__ import annotations

from _bisect import bisect_left

from wisp_runtime.http1 import Reply, error_reply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from wisp_runtime.calls import Call
    from wisp_runtime.connection import Connection
    from wisp_runtime.function import Function
    from wisp_runtime.http1 import HttpRequest

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0)
_PLACES = {"success": 0, "error": 1, "timeout": 2}
_PEAK, _FIRST_BUCKET = 3, 4
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Counts:
    """What has happened since the start."""

    def __init__(self, numbers: Any = None, seconds: Any = None) -> None:
        """Begin at nought, or go on in memory that others see too."""
        self.refused = 0
        self._numbers = numbers if numbers is not None else [0] * (len(BUCKETS) + 1 + _FIRST_BUCKET)
        self._seconds = seconds if seconds is not None else [0.0]

    @property
    def ended(self) -> dict[str, int]:
        """How many ended in which way."""
        return {name: self._numbers[place] for name, place in _PLACES.items()}

    @property
    def peak_mib(self) -> int:
        """The most memory that a worker was seen to have."""
        return int(self._numbers[_PEAK])

    def end(self, status: str, seconds: float, used_mib: int) -> None:
        """Count an invocation that has ended, in a worker that was seen to have so much memory."""
        numbers = self._numbers
        numbers[_PEAK] = max(numbers[_PEAK], used_mib)
        numbers[_PLACES[status]] += 1
        self._seconds[0] += seconds
        numbers[_FIRST_BUCKET + bisect_left(BUCKETS, seconds)] += 1

    def histogram(self, name: str) -> Iterator[str]:
        """Write the invocations' durations."""
        total = 0
        for bound, number in zip((*BUCKETS, "+Inf"), self._numbers[_FIRST_BUCKET:], strict=False):
            total += number
            yield f'{name}_bucket{{le="{bound}"}} {total}'
        yield f"{name}_sum {self._seconds[0]:.6f}"
        yield f"{name}_count {total}"


class Metrics:
    """Answers whoever asks for a function's figures; to a front it looks like a function."""

    def __init__(self, function: Function) -> None:
        """Tell of a function."""
        self._function = function

    def submit(self, connection: Connection, request: HttpRequest) -> None:
        """Answer a request to the metrics' port."""
        if request.target.partition("?")[0] == "/metrics" and request.method in ("GET", "HEAD"):
            connection.answer(Reply(200, [("content-type", CONTENT_TYPE)], self.text().encode()))
        else:
            connection.answer(error_reply(404, "NotFound", "Here is GET /metrics and nothing else"))

    def withdraw(self, call: Call) -> None:
        """Do nothing: nobody waits here."""

    def text(self) -> str:
        """Write all figures."""
        function, counts = self._function, self._function.counts
        processes = function.processes
        lines = [
            "# HELP wisp_function_invocations_total Invocations that have ended.",
            "# TYPE wisp_function_invocations_total counter",
            *(f'wisp_function_invocations_total{{status="{name}"}} {value}' for name, value in counts.ended.items()),
            "# HELP wisp_function_duration_seconds How long invocations took.",
            "# TYPE wisp_function_duration_seconds histogram",
            *counts.histogram("wisp_function_duration_seconds"),
        ]
        dropped = processes.log_stream.dropped if processes.log_stream else 0
        singles = (
            ("refused_total", "counter", "Requests answered with 429.", counts.refused),
            ("cold_starts_total", "counter", "Initializations of the handler.", processes.starts),
            ("running", "gauge", "Invocations that run.", function.running_count),
            ("queued", "gauge", "Requests that wait for a worker.", function.queued_count),
            ("workers", "gauge", "Workers that serve.", sum(worker.ready for worker in processes.workers)),
            ("log_lines_dropped_total", "counter", "Lines that are not in the log stream.", dropped),
            ("memory_bytes", "gauge", "The most memory that a worker was seen to have.", counts.peak_mib << 20),
        )
        for name, kind, text, value in singles:
            lines += [f"# HELP wisp_function_{name} {text}", f"# TYPE wisp_function_{name} {kind}"]
            lines.append(f"wisp_function_{name} {value}")
        return "\n".join(lines) + "\n"
