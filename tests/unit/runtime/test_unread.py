"""What the writing end of a pipe tells of what nobody has read yet."""

import contextlib
import os

import pytest
from wisp_runtime import unread


@pytest.mark.parametrize("closed", [False, True])
def test_a_writer_knows_whether_all_was_read(*, closed: bool) -> None:
    """Also where a function has closed every descriptor that it can find, ours among them."""
    reader, writer = os.pipe()
    before = _open()
    ask = unread.watch_unread(writer)
    own = _open() - before
    assert len(own) == 2, "the pipe's other end, and epoll"
    if closed:
        for fd in own:
            os.close(fd)
    assert not ask()
    os.write(writer, b"line")
    assert ask()
    os.read(reader, 4)
    assert not ask()
    for fd in (reader, writer, *([] if closed else own)):
        os.close(fd)


def _open() -> set[int]:
    found = set()
    for fd in range(4096):
        with contextlib.suppress(OSError):
            os.fstat(fd)
            found.add(fd)
    return found
