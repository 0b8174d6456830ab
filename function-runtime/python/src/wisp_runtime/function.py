"""A function: what waits for its workers, what runs in them, and when its time is over.

Invariant: each worker has at most as many invocations as it takes, and each invocation ends exactly once (a result, an
error, its time, its worker's end). Beyond the workers a bounded queue waits, and beyond that callers get 429.
"""

from __future__ import annotations

import time

from wisp_runtime import journal
from wisp_runtime.calls import JSON_FORM, Call, deadline_ms
from wisp_runtime.errors import BadRequestError
from wisp_runtime.exchange import Exchange
from wisp_runtime.frames import CANCEL, GO
from wisp_runtime.http1 import error_reply
from wisp_runtime.lean import deque, suppress
from wisp_runtime.leaving import dismiss
from wisp_runtime.memory import MemoryWatch
from wisp_runtime.metrics import Counts
from wisp_runtime.processes import Processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wisp_runtime.connection import Connection
    from wisp_runtime.errors import InitError
    from wisp_runtime.http1 import HttpRequest
    from wisp_runtime.loop import Loop
    from wisp_runtime.settings import Settings
    from wisp_runtime.workers import Worker

CANCEL_SECONDS = 1.0  # for a cancelled invocation to end by itself
LENT = "Only the process of the handler takes events here"
ABSENT = "The runtime in the other container has not asked for an event"


class Function:
    """The queue before a handler's workers.

    Attributes:
        processes: The workers.
        idle: Those that take an invocation now.
        queue: What waits for one.
        exchange: What answers for them.
    """

    def __init__(self, loop: Loop, settings: Settings) -> None:
        """Have no process yet."""
        self.settings = settings
        self.processes = Processes(loop, settings, self)
        self.queue: deque[Call] = deque()
        self.idle: list[Worker] = []
        self.exchange = Exchange(self)
        board = self.processes.board
        self.counts = Counts(board.counts, board.seconds) if board is not None else Counts()
        self._loop = loop
        self._sweeping = False
        self.memory = MemoryWatch(loop, self.processes, settings.memory)

    @property
    def running(self) -> list[Call]:
        """All that runs."""
        processes = self.processes
        return [call for one in (*processes.workers, *processes.leaving) for call in one.calls.values() if call.begun]

    @property
    def running_count(self) -> int:
        """How many run."""
        lender = self.processes.lender
        return len(self.running) if lender is None else int(lender.board.begun > 0)

    @property
    def queued_count(self) -> int:
        """How many wait, as far as that is known here."""
        lender = self.processes.lender
        return len(self.queue) if lender is None else len(lender.waiting)

    # What the front calls.

    def submit(self, connection: Connection, request: HttpRequest) -> None:
        """Run a request's handler, now if a worker is free."""
        call = connection.call = Call(connection, request)
        processes = self.processes
        try:
            call.prepare(processes.signature)
        except BadRequestError as error:
            call.refuse(error)
            return
        if processes.lender is not None:
            self._refuse(call, 503, "ServiceUnavailable", LENT)
        elif self.idle:
            self._run(self.idle[-1], call)
        elif not self.queue and len(processes.workers) == 1 and processes.workers[0].has_room_ahead:
            self._give(processes.workers[0], call)
        elif processes.failure is not None and not processes.workers:
            self.exchange.fail_to_start(call, processes.failure)
        elif processes.elsewhere and processes.elsewhere.missed:
            self._refuse(call, 503, "ServiceUnavailable", ABSENT)
        elif len(self.queue) >= self.settings.max_queue:
            self._refuse(call, 429, "TooManyRequests", f"{len(self.queue)} requests wait already")
        else:
            self.queue.append(call)

    def _refuse(self, call: Call, status: int, error_type: str, message: str) -> None:
        """Send a caller away; the answer has no mark, because the function never had the event."""
        self.counts.refused += 1
        call.connection.answer(error_reply(status, error_type, message, [("retry-after", "1")]))

    def withdraw(self, call: Call) -> None:
        """Let nobody run it and nobody wait behind it any more, where it waits: its caller has gone."""
        with suppress(ValueError):  # it doesn't wait
            self.queue.remove(call)

    # Running.

    def _run(self, worker: Worker, call: Call) -> None:
        """Give a free worker an invocation, whose time begins."""
        call.due_ms = deadline_ms(self.settings.timeout)
        if not self._give(worker, call):
            return
        self._begin(call)
        if len(worker.calls) >= worker.concurrency:
            self.idle.remove(worker)
            if not self.idle and len(self.processes.workers) < self.settings.concurrency:
                self.processes.fill()

    def _give(self, worker: Worker, call: Call) -> bool:
        """Send a worker an invocation; false if that can't be."""
        try:
            worker.give(call)
        except BadRequestError as error:
            call.refuse(error)
            return False
        return True

    def _begin(self, call: Call) -> None:
        """Take note that an invocation runs."""
        call.begun = time.monotonic()
        call.deadline = call.begun + self.settings.timeout
        call.head, call.body = JSON_FORM, b""
        journal.start(call, self.settings.revision)
        if self.processes.elsewhere is None:
            self.memory.begin()
        if not self._sweeping:
            self._sweeping = True
            self._loop.after(self.settings.timeout - self.processes.spare.lead, self._sweep)

    def free(self, worker: Worker, answered: Call | None = None) -> None:
        """Let a worker go on, after what it has answered."""
        if worker.gone or not worker.ready or self.processes.lender is not None:
            return
        if worker.calls and worker.concurrency == 1:
            self._begin(next(iter(worker.calls.values())))
            if answered and not answered.quiet:
                worker.send(GO, answered.number, {})
        if worker not in self.processes.workers:
            dismiss(worker)  # it was only to finish this
            return
        if len(worker.calls) < worker.concurrency and worker not in self.idle:
            self.idle.append(worker)
        while self.queue and (self.idle or worker.has_room_ahead):
            call = self.queue.popleft()
            if call.connection.closed:
                continue
            if self.idle:
                self._run(self.idle[-1], call)
            else:
                self._give(worker, call)

    def worker_ended(self, worker: Worker) -> None:
        """Answer for what ran in a worker that has ended; what only waited in it is the next one's."""
        waiting = [call for call in worker.calls.values() if not call.begun]
        for call in [call for call in worker.calls.values() if call.begun]:
            self.exchange.worker_ended(worker, call)
        worker.calls.clear()
        for call in reversed(waiting):
            call.worker = None
            self.queue.appendleft(call)

    def retire(self, worker: Worker) -> None:
        """Give a worker nothing more."""
        worker.ready = False
        if worker in self.idle:
            self.idle.remove(worker)

    def fail_waiting(self, error: InitError) -> None:
        """Tell all who wait that the handler can't be served."""
        while self.queue:
            self.exchange.fail_to_start(self.queue.popleft(), error)

    def refuse_waiting(self) -> None:
        """Let nobody wait any longer for a runtime in another container, which may come whenever it likes."""
        while self.queue:
            self._refuse(self.queue.popleft(), 503, "ServiceUnavailable", ABSENT)

    # What goes wrong.

    def _sweep(self) -> None:
        """End what has taken too long; look again when the next may have."""
        now = time.monotonic()
        for worker in (*self.processes.workers, *self.processes.leaving):
            for call in list(worker.calls.values()):
                if call.begun and call.deadline <= now:
                    self._expire(worker, call, now)
        spare = self.processes.spare
        deadlines = [call.deadline for call in self.running]
        self._sweeping = bool(deadlines)
        left = min(deadlines) - now if deadlines else float("inf")
        if left > spare.lead:
            spare.drop()
            left -= spare.lead
        else:
            spare.keep()
        if deadlines:
            self._loop.after(max(0.0, left), self._sweep)

    def _expire(self, worker: Worker, call: Call, now: float) -> None:
        """Tell the caller that its time is over, and end what runs."""
        if call.leave():
            call.deadline = now + CANCEL_SECONDS
            worker.send(CANCEL, call.number, {"reason": "timeout"})
            return
        told = call.ended != 0.0
        if not told:
            self.exchange.timed_out(worker, call)
            if self.processes.elsewhere is not None:
                self.processes.elsewhere.overran()
        if worker.concurrency > 1 and not told:
            call.deadline = now + CANCEL_SECONDS
            worker.send(CANCEL, call.number, {"reason": "timeout"})
        else:
            self.processes.replace(worker, "timeout")

    def failed(self, error: Exception) -> None:
        """Look again after what is due, when a fault of ours has broken off looking."""
        del error
        self.processes.recover_soon()

    def recover(self) -> None:
        """Look after what was due."""
        self._sweep()
        for worker in list(self.idle):
            self.free(worker)
