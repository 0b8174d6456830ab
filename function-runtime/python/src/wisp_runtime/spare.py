"""A worker that is started before it is needed: beside one whose time is nearly over.

A worker that is forked is there in milliseconds. Another program (Node.js), or a handler that each worker imports by
itself, takes a tenth of a second or more, which the event behind a timeout would wait for.
Invariant: there is at most one, it is given nothing until it has taken another's place, what it fails at costs nobody
anything, its memory counts, and it is the first to go where that runs out.
"""

from __future__ import annotations

from wisp_runtime import journal
from wisp_runtime.frames import STOP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wisp_runtime.errors import InitError
    from wisp_runtime.loop import Loop
    from wisp_runtime.processes import Processes
    from wisp_runtime.workers import Worker

STOP_SECONDS = 2.0  # for a process to end by itself
LEAST_LEAD, LEADS = 0.25, 3.0  # how early it is started: seconds, times what the last start took
MOST_OF_TIMEOUT = 0.5


class Spare:
    """The worker in reserve.

    Attributes:
        worker: That one; None as long as nobody's time is nearly over.
        lead: How many seconds before the end of an invocation's time it is started; 0: never.
    """

    def __init__(self, loop: Loop, processes: Processes) -> None:
        """Start none yet."""
        self.worker: Worker | None = None
        self.lead = 0.0
        self._loop = loop
        self._processes = processes

    def learn(self, seconds: float) -> None:
        """Take note of what a start takes."""
        self.lead = min(max(LEAST_LEAD, LEADS * seconds), MOST_OF_TIMEOUT * self._processes.settings.timeout)

    def keep(self) -> None:
        """Start it, if it isn't there."""
        if self.worker is None and self.lead:
            try:
                self.worker = self._processes.spawn()
            except OSError:
                return  # what is needed then is started then
            if self.worker.pid:
                self._processes.children.learn(self.worker, self.worker.pid)

    def stop(self) -> None:
        """Keep none any more, as long as nothing is learned anew; one that is there is left to our caller."""
        self.lead, self.worker = 0.0, None

    def drop(self) -> None:
        """End it: whose time was nearly over has ended in time."""
        worker = self.take()
        if worker is not None and not worker.gone:
            worker.ready = False
            worker.send(STOP, 0, {})
            self._loop.after(STOP_SECONDS, lambda: None if worker.gone else worker.kill("spare"))

    def take(self) -> Worker | None:
        """Give it away, if there is one."""
        worker, self.worker = self.worker, None
        return worker

    def kill(self) -> bool:
        """End it at once; false if there is none."""
        worker = self.take()
        if worker is not None:
            worker.kill("memory")
        return worker is not None

    def failed(self, error: InitError) -> None:
        """Keep none any more: a second one can't be started beside the first, as where both open the same port."""
        self.drop()
        self.stop()
        text = f"No worker is started ahead of a timeout any more, because that failed: {error.error_type}: {error.message}"
        journal.emit("WARNING", text, errorType=error.error_type, stackTrace=error.stack)
