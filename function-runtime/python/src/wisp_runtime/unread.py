"""What a pipe holds that nobody has read yet, asked at its writing end."""

from __future__ import annotations

import fcntl
import os
import select
import stat
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_FIONREAD = 0x541B if sys.platform == "linux" else 0x4004667F  # termios would cost a start more
_NOTHING = bytes(4)


def unread_bytes(fd: int) -> int:
    """Return how much a pipe holds, asked at either end."""
    return int.from_bytes(fcntl.ioctl(fd, _FIONREAD, _NOTHING), sys.byteorder)


def is_unread(fd: int) -> bool:
    """Whether a pipe holds anything, asked at either end; so it is said of what is no pipe."""
    try:
        return unread_bytes(fd) > 0
    except OSError:
        return True


def watch_unread(fd: int) -> Callable[[], bool]:
    """Return what says the same of the pipe that this is the writing end of, at a sixth of the cost.

    It has the pipe's other end and asks epoll; an ``ioctl`` also calls who listens to the interpreter's audit events, as
    ``trace_variable`` does. Who has the other end is not told by a write that the front's is closed.
    """
    try:
        reader = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return lambda: is_unread(fd)
    if not stat.S_ISFIFO(os.fstat(reader).st_mode):
        os.close(reader)
        return lambda: is_unread(fd)
    poller = select.epoll(1)
    poller.register(reader, select.EPOLLIN)
    poll = poller.poll

    def ask() -> bool:
        try:
            return bool(poll(0, 1))
        except OSError:  # the function has closed descriptors that are not its own
            return is_unread(fd)

    return ask
