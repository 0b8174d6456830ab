"""Our own faults, told where they happen and borne by what they happened to.

Invariant: what nobody foresaw ends one connection or one invocation, never the process, and the log has its stack.
"""

from __future__ import annotations

from wisp_runtime import journal


def log_fault(where: str, error: Exception) -> None:
    """Log an exception that nobody foresaw, with its whole stack: it is the runtime's, not the user's."""
    import traceback  # noqa: PLC0415 - needed now only

    stack = traceback.format_exception(error)
    journal.emit("ERROR", f"The runtime failed {where}: {error!r:.200}", errorType="Runtime.Fault", stackTrace=stack)
