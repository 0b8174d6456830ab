"""The front's event loop: descriptors, timers and signals, on one thread.

Invariant: nothing that is called from here blocks. A timer fires once, not before its time; a handler that unregistered
another's descriptor within one round is not followed by that one's event. A fault in what is called ends neither the
round nor the process: it is logged with its stack and costs the object whose method was called (``Loop.guard``).
"""

from __future__ import annotations

import os
import select
import time
from _heapq import heappop, heappush
from itertools import count

from wisp_runtime import journal
from wisp_runtime.lean import signal, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

READ, WRITE = select.POLLIN, select.POLLOUT


class Timer:
    """A call in the future, which ``cancel`` forgets."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[[], None] | None) -> None:
        """Wrap the call."""
        self.call = call

    def cancel(self) -> None:
        """Don't call."""
        self.call = None


class Loop:
    """Who wants to know what happens where."""

    def __init__(self) -> None:
        """Watch nothing yet."""
        self._poller = select.epoll() if hasattr(select, "epoll") else PollAdapter()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._numbers = count()
        self._due: list[Callable[[], None]] = []
        self._signals: dict[int, Callable[[], None]] = {}
        self._wake_reader, self._wake_writer = os.pipe()
        for fd in (self._wake_reader, self._wake_writer):
            os.set_blocking(fd, False)
        self.watch(self._wake_reader, READ, self._on_signals)

    def watch(self, fd: int, mask: int, handler: Callable[[int], None]) -> None:
        """Call ``handler(events)`` when something of ``mask`` happens; errors and hang-ups are always told."""
        self._handlers[fd] = handler
        self._poller.register(fd, mask)

    def change(self, fd: int, mask: int) -> None:
        """Watch for something else."""
        self._poller.modify(fd, mask)

    def forget(self, fd: int) -> None:
        """Watch no longer; to be called before the descriptor is closed."""
        if self._handlers.pop(fd, None) is not None:
            self._poller.unregister(fd)

    def after(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Call once when so many seconds have passed."""
        timer = Timer(call)
        heappush(self._timers, (time.monotonic() + seconds, next(self._numbers), timer))
        return timer

    def soon(self, call: Callable[[], None]) -> None:
        """Call when this round's descriptors have been looked after."""
        self._due.append(call)

    def on_signal(self, number: int, call: Callable[[], None]) -> None:
        """Call from the loop when a signal comes, instead of whatever it would do."""
        self._signals[number] = call
        signal.signal(number, _ignore)
        signal.set_wakeup_fd(self._wake_writer, warn_on_full_buffer=False)

    def run_once(self, *, wait: bool = True) -> bool:
        """Let happen what is due, or wait for the next thing to; returns whether there was something at a descriptor."""
        timers = self._timers
        while timers and timers[0][2].call is None:
            heappop(timers)
        timeout = max(0.0, timers[0][0] - time.monotonic()) if timers else -1
        if journal.held():
            timeout = min(timeout, journal.RETRY_SECONDS) if timers else journal.RETRY_SECONDS
        ready = self._poller.poll(timeout if wait else 0)
        for fd, events in ready:
            handler = self._handlers.get(fd)
            if handler is not None:
                try:
                    handler(events)
                except Exception as error:  # noqa: BLE001 - as in guard
                    self.blame(handler, error)
        if timers:
            self._run_timers(time.monotonic())
        while self._due:
            self.guard(self._due.pop())
        return bool(ready)

    def _run_timers(self, now: float) -> None:
        """Call what is due; a timer that sets itself again for at once comes in the next round."""
        timers = self._timers
        while timers and timers[0][0] <= now:
            call = heappop(timers)[2].call
            if call is not None:
                self.guard(call)

    def guard(self, call: Callable[..., None], *arguments: Any) -> None:
        """Call what an unforeseen exception must not end the process for."""
        try:
            call(*arguments)
        except Exception as error:  # noqa: BLE001 - whatever has gone wrong, the others are served
            self.blame(call, error)

    def blame(self, call: Callable[..., None], error: Exception) -> None:
        """Log an unforeseen exception, and have the object whose method was called give up what it stands for.

        Its ``failed(error)`` is called, or else its ``close()``; one that has neither goes on, and so does what is no method.
        """
        journal.fault("The runtime failed, which costs one connection or one worker", error)
        owner = getattr(call, "__self__", None)
        give_up = getattr(owner, "failed", None)
        try:
            if give_up is not None:
                give_up(error)
            elif (close := getattr(owner, "close", None)) is not None:
                close()
        except Exception as second:  # noqa: BLE001 - it is given up as it is
            journal.fault("The runtime failed at giving up what it had failed at", second)

    def close_in_child(self) -> None:
        """Let go of our descriptors in a process that was forked from this one and serves nobody."""
        signal.set_wakeup_fd(-1)
        for number in self._signals:
            signal.signal(number, signal.SIG_DFL)
        self._poller.close()

    def _on_signals(self, events: int) -> None:
        """Find out which signals came; the interpreter has written their numbers to our pipe."""
        del events
        numbers = b""
        with suppress(BlockingIOError):
            numbers = os.read(self._wake_reader, 4096)
        for number in set(numbers):
            self.guard(self._signals[number])


def _ignore(number: int, frame: object) -> None:
    """Have a handler in Python, without which no number is written."""


class PollAdapter:
    """``select.poll`` with epoll's unit of time, for serving locally where there is no epoll."""

    def __init__(self) -> None:
        """Watch nothing yet."""
        self._poll = select.poll()
        self.register = self._poll.register
        self.modify = self._poll.modify
        self.unregister = self._poll.unregister

    def poll(self, timeout: float) -> list[tuple[int, int]]:
        """Wait for up to ``timeout`` seconds, -1 for ever."""
        return self._poll.poll(-1 if timeout < 0 else timeout * 1000)

    def close(self) -> None:
        """Watch nothing any more."""
