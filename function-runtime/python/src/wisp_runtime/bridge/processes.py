"""The executables: how they are started, what they print, how they end.

Invariant: each that was started is reaped, and its end is told once. They stay in the bridge's process group, which the
front kills whole.
"""

from __future__ import annotations

import os
import resource
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

from wisp_runtime.loop import READ

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Never

    from wisp_runtime.loop import Loop

READ_SIZE = 64 * 1024
# What Python ignores or handles and others expect as it was.
_DEFAULT_SIGNALS = (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ)


class Process:
    """A running executable.

    Attributes:
        name: The file's name.
        pid: Its process id.
        status: How it ended, as ``waitpid`` says it; None while it runs.
    """

    def __init__(self, loop: Loop, path: str, env: dict[str, str], on_exit: Callable[[Process], None]) -> None:
        """Start it with our descriptors 0, 1 and 2; ``on_exit`` is called from the loop.

        Raises:
            OSError: It can't be executed.
        """
        self._start(loop, path, env, on_exit, [])

    def _start(
        self,
        loop: Loop,
        path: str,
        env: dict[str, str],
        on_exit: Callable[[Process], None],
        actions: list[tuple[int, int, int]],
    ) -> None:
        self.name = path.rpartition("/")[2]
        self.status: int | None = None
        self._loop = loop
        self._on_exit = on_exit
        self.pid = os.posix_spawn(path, [path], env, file_actions=actions, setsigdef=_DEFAULT_SIGNALS)
        self._pidfd = os.pidfd_open(self.pid)
        loop.watch(self._pidfd, READ, self._reap)

    def send_signal(self, number: int) -> None:
        """Signal it, if it still runs."""
        if self.status is None:
            signal.pidfd_send_signal(self._pidfd, number)

    def kill(self) -> None:
        """End it, and wait until it has."""
        if self.status is None:
            self.send_signal(signal.SIGKILL)
            self._reap(READ)

    def describe_end(self) -> str:
        """Say how it ended, in AWS' words."""
        status = self.status or 0
        if os.WIFSIGNALED(status):
            return f"signal: {signal.strsignal(os.WTERMSIG(status)) or os.WTERMSIG(status)}".lower()
        return f"exit status {os.WEXITSTATUS(status)}"

    def _reap(self, events: int) -> None:
        del events
        self.status = os.waitpid(self.pid, 0)[1]
        self._loop.forget(self._pidfd)
        os.close(self._pidfd)
        self._finish()
        self._on_exit(self)

    def _finish(self) -> None:
        """Do what is left when it has ended."""


class HeardProcess(Process):
    """One whose output goes through us on its way to the log, so that subscribers of telemetry get it too."""

    def __init__(
        self,
        loop: Loop,
        path: str,
        env: dict[str, str],
        on_exit: Callable[[Process], None],
        on_line: Callable[[bytes], None],
    ) -> None:
        """Start it; ``on_line`` gets each line that it prints, without its end.

        Raises:
            OSError: It can't be executed.
        """
        self._on_line = on_line
        self._rest = b""
        self._reader, writer = os.pipe()
        os.set_blocking(self._reader, False)
        try:
            self._start(loop, path, env, on_exit, [(os.POSIX_SPAWN_DUP2, writer, fd) for fd in (1, 2)])
        finally:
            os.close(writer)
        loop.watch(self._reader, READ, self._on_output)

    def drain(self) -> None:
        """Pass on what it has printed so far: a pipe holds no more than one read gives."""
        if self._reader < 0:
            return
        try:
            data = os.read(self._reader, READ_SIZE)
        except BlockingIOError:
            return
        if not data:
            self._loop.forget(self._reader)
            os.close(self._reader)
            self._reader = -1
        self._pass(data)

    def _on_output(self, events: int) -> None:
        del events
        self.drain()

    def _pass(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(1, view) :]
        *lines, self._rest = (self._rest + data).split(b"\n")
        if self._rest and not data:
            lines, self._rest = [self._rest], b""
        for line in lines:
            self._on_line(line)

    def _finish(self) -> None:
        self.drain()


def end_like(status: int) -> Never:
    """End this process as another one ended, so that the front tells the caller about that one."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # one core is enough
        with suppress(OSError):  # SIGKILL's can't be changed and needn't
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.WEXITSTATUS(status))


def executables(folder: str) -> list[str]:
    """List the files of a folder that may be executed, in the order of their names."""
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208 - pathlib costs 10 ms at start
    except (FileNotFoundError, NotADirectoryError):
        return []
    paths = [f"{folder}/{name}" for name in names]
    return [path for path in paths if os.path.isfile(path)]  # noqa: PTH113 - as above
