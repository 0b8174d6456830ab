"""``_X_AMZN_TRACE_ID`` in the code's environment, which changes with each event.

Invariant: who looks into ``os.environ``, and every process that Python starts, finds the trace of the event that runs.
Setting it as ever (``setenv``) would leak: the C library frees no value that it has held, which is 140 bytes an event. So
only Python's own copy is changed, and the C library's, which is what a child inherits, when one is about to be started.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_NAME = b"_X_AMZN_TRACE_ID"
_STARTS = frozenset({"subprocess.Popen", "os.fork", "os.forkpty", "os.system", "os.exec", "os.posix_spawn", "os.spawn"})


class TraceVariable:
    """The variable, of one process or of one and its forks."""

    def __init__(self) -> None:
        """Set nothing yet."""
        self._value = self._told = b""  # what Python sees, what the C library was told
        sys.addaudithook(self._on_audit)

    def set(self, xray: str) -> None:
        """Make it the running event's; empty: there is none."""
        value = xray.encode()
        if value == self._value:
            return
        self._value = value
        copy: Any = os.environ
        if value:
            copy._data[_NAME] = value  # noqa: SLF001 - the same in each Python since 3.0
        else:
            copy._data.pop(_NAME, None)  # noqa: SLF001

    def _on_audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Tell the C library before a process is started."""
        del arguments
        if event in _STARTS and self._told != self._value:
            self._told = self._value
            if self._value:
                os.putenv(_NAME, self._value)
            else:
                os.unsetenv(_NAME)
