"""New variables for a function that runs: its processes start anew with them, beside those that serve.

The kubelet gives a container its variables once; the files beside it follow their Secrets within a minute or two.

Invariant: who serves goes on until the new processes can take over: variables that a start fails with cost a line in the log and
another try, ever later. What runs is finished with the variables that it began with. Nothing is started while files
still change, nor for what the kubelet was only quicker to put into the environment than into the files.
"""

from __future__ import annotations

import os
import time

from wisp_runtime import journal
from wisp_runtime.children import how_it_ended
from wisp_runtime.frames import STOP
from wisp_runtime.leaving import hurry, let_leave
from wisp_runtime.variables import Variables, VariablesError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wisp_runtime.errors import InitError
    from wisp_runtime.loop import Loop
    from wisp_runtime.processes import Processes
    from wisp_runtime.workers import Worker

LOOK_SECONDS = 1.0  # so long files have to stand still, too
CATCH_UP_SECONDS = 180.0  # within which the kubelet has written the files as they were when the container started
PAUSE_SECONDS = 10.0, 600.0  # between tries: the first, the longest
NEVER = float("inf")


class Renewal:
    """The processes to come.

    Attributes:
        candidate: What imports the handler with the new variables, until it serves or has failed.
    """

    def __init__(self, loop: Loop, processes: Processes, variables: Variables) -> None:
        """Begin to look at the files."""
        self.candidate: Worker | None = None
        self._loop = loop
        self._processes = processes
        self._variables = variables
        self._wanted: dict[str, str] = {}
        self._error: InitError | None = None
        self._stamp = variables.stamp()
        self._due = time.monotonic() + CATCH_UP_SECONDS
        self._pause = PAUSE_SECONDS[0]
        self._idle: dict[Worker, float] = {}
        loop.after(LOOK_SECONDS, self._look)

    # What has changed.

    def _look(self) -> None:
        """Look at the files, and after those who leave."""
        self._loop.after(LOOK_SECONDS, self._look)
        hurry(self._processes, self._idle)
        stamp, now = self._variables.stamp(), time.monotonic()
        if stamp != self._stamp:
            self._stamp, self._due, self._pause = stamp, now, PAUSE_SECONDS[0]
        elif now >= self._due and self.candidate is None and self._processes.ready:
            self._due = NEVER
            self._compare()

    def _compare(self) -> None:
        """Start anew, if there are other variables than the processes have."""
        wanted, problem = {}, ""
        try:
            wanted = self._variables.read()
        except VariablesError as error:
            problem = str(error)
        if self._variables.stamp() != self._stamp:
            return  # they change while they are read: the next look sees that
        if problem:
            journal.emit("WARNING", f"The function keeps the variables that it has: {problem}")
            return
        names = sorted(wanted.keys() | self._variables.names)
        changed = [name for name in names if wanted.get(name) != os.environ.get(name)]
        if changed:
            journal.emit(
                "INFO", f"Secrets have changed ({', '.join(changed)}): the function starts anew beside what runs"
            )
            self._wanted = wanted
            self._start()

    def _start(self) -> None:
        """Start the process that tries them; only it has them yet."""
        self._error = None
        before = self._put(self._wanted)
        try:
            self.candidate = self._processes.spawn(anew=True)
        except OSError as error:
            self._fail(f"no process can be started: {error}")
            return
        finally:
            self._put(before)
        self._processes.children.learn(self.candidate, self.candidate.pid)
        self._processes.function.memory.begin()

    # What became of it.

    def take_over(self, candidate: Worker) -> bool:
        """Have the new process serve instead of all others; false where it only was to show that it could."""
        processes = self._processes
        self._put(self._wanted)
        self._variables.names = {*self._wanted}
        self.candidate = None
        self._pause = PAUSE_SECONDS[0]
        if processes.lender is None:
            let_leave(processes)
            processes.add(candidate)
            return True
        candidate.kill("renewal")  # one process at a time holds the connections: the next comes when this one has ended
        zygote, processes.zygote = processes.zygote, None
        for worker in [*processes.workers, *([zygote] if zygote else [])]:
            worker.send(STOP, 0, {})
        return False

    def failed(self, error: InitError) -> None:
        """Take note of why it can't serve; its end is still to come."""
        self._error = error

    def ended(self, worker: Worker) -> None:
        """Take note of a process's end."""
        if worker is not self.candidate:
            return
        self.candidate = None
        error = self._error
        if worker.why == "memory":
            self._fail("there is no memory for both: give the function more, or restart it (wisp restart)")
        elif worker.why == "init":
            self._fail("it was not initialized in time")
        else:
            self._fail(f"{error.error_type}: {error.message}" if error else how_it_ended(worker))

    def kill(self) -> bool:
        """End it at once; false if there is none."""
        if self.candidate is None:
            return False
        self.candidate.kill("memory")
        self.ended(self.candidate)
        return True

    def _fail(self, why: str) -> None:
        """Leave all as it is, and try again later."""
        text = f"With its changed Secrets the function can't start, so it goes on with those before, and tries again in {self._pause:g} s: {why}"
        journal.emit("ERROR", text, errorType=self._error.error_type if self._error else "Runtime.InitError")
        self._due = min(self._due, time.monotonic() + self._pause)
        self._pause = min(self._pause * 2, PAUSE_SECONDS[1])

    def _put(self, wanted: dict[str, str]) -> dict[str, str]:
        """Have these variables in the environment, in the place of those before; return those."""
        names = wanted.keys() | self._wanted.keys() | self._variables.names
        before = {name: os.environ[name] for name in names if name in os.environ}
        for name in names:
            os.environ.pop(name, None)
        os.environ.update(wanted)
        return before
