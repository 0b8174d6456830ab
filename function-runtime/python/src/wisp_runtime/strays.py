"""As pid 1: the end of what an ended worker has left running outside of its group, for such processes become our children.

Invariant: nothing is killed that is ours, and we look until there is nothing else: first when an exit status is known, for
what a process leaves behind becomes ours before its parent can learn its status, and never after some time for luck.
"""

from __future__ import annotations

import os

from wisp_runtime.lean import signal, suppress
from wisp_runtime.memory import children_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wisp_runtime.loop import Loop
    from wisp_runtime.processes import Processes

WAIT_SECONDS = 0.02, 1.0  # for the killed to end: at first, at most


class Strays:
    """The children that nobody wants."""

    def __init__(self, loop: Loop, processes: Processes) -> None:
        """Spare these processes."""
        self._loop = loop
        self._processes = processes

    def clear_away(self) -> None:
        """End them, because a worker's exit status has come."""
        if os.getpid() == 1:
            self._kill(WAIT_SECONDS[0])

    def _kill(self, wait: float) -> None:
        """End all children that aren't ours, and again those which these leave behind, until there are none."""
        ours = {*(worker.pid for worker in self._processes.all), *self._processes.helpers}
        strays = [pid for pid in children_of(os.getpid()) if pid not in ours]
        for pid in strays:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if strays:
            self._loop.after(wait, lambda: self._kill(min(wait * 1.5, WAIT_SECONDS[1])))
