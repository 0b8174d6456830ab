"""A function: its code's processes and what waits for them.

Invariant: each worker has at most as many invocations as it takes, each invocation ends exactly once (a result, an error,
its time, its worker's end), and whatever ends a worker, another takes its place at once. Beyond the workers a bounded
queue waits, and beyond that callers get 429.
"""

from __future__ import annotations

import os
import signal
import time
from collections import deque
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any

from wisp_runtime import journal
from wisp_runtime.calls import Call
from wisp_runtime.errors import BadRequestError, InitError
from wisp_runtime.exchange import Exchange
from wisp_runtime.frames import CANCEL, EXITED, FAILED, FORKED, READY, STOP, ZYGOTE, ProtocolError
from wisp_runtime.http1 import error_reply
from wisp_runtime.memory import MemoryWatch, children_of
from wisp_runtime.metrics import Counts
from wisp_runtime.spawning import fork_from, fork_loader, run_program
from wisp_runtime.workers import how_it_ended

if TYPE_CHECKING:
    from collections.abc import Callable

    from wisp_runtime.connection import Connection
    from wisp_runtime.http1 import HttpRequest
    from wisp_runtime.loop import Loop
    from wisp_runtime.settings import Settings
    from wisp_runtime.workers import Worker

CANCEL_SECONDS = 1.0  # for a cancelled invocation to end by itself
INIT_GRACE_SECONDS = 0.5  # for a process that hangs to say where
STOP_SECONDS = 2.0
STRAYS_SECONDS = 0.02, 1.0  # for orphans to come to us: at first, at most
RECOVER_SECONDS = 1.0  # until what has failed is tried again
RESTART_SECONDS = 0.1, 10.0  # between tries of a worker that ends before it has served: the first, the longest
SIGNATURES = ("lambda", "cloudevent", "http", "asgi")


class Function:
    """The workers of one handler, and the queue before them."""

    def __init__(self, loop: Loop, settings: Settings) -> None:
        """Have no process yet."""
        self.settings = settings
        self.signature = ""
        self.failure: InitError | None = None
        self.workers: list[Worker] = []
        self.queue: deque[Call] = deque()
        self.idle: list[Worker] = []
        self.zygote: Worker | None = None
        self.exchange = Exchange(self)
        self._loop = loop
        self._forked: dict[int, Worker] = {}  # workers whose pid the zygote has not told yet
        self._numbers = count(1)
        self._by_pid: dict[int, Worker] = {}
        self._forks = not settings.worker_command
        self._sweeping = self._stopping = self._recovering = False
        self._pause = 0.0
        self.counts = Counts()
        self.peak_mib = 0
        self._memory = MemoryWatch(loop, self, settings.memory)

    @property
    def ready(self) -> bool:
        """Whether a worker serves."""
        return any(worker.ready for worker in self.workers)

    @property
    def running(self) -> list[Call]:
        """All that runs."""
        return [call for worker in self.workers for call in worker.calls.values()]

    # What the front calls.

    def submit(self, connection: Connection, request: HttpRequest) -> None:
        """Run a request's handler, now if a worker is free."""
        call = connection.call = Call(connection, request)
        try:
            call.prepare(self.signature)
        except BadRequestError as error:
            call.refuse(error)
            return
        if self.idle:
            self._run(self.idle[-1], call)
        elif self.failure is not None and not self.workers:
            self.exchange.fail_to_start(call, self.failure)
        elif len(self.queue) >= self.settings.max_queue:
            self.counts.refused += 1
            retry = [("retry-after", "1")]
            connection.answer(error_reply(429, "TooManyRequests", f"{len(self.queue)} requests wait already", retry))
        else:
            self.queue.append(call)

    def withdraw(self, call: Call) -> None:
        """Let nobody run it and nobody wait behind it any more, where it waits: its caller has gone."""
        with suppress(ValueError):  # it doesn't wait
            self.queue.remove(call)

    def _run(self, worker: Worker, call: Call) -> None:
        """Give a free worker an invocation."""
        try:
            worker.invoke(call, self.settings.timeout)
        except BadRequestError as error:
            call.refuse(error)
            return
        journal.start(call, self.settings.revision)
        if len(worker.calls) >= worker.concurrency:
            self.idle.remove(worker)
            if not self.idle and len(self.workers) < self.settings.concurrency:
                self._fill()
        self._memory.begin()
        if not self._sweeping:
            self._sweeping = True
            self._loop.after(self.settings.timeout, self._sweep)

    def free(self, worker: Worker) -> None:
        """Let a worker that has ended an invocation take the next."""
        if worker.gone or not worker.ready or worker not in self.workers:
            return
        if worker not in self.idle:
            self.idle.append(worker)
        while self.queue and self.idle:
            call = self.queue.popleft()
            if not call.connection.closed:
                self._run(self.idle[-1], call)

    # The processes.

    def start(self) -> None:
        """Start the first process, which imports the handler."""
        self._add(self._spawn())

    def _spawn(self) -> Worker:
        settings = self.settings
        if settings.worker_command:
            worker = run_program(self._loop, self, settings)
        elif self.zygote is not None:
            number = next(self._numbers)
            worker = self._forked[number] = fork_from(self.zygote, self._loop, self, number)
        else:
            worker = fork_loader(self._loop, self, settings, zygote=self._forks)
        seconds = settings.init_timeout + INIT_GRACE_SECONDS
        worker.init_timer = self._loop.after(seconds, lambda: self._check_init(worker))
        return worker

    def _add(self, worker: Worker) -> None:
        self.workers.append(worker)
        if worker.pid:
            self._by_pid[worker.pid] = worker

    def _fill(self) -> None:
        """Start what is missing: of forks, which take milliseconds, one more than is busy; of others all."""
        if self._stopping or (self._forks and self.zygote is None and self.workers):
            return
        wanted = self.settings.concurrency
        if any(worker.concurrency > 1 for worker in self.workers):
            wanted = 1
        elif self._forks and self.zygote is not None:
            wanted = min(wanted, sum(bool(worker.calls) for worker in self.workers) + 1)
        while len(self.workers) < wanted and self._start_one():
            pass

    def _start_one(self) -> bool:
        """Start a process, now or, where the system has none left, later."""
        try:
            self._add(self._spawn())
        except OSError as error:
            journal.emit("ERROR", f"A worker can't be started, it is tried again: {error}")
            self._recover_soon()
            return False
        return True

    def failed(self, error: Exception) -> None:
        """Look again after what is due, when a fault of ours has broken off looking."""
        del error
        self._recover_soon()

    def _recover_soon(self) -> None:
        if not self._recovering:
            self._recovering = True
            self._loop.after(RECOVER_SECONDS, self._recover)

    def _recover(self) -> None:
        self._recovering = False
        self._sweep()
        self._fill_again()
        for worker in list(self.idle):
            self.free(worker)

    def _check_init(self, worker: Worker) -> None:
        """End a process whose initialization takes too long and which hasn't said so itself."""
        if not (worker.ready or worker.gone or worker.zygote):
            seconds = self.settings.init_timeout
            self._failed(worker, InitError("Runtime.InitTimeout", f"Not initialized within {seconds:g} seconds"))
            worker.kill("init")
            self.on_end(worker)

    def on_frame(self, worker: Worker, kind: int, number: int, head: dict[str, Any], body: bytes) -> None:
        """Take what a process says."""
        if call := worker.calls.get(number):
            self.exchange.on_frame(worker, call, kind, head, body)
        elif kind in (FORKED, EXITED):
            if not worker.zygote:
                raise ProtocolError(f"a frame of type {kind}, which is the zygote's")
            if kind == FORKED:
                if forked := self._forked.pop(number, None):  # else it was quicker to say so itself
                    self._on_forked(forked, _whole(head, "pid"))
            else:
                self.on_exit(_whole(head, "pid"), _whole(head, "status"))
        elif kind in (READY, FAILED, ZYGOTE):
            if worker.ready or worker.served or worker.zygote or (kind == ZYGOTE and self.settings.worker_command):
                raise ProtocolError(f"a frame of type {kind} after the start")
            self._on_start(worker, kind, head)

    def _on_start(self, worker: Worker, kind: int, head: dict[str, Any]) -> None:
        """Take what a process says of its initialization."""
        if kind == FAILED:
            stack = [str(line) for line in head.get("stackTrace") or []]
            self._failed(worker, InitError(str(head.get("errorType")), str(head.get("errorMessage")), stack))
            return
        if worker.init_timer is not None:
            worker.init_timer.cancel()
        if head.get("signature") not in SIGNATURES:
            raise ProtocolError(f"a signature that is none: {head.get('signature')!r:.100}")
        if kind == READY:
            self._on_ready(worker, head)
        else:
            self._on_zygote(worker, head)

    def _on_ready(self, worker: Worker, head: dict[str, Any]) -> None:
        if worker not in self.workers:  # of the code as it was
            return
        self._forked = {number: one for number, one in self._forked.items() if one is not worker}
        if not worker.pid:
            self._on_forked(worker, _whole(head, "pid"))
        worker.concurrency = _whole(head, "concurrency", 1) or 1
        self.signature = head["signature"]
        self.failure, self._pause = None, 0.0
        worker.cancels = worker.concurrency > 1 or self.signature == "asgi"
        worker.ready = True
        if self.zygote is None or self.zygote.init_ms:
            self.counts.starts += 1
            source = self.zygote or worker
            worker.init_ms = source.init_ms or (time.monotonic() - worker.begun) * 1000
            source.init_ms = worker.init_ms if source is worker else 0.0
        if self._forks and self.zygote is None:
            self._forks = False  # its import can't be shared: from now on each imports by itself
        self._fill()
        self.free(worker)

    def _on_zygote(self, zygote: Worker, head: dict[str, Any]) -> None:
        zygote.zygote = True
        if zygote not in self.workers:  # of the code as it was
            return
        self.signature = head["signature"]
        self.workers.remove(zygote)
        self.zygote = zygote
        zygote.init_ms = (time.monotonic() - zygote.begun) * 1000
        self._fill()

    def _on_forked(self, worker: Worker, pid: int) -> None:
        worker.pid = pid
        self._by_pid[pid] = worker
        if worker.gone:
            worker.signal_group()

    def on_exit(self, pid: int, status: int) -> None:
        """Take the exit status of a child, or of the zygote's."""
        worker = self._by_pid.pop(pid, None)
        if worker is not None:
            self._loop.guard(worker.on_exit, status)

    # What goes wrong.

    def on_end(self, worker: Worker) -> None:
        """Replace a process that has ended; what ran in it has failed."""
        for call in list(worker.calls.values()):
            self.exchange.worker_ended(worker, call)
        if worker is self.zygote:
            self._on_zygote_end()
            return
        self._clear_away()
        if worker not in self.workers:  # one of the code as it was
            return
        self._drop(worker)
        if worker.served or worker.ready:
            self._fill_again()
        elif not self._stopping:
            self._failed(
                worker, InitError("Runtime.ExitError", f"The worker ended before it was ready: {how_it_ended(worker)}")
            )
            self._pause = min(max(self._pause * 2, RESTART_SECONDS[0]), RESTART_SECONDS[1])
            self._loop.after(self._pause, self._fill_again)

    def _on_zygote_end(self) -> None:
        """Have the handler imported once more."""
        self.zygote = None
        for worker in self._forked.values():  # it will fork them no more
            self._drop(worker)
            worker.kill("zygote")
        self._forked.clear()
        if not self._stopping:
            text = "The process that workers are forked from has ended; another one imports the handler"
            journal.emit("WARNING", text)
            self._start_one()

    def _fill_again(self) -> None:
        if self._stopping:
            return
        if self.workers or self._start_one():
            self._fill()

    def _drop(self, worker: Worker) -> None:
        worker.ready = False
        if worker in self.workers:
            self.workers.remove(worker)
        if worker in self.idle:
            self.idle.remove(worker)

    def _failed(self, worker: Worker, error: InitError) -> None:
        """Take note that the handler can't be served; who waits for it learns why, if nobody else serves."""
        if worker.why:
            return
        worker.why = error.error_type
        if self.signature:  # it has served already, so this isn't told as a failed start
            text = f"{error.error_type}: {error.message}"
            journal.emit("ERROR", text, errorType=error.error_type, stackTrace=error.stack)
        if self.failure is None:
            self.failure = error
        if not self.ready:
            while self.queue:
                self.exchange.fail_to_start(self.queue.popleft(), error)

    def retire(self, worker: Worker) -> None:
        """Give it nothing more: it says that it ends, and is replaced when it has."""
        worker.ready = False
        if worker in self.idle:
            self.idle.remove(worker)

    def replace(self, worker: Worker, why: str) -> None:
        """Kill a worker and put another in its place."""
        self._drop(worker)
        self._fill_again()
        worker.kill(why)
        for call in list(worker.calls.values()):
            self.exchange.worker_ended(worker, call)
        self._clear_away()

    def _clear_away(self) -> None:
        """As pid 1, end what the ended worker has left running outside of its group: such processes become our children."""
        if os.getpid() == 1:
            self._kill_strays_in(STRAYS_SECONDS[0])

    def _kill_strays_in(self, seconds: float) -> None:
        self._loop.after(seconds, lambda: self._kill_strays(seconds))

    def _kill_strays(self, waited: float) -> None:
        """End all children that aren't ours, and again those which these leave behind, until there are none."""
        ours = {worker.pid for worker in (*self.workers, self.zygote) if worker}
        strays = [pid for pid in children_of(os.getpid()) if pid not in ours]
        for pid in strays:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if strays:
            self._kill_strays_in(min(waited * 1.5, STRAYS_SECONDS[1]))

    def _sweep(self) -> None:
        """End what has taken too long; look again when the next may have."""
        now = time.monotonic()
        for worker in list(self.workers):
            for call in list(worker.calls.values()):
                if call.deadline <= now:
                    self._expire(worker, call, now)
        left = [call.deadline for call in self.running]
        self._sweeping = bool(left)
        if left:
            self._loop.after(max(0.0, min(left) - now), self._sweep)

    def _expire(self, worker: Worker, call: Call, now: float) -> None:
        """Tell the caller that its time is over, and end what runs."""
        told = call.ended != 0.0
        if not told:
            self.exchange.timed_out(worker, call)
        if worker.concurrency > 1 and not told:
            call.deadline = now + CANCEL_SECONDS
            worker.send(CANCEL, call.number, {"reason": "timeout"})
        else:
            self.replace(worker, "timeout")

    def reload(self) -> None:
        """Start anew with the code as it is now; what runs is finished with the code as it was."""
        processes = [*self.workers, *([self.zygote] if self.zygote else [])]
        self.zygote, self.failure, self._forks = None, None, not self.settings.worker_command
        self.workers.clear()
        self.idle.clear()
        for worker in processes:
            worker.send(STOP, 0, {})
        self._add(self._spawn())

    # The end.

    def stop(self, done: Callable[[], None]) -> None:
        """Let all processes end, and call when they have."""
        self._stopping = True
        processes = [*self.workers, *([self.zygote] if self.zygote else [])]
        for worker in processes:
            worker.send(STOP, 0, {})
        until = time.monotonic() + STOP_SECONDS

        def look() -> None:
            if self.workers and time.monotonic() < until:
                self._loop.after(0.005, look)
                return
            for worker in processes:
                worker.kill("stop")
            done()

        look()


def _whole(head: dict[str, Any], name: str, default: int | None = None) -> int:
    """Return a whole number of a head's, not negative.

    Raises:
        ProtocolError: It isn't one.
    """
    value = head.get(name, default)
    if not isinstance(value, int) or value < 0:
        raise ProtocolError(f"{name} is {value!r:.100}, not a whole number")
    return value
