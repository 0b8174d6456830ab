"""Platform events for who subscribed to telemetry: what begins and ends, and what it cost.

Invariant: with nobody subscribed nothing is measured but the time.
"""

from __future__ import annotations

import time
from contextlib import suppress
from math import ceil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wisp_runtime.bridge.extensions import Extension
    from wisp_runtime.bridge.processes import Process
    from wisp_runtime.bridge.runtime_api import Invocation
    from wisp_runtime.bridge.settings import Settings
    from wisp_runtime.bridge.telemetry import Telemetry


class Report:
    """Makes the events."""

    def __init__(self, settings: Settings, telemetry: Telemetry) -> None:
        """Begin to measure the start."""
        self._settings = settings
        self._telemetry = telemetry
        self._begun = time.monotonic()
        self._init_ms: float | None = None  # told with the first invocation

    def init_started(self) -> None:
        """Tell that the function is being made ready."""
        settings = self._settings
        record = {"functionName": settings.function, "functionVersion": settings.version, **self._phase()}
        self._telemetry.publish("platform.initStart", record)

    def init_done(self, error_type: str | None) -> None:
        """Tell how that went."""
        self._init_ms = _milliseconds(self._begun)
        outcome = {**self._phase(), **_outcome(error_type)}
        self._telemetry.publish("platform.initRuntimeDone", outcome)
        self._telemetry.publish("platform.initReport", {**outcome, "metrics": {"durationMs": self._init_ms}})

    def extensions(self, found: list[Extension]) -> None:
        """Tell which extensions there are."""
        for extension in found:
            record = {"name": extension.name, "state": extension.state, "events": extension.events}
            self._telemetry.publish("platform.extension", record)

    def started(self, invocation: Invocation) -> None:
        """Tell that an invocation has begun."""
        record = {"requestId": invocation.id, "version": self._settings.version, **_tracing(invocation)}
        self._telemetry.publish("platform.start", record)

    def done(self, invocation: Invocation, error_type: str | None, runtime: Process | None) -> None:
        """Tell how it ended."""
        duration = _milliseconds(invocation.started) if invocation.started else 0.0
        common = {"requestId": invocation.id, **_outcome(error_type), **_tracing(invocation)}
        done = {**common, "metrics": {"durationMs": duration}}
        self._telemetry.publish("platform.runtimeDone", done)
        metrics = {"durationMs": duration, "billedDurationMs": ceil(duration), "memorySizeMB": self._settings.memory}
        if runtime is not None:
            metrics["maxMemoryUsedMB"] = _peak_memory(runtime.pid)
        if self._init_ms is not None:
            metrics["initDurationMs"], self._init_ms = self._init_ms, None
        self._telemetry.publish("platform.report", {**common, "metrics": metrics})

    def _phase(self) -> dict[str, str]:
        return {"initializationType": self._settings.initialization, "phase": "init"}


def _outcome(error_type: str | None) -> dict[str, str]:
    return {"status": "success"} if error_type is None else {"status": "error", "errorType": error_type}


def _tracing(invocation: Invocation) -> dict[str, Any]:
    value = invocation.head.get("xray")
    return {"tracing": {"type": "X-Amzn-Trace-Id", "value": value}} if value else {}


def _milliseconds(since: float) -> float:
    return round((time.monotonic() - since) * 1000, 3)


def _peak_memory(pid: int) -> int:
    """Return the most that a process has used, in MiB."""
    with suppress(OSError), open(f"/proc/{pid}/status", encoding="ascii") as status:  # noqa: PTH123 - as elsewhere here
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) >> 10
    return 0
