"""A function's processes: started, replaced, ended.

Invariant: whatever ends a worker, another takes its place at once; one that ends before it has served is tried again ever
more slowly. Of forks, which take milliseconds, there is one more than is busy; of other programs as many as may run. What
has to do with invocations is ``function``'s and ``exchange``'s.
"""

from __future__ import annotations

import time

from wisp_runtime import journal
from wisp_runtime.children import Children, how_it_ended
from wisp_runtime.elsewhere import Elsewhere
from wisp_runtime.errors import InitError
from wisp_runtime.frames import BACK, BUSY, EXITED, FAILED, FORKED, READY, ZYGOTE, ProtocolError, whole_number
from wisp_runtime.spare import Spare
from wisp_runtime.spawning import fork_from, fork_loader, run_program
from wisp_runtime.strays import Strays

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wisp_runtime.board import Board
    from wisp_runtime.function import Function
    from wisp_runtime.lending import Lender
    from wisp_runtime.log_stream import LogStream
    from wisp_runtime.loop import Loop
    from wisp_runtime.renewal import Renewal
    from wisp_runtime.settings import Settings
    from wisp_runtime.workers import Worker

INIT_GRACE_SECONDS = 0.5  # for a process that hangs to say where
RECOVER_SECONDS = 1.0  # until what has failed is tried again
RESTART_SECONDS = 0.1, 10.0  # between tries of a worker that ends before it has served: the first, the longest
SIGNATURES = ("lambda", "cloudevent", "http", "asgi")


def _make_board() -> Board:
    from wisp_runtime.board import Board  # noqa: PLC0415 - for handlers in the serving process

    return Board()


class Processes:
    """The workers of a function, and what they are forked from.

    Attributes:
        workers: Those that serve or will.
        zygote: What they are forked from, if the handler's import allows it.
        spare: Who takes the place of one whose time is nearly over.
        leaving: Those that finish what they run, and then end.
        renewal: Who tries new variables, where some come from Secrets.
        stopping: Whether no process is started any more.
        verifier: The gate's own, which is spared as they are and whose memory counts.
        log_stream: What log lines are sent through; its process is spared and counts likewise.
        signature: The handler's; empty until it is imported.
        failure: Why the handler can't be served, since it last could.
        starts: How often the handler was initialized.
        board: What a worker that serves our connections tells without a message.
        lender: Who lends them.
        elsewhere: The other container's runtime, where the code runs in one.
        patient: Whether somebody at work on the code is to be told a failure once, until the code changes.
    """

    def __init__(self, loop: Loop, settings: Settings, function: Function) -> None:
        """Have no process yet."""
        self.settings = settings
        self.function = function
        self.workers: list[Worker] = []
        self.leaving: list[Worker] = []
        self.zygote: Worker | None = None
        self.renewal: Renewal | None = None
        self.verifier: Worker | None = None
        self.log_stream: LogStream | None = None
        self.signature = "lambda" if settings.external else ""
        self.elsewhere = Elsewhere(settings.external) if settings.external else None
        self.failure: InitError | None = None
        self.patient = False
        self.starts = 0
        self.board = _make_board() if settings.isolation == "none" else None
        self.lender: Lender | None = None
        self._loop = loop
        self.children = Children(loop, Strays(loop, self))
        self._forks = not settings.worker_command
        self.stopping = self._recovering = False
        self._pause = 0.0
        self.spare = Spare(loop, self)

    @property
    def ready(self) -> bool:
        """Whether a worker serves."""
        return any(worker.ready for worker in self.workers)

    @property
    def all(self) -> list[Worker]:
        """The workers, the spare one, the zygote, and who comes or leaves."""
        candidate = self.renewal.candidate if self.renewal is not None else None
        return [*self.workers, *(one for one in (self.spare.worker, self.zygote, candidate) if one), *self.leaving]

    @property
    def helpers(self) -> list[int]:
        """The pids of processes that run no code of the user's, besides the zygote."""
        found = [self.verifier.pid if self.verifier else 0, self.log_stream.pid if self.log_stream else 0]
        return [pid for pid in found if pid]

    # Starting.

    def start(self) -> None:
        """Start the first process, which imports the handler."""
        self.add(self.spawn())

    def adopt(self, verifier: Worker) -> None:
        """See to the process that checks callers' tokens, too."""
        self.verifier = verifier
        self.children.learn(verifier, verifier.pid)

    def spawn(self, *, anew: bool = False) -> Worker:
        """Start a process that is to serve, or to import the handler: anew, where it is to do so beside those that serve."""
        settings = self.settings
        if settings.worker_command:
            listener = self.elsewhere.listener.fileno() if self.elsewhere is not None else None
            worker = run_program(self._loop, self, settings, listener)
        elif self.zygote is not None and not anew:
            number = self.children.next_number()
            worker = fork_from(self.zygote, self._loop, self, number)
            self.children.expect(number, worker)
        else:
            board = None if anew else self.board  # one process at a time writes to it
            zygote = self.board is None if anew else self._forks
            worker = fork_loader(self._loop, self, settings, board, zygote=zygote)
        seconds = settings.init_timeout + INIT_GRACE_SECONDS
        check = self._check_init if self.elsewhere is None else self._check_arrival
        worker.init_timer = self._loop.after(seconds, lambda: check(worker))
        return worker

    def add(self, worker: Worker) -> None:
        """Have a process serve, once it is ready."""
        self.workers.append(worker)
        if worker.pid:
            self.children.learn(worker, worker.pid)

    def fill(self) -> None:
        """Start what is missing: of forks, which take milliseconds, one more than is busy; of others all."""
        if self.stopping or (self._forks and self.zygote is None and self.workers):
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
        if spare := self.spare.take():
            self.workers.append(spare)
            self.function.free(spare)
            return True
        try:
            self.add(self.spawn())
        except OSError as error:
            journal.emit("ERROR", f"A worker can't be started, it is tried again: {error}")
            self.recover_soon()
            return False
        return True

    def failed(self, error: Exception) -> None:
        """Look again after what is due, when a fault of ours has broken off looking."""
        del error
        self.recover_soon()

    def recover_soon(self) -> None:
        """Look again in a while."""
        if not self._recovering:
            self._recovering = True
            self._loop.after(RECOVER_SECONDS, self._recover)

    def _recover(self) -> None:
        self._recovering = False
        self._fill_again()
        self.function.recover()

    def _check_init(self, worker: Worker) -> None:
        """End a process whose initialization takes too long and which hasn't said so itself."""
        if not (worker.ready or worker.gone or worker.zygote):
            seconds = self.settings.init_timeout
            if worker in self.workers:
                self._failed(worker, InitError("Runtime.InitTimeout", f"Not initialized within {seconds:g} seconds"))
            worker.kill("init")
            self.on_end(worker)

    def _check_arrival(self, worker: Worker) -> None:
        """Let nobody wait any longer for a runtime that we can't end."""
        if self.elsewhere is not None and not (worker.ready or worker.gone):
            self.elsewhere.missed = True
            self.function.refuse_waiting()

    # What they say.

    def on_frame(self, worker: Worker, kind: int, number: int, head: dict[str, Any], body: bytes) -> None:
        """Take what a process says."""
        if call := worker.calls.get(number):
            if not call.begun:
                raise ProtocolError("an answer before its turn")
            self.function.exchange.on_frame(worker, call, kind, head, body)
        elif kind in (FORKED, EXITED):
            if not worker.zygote:
                raise ProtocolError(f"a frame of type {kind}, which is the zygote's")
            if kind == FORKED:
                self.children.tell(number, whole_number(head, "pid"))
            else:
                self.children.on_exit(whole_number(head, "pid"), whole_number(head, "status"))
        elif kind in (BACK, BUSY):
            if self.lender is not None and worker is self.lender.worker:
                self.lender.on_frame(kind, number)
        elif kind in (READY, FAILED, ZYGOTE):
            if worker.ready or worker.served or worker.zygote or (kind == ZYGOTE and self.settings.worker_command):
                raise ProtocolError(f"a frame of type {kind} after the start")
            self._on_start(worker, kind, head)

    def _on_start(self, worker: Worker, kind: int, head: dict[str, Any]) -> None:
        """Take what a process says of its initialization."""
        if kind == FAILED:
            stack = [str(line) for line in head.get("stackTrace") or []]
            error = InitError(str(head.get("errorType")), str(head.get("errorMessage")), stack)
            if worker is self.spare.worker:
                self.spare.failed(error)
            elif self.renewal is not None and worker is self.renewal.candidate:
                self.renewal.failed(error)
            else:
                self._failed(worker, error)
            return
        if worker.init_timer is not None:
            worker.init_timer.cancel()
        if head.get("signature") not in SIGNATURES:
            raise ProtocolError(f"a signature that is none: {head.get('signature')!r:.100}")
        if self.renewal is not None and worker is self.renewal.candidate and not self.renewal.take_over(worker):
            return
        if kind == READY:
            self._on_ready(worker, head)
        else:
            self._on_zygote(worker, head)

    def _on_ready(self, worker: Worker, head: dict[str, Any]) -> None:
        if worker not in self.workers and worker is not self.spare.worker:  # of the code as it was
            return
        if not worker.pid:
            self.children.learn(worker, whole_number(head, "pid"))
        worker.concurrency = whole_number(head, "concurrency", 1) or 1
        worker.ahead = whole_number(head, "ahead", 0) if self.settings.concurrency == 1 else 0
        self.signature = head["signature"]
        self.failure, self._pause = None, 0.0
        worker.cancels = worker.concurrency > 1 or self.signature == "asgi"
        worker.ready = True
        if self.zygote is None or self.zygote.init_ms:
            self.starts += 1
            source = self.zygote or worker
            worker.init_ms = source.init_ms or (time.monotonic() - worker.begun) * 1000
            source.init_ms = worker.init_ms if source is worker else 0.0
        if self.elsewhere is not None:
            self.elsewhere.came()
            worker.init_ms = 0.0  # when another container was started isn't known here
        if self._forks and self.zygote is None:
            self._forks = False  # its import can't be shared: from now on each imports by itself
        if head.get("spare") is True and self.zygote is None:
            self.spare.learn(time.monotonic() - worker.begun)
        if worker in self.workers:
            self.fill()
            self.function.free(worker)
            if self.lender is not None:
                self.lender.came(worker)

    def _on_zygote(self, zygote: Worker, head: dict[str, Any]) -> None:
        zygote.zygote = True
        if zygote not in self.workers:  # of the code as it was
            return
        self.signature = head["signature"]
        self.workers.remove(zygote)
        self.zygote = zygote
        zygote.init_ms = (time.monotonic() - zygote.begun) * 1000
        self.fill()

    # What ends them.

    def on_end(self, worker: Worker) -> None:
        """Replace a process that has ended; what ran in it has failed."""
        if self.lender is not None:
            self.lender.left(worker)
        self.function.worker_ended(worker)
        if worker is self.zygote:
            self._on_zygote_end()
            return
        if worker is self.spare.worker:
            self.spare.take()
        if self.renewal is not None:
            self.renewal.ended(worker)
        if worker in self.leaving:
            self.leaving.remove(worker)
        if worker not in self.workers:  # one of the code as it was
            return
        self._drop(worker)
        if worker.served or worker.ready:
            self._fill_again()
        elif not self.stopping:
            message = f"The worker ended before it was ready: {how_it_ended(worker)}"
            self._failed(worker, InitError("Runtime.ExitError", message))
            self._pause = min(max(self._pause * 2, RESTART_SECONDS[0]), RESTART_SECONDS[1])
            self._loop.after(self._pause, self._fill_again)

    def _on_zygote_end(self) -> None:
        """Have the handler imported once more."""
        self.zygote = None
        for worker in self.children.give_up():  # it will fork them no more
            self._drop(worker)
            worker.kill("zygote")
        if not self.stopping:
            text = "The process that workers are forked from has ended; another one imports the handler"
            journal.emit("WARNING", text)
            self._start_one()

    def _fill_again(self) -> None:
        if self.stopping:
            return
        if self.workers or self._start_one():
            self.fill()

    def _drop(self, worker: Worker) -> None:
        self.function.retire(worker)
        if self.elsewhere is not None:
            self.elsewhere.left()
        if worker in self.workers:
            self.workers.remove(worker)

    def _failed(self, worker: Worker, error: InitError) -> None:
        """Take note that the handler can't be served; who waits for it learns why, if nobody else serves."""
        if worker.why:
            return
        worker.why = error.error_type
        told = self.patient and self.failure is not None
        if self.signature and not told:  # it has served already, so this isn't told as a failed start
            text = f"{error.error_type}: {error.message}"
            journal.emit("ERROR", text, errorType=error.error_type, stackTrace=error.stack)
        if self.failure is None:
            self.failure = error
        if not self.ready:
            self.function.fail_waiting(error)

    def replace(self, worker: Worker, why: str) -> None:
        """Kill a worker and put another in its place."""
        if self.lender is not None:
            worker.end_soon(why)  # what it has of ours is taken back when it can't use it any more
            return
        self._drop(worker)
        self._fill_again()
        worker.kill(why)
        self.function.worker_ended(worker)

    def forget(self) -> None:
        """Count on none of the processes that are there."""
        self.zygote, self.failure, self._forks = None, None, not self.settings.worker_command
        self.workers.clear()
        self.spare.stop()
        self.function.idle.clear()
