"""How a function's processes leave: what runs in them is finished first, and then they end, one way or the other.

Invariant: who is told to leave gets nothing new, and its invocations keep their time limits. Where one stays although nothing
runs in it any more, it is killed.
"""

from __future__ import annotations

import time

from wisp_runtime.frames import STOP
from wisp_runtime.spare import STOP_SECONDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from wisp_runtime.loop import Loop
    from wisp_runtime.processes import Processes
    from wisp_runtime.workers import Worker


def reload(processes: Processes) -> None:
    """Start anew with the code as it is now; what runs is finished with the code as it was."""
    let_leave(processes)
    processes.start()


def let_leave(processes: Processes) -> None:
    """Have all who serve finish what they run, and nobody in their place yet."""
    leaving = [worker for worker in processes.all if worker not in processes.leaving]
    processes.leaving += leaving
    processes.forget()
    for worker in leaving:
        dismiss(worker)


def dismiss(worker: Worker) -> None:
    """Let a process end when it has nothing left to do."""
    if not worker.calls:
        worker.send(STOP, 0, {})


def hurry(processes: Processes, since: dict[Worker, float]) -> None:
    """Kill who should have ended by now; ``since`` when they had nothing to do is kept from one call to the next."""
    now = time.monotonic()
    workers = [worker for worker in processes.leaving if not worker.zygote]
    idle = [worker for worker in workers or processes.leaving if not worker.calls]
    for worker in since.keys() - {*idle}:
        del since[worker]
    for worker in idle:
        if now - since.setdefault(worker, now) > STOP_SECONDS:
            processes.leaving.remove(worker)
            worker.kill("stop")


def stop(loop: Loop, processes: Processes, done: Callable[[], None]) -> None:
    """Let all processes end, and call when they have."""
    processes.stopping = True
    leaving = [*processes.all, *processes.leaving]
    processes.spare.stop()
    for worker in leaving:
        worker.send(STOP, 0, {})
    until = time.monotonic() + STOP_SECONDS

    def look() -> None:
        if processes.workers and time.monotonic() < until:
            loop.after(0.005, look)
            return
        for worker in leaving:
            worker.kill("stop")
        done()

    look()
