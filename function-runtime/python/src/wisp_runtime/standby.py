"""Serving: the handler on the main thread, the front on whichever thread is free.

Invariant: health, new requests, timeouts and SIGTERM are answered while a handler computes or sleeps, and at most one
event runs at a time. The main thread reads a request, runs the handler in place and writes the reply: no queue, no
thread switch. Before it calls the handler it lets go of ``_lock``, the right to use the front. A standby thread
looks every 10 ms; where the same invocation still runs, it takes the lock and polls in the main thread's stead until
that comes back and asks for the front. So a fast handler pays two uncontended lock operations, and a slow one costs the
front at most 10 ms plus what Python's interpreter lock adds (5 ms).

An invocation that exceeds its time is answered by the standby. A coroutine is then cancelled. A thread can't be
killed, so for anything else the process replaces itself by a fresh one (``execve``): same pid, same listening socket,
so callers wait in the kernel's backlog for some 30 ms, and Kubernetes sees no crash that it would answer with a
growing back-off. What this can't see is C code that holds the interpreter lock throughout: then health fails as well,
and the liveness probe restarts the container.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from _thread import allocate_lock, start_new_thread
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from wisp_runtime import logs

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from wisp_runtime.front import Connection, Front
    from wisp_runtime.invocation import Function, Invocation

TICK_SECONDS = 0.01
IDLE_TICKS = 100  # then the standby sleeps until the next invocation wakes it
CANCEL_GRACE_SECONDS = 2.0
EXIT_GRACE_SECONDS = 2.0
BURIAL_SECONDS = 0.1


class Server:
    """One front, one function, two threads that hold the front in turn."""

    def __init__(self, front: Front, function: Function, start_environment: dict[str, str], start_dir: str) -> None:
        """Take what to serve, and the surroundings in which the process began, for beginning anew."""
        self._front = front
        self._function = function
        self._start_environment = start_environment
        self._start_dir = start_dir
        self._lock = allocate_lock()
        self._running: tuple[Connection, Invocation] | None = None  # what the main thread has in hand
        self._sequence = 0  # of invocations, so that the standby can tell one from the next
        self._wanted = False  # the main thread waits for the lock
        self._stopping = False  # SIGTERM has come
        self._asleep = False
        self._alarm = allocate_lock()
        self._alarm.acquire()

    def serve(self) -> None:
        """Serve until SIGTERM or SIGINT, then finish what runs and return."""
        self._lock.acquire()
        start_new_thread(_or_end, (self._stand_by,))
        _or_end(self._serve)

    def _serve(self) -> None:
        front, queue = self._front, self._front.queue
        polled = time.monotonic()
        while not (self._stopping and self._drained()):
            if queue:
                self._run_next()
                if time.monotonic() - polled < TICK_SECONDS:
                    continue
                front.poll(0)  # more wait; still, health gets its turn
            else:
                front.poll(-1)
            polled = time.monotonic()

    def _run_next(self) -> None:
        """Run the oldest request's handler in this thread and answer it."""
        connection, request = self._front.queue.popleft()
        if connection.fd not in self._front.connections:
            return  # the caller left while it waited
        invocation = self._function.begin(request)
        self._running = connection, invocation
        self._sequence += 1
        if self._asleep:
            self._asleep = False
            self._alarm.release()
        self._lock.release()
        reply = invocation.run()
        if not self._lock.acquire(blocking=False):
            self._wanted = True
            self._front.wake()
            self._lock.acquire()
            self._wanted = False
        self._running = None
        if not invocation.expired:
            self._front.answer(connection, request, reply)

    def _drained(self) -> bool:
        """Begin to drain, or tell whether nothing is left to finish."""
        self._front.drain()
        return not self._front.connections

    # Signals. Python runs handlers in the main thread, which may be deep in user code; the C half of the handler
    # writes to the front's wake pipe at once, and whoever polls looks at ``_stopping``.

    def catch_signals(self) -> None:
        """Let SIGTERM and SIGINT end ``serve``, also where they came before it was called."""
        signal.set_wakeup_fd(self._front.wake_writer, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._stopping = True
        self._front.wake()

    # The standby thread.

    def _stand_by(self) -> None:
        """Look after the invocation that runs, every tick; sleep when there has been none for a second."""
        seen, idle = 0, 0
        while True:
            time.sleep(TICK_SECONDS)
            if self._sequence != seen:
                seen, idle = self._sequence, 0
            elif self._running is not None:
                if self._lock.acquire(blocking=False):
                    self._stand_in()
                    self._lock.release()
            elif (idle := idle + 1) >= IDLE_TICKS:
                self._sleep(seen)
                idle = 0

    def _sleep(self, seen: int) -> None:
        """Sleep until the main thread begins another invocation after number ``seen``."""
        self._asleep = True
        # An invocation that began before the line above didn't see it: don't sleep through it.
        if self._sequence != seen and self._asleep:
            self._asleep = False
            return
        self._alarm.acquire()

    def _stand_in(self) -> None:
        """Hold the front until the main thread wants it back; answer the invocation whose time is over."""
        front = self._front
        running = self._running
        while running is not None and running is self._running and not self._wanted:
            connection, invocation = running
            left = invocation.deadline - time.monotonic()
            if left <= 0:
                self._expire(connection, invocation)
                continue
            front.poll(left)
            if self._stopping:
                front.drain()

    def _expire(self, connection: Connection, invocation: Invocation) -> None:
        """Answer for an invocation whose time is over and end it, or else this process."""
        if invocation.expired:
            self._restart("The coroutine did not end when it was cancelled")
        reply = invocation.timed_out()
        cancelled = invocation.cancel()
        if not cancelled:  # the connection ends with the process: say so, lest the caller's next request be lost
            invocation.request.keep_alive = False
        self._front.answer(connection, invocation.request, reply)
        if cancelled:
            invocation.deadline = time.monotonic() + CANCEL_GRACE_SECONDS
        else:
            self._restart("A thread cannot be killed")

    def _restart(self, why: str) -> NoReturn:
        """Become a fresh process that has the same pid and listening socket; where it is draining, exit."""
        front = self._front
        logs.end_invocation()
        if self._stopping or front.listener is None:
            front.abandon("This instance is stopping")
            os._exit(0)
        logs.emit("WARNING", f"The function's process starts anew after a timeout: {why}")
        front.abandon("The function's process starts anew after a timeout")
        # Until the new self has its handlers, a SIGTERM waits; as pid 1 it would be lost.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
        if os.getpid() == 1:
            _end_children()
        os.chdir(self._start_dir)
        listener = os.dup(front.listener.fileno())
        os.set_inheritable(listener, True)  # noqa: FBT003 - os's own signature
        environment = {**self._start_environment, "WISP_LISTEN_FD": str(listener)}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)  # noqa: S606 - no shell wanted


def _or_end(run: Callable[[], None]) -> None:
    """Run one of the two threads; one that fails by a fault of ours would leave the other waiting for ever."""
    try:
        run()
    except BaseException as error:  # noqa: BLE001 - whatever it is, a fresh process is better
        import traceback  # noqa: PLC0415 - needed now only

        logs.emit("CRITICAL", f"The runtime failed: {error!r}", stackTrace=traceback.format_exception(error))
        os._exit(1)


def _end_children() -> None:
    """Kill what the handler left running, as pid 1: everything in the container but us; and bury it."""
    with suppress(ProcessLookupError):  # nothing was left
        os.kill(-1, signal.SIGKILL)
    until = time.monotonic() + BURIAL_SECONDS
    with suppress(ChildProcessError):  # all are buried
        while time.monotonic() < until:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.001)


def leave() -> NoReturn:
    """End the process: run the user's exit hooks, for two seconds at most, and don't wait for threads."""
    import atexit  # noqa: PLC0415 - used once, at the end

    def insist() -> None:
        time.sleep(EXIT_GRACE_SECONDS)
        os._exit(0)

    start_new_thread(insist, ())
    atexit._run_exitfuncs()  # noqa: SLF001 - the only way to run them without joining the user's threads
    logs.end_invocation()
    os._exit(0)
