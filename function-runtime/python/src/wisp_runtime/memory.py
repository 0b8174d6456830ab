"""What the processes' memory is, from /proc, and the end of a worker that takes more than the Function has.

Invariant: looking costs microseconds and never fails (a process that has ended has nothing), and it is done often enough
that a worker which fills its memory at two GiB a second is killed before the kernel kills the container. Memory that is
shared, by mappings or by forks, counts once: what looks like too much is added up exactly before anything is killed.
"""

from __future__ import annotations

import os
import time

from wisp_runtime import journal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wisp_runtime.loop import Loop
    from wisp_runtime.processes import Processes
    from wisp_runtime.workers import Worker

PAGE = os.sysconf("SC_PAGE_SIZE")
MIB = 1 << 20
FRESH_SECONDS = 0.01
RESERVE = 32  # one part of so many stays free, for what happens between two looks
FILL_RATE = 2 << 30  # bytes a second
SHORTEST, LONGEST = 0.005, 0.1
REST = 4  # times as long as the exact look took, until the next
MOST_RELATIVES = 256  # of a worker that are looked at


def _resident_bytes(pid: int) -> int:
    """Return a process's resident bytes."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:  # noqa: PTH123 - pathlib costs 10 ms at start
            return int(file.read().split()[1]) * PAGE
    except (OSError, ValueError, IndexError):
        return 0


def _own_bytes(pid: int) -> int:
    """Return a process's resident bytes that belong to no file: its own, and shared memory."""
    return _sum_of(f"/proc/{pid}/status", (b"RssAnon", b"RssShmem")) or 0


def _exact_bytes(pid: int) -> int:
    """Return the same with each page divided among those that have it, where that can be seen."""
    exact = _sum_of(f"/proc/{pid}/smaps_rollup", (b"Pss_Anon", b"Pss_Shmem"))
    return _own_bytes(pid) if exact is None else exact


def _sum_of(path: str, names: tuple[bytes, ...]) -> int | None:
    """Add up lines of a file in /proc that are in kB; None where it has none of them."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            lines = [line.partition(b":") for line in file.read().split(b"\n")]
    except OSError:
        return None
    sizes = [int(size.split()[0]) * 1024 for name, _, size in lines if name in names]
    return sum(sizes) if sizes else None


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started and that run."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:  # noqa: PTH123
            return [int(child) for child in file.read().split()]
    except OSError:
        return []


def family(pid: int) -> list[int]:
    """Return a process and what it has started, as far as that is looked at."""
    pids = [pid] if pid else []
    for member in pids:  # which grows meanwhile
        if len(pids) >= MOST_RELATIVES:
            break
        pids += children_of(member)
    return pids[:MOST_RELATIVES]


def used_mib(worker: Worker, now: float) -> int:
    """Return the most MiB that a worker and what it started were seen to have, having looked now if the last look isn't fresh."""
    if now - worker.measured > FRESH_SECONDS:
        worker.measured = now
        relatives = sum(map(_own_bytes, family(worker.pid)[1:]))  # of a bridge: the bootstrap, which is the function
        worker.peak = max(worker.peak, -(-(_resident_bytes(worker.pid) + relatives) // MIB))
    return worker.peak


class MemoryWatch:
    """Looks after the workers' memory while anything runs."""

    def __init__(self, loop: Loop, processes: Processes, limit_mib: int) -> None:
        """Hold a function's processes to its limit."""
        self._loop = loop
        self._processes = processes
        self._limit = limit_mib * MIB
        self._looking = False

    def begin(self) -> None:
        """Look from now on."""
        if not self._looking:
            self._looking = True
            self._loop.after(SHORTEST, self._look)

    def failed(self, error: Exception) -> None:
        """Look again, after a fault of ours in looking."""
        del error
        self._loop.after(LONGEST, self._look)

    def _look(self) -> None:
        processes = self._processes
        busy = [worker for worker in (*processes.workers, *processes.leaving) if worker.busy]
        renewal = processes.renewal
        self._looking = bool(busy) or (renewal is not None and renewal.candidate is not None)
        if not self._looking:
            return
        zygote = _own_bytes(processes.zygote.pid) if processes.zygote else 0
        helpers = sum(map(_own_bytes, processes.helpers))
        workers = [worker for worker in processes.all if worker is not processes.zygote]
        of = {worker: [worker.pid] if worker.zygote else family(worker.pid) for worker in workers}
        own = {worker: sum(map(_own_bytes, pids)) for worker, pids in of.items()}
        own |= {worker: max(0, own[worker] - zygote) for worker in processes.workers if worker in own}
        left = self._left(_own_bytes(os.getpid()) + zygote + helpers, own)
        rest = 0.0
        if left < 0:
            begun = time.monotonic()
            own = {worker: sum(map(_exact_bytes, pids)) for worker, pids in of.items()}
            others = [os.getpid(), *([processes.zygote.pid] if processes.zygote else []), *processes.helpers]
            left = self._left(sum(map(_exact_bytes, others)), own)
            rest = (time.monotonic() - begun) * REST
        if left < 0 and not processes.spare.kill() and not (renewal is not None and renewal.kill()):
            self._kill(max(busy, key=lambda worker: own[worker]), own)
        self._loop.after(max(min(left / FILL_RATE, LONGEST), SHORTEST, rest), self._look)

    def _left(self, ours: int, own: dict[Worker, int]) -> int:
        """Return the bytes that remain, some kept back."""
        return self._limit - self._limit // RESERVE - ours - sum(own.values())

    def _kill(self, worker: Worker, own: dict[Worker, int]) -> None:
        mib = -(-own[worker] // MIB)
        worker.peak = max(worker.peak, mib)
        text = f"A worker was killed: it has {mib} MiB, and all together more than its memory, {self._limit // MIB} MiB"
        journal.emit("ERROR", text, errorType="Runtime.OutOfMemory")
        self._processes.replace(worker, "memory")
