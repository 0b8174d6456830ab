"""Which of the function's processes has which pid, whoever tells it first, and how one has ended.

Invariant: an exit status reaches the process that ended, and one that was killed before its pid was known is killed then.
"""

from __future__ import annotations

import os
from itertools import count

from wisp_runtime.lean import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wisp_runtime.loop import Loop
    from wisp_runtime.strays import Strays
    from wisp_runtime.workers import Worker


class Children:
    """The pids that are known, and the processes whose pid is not."""

    def __init__(self, loop: Loop, strays: Strays) -> None:
        """Know of none."""
        self._loop = loop
        self._strays = strays
        self._numbers = count(1)
        self._expected: dict[int, Worker] = {}
        self._by_pid: dict[int, Worker] = {}

    def next_number(self) -> int:
        """Return the number under which the zygote tells of the next process."""
        return next(self._numbers)

    def expect(self, number: int, worker: Worker) -> None:
        """Wait for the pid of a process that the zygote forks."""
        self._expected[number] = worker

    def tell(self, number: int, pid: int) -> None:
        """Take the zygote's word, unless the worker was quicker to say so itself."""
        if worker := self._expected.pop(number, None):
            self.learn(worker, pid)

    def learn(self, worker: Worker, pid: int) -> None:
        """Take a process's pid."""
        self._by_pid[pid] = worker
        self._expected = {number: one for number, one in self._expected.items() if one is not worker}
        worker.take_pid(pid)

    def give_up(self) -> list[Worker]:
        """Return those whose pid was still to come, and wait no longer."""
        workers = [*self._expected.values()]
        self._expected.clear()
        return workers

    def on_exit(self, pid: int, status: int) -> None:
        """Hand an exit status to the process that it is of, if it is one of these, and end what that has left behind."""
        worker = self._by_pid.pop(pid, None)
        if worker is not None:
            self._loop.guard(worker.on_exit, status)
            self._strays.clear_away()


def buried() -> list[tuple[int, int]]:
    """Return this process's own children that have ended since: pid and status."""
    ended: list[tuple[int, int]] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if not pid:
            return ended
        ended.append((pid, status))


def how_it_ended(worker: Worker) -> str:
    """Say how a process ended, as Lambda does."""
    status = worker.status
    if status is None:
        return "Runtime exited with error: signal: killed"
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            name = signal.strsignal(number) or f"signal {number}"
        except ValueError:
            name = f"signal {number}"
        return f"Runtime exited with error: signal: {name.lower()}"
    code = os.waitstatus_to_exitcode(status)
    return f"Runtime exited with error: exit status {code}" if code else "Runtime exited without providing a reason"
